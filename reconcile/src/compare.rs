//! Shown rows × exact rows of one hour → what must change. Pure.
//! Guarantee: applying the correction makes shown equal exact, and comparing again finds nothing.
//! Two rows are equal when their counts are and their sketches are the same bytes: a sketch fed in another order
//! can differ in bytes for the same users, and is replaced once by the exact path's, which is fed in sorted order.

use std::cmp::Ordering;
use std::collections::HashMap;

use shared::id::CampaignId;
use shared::money::{Currency, Overflow};
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::serving_store::Correction;
use shared::sketch::Sketch;
use shared::time::Timestamp;

/// What differs in one hour.
#[derive(Debug, Default)]
pub struct Difference {
    /// The exact values to write and the cells to remove.
    pub correction: Correction,
    /// Cells whose counts differ (the rest of the correction differs in the sketch's bytes only).
    pub cells: u64,
}

impl Difference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.correction.set.is_empty() && self.correction.remove.is_empty()
    }
}

/// Compares one hour.
#[must_use]
pub fn diff(shown: &[RollupRow], exact: &[RollupRow]) -> Difference {
    let mut difference = Difference::default();
    for (before, now) in differing(shown, exact) {
        difference.cells += u64::from(before.map(|b| b.counts) != now.map(|n| n.counts));
        match (before, now) {
            (_, Some(row)) => difference.correction.set.push(row.clone()),
            (Some(gone), None) => difference.correction.remove.push(gone.key.clone()),
            (None, None) => {}
        }
    }
    difference
}

/// The rows that differ, each as shown and as exact, in key order.
pub(crate) fn differing<'a>(
    shown: &'a [RollupRow],
    exact: &'a [RollupRow],
) -> impl Iterator<Item = (Option<&'a RollupRow>, Option<&'a RollupRow>)> {
    let (mut shown, mut exact) = (in_order(shown).into_iter().peekable(), in_order(exact).into_iter().peekable());
    let pairs = std::iter::from_fn(move || {
        let order = match (shown.peek(), exact.peek()) {
            (Some(s), Some(e)) => s.key.cmp(&e.key),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let (before, now) = (if order.is_le() { shown.next() } else { None }, order.is_ge());
        Some((before, if now { exact.next() } else { None }))
    });
    pairs.filter(|(before, now)| match (before, now) {
        (Some(b), Some(n)) => b.counts != n.counts || !same_users(b.uniques.as_ref(), n.uniques.as_ref()),
        _ => true,
    })
}

fn in_order(rows: &[RollupRow]) -> Vec<&RollupRow> {
    let mut rows: Vec<&RollupRow> = rows.iter().collect();
    if !rows.is_sorted_by(|a, b| a.key <= b.key) {
        rows.sort_by(|a, b| a.key.cmp(&b.key));
    }
    rows
}

fn same_users(a: Option<&Sketch>, b: Option<&Sketch>) -> bool {
    a.map(Sketch::to_bytes) == b.map(Sketch::to_bytes)
}

/// The exact rows of one hour: the ad minutes as they are, campaign minutes as their sums, the campaign hours.
/// Sorted by key.
///
/// # Errors
/// [`Overflow`] when a sum does not fit.
pub fn exact_rows(ad_minutes: Vec<RollupRow>, campaign_hours: Vec<RollupRow>) -> Result<Vec<RollupRow>, Overflow> {
    let mut sums: HashMap<(Timestamp, &CampaignId, Currency), Counts> = HashMap::new();
    for row in &ad_minutes {
        if let RollupKey::AdMinute { minute, campaign_id, currency, .. } = &row.key {
            let sum = sums.entry((*minute, campaign_id, *currency)).or_default();
            *sum = sum.merge(&row.counts)?;
        }
    }
    let mut minutes: Vec<RollupRow> = sums
        .into_iter()
        .map(|((minute, campaign_id, currency), counts)| {
            let key = RollupKey::CampaignMinute { minute, campaign_id: campaign_id.clone(), currency };
            RollupRow { key, counts, uniques: None }
        })
        .collect();
    minutes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut rows = ad_minutes;
    rows.reserve(minutes.len() + campaign_hours.len());
    rows.extend(minutes);
    rows.extend(campaign_hours);
    if !rows.is_sorted_by(|a, b| a.key <= b.key) {
        rows.sort_by(|a, b| a.key.cmp(&b.key)); // gold in another layout
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;

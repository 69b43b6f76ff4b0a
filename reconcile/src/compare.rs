//! Shown rows × exact rows of one hour → what must change. Pure.
//! Guarantee: applying the correction makes shown equal exact, and comparing again finds nothing.
//! Two rows are equal when their counts are and their sketches are the same bytes: a sketch fed in another order
//! can differ in bytes for the same users, and is replaced once by the exact path's, which is fed in sorted order.

use std::collections::BTreeMap;

use shared::money::Overflow;
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::serving_store::Correction;
use shared::sketch::Sketch;

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
    let mut left: BTreeMap<&RollupKey, &RollupRow> = shown.iter().map(|row| (&row.key, row)).collect();
    let mut difference = Difference::default();
    for row in exact {
        let before = left.remove(&row.key);
        if before.is_some_and(|b| b.counts == row.counts && same_users(b.uniques.as_ref(), row.uniques.as_ref())) {
            continue;
        }
        difference.cells += u64::from(before.is_none_or(|b| b.counts != row.counts));
        difference.correction.set.push(row.clone());
    }
    difference.cells += u64::try_from(left.len()).unwrap_or(u64::MAX);
    difference.correction.remove.extend(left.into_keys().cloned());
    difference
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
    let mut minutes: BTreeMap<RollupKey, Counts> = BTreeMap::new();
    for row in &ad_minutes {
        if let RollupKey::AdMinute { minute, campaign_id, currency, .. } = &row.key {
            let key =
                RollupKey::CampaignMinute { minute: *minute, campaign_id: campaign_id.clone(), currency: *currency };
            let sum = minutes.entry(key).or_default();
            *sum = sum.merge(&row.counts)?;
        }
    }
    let mut rows = ad_minutes;
    rows.extend(minutes.into_iter().map(|(key, counts)| RollupRow { key, counts, uniques: None }));
    rows.extend(campaign_hours);
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(rows)
}

#[cfg(test)]
mod tests;

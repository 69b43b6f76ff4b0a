//! Why shown and exact differ: what the judged events of a campaign hour can explain, at most.
//! Reads: `silver/events` of the run, five columns, one pass, only for campaign hours that differ. Writes: nothing.
//! An undercount is explained by billable events that came so late that speed drops them; an overcount by events
//! that only the whole archive can tell from billable ones. What is left is `unexplained` and never hidden.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use serde::{Deserialize, Serialize};
use shared::error::ErrorKind;
use shared::id::CampaignId;
use shared::money::Overflow;
use shared::time::{HOUR, Timestamp};
use shared::verdict::Verdict;

use crate::columns::Columns;
use crate::drift::Pair;
use crate::error::Error;
use crate::gold::{Gold, SILVER};

const COLUMNS: [&str; 5] = ["campaign_id", "billing_time", "ingest_time", "verdict", "clamped"];

/// What became of the events of one campaign hour that could mislead speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Candidates {
    /// Billable events that came later than speed's allowed lateness.
    pub late: u64,
    /// Events with a known id and payload.
    pub duplicates: u64,
    /// Events with a known id and another payload.
    pub conflicts: u64,
    /// Clicks too close to the one before on their impression.
    pub repeat_clicks: u64,
    /// Invalid traffic.
    pub invalid: u64,
    /// Events billed at their ingest time because their own was out of bounds (they explain nothing by themselves).
    pub clamped: u64,
}

/// How many events of a difference each cause explains, at most; the rest is unexplained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Nothing was shown for the hour (speed was not running, or the store was lost).
    pub not_shown: u64,
    /// The hour was exact for an earlier run, and the run changed (late events, rules, prices).
    pub restated: u64,
    /// Came too late for speed.
    pub late: u64,
    /// A repetition that speed's memory does not reach back to.
    pub duplicates: u64,
    /// The same with another payload.
    pub conflicts: u64,
    /// The same for clicks on one impression.
    pub repeat_clicks: u64,
    /// Judged invalid after speed counted it.
    pub invalid: u64,
    /// No candidate is left.
    pub unexplained: u64,
}

impl Explanation {
    /// Adds another one.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit.
    pub fn add(&mut self, other: &Self) -> Result<(), Overflow> {
        for (sum, n) in [
            (&mut self.not_shown, other.not_shown),
            (&mut self.restated, other.restated),
            (&mut self.late, other.late),
            (&mut self.duplicates, other.duplicates),
            (&mut self.conflicts, other.conflicts),
            (&mut self.repeat_clicks, other.repeat_clicks),
            (&mut self.invalid, other.invalid),
            (&mut self.unexplained, other.unexplained),
        ] {
            *sum = sum.checked_add(n).ok_or(Overflow)?;
        }
        Ok(())
    }
}

/// Who wrote what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ShownBy {
    /// Nobody: nothing is shown.
    Nobody,
    /// The speed layer.
    Speed,
    /// An earlier reconcile.
    Reconcile,
}

/// Explains one campaign hour.
#[must_use]
pub fn explain(pair: &Pair, shown_by: ShownBy, candidates: &Candidates) -> Explanation {
    let (s, e) = (&pair.shown, &pair.exact);
    let parts = [(s.impressions, e.impressions), (s.clicks, e.clicks), (s.conversions, e.conversions)];
    let mut missing: u64 = parts.iter().map(|(s, e)| e.saturating_sub(*s)).sum();
    let mut extra: u64 = parts.iter().map(|(s, e)| s.saturating_sub(*e)).sum();
    match shown_by {
        ShownBy::Nobody => return Explanation { not_shown: missing, unexplained: extra, ..Explanation::default() },
        ShownBy::Reconcile => return Explanation { restated: missing + extra, ..Explanation::default() },
        ShownBy::Speed => {}
    }
    let take = |from: &mut u64, n: u64| {
        let taken = n.min(*from);
        *from -= taken;
        taken
    };
    let late = take(&mut missing, candidates.late);
    let duplicates = take(&mut extra, candidates.duplicates);
    let conflicts = take(&mut extra, candidates.conflicts);
    let repeat_clicks = take(&mut extra, candidates.repeat_clicks);
    let invalid = take(&mut extra, candidates.invalid);
    let unexplained = missing + extra;
    Explanation { late, duplicates, conflicts, repeat_clicks, invalid, unexplained, ..Explanation::default() }
}

/// The candidates of every campaign hour in `wanted`.
///
/// # Errors
/// [`Error::Objects`] when the lake is away. Without the run's silver nothing is explained.
pub async fn candidates(
    gold: &Gold,
    wanted: &BTreeSet<(CampaignId, Timestamp)>,
    late_after: i64,
) -> Result<BTreeMap<(CampaignId, Timestamp), Candidates>, Error> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() || gold.record().output(SILVER).is_none() {
        return Ok(found);
    }
    let read = gold.each_batch(SILVER, &COLUMNS, |batch, what| tally(batch, what, wanted, late_after, &mut found));
    match read.await {
        Ok(()) => Ok(found),
        // Causes are a help, not a number that must be right: silver may have been compacted away since the run.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(%error, "silver of the run does not read: its drift is reported as unexplained");
            Ok(BTreeMap::new())
        }
        Err(error) => Err(error),
    }
}

fn tally(
    batch: &RecordBatch,
    what: &str,
    wanted: &BTreeSet<(CampaignId, Timestamp)>,
    late_after: i64,
    found: &mut BTreeMap<(CampaignId, Timestamp), Candidates>,
) -> Result<(), Error> {
    let c = Columns::of(batch, what);
    let (campaigns, verdicts) = (c.text("campaign_id")?, c.text("verdict")?);
    let (billing, ingest) = (c.times("billing_time")?, c.times("ingest_time")?);
    let clamped = batch.column_by_name("clamped").and_then(|a| a.as_boolean_opt()).map(BooleanArray::values);
    for i in 0..batch.num_rows() {
        let verdict = c.parse("verdict", verdicts.value(i), Verdict::parse(verdicts.value(i)))?;
        let is_late = ingest.value(i).saturating_sub(billing.value(i)) > late_after;
        let is_clamped = clamped.is_some_and(|bits| bits.value(i));
        if verdict == Verdict::Billable && !is_late && !is_clamped {
            continue; // nearly all of them: nothing could mislead speed
        }
        let campaign = campaigns.value(i);
        let id = c.parse("campaign_id", campaign, CampaignId::new(campaign).ok())?;
        let key = (id, Timestamp(billing.value(i)).floor(HOUR));
        if !wanted.contains(&key) {
            continue;
        }
        let tally = found.entry(key).or_default();
        tally.clamped += u64::from(is_clamped);
        match verdict {
            Verdict::Billable => tally.late += u64::from(is_late),
            Verdict::Duplicate => tally.duplicates += 1,
            Verdict::Conflict => tally.conflicts += 1,
            Verdict::RepeatClick => tally.repeat_clicks += 1,
            Verdict::Invalid(_) => tally.invalid += 1,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::rollup::Counts;

    use super::*;

    #[test]
    fn a_cause_never_explains_more_than_the_difference_or_than_its_events() {
        let clicks = |clicks| Counts { clicks, ..Counts::default() };
        let candidates = Candidates { late: 2, duplicates: 1, conflicts: 5, ..Candidates::default() };
        let under = Pair { shown: clicks(10), exact: clicks(15) };
        let why = explain(&under, ShownBy::Speed, &candidates);
        assert_eq!((why.late, why.duplicates, why.unexplained), (2, 0, 3));
        let over = Pair { shown: clicks(15), exact: clicks(10) };
        let why = explain(&over, ShownBy::Speed, &candidates);
        assert_eq!((why.late, why.duplicates, why.conflicts, why.unexplained), (0, 1, 4, 0));
        let none = Pair { shown: clicks(0), exact: clicks(4) };
        assert_eq!(explain(&none, ShownBy::Nobody, &candidates).not_shown, 4);
        assert_eq!(explain(&over, ShownBy::Reconcile, &candidates).restated, 5);
    }
}

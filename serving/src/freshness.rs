//! How far the speed layer is: from what its writers told last to the `asOf` and `stale` of every report. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::config::Span;
use shared::rollup::TimeRange;
use shared::serving_store::WriterStatus;
use shared::time::{SECOND, Timestamp};
use utoipa::ToSchema;

/// What every report says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Freshness {
    /// Every event accepted before this instant is in the report (exact reports: the end of their range).
    /// Absent where nothing was counted yet.
    #[schema(example = "2026-01-05T10:04:10Z")]
    pub(crate) as_of: Option<String>,
    /// Whether provisional numbers are further behind than promised, or come from before an outage.
    pub(crate) stale: bool,
}

/// How far the writers are, together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The instant every writer has reached; absent while one has counted nothing yet.
    pub(crate) as_of: Option<Timestamp>,
    /// How long ago that is, microseconds; 0 where nobody writes yet.
    pub(crate) behind: i64,
    /// Whether that is too long.
    pub(crate) is_stale: bool,
    /// Records behind the end of the log.
    pub(crate) lag_records: u64,
    /// Events by outcome, over all writers.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// 95th percentile from ingest to flush, the slowest writer's, milliseconds.
    pub(crate) ingest_p95_ms: u64,
}

/// The writers' progress at `now`.
pub(crate) fn progress(writers: &BTreeMap<u32, WriterStatus>, now: Timestamp, stale_after: Span) -> Progress {
    let mut progress = Progress::default();
    let reached = shared::serving_store::reached(writers.values()).map(|at| at.min(now));
    for status in writers.values() {
        progress.lag_records = progress.lag_records.saturating_add(status.lag);
        progress.ingest_p95_ms = progress.ingest_p95_ms.max(status.ingest_p95_ms);
        for (outcome, count) in &status.outcomes {
            let sum = progress.outcomes.entry(outcome.clone()).or_insert(0);
            *sum = sum.saturating_add(*count);
        }
    }
    if writers.is_empty() {
        return progress;
    }
    progress.as_of = reached;
    progress.behind = reached.map_or(0, |r| now.since(r).max(0));
    progress.is_stale = reached.is_none() || progress.behind > stale_after.as_micros();
    progress
}

impl Progress {
    /// Whole seconds behind.
    pub(crate) fn lag_seconds(&self) -> u64 {
        u64::try_from(self.behind / SECOND).unwrap_or(0)
    }

    /// What a report over `range` says: exact ones are complete whatever the speed layer does.
    pub(crate) fn of_range(&self, range: &TimeRange, is_exact: bool) -> Freshness {
        if is_exact {
            return Freshness { as_of: Some(range.end.to_string()), stale: false };
        }
        Freshness { as_of: self.as_of.map(|t| t.to_string()), stale: self.is_stale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000 * SECOND);

    fn status(as_of: i64, flushed_at: i64, lag: u64) -> WriterStatus {
        let outcomes = BTreeMap::from([("counted".to_owned(), 2)]);
        let at = |s: i64| Timestamp(s * SECOND);
        WriterStatus { as_of: at(as_of), flushed_at: at(flushed_at), lag, outcomes, ..WriterStatus::default() }
    }

    fn seen(writers: &[WriterStatus]) -> Progress {
        progress(&(0..).zip(writers.iter().cloned()).collect(), NOW, Span::secs(60))
    }

    #[test]
    fn the_slowest_writer_decides_and_an_idle_one_does_not_hold_it_back() {
        let busy = status(995, 998, 7);
        let idle = status(100, 999, 0);
        let both = seen(&[busy.clone(), idle]);
        assert_eq!((both.as_of, both.is_stale, both.lag_seconds(), both.lag_records), (Some(busy.as_of), false, 5, 7));
        assert_eq!(both.outcomes["counted"], 4);
        let stuck = seen(&[busy, status(900, 999, 1)]);
        assert!(stuck.is_stale && stuck.lag_seconds() == 100);
        let dead = seen(&[status(900, 900, 0)]);
        assert!(dead.is_stale, "a writer that stopped flushing is behind, whatever it last said");
    }

    #[test]
    fn nobody_writing_is_not_stale_but_counting_nothing_with_lag_is() {
        assert_eq!(seen(&[]), Progress::default());
        let new = seen(&[status(0, 999, 5)]);
        assert!(new.is_stale && new.as_of.is_none());
        assert!(!seen(&[status(0, 999, 0)]).is_stale, "an empty log is counted to its end");
    }

    #[test]
    fn an_exact_report_is_never_stale() {
        let range = Timestamp(0)..Timestamp(SECOND);
        let dead = seen(&[status(1, 1, 9)]);
        assert!(!dead.of_range(&range, true).stale && dead.of_range(&range, false).stale);
        assert_eq!(dead.of_range(&range, true).as_of.unwrap(), "1970-01-01T00:00:01Z");
    }
}

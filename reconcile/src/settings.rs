//! Reconcile's settings: data with defaults, checked all at once.

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};

/// How reconcile compares and publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The largest drift of a day that is overwritten without `--force`, in parts per million of the exact value.
    pub tolerance_ppm: u64,
    /// Drifts smaller than this many events are never over tolerance (small days would trip on a handful).
    pub tolerance_floor_events: u64,
    /// Billable events that came later than this after they happened are what speed may have dropped as late:
    /// its allowed lateness. Set by the wiring.
    #[serde(skip)]
    pub late_after: Span,
    /// The most lines in one settlement file.
    pub rows_per_file: u64,
    /// The most campaign hours listed in a drift report, largest first; the totals cover all.
    pub report_rows: usize,
    /// Restatement notices name the campaigns whose amount changed by at least this many micros; others are counted.
    pub notice_min_micros: u64,
    /// How long files of a publication that never finished are kept before a later one removes them.
    pub keep_staged: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tolerance_ppm: 100_000,
            tolerance_floor_events: 1_000,
            late_after: Span::secs(3_600),
            rows_per_file: 500_000,
            report_rows: 10_000,
            notice_min_micros: 1_000_000,
            keep_staged: Span::secs(7 * 86_400),
        }
    }
}

/// The most lines a file may be told to hold: one file is held in memory while it is written.
const MAX_ROWS_PER_FILE: u64 = 10_000_000;

impl Settings {
    /// All problems of these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1..=MAX_ROWS_PER_FILE).contains(&self.rows_per_file) {
            problems.push(Problem::new("reconcile.rows_per_file", format!("must be 1 to {MAX_ROWS_PER_FILE}")));
        }
        if self.keep_staged < Span::secs(3_600) {
            problems.push(Problem::new("reconcile.keep_staged", "must be an hour or more: another run may be at work"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem_and_every_bad_value_is_named() {
        assert_eq!(Settings::default().problems(), []);
        let bad = Settings { rows_per_file: 0, keep_staged: Span::secs(1), ..Settings::default() };
        assert_eq!(bad.problems().len(), 2);
    }
}

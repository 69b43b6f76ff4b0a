//! What the store may forget: minutes and hours past their time, a few rows at a time.
//! Guarantee: a report never shows a forgotten range as empty ([`Settings::check`] refuses it); gold keeps what is
//! forgotten here, and the hours stay owned. On crash: some rows are forgotten, the next look forgets the rest.
//! Never: holds the writer for longer than one batch.

use serde::{Deserialize, Serialize};
use shared::config::{Problem as Wrong, Span};
use shared::http::problem::Problem;
use shared::rollup::TimeRange;
use shared::serving_store::ServingStore;
use shared::telemetry::metric_names::SERVING_FORGOTTEN;
use shared::time::{HOUR, Timestamp};

use crate::problems::invalid;

/// Rows removed in one transaction.
const BATCH_ROWS: u64 = 5_000;

/// How long rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Minutes of ads and campaigns.
    pub minutes: Span,
    /// Hours of campaigns, with their unique users.
    pub hours: Span,
    /// How often to look.
    pub check_interval: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { minutes: Span::secs(35 * 86_400), hours: Span::secs(400 * 86_400), check_interval: Span::secs(600) }
    }
}

impl Settings {
    /// All problems of these settings.
    pub(crate) fn problems(&self) -> Vec<Wrong> {
        let mut problems = Vec::new();
        // Late events may bill in a day that ended a week ago, and its day must still be there to be corrected.
        for (name, span) in [("minutes", self.minutes), ("hours", self.hours)] {
            if span < Span::secs(9 * 86_400) {
                problems.push(Wrong::new(format!("serving.retention.{name}"), "must be 9d or more"));
            }
        }
        if self.check_interval < Span::secs(1) {
            problems.push(Wrong::new("serving.retention.check_interval", "must be 1s or more"));
        }
        problems
    }

    /// Refuses a range that begins before what is `kept`.
    pub(crate) fn check(kept: Span, range: &TimeRange, now: Timestamp) -> Result<(), Problem> {
        let first = before(now, kept);
        if range.start >= first {
            return Ok(());
        }
        let fix = "ask for a later `from`; exact figures of older days are in the settlement files and in gold";
        Err(invalid(format!("what is older than {kept} is not kept here: the first is {first}"), fix))
    }

    /// Forgets everything past its time at `now`; answers how many rows.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn apply(
        &self,
        store: &dyn ServingStore,
        now: Timestamp,
    ) -> Result<u64, shared::serving_store::StoreError> {
        let (minutes, hours) = (before(now, self.minutes), before(now, self.hours));
        let mut forgotten = 0;
        loop {
            let rows = store.forget(minutes, hours, BATCH_ROWS).await?;
            metrics::counter!(SERVING_FORGOTTEN).increment(rows);
            forgotten += rows;
            if rows == 0 {
                return Ok(forgotten);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The first hour that is kept.
fn before(now: Timestamp, kept: Span) -> Timestamp {
    now.plus(-kept.as_micros()).floor(HOUR)
}

#[cfg(test)]
mod tests {
    use shared::testing::MemoryServingStore;
    use shared::testing::conformance::serving_store as laws;
    use shared::time::DAY;

    use super::*;

    #[tokio::test]
    async fn what_is_past_its_time_goes_and_asking_for_it_is_refused() {
        let store = MemoryServingStore::new();
        let rows = vec![laws::ad_minute("a", 0, 1, 0), laws::campaign_hour("c1", 0, 1, 0..3)];
        store.upsert_approximate(laws::flush(0, 1, rows)).await.unwrap();
        let kept = Settings::default();
        let range = laws::hour()..laws::hour().plus(HOUR);
        let at = |days| laws::hour().plus(days * DAY);
        for (now, forgotten) in [(at(35), 0), (at(36), 1), (at(400), 0), (at(401), 1)] {
            assert_eq!(kept.apply(&store, now).await.unwrap(), forgotten, "{now}");
        }
        assert!(Settings::check(kept.minutes, &range, at(35)).is_ok());
        assert_eq!(Settings::check(kept.minutes, &range, at(36)).unwrap_err().status(), 400);
    }
}

//! The error bounds beside provisional numbers: `low` and `high` of every count and cost, while they may still change.
//! [`KnownBounds`] reads what reconcile learnt (`reports/calibration.json`), at most every few seconds; before there is
//! any, or while it cannot be read, the stated defaults stand. [`Judge`] applies them to rows. Exact rows have none.
//! Never: fails a report because the bounds are away.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;
use shared::bound::{Bound, Bounds, CALIBRATION_PATH, Calibration, KINDS, SCHEMA_VERSION, Window, count};
use shared::rollup::{Counts, Finality};
use shared::sketch::STANDARD_ERROR_PPM;
use shared::time::{SECOND, Timestamp};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::objects;

/// Microseconds after which the file is looked at again.
const REFRESH: i64 = 5 * SECOND;
/// Standard errors of the sketch that a bound of unique users allows for.
const SKETCH_ERRORS: u64 = 3;

/// A range the exact number lies in, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CountRange {
    low: u64,
    high: u64,
}

/// A range the exact cost lies in, micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CostRange {
    low: i64,
    high: i64,
}

/// Where the exact numbers of a provisional row lie, in at least 99 of 100 windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowBounds {
    impressions: CountRange,
    clicks: CountRange,
    conversions: CountRange,
    /// In the row's currency; as far off, relatively, as the row's least certain count.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_micros: Option<CostRange>,
    /// Three standard errors of the sketch, and what may still come.
    #[serde(skip_serializing_if = "Option::is_none")]
    uniques: Option<CountRange>,
}

impl From<Bound> for CountRange {
    fn from(bound: Bound) -> Self {
        Self { low: bound.low, high: bound.high }
    }
}

/// Puts bounds beside rows.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    bounds: Arc<Bounds>,
    as_of: Option<Timestamp>,
}

impl Judge {
    pub(crate) fn new(bounds: Arc<Bounds>, as_of: Option<Timestamp>) -> Self {
        Self { bounds, as_of }
    }

    /// The bounds of a row about the `length` microseconds from `start`; `None` where it is exact.
    pub(crate) fn row(&self, start: Timestamp, length: i64, counts: &Counts, finality: Finality) -> Option<RowBounds> {
        if finality != Finality::Provisional {
            return None;
        }
        let age = self.as_of.map_or(i64::MIN, |as_of| as_of.since(start.plus(length)));
        let [impressions, clicks, conversions] = self.bounds.of_counts(Window::of(length), age, counts);
        Some(RowBounds {
            impressions: impressions.into(),
            clicks: clicks.into(),
            conversions: conversions.into(),
            cost_micros: None,
            uniques: None,
        })
    }
}

impl RowBounds {
    /// With the range of the row's cost. A row does not say which of its events were paid for, so the cost is as
    /// uncertain as the least certain of them.
    pub(crate) fn with_cost(self, counts: &Counts, cost_micros: i64) -> Self {
        let (mut more, mut less) = (0, 0);
        for (kind, range) in KINDS.iter().zip([self.impressions, self.clicks, self.conversions]) {
            let n = count(counts, *kind);
            more = more.max(share(cost_micros, range.high.saturating_sub(n), n));
            less = less.max(share(cost_micros, n.saturating_sub(range.low), n));
        }
        let range = CostRange { low: cost_micros.saturating_sub(less), high: cost_micros.saturating_add(more) };
        Self { cost_micros: Some(range), ..self }
    }

    /// With the range of the row's unique users.
    pub(crate) fn with_uniques(self, uniques: u64) -> Self {
        let sketch = uniques.saturating_mul(SKETCH_ERRORS * STANDARD_ERROR_PPM).div_ceil(1_000_000);
        // A missed event is at most one more person, one too many at most one fewer.
        let ranges = [self.impressions, self.clicks, self.conversions];
        let room: u64 = ranges.iter().map(|r| r.high - r.low).max().unwrap_or(0).min(uniques.max(1));
        let low = uniques.saturating_sub(sketch.saturating_add(room));
        let range = CountRange { low, high: uniques.saturating_add(sketch).saturating_add(room) };
        Self { uniques: Some(range), ..self }
    }
}

/// `cost · part / n`, rounded up.
fn share(cost: i64, part: u64, n: u64) -> i64 {
    if n == 0 {
        return 0;
    }
    let share = (u128::from(cost.unsigned_abs()) * u128::from(part)).div_ceil(u128::from(n));
    i64::try_from(share).unwrap_or(i64::MAX)
}

/// The bounds in use.
#[derive(Default)]
pub(crate) struct KnownBounds(Mutex<(Option<Timestamp>, Arc<Bounds>)>);

impl KnownBounds {
    /// The bounds as reconcile learnt them last.
    pub(crate) async fn current(&self, store: &dyn ObjectStore, now: Timestamp) -> Arc<Bounds> {
        let mut known = self.0.lock().await;
        let is_fresh = |at: Timestamp| (0..REFRESH).contains(&now.since(at));
        if !known.0.is_some_and(is_fresh) {
            known.0 = Some(now);
            let path = Path::from(CALIBRATION_PATH);
            if let Some(bytes) = objects::soon("the calibration", objects::read(store, &path)).await.flatten() {
                match serde_json::from_slice::<Calibration>(&bytes) {
                    Ok(c) if c.schema_version == SCHEMA_VERSION => known.1 = Arc::new(c.bounds(None)),
                    _ => tracing::warn!("the calibration has another form: the bounds stay as they were"),
                }
            }
        }
        Arc::clone(&known.1)
    }
}

#[cfg(test)]
mod tests {
    use shared::time::HOUR;

    use super::*;

    #[test]
    fn provisional_rows_have_bounds_around_what_they_show_and_exact_rows_none() {
        let judge = Judge::new(Arc::default(), Some(Timestamp(2 * HOUR)));
        let counts = Counts { impressions: 1_000, clicks: 40, conversions: 0, cost_nanos: 0 };
        let row = judge.row(Timestamp(0), HOUR, &counts, Finality::Provisional).unwrap();
        let row = row.with_cost(&counts, 8_000_000).with_uniques(700);
        assert!(row.clicks.low < 40 && row.clicks.high > 40);
        let cost = row.cost_micros.unwrap();
        assert!(cost.low < 8_000_000 && cost.high > 8_000_000 && cost.high < 16_000_000, "{cost:?}");
        assert!(row.uniques.unwrap().low < 660 && row.uniques.unwrap().high > 740);
        assert!(row.conversions.low == 0 && row.conversions.high > 0);
        for exact in [Finality::Reconciled, Finality::Settled] {
            assert_eq!(judge.row(Timestamp(0), HOUR, &counts, exact), None);
        }
    }
}

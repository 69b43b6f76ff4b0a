//! The layer's metrics, emitted once per batch or flush; labels are the closed set of outcomes.

use shared::serving_store::Upserted;
use shared::telemetry::metric_names::{SPEED_EVENTS, SPEED_FRESHNESS, SPEED_LAG, SPEED_ROWS};

use crate::outcome::{Outcome, Tally};

/// What one batch came to.
pub(crate) fn events(batch: &Tally) {
    for outcome in Outcome::ALL {
        metrics::counter!(SPEED_EVENTS, "outcome" => outcome.as_str()).increment(batch.of(outcome));
    }
}

/// What one flush wrote.
pub(crate) fn rows(upserted: Upserted) {
    metrics::counter!(SPEED_ROWS, "result" => "written").increment(upserted.written);
    metrics::counter!(SPEED_ROWS, "result" => "superseded").increment(upserted.superseded);
}

/// How far behind the layer is: records, and milliseconds from ingest to visible.
#[allow(clippy::cast_precision_loss)] // gauges are floats; a lag of 2⁵³ records is not one
pub(crate) fn behind(lag: u64, p95_ms: u64) {
    metrics::gauge!(SPEED_LAG).set(lag as f64);
    metrics::gauge!(SPEED_FRESHNESS).set(p95_ms as f64 / 1_000.0);
}

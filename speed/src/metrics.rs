//! The layer's metrics, emitted once per batch or flush; labels are the closed set of outcomes.

use shared::serving_store::Upserted;
use shared::telemetry::metric_names::{
    SPEED_EVENTS, SPEED_FORGOTTEN, SPEED_FRESHNESS, SPEED_IDS, SPEED_IDS_DISK, SPEED_IDS_READS, SPEED_LAG, SPEED_ROWS,
};

use crate::outcome::{Outcome, Tally};
use crate::worker::Worker;

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

/// What this process's workers remember.
#[allow(clippy::cast_precision_loss)] // gauges are floats
pub(crate) fn ids<'a>(workers: impl Iterator<Item = &'a Worker>) {
    let (mut in_memory, mut on_disk, mut bytes) = (0, 0, 0);
    for worker in workers {
        let disk = worker.ids_on_disk();
        in_memory += worker.remembered_ids().0;
        on_disk += disk.ids;
        bytes += disk.bytes;
    }
    metrics::gauge!(SPEED_IDS, "place" => "memory").set(in_memory as f64);
    metrics::gauge!(SPEED_IDS, "place" => "disk").set(on_disk as f64);
    metrics::gauge!(SPEED_IDS_DISK).set(bytes as f64);
}

/// Blocks that were read to look for an id.
pub(crate) fn disk_reads(reads: u64) {
    metrics::counter!(SPEED_IDS_READS).increment(reads);
}

/// Ids and clicks that a limit made be forgotten.
pub(crate) fn forgotten(ids: u64) {
    metrics::counter!(SPEED_FORGOTTEN).increment(ids);
}

//! Log → serving: approximate rollups, seconds after the click.
//!
//! ```text
//! EventLog ──poll──▶ pipeline ──one batch per partition──▶ Worker (decode → dedup → window → aggregate)
//!                       │ every 10 s: changed rows, absolute values ──▶ ServingStore::upsert_approximate
//!                       └ then: checkpoint = state and position, one object per partition
//! ```
//!
//! A [`Worker`] owns one partition and knows no clock, disk or network: records in, rows out. Workers share
//! nothing, so a partition can move to another process. `pipeline` is the only file with a loop.
//!
//! Guarantees: every record gets exactly one [`Outcome`]; nothing is dropped silently; a restart at any
//! instant leads to the same rows. What a crash does, step by step:
//! - before a flush: the records since the last checkpoint are read again, the same rows come out;
//! - between flush and checkpoint: the rows are computed again and overwrite themselves (absolute values with
//!   a newer generation, decisions.md D-9);
//! - inside a checkpoint: the one before it is used (it is kept until the next but one);
//! - two processes on one partition: on one machine the second is refused by a file lock; across machines the
//!   older generation's rows lose in the store, and its checkpoints to the newer one's (`objects`).
//!
//! Never: decides anything by the wall clock, writes an increment, reads another layer's state. What it cannot
//! know (an id older than the dedup window, an id that came through another partition, an event later than the
//! allowed lateness) the exact path corrects.

mod aggregate;
mod assigned;
mod checkpoint;
mod decode;
mod dedup;
mod error;
mod folder;
mod grid;
mod held;
mod latency;
mod metrics;
mod names;
mod objects;
mod outcome;
mod pipeline;
mod place;
mod replay;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod watermark;
mod window;
mod worker;

use std::sync::Arc;

use object_store::ObjectStore;
use shared::event_log::EventLog;
use shared::price::PriceBook;
use shared::serving_store::ServingStore;
use shared::shutdown::Shutdown;
use shared::time::Clock;

pub use error::Error;
pub use outcome::{Outcome, Tally};
pub use replay::{Replayed, replay};
pub use settings::Settings;
pub use worker::Worker;

/// Where the current prices come from; asked once per batch, so that an import is seen within a moment.
pub type Prices = Arc<dyn Fn() -> Arc<PriceBook> + Send + Sync>;

/// What the layer works with.
#[derive(Clone)]
pub struct Deps {
    /// The log of admitted events.
    pub events: Arc<dyn EventLog>,
    /// Where rows go.
    pub store: Arc<dyn ServingStore>,
    /// The price book.
    pub prices: Prices,
    /// Where checkpoints live if other machines are to reach them; else in [`Settings::state_dir`].
    pub state: Option<Arc<dyn ObjectStore>>,
    /// For flush times and latencies; never for a decision about an event.
    pub clock: Arc<dyn Clock>,
}

/// The speed layer.
pub struct Speed {
    settings: Settings,
    deps: Deps,
}

impl Speed {
    /// The name under which progress is reported to the log.
    pub const GROUP: &'static str = "speed";

    /// A speed layer that has not started yet.
    #[must_use]
    pub fn new(settings: Settings, deps: Deps) -> Self {
        Self { settings, deps }
    }

    /// Restores every partition's state and works until `shutdown`; then flushes and checkpoints once more.
    ///
    /// # Errors
    /// [`Error`]: wrong settings, a partition another process owns, a log or state that contradicts itself, a
    /// store that is away at the start. A store or log that goes away later is waited for.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        pipeline::run(self.settings, self.deps, shutdown).await
    }
}

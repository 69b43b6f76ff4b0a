//! The vocabulary every layer speaks, and the ports through which layers meet.
//!
//! *click → log → speed → serving* and *log → lake → batch → reconcile → serving* use these words only:
//! [`event::Event`] travels, [`verdict`] judges, [`price`] prices, [`rollup`] sums, [`bound`] says how far off; [`event_log::EventLog`] and
//! [`serving_store::ServingStore`] are where the layers meet. Depends on no crate of ours. A thing moves here
//! only when two crates need it.

pub mod billed;
pub mod bound;
pub mod config;
pub mod directory;
pub mod error;
pub mod event;
pub mod event_log;
pub mod event_view;
pub mod explain;
mod fields;
#[cfg(feature = "http")]
pub mod http;
pub mod id;
mod json;
pub mod merkle;
pub mod money;
pub mod partition;
pub mod price;
pub mod private_file;
pub mod progress;
pub mod rollup;
pub mod serving_store;
pub mod shutdown;
pub mod sketch;
pub mod tally;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod verdict;
pub mod wire;

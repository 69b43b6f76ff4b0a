//! Batch: log → lake → **silver and gold**, exactly, one UTC billing day at a time.
//!
//! ```text
//! bronze (pinned) ─▶ clicks: which may repeat ─▶ hashes: which ids can meet ─▶ bucket ─▶ judge ─▶ silver
//!                    (chain, standing: pure)      (8 bytes a row)               one hash range   │
//!                                                                                                ▼ facts, leaves
//! runs ◀─ publish ◀─ audit (SQL over the staged files, positions) ◀───────────────── gold, Merkle tree
//! ```
//! Bucket to silver, facts and leaves can be done by a cluster's executors instead (`cluster`, feature `ballista`).
//! [`job::recompute`] is the walk; every other file is one step of it. The rules themselves are `shared::verdict` and
//! `shared::price`, the same kernel that the speed layer uses.
//! Guarantee: every archived event of the day gets exactly one verdict, against the whole archive; the same inputs
//! give the same bytes, whatever the threads, the memory and the file layout; a run is visible as a whole (its
//! record in `runs`) or not at all; what does not balance is never visible.
//! On crash: nothing that was visible changes; the next run starts over under a higher number.
//! Never: looks at the wall clock but to ask whether a day is closed; uses a float; writes to bronze.

mod audit;
mod bucket;
mod capture;
pub mod chain;
mod claims;
mod clicks;
#[cfg(feature = "ballista")]
pub mod cluster;
mod columns;
mod compute;
mod engine;
pub mod error;
pub mod explain;
mod facts;
mod gold;
mod gold_rows;
mod hashes;
mod invalid;
mod job;
mod judge;
mod known;
mod leaves;
mod lookup;
mod names;
mod positions;
mod prices;
pub mod progress;
mod publish;
mod ready;
mod runs;
mod settings;
mod since;
mod snapshot;
mod source;
mod stage;
pub mod standing;
mod tasks;
mod tree;
pub mod whatif;
mod words;

pub use error::Error;
pub use explain::explain;
pub use job::{CODE_VERSION, Deps, Outcome, Request, Status, backfill, recompute};
pub use progress::{Listener, Progress, Step};
pub use ready::ready;
pub use runs::runs_of;
pub use settings::{Engine, Settings};

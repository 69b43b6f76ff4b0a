//! Batch at its public edge.
#![allow(missing_docs)]
// Test code: a failure must stop the test, and the numbers are small.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod explain;
mod gate;
mod help;
mod law;
mod model;
mod runs;
mod since;
mod whatif;

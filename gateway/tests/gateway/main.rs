//! The gateway at its public edge: over real sockets, against a memory log with a switch for failures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod dedup;
mod durability;
mod forward;
mod history;
mod hostile;
mod hot;
mod impressions;
mod keys;
mod links;
mod posts;
mod privacy;
mod support;

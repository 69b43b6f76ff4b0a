//! Reconcile at its public edge: a small lake with gold, a serving store, a data root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here must stop the test

mod bounds;
mod crash;
mod inbox;
mod keys;
mod law;
mod ledger;
mod proof;
mod publish;
mod recipe;
mod restate;
mod verify;
mod world;

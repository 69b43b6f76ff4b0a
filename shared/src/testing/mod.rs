//! What tests of several crates share (feature `testing`): conformance suites and generators.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code: a failure here must stop the test

pub mod conformance;
mod memory_serving_store;
pub mod parts;
pub mod s3;

pub use memory_serving_store::MemoryServingStore;

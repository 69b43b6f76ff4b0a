//! The lake at its public edge.
#![allow(missing_docs)]
// Test code: a failure must stop the test, and the numbers are small.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod archiver;
mod convert;
mod crash;
mod erase;
mod help;
mod maintenance;
#[cfg(feature = "s3")]
mod s3;
mod table;

//! The one integration binary: the product as its users meet it, through the command line and HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on must say so loudly

mod demo;
mod dispute;
mod explain;
mod kill;
mod law;
mod money;
mod naive;
#[cfg(feature = "s3")]
mod object_store;
mod oracle;
mod privacy;
mod proof;
#[cfg(feature = "s3")]
mod readers;
mod redo;
mod rerun;
mod support;
mod tidy;

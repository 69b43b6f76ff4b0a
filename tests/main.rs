//! The one integration binary: the product as its users meet it, through the command line and HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on must say so loudly

mod demo;
mod deployment;
mod dispute;
mod explain;
mod kill;
mod law;
mod money;
mod naive;
mod oracle;
mod privacy;
mod proof;
mod redo;
mod rerun;
mod support;
mod tidy;

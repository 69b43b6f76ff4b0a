//! The one integration binary: the product as its users meet it, through the command line and HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on must say so loudly

#[cfg(feature = "kafka")]
mod aside;
#[cfg(all(feature = "ballista", feature = "s3"))]
mod cluster;
mod demo;
mod deployment;
mod dispute;
mod explain;
#[cfg(all(feature = "clickhouse", feature = "kafka", feature = "s3"))]
mod groups;
mod hot;
mod kill;
mod law;
mod money;
mod naive;
#[cfg(feature = "s3")]
mod object_store;
mod oracle;
mod outside;
mod privacy;
#[cfg(all(feature = "clickhouse", feature = "kafka", feature = "redis", feature = "s3"))]
mod production;
mod proof;
#[cfg(feature = "s3")]
mod readers;
mod redo;
mod replay;
mod rerun;
#[cfg(feature = "clickhouse")]
mod stores;
mod support;
mod tidy;

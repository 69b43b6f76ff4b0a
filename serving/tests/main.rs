//! Serving from outside: the store by its port, the API over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failure here must stop the test

mod api;
#[cfg(feature = "clickhouse")]
mod clickhouse;
mod store;

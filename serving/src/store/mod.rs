//! Where rollups are kept: one SQLite file that speed, reconcile and readers share ([`EmbeddedStore`]), or ClickHouse.
//! Guarantee: the port's, by either; embedded, each call is one transaction that is on disk when the call returns.
//! On crash: SQLite's write-ahead log restores the last finished call. Never: sums into a stored row.
//!
//! [`embedded`] opens and schedules, [`write`] and [`read`] are the calls, [`encode`] is how values are stored; [`clickhouse`]
//! has the like of its own, [`rank`] is common.

#[cfg(feature = "clickhouse")]
pub mod clickhouse;
mod embedded;
mod encode;
mod rank;
mod read;
mod write;

pub use embedded::EmbeddedStore;

//! The embedded serving store: one SQLite file that speed, reconcile and readers share, in one process or several.
//! Guarantee: the port's, each call in one transaction that is on disk when the call returns.
//! On crash: SQLite's write-ahead log restores the last finished call. Never: sums into a stored row.
//!
//! [`embedded`] opens and schedules, [`write`] and [`read`] are the calls, [`encode`] is how values are stored.

mod embedded;
mod encode;
mod read;
mod write;

pub use embedded::EmbeddedStore;

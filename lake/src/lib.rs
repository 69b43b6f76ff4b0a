//! The lake: log → bronze, and the tables that batch and reconcile build on.
//!
//! ```text
//! events ──────┐ poll          rows, bytes, age          one commit each
//! dead_letters ┴──────▶ buffer ────────────────▶ Parquet ───────────────▶ bronze/bad, then bronze/events
//! ```
//! [`tables`] defines every table once; [`table::Table`] commits files and progress together, exactly once.
//! Guarantee: a record is in bronze once, whatever crashes; log positions stand in the Delta commit that holds the
//! rows up to them. Deletes nothing but what [`maintenance`] and [`erase`] may.

pub mod archiver;
pub mod billed_sums;
mod buffer;
mod change;
pub mod columns;
mod commit;
pub mod convert;
pub mod create_once;
pub mod erase;
pub mod erasures;
pub mod error;
pub mod file;
mod local_store;
pub mod maintenance;
pub mod positions;
pub mod probe;
pub mod reader;
pub mod root;
pub mod run_record;
mod schema;
pub mod sort;
#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
mod store_clients;
pub mod stores;
pub mod subject;
pub mod table;
pub mod tables;
mod upload;

pub use archiver::{Archiver, Settings};
pub use error::Error;
pub use root::LakeRoot;
pub use table::Table;

//! Serving: store, query, show. The end of both walks: speed and reconcile write the store, this crate answers.
//!
//! ```text
//! speed ──upsert_approximate──▶ ┌───────────────┐ ◀─overwrite_exact── reconcile
//!                               │ EmbeddedStore │ or ClickHouse
//!                               └───────┬───────┘
//!            tiles (one computation per question and second, 1,024 kept)
//!                ads · campaigns · top · pipeline · live ─▶ HTTP, SSE (256 streams), dashboard
//!        drift, settlement ◀── reports/drift/, settlement/ in the data root's object store
//! ```
//!
//! Guarantees: exact beats approximate for ever ([`EmbeddedStore`]); every row says how final it is and every report
//! as of when; a tenant sees its own and cannot tell another's from nothing; the speed layer's outage makes numbers
//! stale, never an error. On crash: nothing is lost, the store is a database and the rest is read-only.
//! Never: writes anything but the store, calls another layer, loads anything from another host.

mod access;
mod ads;
mod answer;
mod api_keys;
mod bounds;
mod campaigns;
mod context;
mod dashboard;
mod docs;
mod drift;
mod error;
mod explain;
mod freshness;
mod health;
mod live;
mod objects;
mod paging;
mod params;
mod pipeline;
mod problems;
mod retention;
mod routes;
mod rows;
mod server;
mod settings;
mod settlement;
mod store;
mod stream;
mod tenants;
mod tiles;
mod top;

pub use api_keys::{ApiKey, ApiKeyFile, ApiKeys, KEY_RANDOM_BYTES, KeyStatus, NewKey, Scope, Tenant};
pub use context::{Deps, MetricsText};
pub use error::{Error, KeysError};
pub use objects::rooted;
pub use retention::Settings as Retention;
pub use server::Serving;
pub use settings::Settings;
pub use store::EmbeddedStore;
#[cfg(feature = "clickhouse")]
pub use store::clickhouse;
pub use tenants::Tenants;

//! Serving: store, query, show.

mod api_keys;
mod error;
mod settings;
mod store;

pub use api_keys::*;
pub use error::{Error, KeysError};
pub use settings::Settings;
pub use store::EmbeddedStore;

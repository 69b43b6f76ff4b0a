//! What every implementation of a port must do, as tests that take the implementation as a parameter.

pub mod directory;
pub mod event_log;
pub mod serving_store;

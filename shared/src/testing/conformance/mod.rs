//! What every implementation of a port must do, as tests that take the implementation as a parameter.

pub mod serving_store;

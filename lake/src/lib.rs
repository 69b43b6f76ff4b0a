//! To be written.

pub mod run_record;

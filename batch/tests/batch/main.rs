//! Batch at its public edge.
#![allow(missing_docs)]

mod gate;
mod help;
mod law;
mod model;
mod runs;

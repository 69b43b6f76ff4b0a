//! The lake at its public edge.
#![allow(missing_docs)]

mod archiver;
mod convert;
mod crash;
mod help;
mod maintenance;
mod table;

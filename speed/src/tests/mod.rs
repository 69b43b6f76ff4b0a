//! Tests of the whole layer: any events, any batching, any crash, against a naive recount.

mod disk;
pub(crate) mod events;
mod faults;
mod group;
mod harness;
mod law;
mod objects;
mod recount;
mod run;
mod worker;

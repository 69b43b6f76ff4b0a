//! The binary: parse, run, and the exit code that says what to do next.

use std::process::ExitCode;

use clap::Parser;

/// Small values are made on one thread and freed on another, which costs the system's allocator CPU and pauses:
/// docs/adr/0007-allocator.md has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    clickledger::run(clickledger::cli::Cli::parse())
}

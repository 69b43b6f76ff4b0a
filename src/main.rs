//! The binary: parse, run, and the exit code that says what to do next.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    clickledger::run(clickledger::cli::Cli::parse())
}

//! clickledger: counts ad clicks twice — now, approximately, and at T+1, exactly.
//!
//! Two walks: *click → log → speed → serving* and *log → lake → batch → reconcile → serving*. This crate is the
//! composition root and the command line; every rule lives in the layer crates. [`wiring`] is the only file that
//! names them all.

pub mod cli;
pub mod client;
mod commands;
mod dedup;
mod directory;
mod exit;
pub mod explain;
pub mod folder;
pub mod logs;
pub mod output;
pub mod price_store;
pub mod settings;
mod settlement_keys;
pub mod simulate;
pub mod stores;
pub mod traffic;
pub mod wiring;

use std::process::ExitCode;

use cli::Cli;

/// Runs a parsed command line and answers its exit code (contract 3).
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    shared::telemetry::start_logging(&cli.global.log, false);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("TLS has its cryptography already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return exit::report(&anyhow::Error::new(e).context("cannot start the runtime")),
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::report(&error),
    }
}

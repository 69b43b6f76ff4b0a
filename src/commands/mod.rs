//! One file per group of commands. Each turns flags into calls of the layers and results into output.

mod adjust;
mod ads;
mod bad;
mod batch;
mod config;
mod days;
mod demo;
mod demo_money;
mod dispute;
mod doctor;
mod explain;
mod fetch;
mod import;
#[cfg(feature = "kafka")]
mod kafka;
mod keys;
mod lake;
mod ledger;
#[cfg(feature = "postgres")]
mod postgres;
mod prices;
mod privacy;
mod reconcile;
mod replay;
mod repriced;
mod roles;
mod serving;
mod settlement;
mod simulate;
mod whatif;

use crate::cli::{Cli, Command, Global};
use crate::settings::Settings;
use crate::wiring::Parts;

/// What a command answers: its exit code.
pub(crate) type Done = anyhow::Result<u8>;

/// The settings this command line asks for.
pub(crate) fn settings(global: &Global) -> anyhow::Result<Settings> {
    let mut settings = Settings::load(global.config.as_deref(), std::env::vars())?;
    if let Some(data) = &global.data {
        settings.data.clone_from(data);
    }
    Ok(settings)
}

/// Runs one command.
pub(crate) async fn run(cli: Cli) -> Done {
    let global = cli.global;
    if let Command::Config(command) = &cli.command {
        return config::run(&global, command);
    }
    let parts = Parts::new(settings(&global)?);
    let output = global.output;
    match cli.command {
        Command::Demo(args) => demo::run(parts, &args, output).await,
        Command::Up(args) => roles::run(parts, roles::Role::ALL, args.run_for).await,
        Command::Gateway(args) => roles::run(parts, &[roles::Role::Gateway], args.run_for).await,
        Command::Speed(args) => roles::run(parts, &[roles::Role::Speed], args.run_for).await,
        Command::Serving(args) => serving::run(parts, args, output).await,
        Command::Lake(args) => lake::run(parts, args, output).await,
        Command::Replay(args) => replay::run(&parts, &args).await,
        Command::Simulate(args) => simulate::run(&parts, &args).await,
        Command::Import(args) => import::run(&parts, &args.files, output).await,
        Command::Ads(command) => ads::run(&parts, command, output).await,
        Command::Batch(command) => batch::run(&parts, command, output).await,
        Command::Prices(command) => prices::run(&parts, command, output).await,
        Command::Reconcile(command) => reconcile::run(&parts, command).await,
        Command::Settlement(command) => settlement::run(&parts, command, output).await,
        Command::Days(args) => days::run(&parts, &args, output).await,
        Command::Adjust(command) => adjust::run(&parts, command, output).await,
        Command::Ledger(command) => ledger::run(&parts, command, output).await,
        Command::Explain(command) => explain::run(&parts, command, output).await,
        Command::Bad(command) => bad::run(&parts, command, output).await,
        Command::Privacy(command) => privacy::run(&parts, command, output).await,
        Command::Keys(command) => keys::run(&parts, command, output).await,
        Command::Sign(args) => keys::sign(&parts, &args, output),
        #[cfg(feature = "kafka")]
        Command::Kafka(command) => kafka::run(&parts, command).await,
        #[cfg(feature = "postgres")]
        Command::Postgres(command) => postgres::run(&parts, command).await,
        Command::Doctor => doctor::run(&parts, output).await,
        Command::Config(_) => Ok(0),
    }
}

//! The command line (contract 3): what a person, cron or Airflow types.
//! Logs and progress go to stderr; a job prints exactly one JSON line last on stdout. No business rule here.

mod access;
mod data;
mod day;
mod money;
mod roles;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use access::{ConfigCommand, ErasePolicy, KeySort, Keys, Privacy, Sign, expiry};
pub use data::{Ads, Bad, Import, Prices, Simulate};
pub use day::{Batch, BatchRun, Days, DaysArgs, Engine, Explain, Reconcile};
pub use money::{Adjust, AmountUnit, Ledger, Per, Postings, Settlement, SettlementDiff};
pub use roles::{Demo, Kafka, Lake, LakeArgs, Postgres, Replay, Roles, Serving, ServingArgs};

/// Counts ad clicks twice: now, approximately, and at T+1, exactly, to the micro.
///
/// Try it:  clickledger demo
///
/// Exit codes: 0 ok · 2 usage or bad input · 10 input not ready (retry later) · 11 drift over tolerance ·
/// 12 another run holds the day · 13 integrity failure · 70 a bug · 75 dependency unavailable (retry) ·
/// 99 already final.
#[derive(Debug, Parser)]
#[command(name = "clickledger", version, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Settings file; every key can also be set by environment, such as CLICKLEDGER__SPEED__FLUSH_INTERVAL=5s.
    #[arg(long, global = true, env = "CLICKLEDGER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder of the embedded mode.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// What is logged to stderr, as in RUST_LOG.
    #[arg(long, global = true, default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// How results are printed on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// RFC 4180, with a header.
    Csv,
}

/// The commands, in the order a new user meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See the whole product in about a minute: traffic, dashboard, a closed day, a verified settlement.
    #[command(after_help = "Examples:\n  clickledger demo\n  clickledger demo --exit --data /tmp/demo")]
    Demo(Demo),
    /// Run every role in one process.
    #[command(after_help = "Example:\n  clickledger up --data ./clickledger-data")]
    Up(Roles),
    /// Run the gateway: clicks and events in, durable before they are answered.
    Gateway(Roles),
    /// Run the speed layer: log to approximate per-minute rows.
    Speed(Roles),
    /// The lake: with no subcommand, run the archiver; also maintenance.
    Lake(LakeArgs),
    /// The serving store: with no subcommand, run the query API and the dashboard; also moving to another store.
    Serving(ServingArgs),
    /// Put a part of the log once more through the speed layer, into a store of its own, to compare with what is shown.
    ///
    /// Positions are where speed began to read; what was claimed or clicked before them is not known to a replay. From the
    /// log's start it gives the rows that speed gave, whatever restarts there were.
    #[command(
        after_help = "Examples:\n  clickledger replay --to shadow.sqlite && clickledger serving verify --left shadow.sqlite \\\n    \
        --right clickledger-data/serving/rollups.sqlite --from 2026-01-05 --to 2026-01-05\n  \
        clickledger replay --from-time 2026-01-05T10:00:00Z --until-time 2026-01-05T12:00:00Z --to shadow.sqlite"
    )]
    Replay(Replay),
    /// Make traffic: to a file, a URL or the log. The same seed makes the same events.
    #[command(after_help = "Examples:\n  clickledger simulate --events 100000 --seed 7 --to history.ndjson\n  \
        clickledger simulate --rate 500 --duration 1m --to http://127.0.0.1:8080")]
    Simulate(Simulate),
    /// Append NDJSON history to the log (trusted: `ingestTime` is kept, unsigned rows are taken).
    #[command(after_help = "Example:\n  clickledger import 2026-01-05.ndjson 2026-01-06.ndjson")]
    Import(Import),
    /// The ad directory.
    #[command(subcommand)]
    Ads(Ads),
    /// The price book.
    #[command(subcommand)]
    Prices(Prices),
    /// The exact recount of a day: verdict for every event, gold tables, conservation gate.
    #[command(subcommand)]
    Batch(Batch),
    /// Make the serving store exact, report the drift, publish the settlement.
    #[command(subcommand)]
    Reconcile(Reconcile),
    /// The files finance pulls.
    #[command(subcommand)]
    Settlement(Settlement),
    /// Where every billing day stands: open, closing, closed, settled, restated; and through which all are settled.
    #[command(after_help = "Examples:\n  clickledger days\n  clickledger days --from 2026-01-01 --output json")]
    Days(DaysArgs),
    /// Signed corrections of billing days: each counts once, and none changes what was settled before.
    #[command(subcommand)]
    Adjust(Adjust),
    /// Double-entry postings of everything that was settled.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Where a number comes from: the life of one event, a campaign's way from archived to due.
    #[command(subcommand)]
    Explain(Explain),
    /// What was refused: look at it, and replay it once it is mended.
    #[command(subcommand)]
    Bad(Bad),
    /// People who ask to be forgotten.
    #[command(subcommand)]
    Privacy(Privacy),
    /// API keys, click-signing keys and settlement keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Sign a click or impression URL.
    #[command(after_help = "Example:\n  clickledger sign --ad ad-1 --impression imp-1 --valid 24h")]
    Sign(Sign),
    /// Kafka's topics.
    #[cfg(feature = "kafka")]
    #[command(subcommand)]
    Kafka(Kafka),
    /// The ad directory's tables in PostgreSQL.
    #[cfg(feature = "postgres")]
    #[command(subcommand)]
    Postgres(Postgres),
    /// The settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check this machine and folder: disk sync, ports, log, lake, keys, clock; says what to change.
    Doctor,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn days_are_one_or_a_range() {
        let days = |args: &[&str]| {
            let cli =
                Cli::try_parse_from([&["clickledger", "batch", "run"], args].concat()).map_err(|e| e.to_string())?;
            let Command::Batch(Batch::Run(run)) = cli.command else { unreachable!() };
            run.days.list()
        };
        assert_eq!(days(&["--date", "2026-01-05"]).unwrap().len(), 1);
        assert_eq!(days(&["--from", "2026-01-30", "--to", "2026-02-02"]).unwrap().len(), 4);
        for bad in
            [&["--from", "2026-01-05"][..], &["--from", "2026-01-05", "--to", "2026-01-04"], &[], &["--date", "5.1."]]
        {
            assert!(days(bad).is_err(), "{bad:?}");
        }
    }
}

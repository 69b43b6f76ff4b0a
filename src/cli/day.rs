//! The commands that make a day exact and tell how it stands.

#[cfg(feature = "ballista")]
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
#[cfg(feature = "ballista")]
use shared::config::Span;
use shared::time::Day;

/// Which days a job works on.
#[derive(Debug, Clone, Args)]
pub struct Days {
    /// One UTC day, YYYY-MM-DD.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub date: Option<Day>,
    /// The first day.
    #[arg(long, requires = "to")]
    pub from: Option<Day>,
    /// The last day (inclusive).
    #[arg(long, requires = "from")]
    pub to: Option<Day>,
}

impl Days {
    /// The days named, in order.
    ///
    /// # Errors
    /// A sentence when none is named or the range is empty.
    pub fn list(&self) -> Result<Vec<Day>, String> {
        match (self.date, self.from, self.to) {
            (Some(day), ..) => Ok(vec![day]),
            (None, Some(from), Some(to)) if from <= to => Ok((from.0..=to.0).map(Day).collect()),
            (None, Some(from), Some(to)) => Err(format!("--from {from} is after --to {to}")),
            _ => Err("name the day: --date YYYY-MM-DD, or --from and --to".to_owned()),
        }
    }
}

/// `batch …`.
#[derive(Debug, Subcommand)]
pub enum Batch {
    /// Exit 0 when a day can be recomputed, 10 when not yet.
    Ready {
        /// The day.
        #[command(flatten)]
        days: Days,
    },
    /// Recompute a day (or a range, one after the other).
    #[command(
        visible_alias = "backfill",
        after_help = "Examples:\n  clickledger batch run --date 2026-01-05\n  \
        clickledger batch run --from 2026-01-01 --to 2026-01-31 --dry-run --rules window-1h.toml\n  \
        clickledger batch run --date 2026-01-05 --dry-run --prices offer.csv\n  \
        clickledger batch run --date 2026-01-05 --engine ballista"
    )]
    Run(BatchRun),
    /// Run the scheduler of a cluster that judges events for `batch run --engine ballista`.
    ///
    /// Whoever reaches its port can run plans on the cluster: it belongs into a private network.
    #[cfg(feature = "ballista")]
    #[command(after_help = "Example:\n  clickledger batch scheduler --bind 10.0.0.5:50050")]
    Scheduler {
        /// Where runs and executors find it.
        #[arg(long, default_value = "127.0.0.1:50050", value_name = "ADDRESS")]
        bind: SocketAddr,
        /// How long an executor may be silent before others get its work; at least 10s.
        #[arg(long, default_value = "30s", value_name = "DURATION")]
        executor_timeout: Span,
    },
    /// Run an executor of a cluster: it judges buckets of events of the lake that its settings name.
    #[cfg(feature = "ballista")]
    #[command(after_help = "Examples:\n  clickledger batch executor\n  \
        clickledger batch executor --scheduler http://10.0.0.5:50050 --bind 10.0.0.6:50051 --threads 8")]
    Executor {
        /// The scheduler (default: setting batch.ballista.scheduler_url).
        #[arg(long, value_name = "URL")]
        scheduler: Option<String>,
        /// Where runs fetch what was found.
        #[arg(long, default_value = "127.0.0.1:50051", value_name = "ADDRESS")]
        bind: SocketAddr,
        /// The host name under which runs reach it, where that is not the address.
        #[arg(long, value_name = "HOST")]
        advertise: Option<String>,
        /// Buckets at once (default: all cores, as many as fit into batch.memory_limit).
        #[arg(long)]
        threads: Option<usize>,
    },
}

/// Where events are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// In this process.
    Local,
    /// On the cluster of the setting batch.ballista.scheduler_url.
    Ballista,
}

/// `batch run`.
#[derive(Debug, Args)]
pub struct BatchRun {
    /// The days.
    #[command(flatten)]
    pub days: Days,
    /// Compute everything, publish nothing, show by campaign and verdict what would change against the standing run.
    #[arg(long)]
    pub dry_run: bool,
    /// Rules that differ from the settings (TOML or JSON with keys of the `counting` section).
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// What if these were the prices (CSV as of `prices import`)? They replace all prices of the campaigns they name.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub prices: Option<PathBuf>,
    /// Where events are judged: here, or on a Ballista cluster (default: setting batch.engine).
    #[arg(long, value_enum)]
    pub engine: Option<Engine>,
    /// Recompute even when no input changed, and before the close time.
    #[arg(long)]
    pub force: bool,
    /// Threads (default: all cores).
    #[arg(long)]
    pub threads: Option<usize>,
}

/// `reconcile …`.
#[derive(Debug, Subcommand)]
pub enum Reconcile {
    /// Compare, overwrite what differs, report the drift, publish the settlement.
    #[command(after_help = "Example:\n  clickledger reconcile run --date 2026-01-05")]
    Run {
        /// The days.
        #[command(flatten)]
        days: Days,
        /// Overwrite even when the drift is over tolerance.
        #[arg(long)]
        force: bool,
    },
    /// Fill an empty serving store from gold.
    Rebuild,
}

/// `days`.
#[derive(Debug, Args)]
pub struct DaysArgs {
    /// Not before this day.
    #[arg(long)]
    pub from: Option<Day>,
    /// Not after this day.
    #[arg(long)]
    pub to: Option<Day>,
}

/// `explain …`.
#[derive(Debug, Subcommand)]
pub enum Explain {
    /// Where an event was logged, what its verdict is and why, what it cost, where it is settled.
    #[command(after_help = "Example:\n  clickledger explain event 0198c2f0-5b1e-7c3a-9d55-2f6a1c0b7e11")]
    Event {
        /// The event id.
        id: String,
        /// Also look through what was refused for the id (reads every refused byte).
        #[arg(long)]
        refused: bool,
    },
    /// A campaign's day as a waterfall that sums: archived, less each verdict, billable, priced, rounded, settled, due.
    #[command(after_help = "Example:\n  clickledger explain campaign camp-1 --date 2026-01-05")]
    Campaign {
        /// The campaign.
        id: String,
        /// The UTC day.
        #[arg(long)]
        date: Day,
    },
}

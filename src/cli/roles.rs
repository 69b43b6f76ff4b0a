//! The commands that run roles, and those that prepare and keep what they stand on.

use clap::{Args, Subcommand};
use shared::config::Span;
use shared::time::{Day, Timestamp};

/// `postgres`.
#[cfg(feature = "postgres")]
#[derive(Debug, Subcommand)]
pub enum Postgres {
    /// Make the tables and the roles clickledger_reader and clickledger_writer where they are missing, as their owner.
    #[command(after_help = "Example:\n  clickledger postgres ensure --config production.toml")]
    Ensure,
}

/// `kafka`.
#[cfg(feature = "kafka")]
#[derive(Debug, Subcommand)]
pub enum Kafka {
    /// Make the topics where they are missing, and say where they fall short of what the guarantees need (exit 2).
    #[command(
        after_help = "Example:\n  CLICKLEDGER__KAFKA__BOOTSTRAP=kafka-1:9092,kafka-2:9092 clickledger kafka ensure"
    )]
    Ensure,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// End after the verified settlement instead of serving until Ctrl-C.
    #[arg(long)]
    pub exit: bool,
    /// Events per second.
    #[arg(long, default_value_t = 400)]
    pub rate: u64,
    /// Seed of the traffic.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds of traffic before the demo's day ends.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(10..=600))]
    pub seconds: u64,
}

/// `up` and the single roles.
#[derive(Debug, Args)]
pub struct Roles {
    /// Stop after this long (for trials; default: until Ctrl-C or SIGTERM).
    #[arg(long, value_name = "DURATION")]
    pub run_for: Option<Span>,
}

/// `lake`.
#[derive(Debug, Args)]
pub struct LakeArgs {
    /// Maintenance instead of the archiver.
    #[command(subcommand)]
    pub command: Option<Lake>,
    /// Roles' flags.
    #[command(flatten)]
    pub roles: Roles,
    /// Archive what is in the log now, then end.
    #[arg(long)]
    pub drain: bool,
}

/// `serving`.
#[derive(Debug, Args)]
pub struct ServingArgs {
    /// Something else than the API.
    #[command(subcommand)]
    pub command: Option<Serving>,
    /// Roles' flags.
    #[command(flatten)]
    pub roles: Roles,
}

/// `serving …`.
#[derive(Debug, Subcommand)]
pub enum Serving {
    /// Bring the store to the newest schema, as a user who may create tables; roles do it too, if they may.
    #[command(after_help = "Examples:\n  clickledger serving migrate\n  \
        clickledger serving migrate --cluster --cold-after-days 30")]
    Migrate {
        /// ClickHouse: tables over all shards of the cluster that the macro `cluster` names. Run it on every node.
        #[arg(long)]
        cluster: bool,
        /// ClickHouse: move days this old to the volume `cold` of the storage policy `tiered`.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        cold_after_days: Option<u32>,
    },
    /// Compare two stores that are fed from one log, by campaign and day: rows, counts and cost (exit 13 when any differs).
    #[command(
        after_help = "Example:\n  clickledger serving verify --left clickledger-data/serving/rollups.sqlite \\\n    \
        --right http://clickhouse:8123/clickledger --from 2026-01-05 --to 2026-01-06"
    )]
    Verify {
        /// A store: the file of an embedded one, or http://host:port/database.
        #[arg(long, value_name = "STORE")]
        left: String,
        /// The other.
        #[arg(long, value_name = "STORE")]
        right: String,
        /// The first UTC day.
        #[arg(long)]
        from: Day,
        /// The last UTC day.
        #[arg(long)]
        to: Day,
    },
}

/// `lake …`.
#[derive(Debug, Subcommand)]
pub enum Lake {
    /// Merge small files; running archivers are not disturbed.
    Optimize {
        /// Only this day.
        #[arg(long)]
        date: Option<Day>,
    },
    /// Remove files no version within the retention, and no settlement, still needs.
    Vacuum {
        /// Keep files younger than this.
        #[arg(long, default_value = "7d")]
        retention: Span,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Tables, versions, files, rows and bytes.
    Stats,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Begin with what was appended at or after this instant, RFC 3339; else with what the log still has.
    #[arg(long, value_name = "TIME")]
    pub from_time: Option<Timestamp>,
    /// Begin in a partition at this position instead; separated by commas.
    #[arg(long, value_name = "PARTITION:POSITION", value_delimiter = ',')]
    pub from_position: Vec<String>,
    /// End before what was appended at or after this instant; else where the log ends now.
    #[arg(long, value_name = "TIME")]
    pub until_time: Option<Timestamp>,
    /// An empty store: the file of an embedded one, made if it is not there, or http://host:port/database.
    #[arg(long, value_name = "STORE")]
    pub to: String,
}

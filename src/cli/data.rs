//! The commands by which events, ads and prices come in, and what was refused.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use shared::config::Span;
use shared::time::Day;

/// `simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// A file, `log:` (the embedded log), or the gateway's URL.
    #[arg(long, value_name = "FILE|log:|URL", default_value = "history.ndjson")]
    pub to: String,
    /// How many events (files and log).
    #[arg(long, default_value_t = 100_000)]
    pub events: u64,
    /// Events per second (URL).
    #[arg(long, default_value_t = 200)]
    pub rate: u64,
    /// How long (URL).
    #[arg(long, default_value = "1m")]
    pub duration: Span,
    /// The same seed makes the same events.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many ads.
    #[arg(long, default_value_t = 1_000)]
    pub ads: u32,
    /// Skew of traffic over ads (Zipf exponent, in hundredths).
    #[arg(long, default_value_t = 105)]
    pub zipf: u32,
    /// Duplicates per thousand events.
    #[arg(long, default_value_t = 10)]
    pub duplicates: u32,
    /// Late events per thousand.
    #[arg(long, default_value_t = 10)]
    pub late: u32,
    /// Bot events per thousand.
    #[arg(long, default_value_t = 10)]
    pub bots: u32,
    /// First day of a history file.
    #[arg(long, default_value = "2026-01-05")]
    pub from: Day,
    /// How many days a history file covers.
    #[arg(long, default_value_t = 3)]
    pub days: u32,
}

/// `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// NDJSON files, in order.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `ads …`.
#[derive(Debug, Subcommand)]
pub enum Ads {
    /// Import ads (CSV columns adId,campaignId,advertiserId,url,status; or NDJSON with those fields).
    Import {
        /// The file.
        file: PathBuf,
    },
    /// List ads.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Start after this ad.
        #[arg(long)]
        after: Option<String>,
    },
}

/// `prices …`.
#[derive(Debug, Subcommand)]
pub enum Prices {
    /// Import prices (CSV columns campaignId,model,priceMicros,currency,validFrom), all rows or none.
    #[command(after_help = "Examples:\n  clickledger prices import prices.csv --dry-run\n  \
        clickledger prices import prices.csv")]
    Import {
        /// The file.
        file: PathBuf,
        /// Only say what would change: which campaign from when, on which open and settled days, and the cost of the open
        /// ones (their events are counted again under both price books).
        #[arg(long)]
        dry_run: bool,
        /// Take prices of campaigns that the ad directory does not know.
        #[arg(long)]
        any_campaign: bool,
    },
    /// List prices.
    #[command(after_help = "Examples:\n  clickledger prices list\n  clickledger prices list --gaps --output csv")]
    List {
        /// Only campaigns of the ad directory that have no price in force now.
        #[arg(long)]
        gaps: bool,
    },
}

/// `bad …`.
#[derive(Debug, Subcommand)]
pub enum Bad {
    /// Count refusals by day, reason and stage.
    List,
    /// Show refused bytes.
    Show {
        /// Only this reason.
        #[arg(long)]
        reason: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Try refused JSON again through the import path (after mending what refused it).
    Replay {
        /// Only this reason.
        #[arg(long)]
        reason: String,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
}

//! The commands around settlements, adjustments and the ledger.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use shared::time::Day;

/// `settlement …`.
#[derive(Debug, Subcommand)]
pub enum Settlement {
    /// Every published version.
    List,
    /// One manifest.
    Show {
        /// The day.
        #[arg(long)]
        date: Day,
        /// The version (default: the newest).
        #[arg(long)]
        settlement_version: Option<u32>,
    },
    /// Hold a partner's numbers beside ours and say which difference of method explains the distance. Exit 11 when a
    /// total is apart by more than the tolerance.
    #[command(
        after_help = "Examples:\n  clickledger settlement diff --theirs report.csv --date 2026-01-05 --html dispute.html\n  \
        clickledger settlement diff --theirs hours.parquet --zone +02:00 --map 'campaign=Campaign ID,amount=Spend'\n  \
        clickledger settlement diff --theirs clicks.csv ./clickledger-data/settlement/day=2026-01-05/v=1"
    )]
    Diff(Box<SettlementDiff>),
    /// Check a settlement, or a proof against it; needs nothing but its folder (or the URL of its files).
    #[command(
        after_help = "Examples:\n  clickledger settlement verify clickledger-data/settlement/day=2026-01-05/v=1\n  \
        clickledger settlement verify --key keys.json --proof proof.json FOLDER\n  \
        clickledger settlement verify http://127.0.0.1:8081/v1/reports/reconcile/2026-01-05/files"
    )]
    Verify {
        /// The folder that holds manifest.json and manifest.sig, its URL in an object store (s3://BUCKET/PATH), or
        /// http://HOST:PORT/v1/reports/reconcile/DAY/files.
        #[arg(value_name = "FOLDER|URL")]
        folder: PathBuf,
        /// The API key, for a URL.
        #[arg(long, env = "CLICKLEDGER_API_KEY", hide_env_values = true, value_name = "KEY")]
        api_key: Option<String>,
        /// Check this proof against the manifest alone, instead of the folder's lines.
        #[arg(long, value_name = "FILE")]
        proof: Option<PathBuf>,
        /// Who must have signed: a public key (base64), or a file with one or with a list (settlement/keys.json) that
        /// you got by another way than the folder.
        #[arg(long, value_name = "KEY|FILE")]
        key: Option<String>,
    },
    /// Prove of one event that it is billed in a settlement, or that it is not, without showing any other.
    #[command(after_help = "Example:\n  clickledger settlement prove --event EVENT_ID --date 2026-01-05 > proof.json")]
    Prove {
        /// The event.
        #[arg(long, value_name = "ID")]
        event: String,
        /// The billing day; absent: whichever settled day bills it.
        #[arg(long)]
        date: Option<Day>,
        /// The version (default: the newest).
        #[arg(long, requires = "date")]
        settlement_version: Option<u32>,
    },
}

/// `settlement diff`.
#[derive(Debug, Args)]
pub struct SettlementDiff {
    /// Their file: CSV (also gzipped) or Parquet; by campaign and day, campaign and hour, or click.
    #[arg(long, value_name = "FILE")]
    pub theirs: PathBuf,
    /// The settlement that is disputed (default: the newest of each of their days).
    #[arg(conflicts_with = "date")]
    pub folder: Option<PathBuf>,
    /// Only this day of theirs; needed where their file has no dates.
    #[arg(long)]
    pub date: Option<Day>,
    /// Their columns: campaign, event, date, time, impressions, clicks, conversions, amount, currency (others are
    /// found by their usual names).
    #[arg(long, value_name = "FIELD=COLUMN,…", conflicts_with = "map_file")]
    pub map: Option<String>,
    /// The same from a file (TOML or JSON).
    #[arg(long, value_name = "FILE")]
    pub map_file: Option<PathBuf>,
    /// What one row is about (default: found from the columns).
    #[arg(long, value_enum)]
    pub per: Option<Per>,
    /// The unit of their amounts (default: micros where the column's name ends in it, else decimal).
    #[arg(long, value_enum)]
    pub amount: Option<AmountUnit>,
    /// The currency of their amounts, where no column says it.
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
    /// The time zone their file is in, such as +02:00.
    #[arg(long, value_name = "OFFSET", default_value = "UTC", allow_hyphen_values = true)]
    pub zone: String,
    /// How far two numbers may lie apart, in percent of ours.
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    pub tolerance: u32,
    /// Write the comparison as a page for people.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// What one row of a partner's file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Per {
    /// A campaign's day.
    Day,
    /// A campaign's hour.
    Hour,
    /// One click.
    Click,
}

/// The unit of a partner's amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AmountUnit {
    /// Integer micros.
    Micros,
    /// Decimal of the currency.
    Decimal,
}

/// `adjust …`.
#[derive(Debug, Subcommand)]
pub enum Adjust {
    /// Import adjustments, all rows or none; the next `reconcile run` of their days settles them.
    ///
    /// CSV or NDJSON with adjustmentId, day, campaignId, adId (optional), currency, impressions, clicks, conversions and
    /// amountMicros (signed; absent is 0), reason, note, actor, corrects (a sequence or DAY/VERSION; optional).
    #[command(after_help = "Examples:\n  clickledger adjust import review.csv --dry-run\n  \
        clickledger adjust import review.csv && clickledger reconcile run --date 2026-01-05")]
    Import {
        /// A .csv or .ndjson file.
        file: PathBuf,
        /// Check everything, add nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take in what other systems published on the topic kafka.adjustments_topic since the last time.
    ///
    /// A record is one JSON object with the fields of an imported row. `reconcile run` does this first by itself. What is
    /// no adjustment, or contradicts one that is there, goes to the topic's .dlq with the reasons.
    #[cfg(feature = "kafka")]
    #[command(after_help = "Example:\n  clickledger adjust receive && clickledger adjust list")]
    Receive,
    /// List adjustments, and whether their signatures hold.
    #[command(after_help = "Example:\n  clickledger adjust list --date 2026-01-05 --output csv")]
    List {
        /// Only this billing day.
        #[arg(long)]
        date: Option<Day>,
    },
}

/// `ledger …`.
#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// Every account's balance; all of them together are zero in every currency.
    #[command(after_help = "Examples:\n  clickledger ledger balance\n  \
        clickledger ledger balance --date 2026-01-05 --campaign campaign-1")]
    Balance(Postings),
    /// Every posting, by transaction.
    #[command(after_help = "Example:\n  clickledger ledger list --date 2026-01-05 --output csv")]
    List(Postings),
}

/// Which postings.
#[derive(Debug, Args)]
pub struct Postings {
    /// Only this billing day.
    #[arg(long)]
    pub date: Option<Day>,
    /// Only this campaign.
    #[arg(long)]
    pub campaign: Option<String>,
}

//! The command line (contract 3): what a person, cron or Airflow types.
//! Logs and progress go to stderr; a job prints exactly one JSON line last on stdout. No business rule here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::config::Span;
use shared::time::{Day, Timestamp};

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
        clickledger batch run --date 2026-01-05 --dry-run --prices offer.csv"
    )]
    Run(BatchRun),
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
    /// Where the job runs.
    #[arg(long, default_value = "local", value_parser = ["local"])]
    pub engine: String,
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

/// `privacy …`.
#[derive(Debug, Subcommand)]
pub enum Privacy {
    /// Take a person out of the lake: their pseudonym, visits, address hashes, browsers and pages, in every file.
    /// Counts, verdicts, costs and settlements stay as they are. Run again after a crash: it goes on.
    #[command(after_help = "Examples:\n  clickledger privacy erase --subject user-77 --dry-run\n  \
        echo user-77 | clickledger privacy erase --subject -")]
    Erase {
        /// The person's userPseudoId; - reads it from standard input.
        #[arg(long, value_name = "USER_PSEUDO_ID")]
        subject: String,
        /// What becomes of what the person's events were billed at.
        #[arg(long, value_enum, default_value_t = ErasePolicy::Keep)]
        policy: ErasePolicy,
        /// Only say what would be rewritten.
        #[arg(long)]
        dry_run: bool,
    },
    /// Every erasure: when, for whom (a keyed hash), what it rewrote.
    List,
}

/// What an erasure does to bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ErasePolicy {
    /// Counts and cost stay: they say nothing about a person.
    Keep,
    /// They are taken back by adjustments (reason privacy_erasure), which the next reconcile run settles.
    Adjust,
}

/// `keys …`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key. An API key is shown once.
    #[command(
        after_help = "Examples:\n  clickledger keys create api --tenant adv-1 --scopes reports\n  clickledger keys create signing\n  \
        clickledger keys create settlement"
    )]
    Create {
        /// Which sort.
        #[arg(value_enum)]
        sort: KeySort,
        /// The advertiser an API key is for; absent: all of them (operator).
        #[arg(long)]
        tenant: Option<String>,
        /// What an API key may do: reports, settlement, ops, sign.
        #[arg(long, value_delimiter = ',', default_value = "reports")]
        scopes: Vec<String>,
    },
    /// Make a new key in the place of the newest: links already out, and settlements already published, stay valid.
    Rotate {
        /// Which sort.
        #[arg(value_enum, default_value_t = KeySort::Signing)]
        sort: KeySort,
    },
    /// End a key.
    Revoke {
        /// Which sort.
        #[arg(value_enum)]
        sort: KeySort,
        /// The key's id.
        id: String,
    },
    /// List keys (never secrets).
    List,
}

/// The sorts of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeySort {
    /// For the query API.
    Api,
    /// For signing click URLs and events.
    Signing,
    /// For signing settlements.
    Settlement,
}

/// `sign`.
#[derive(Debug, Args)]
pub struct Sign {
    /// The ad.
    #[arg(long)]
    pub ad: String,
    /// The impression.
    #[arg(long)]
    pub impression: String,
    /// How long the link works.
    #[arg(long, default_value = "24h")]
    pub valid: Span,
    /// Sign an impression pixel instead of a click.
    #[arg(long)]
    pub pixel: bool,
    /// The gateway's public address.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub base: String,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the settings and report every problem at once.
    Check,
    /// Print the effective settings.
    Show,
    /// Write the default settings, with comments, to a file.
    Init {
        /// The file.
        #[arg(default_value = "clickledger.toml")]
        file: PathBuf,
    },
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

/// A link's expiry.
#[must_use]
pub fn expiry(now: Timestamp, valid: Span) -> Timestamp {
    now.plus(valid.as_micros())
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

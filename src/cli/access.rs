//! The commands around keys, people and settings.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use shared::config::Span;
use shared::time::Timestamp;

/// `privacy …`.
#[derive(Debug, Subcommand)]
pub enum Privacy {
    /// Take a person out of the lake: their pseudonym, visits, address hashes, browsers and pages, in every file.
    /// Counts, verdicts, costs and settlements stay as they are, but for what `--policy adjust` takes back. Run again
    /// after a crash: it goes on.
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

/// A link's expiry.
#[must_use]
pub fn expiry(now: Timestamp, valid: Span) -> Timestamp {
    now.plus(valid.as_micros())
}

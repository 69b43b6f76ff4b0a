//! The manifest: what a settlement folder holds and where it came from. Written last, never changed.
//! Guarantee: the same inputs give the same bytes; nothing in it is a wall-clock time.
//! It states the root of the Merkle tree over the billed events; its own signature stands beside it
//! ([`crate::signature`]).

use std::collections::BTreeMap;

use lake::run_record::{CaptureHour, HourConservation, PartitionConservation, integer_text};
use serde::{Deserialize, Serialize};
use shared::merkle::Root;
use shared::money::{Currency, Overflow};
use shared::rollup::Counts;
use shared::time::Day;
use shared::verdict::Counting;

use crate::adjusted::Adjusted;
use crate::checksum::sha256;
use crate::deltas::DeltaTotals;
use crate::lines::{EXCLUDED, Line};
use crate::signature::SIGNATURE;

/// The version of the manifest's form.
pub const SCHEMA_VERSION: u32 = 2;
/// Its file name.
pub const MANIFEST: &str = "manifest.json";
/// The coreutils checksum list beside it.
pub const CHECKSUMS: &str = "SHA256SUMS";
/// The adjustments of the day; there where the day has any.
pub const ADJUSTMENTS: &str = "adjustments.csv";
/// The signed differences of lines to the version before; there from version 2 on.
pub const DELTAS: &str = "deltas.csv";
/// The machine-readable notice of a restatement; there from version 2 on.
pub const NOTICE: &str = "restatement.json";

/// A settlement of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The billing day (UTC).
    pub day: Day,
    /// 1 for the day's first settlement, then one more with every restatement.
    pub version: u32,
    /// The version this one replaces; absent for the first.
    pub supersedes: Option<u32>,
    /// Why it exists, for a person.
    pub reason: String,
    /// Its number among all settlements of all days: 1, 2, 3, … without a gap.
    pub sequence: u64,
    /// The batch run the lines come from.
    pub run: u64,
    /// The columns of a CSV file, in order.
    pub columns: Vec<String>,
    /// The files of lines: Parquet and CSV hold the same lines, in the same parts.
    pub files: Vec<File>,
    /// Lines in the settlement (each once, though there are two forms of file).
    pub row_count: u64,
    /// SHA-256 of the lines without their version (docs/settlement.md says how): equal means nothing was restated.
    pub content_sha256: String,
    /// The tree over the billed events: equal means that the very same events are billed for the same prices.
    pub merkle: Root,
    /// Control totals by currency.
    pub totals: BTreeMap<Currency, Total>,
    /// Events of the day by verdict, every verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// The balance of the day.
    pub conservation: Conservation,
    /// The tables read, each at a version.
    pub inputs: Vec<Input>,
    /// The counting rules.
    pub counting: Counting,
    /// The price book.
    pub price_book_version: u32,
    /// What made it.
    pub generator: Generator,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// The files beside the lines: adjustments, what changed, the notice.
    pub attachments: Vec<Attachment>,
    /// The adjustments of the day known when this was published (`adjustments.csv`).
    pub adjustments: Adjusted,
    /// What is due by currency: the lines' amounts and the adjustments'.
    pub due_micros: BTreeMap<Currency, i64>,
    /// What changed since the version before; absent for the first.
    pub restatement: Option<Restatement>,
}

/// One file beside the lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attachment {
    /// Its name in the folder.
    pub path: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows: adjustments, changed lines, campaigns named.
    pub row_count: u64,
}

/// What a version changes: `previous` plus `deltas` is `totals`, to the nano.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restatement {
    /// The control totals of the version before.
    pub previous_totals: BTreeMap<Currency, Total>,
    /// What was due by it.
    pub previous_due_micros: BTreeMap<Currency, i64>,
    /// Σ of `deltas.csv` by currency.
    pub deltas: DeltaTotals,
    /// Adjustments that it did not have.
    pub adjustments_added: u64,
}

/// One file of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// Its name in the folder.
    pub path: String,
    /// Lower-case hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Its lines.
    pub row_count: u64,
    /// Σ cost_micros by currency.
    pub sum_cost_micros: BTreeMap<Currency, i64>,
}

/// Control totals in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Total {
    /// Lines.
    pub row_count: u64,
    /// Billable impressions.
    pub impressions: u64,
    /// Billable clicks.
    pub clicks: u64,
    /// Billable conversions.
    pub conversions: u64,
    /// Σ of the lines' rounded amounts: what is settled.
    pub cost_micros: i64,
    /// Σ of the unrounded amounts, in nanos: what the lines' amounts were rounded from.
    #[serde(with = "integer_text")]
    pub cost_nanos: i128,
}

/// The balance of the day, from the batch run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conservation {
    /// Events archived for the day: equal to Σ verdicts.
    pub archived: u64,
    /// By hour of billing time: archived = Σ verdicts.
    pub hours: Vec<HourConservation>,
    /// By log partition: events + bad = next − start.
    pub partitions: Vec<PartitionConservation>,
    /// By hour of ingest: received = archived + Σ refused, archived = accepted + untallied.
    pub capture: Vec<CaptureHour>,
    /// Refused before they became events, by reason.
    pub quarantined: BTreeMap<String, u64>,
}

/// One table read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub table: String,
    /// Its version.
    pub version: u64,
}

/// What made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Generator {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of the batch computation.
    pub batch_code_version: u32,
}

impl Manifest {
    /// The file's bytes: indented JSON and a line feed.
    ///
    /// # Errors
    /// When a value cannot be written (none here can fail).
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// From the file's bytes.
    ///
    /// # Errors
    /// When they are not a manifest of a schema version we know.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Every file that must be in the folder beside manifest and checksums: its name and its SHA-256.
    pub fn listed(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.files.iter().map(|f| (f.path.as_str(), f.sha256.as_str()));
        lines.chain(self.attachments.iter().map(|a| (a.path.as_str(), a.sha256.as_str())))
    }

    /// The attachment with this name.
    #[must_use]
    pub fn attachment(&self, path: &str) -> Option<&Attachment> {
        self.attachments.iter().find(|a| a.path == path)
    }

    /// The bytes of [`CHECKSUMS`], as `sha256sum` writes them: the files in order, the manifest, its signature.
    #[must_use]
    pub fn checksums(&self, manifest: &[u8], signature: &[u8]) -> Vec<u8> {
        let lines = self.listed().map(|(path, sha256)| (sha256.to_owned(), path));
        let all = lines.chain([(sha256(manifest), MANIFEST), (sha256(signature), SIGNATURE)]);
        all.map(|(sum, name)| format!("{sum}  {name}\n")).collect::<String>().into_bytes()
    }
}

/// What a set of lines adds up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) rows: u64,
    pub(crate) totals: BTreeMap<Currency, Total>,
    pub(crate) verdicts: BTreeMap<String, u64>,
}

impl Sums {
    /// Adds a line.
    pub(crate) fn add(&mut self, line: &Line) -> Result<(), Overflow> {
        self.rows += 1;
        let total = self.totals.entry(line.key.currency).or_default();
        let Total { impressions, clicks, conversions, cost_nanos, .. } = *total;
        let sum = Counts { impressions, clicks, conversions, cost_nanos }.merge(&line.counts)?;
        *total = Total {
            row_count: total.row_count + 1,
            impressions: sum.impressions,
            clicks: sum.clicks,
            conversions: sum.conversions,
            cost_micros: total.cost_micros.checked_add(line.cost_micros()?).ok_or(Overflow)?,
            cost_nanos: sum.cost_nanos,
        };
        add_count(&mut self.verdicts, "billable", line.billable()?)?;
        for ((verdict, _), count) in EXCLUDED.iter().zip(line.excluded) {
            add_count(&mut self.verdicts, verdict.as_str(), count)?;
        }
        Ok(())
    }

    /// Σ cost_micros by currency.
    pub(crate) fn cost_micros(&self) -> BTreeMap<Currency, i64> {
        self.totals.iter().map(|(currency, total)| (*currency, total.cost_micros)).collect()
    }
}

fn add_count(counts: &mut BTreeMap<String, u64>, name: &str, n: u64) -> Result<(), Overflow> {
    let count = counts.entry(name.to_owned()).or_default();
    *count = count.checked_add(n).ok_or(Overflow)?;
    Ok(())
}

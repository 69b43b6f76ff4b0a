//! The run record: what one batch run of one billing day read, decided and wrote. It is the last thing a run
//! commits (table `runs`), so gold that no record names is not visible; reconcile reads exactly the files named here.
//! Guarantee: a plain value. The same run gives the same JSON text, byte for byte.
//! Never: holds a wall-clock time; everything in it follows from the inputs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::merkle::Root;
use shared::money::Currency;
use shared::time::{Day, Timestamp};
use shared::verdict::Counting;

/// The version of this record's own form.
pub const FORMAT_VERSION: u32 = 2;

/// A record that does not read.
#[derive(Debug, thiserror::Error)]
#[error("the run record does not read: {0}")]
pub struct BadRecord(#[from] serde_json::Error);

/// Whether a run was the day's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// The day had no gold before.
    Computed,
    /// The day had gold, and it changed.
    Restated,
}

impl RunOutcome {
    /// The word used in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Restated => "restated",
        }
    }
}

/// One batch run of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The version of the computation: it rises when the same inputs give other bytes.
    pub code_version: u32,
    /// The billing day.
    pub day: Day,
    /// 1 for the day's first run, then one more each time; also the Delta transaction version of its tables.
    pub run: u64,
    /// First or again.
    pub outcome: RunOutcome,
    /// The pinned input tables (`bronze/events`, `bronze/bad`, …) and the version read of each.
    pub inputs: BTreeMap<String, u64>,
    /// What was written (`silver/events`, `gold/ad_minute`, `gold/campaign_hour`, `gold/billing_day`,
    /// `gold/proof_blocks`).
    pub outputs: BTreeMap<String, TableOutput>,
    /// The counting rules in force.
    pub counting: Counting,
    /// The price book read.
    pub price_book_version: u32,
    /// Σ of the day's verdicts, every verdict of `Verdict::ALL` by its text, zeros included.
    pub verdicts: BTreeMap<String, u64>,
    /// The tree over the billed events, one leaf each ([`shared::billed`]).
    pub merkle: Root,
    /// What was counted, by currency.
    pub totals: BTreeMap<Currency, Totals>,
    /// Conservation by hour of billing time: archived = Σ verdicts. All 24 hours, in order.
    pub hours: Vec<HourConservation>,
    /// Conservation by log partition: every position is an event or a bad record.
    pub partitions: Vec<PartitionConservation>,
    /// What came in, by hour of ingest: held against what the processes that took it in say. All 24 hours, in order.
    pub capture: Vec<CaptureHour>,
    /// What the day (of ingest) refused, by reason code: counts that never became events.
    pub quarantined: BTreeMap<String, u64>,
    /// Sentences for a person, sorted: campaigns without a price in force and the like.
    pub warnings: Vec<String>,
}

/// What a run wrote to one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableOutput {
    /// The table's version with this run's files in it.
    pub version: u64,
    /// The day's files, in row order.
    pub files: Vec<OutputFile>,
}

/// One file a run wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputFile {
    /// Relative to the table's folder, as in the Delta log (not URL-encoded).
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// Billable counts and unrounded cost in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Billable impressions.
    pub impressions: u64,
    /// Billable clicks.
    pub clicks: u64,
    /// Billable conversions.
    pub conversions: u64,
    /// Cost in nanos; text in JSON, where large integers are not safe.
    #[serde(with = "integer_text")]
    pub cost_nanos: i128,
}

/// One hour's balance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HourConservation {
    /// The start of the hour, UTC microseconds.
    pub hour: Timestamp,
    /// Bronze events that bill in this hour.
    pub archived: u64,
    /// By verdict text; absent means 0. Sums to `archived`.
    pub verdicts: BTreeMap<String, u64>,
}

/// What came in during one hour of ingest: `received = archived + Σ refused`, `archived = accepted + untallied`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureHour {
    /// The start of the hour, UTC microseconds.
    pub hour: Timestamp,
    /// Everything that came in.
    pub received: u64,
    /// Events that somebody was told were taken, by the tallies of whoever took them.
    pub accepted: u64,
    /// Archived events that no tally names: a killed process writes no tally of its last minute.
    pub untallied: u64,
    /// Events in the archive with an ingest time in this hour.
    pub archived: u64,
    /// What never became an event, by reason code (limits are one).
    pub refused: BTreeMap<String, u64>,
}

/// One log partition's balance over the whole archive: `events + bad = next - start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionConservation {
    /// `events` or `dead_letters`.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first position covered.
    pub start: u64,
    /// The position after the last covered one.
    pub next: u64,
    /// Rows in `bronze/events` in that range.
    pub events: u64,
    /// Rows in `bronze/bad` in that range.
    pub bad: u64,
}

impl RunRecord {
    /// The record as JSON text: one line, deterministic.
    ///
    /// # Errors
    /// [`BadRecord`] when a value cannot be written (none here can fail).
    pub fn to_json(&self) -> Result<String, BadRecord> {
        Ok(serde_json::to_string(self)?)
    }

    /// From [`RunRecord::to_json`].
    ///
    /// # Errors
    /// [`BadRecord`] when the text is not a record.
    pub fn from_json(text: &str) -> Result<Self, BadRecord> {
        Ok(serde_json::from_str(text)?)
    }

    /// The files written to `table`, if the run wrote to it.
    #[must_use]
    pub fn output(&self, table: &str) -> Option<&TableOutput> {
        self.outputs.get(table)
    }
}

/// 128-bit integers as JSON text.
pub mod integer_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the integer as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &i128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When the text is not an integer in range.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i128, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let eur = Currency::parse("EUR").unwrap();
        let record = RunRecord {
            format_version: FORMAT_VERSION,
            code_version: 1,
            day: Day(20_000),
            run: 3,
            outcome: RunOutcome::Restated,
            inputs: [("bronze/events".to_owned(), 17)].into(),
            outputs: [(
                "gold/ad_minute".to_owned(),
                TableOutput {
                    version: 4,
                    files: vec![OutputFile {
                        path: "a.parquet".to_owned(),
                        bytes: 9,
                        rows: 1,
                        sha256: "00".to_owned(),
                    }],
                },
            )]
            .into(),
            counting: Counting::default(),
            price_book_version: 2,
            verdicts: [("billable".to_owned(), 5)].into(),
            merkle: shared::merkle::root_of(&[shared::merkle::Hash256([7; 32])]),
            totals: [(eur, Totals { impressions: 1, clicks: 2, conversions: 2, cost_nanos: i128::MAX })].into(),
            hours: vec![HourConservation {
                hour: Day(20_000).start(),
                archived: 5,
                verdicts: [("billable".to_owned(), 5)].into(),
            }],
            partitions: vec![PartitionConservation {
                topic: "events".to_owned(),
                partition: 0,
                start: 0,
                next: 6,
                events: 5,
                bad: 1,
            }],
            capture: vec![CaptureHour {
                hour: Day(20_000).start(),
                received: 7,
                accepted: 5,
                untallied: 1,
                archived: 6,
                refused: [("limited".to_owned(), 1)].into(),
            }],
            quarantined: [("malformed".to_owned(), 1)].into(),
            warnings: vec!["campaign c has no price".to_owned()],
        };
        let text = record.to_json().unwrap();
        assert_eq!(RunRecord::from_json(&text).unwrap(), record);
        assert_eq!(RunRecord::from_json(&text).unwrap().to_json().unwrap(), text);
        assert!(text.contains(r#""costNanos":"170141183460469231731687303715884105727""#));
    }
}

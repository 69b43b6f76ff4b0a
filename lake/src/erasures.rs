//! The record of every erasure: which files it replaced by which twins (the same rows in the same order, without the
//! person), for whom (a keyed hash), when, under which policy. One JSON object each, `erasures/NNNNNN.json`.
//! Guarantee: a file that a run record or a pinned version names is found under its twin's name for ever; the record
//! is written before anything is replaced, so a crash leaves a plan that the next erasure or [`finish`] completes.
//! Never: holds an id of a person.
//!
//! [`finish`]: crate::erase::finish

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use shared::time::{Day, Timestamp};

use crate::billed_sums::BilledSum;
use crate::create_once::create_once;
use crate::error::Error;
use crate::root::LakeRoot;
use crate::run_record::{OutputFile, RunRecord};

/// The folder of the records within the lake.
const FOLDER: &str = "erasures";

/// What becomes of what an erased person's events were billed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// It stays: a count says nothing about a person.
    Keep,
    /// It is taken back by adjustments, one for each of the record's sums.
    Adjust,
}

impl Policy {
    /// The word used in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Adjust => "adjust",
        }
    }
}

/// How far an erasure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// The twins are stored; files are being replaced and removed.
    Planned,
    /// No file it names is left.
    Done,
}

/// One erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Erasure {
    /// 1, 2, 3, …
    pub number: u64,
    /// How far it is.
    pub state: State,
    /// A keyed hash of the person's pseudonym.
    pub subject: String,
    /// What became of what the person's events were billed at.
    pub policy: Policy,
    /// When it was asked for.
    pub at: Timestamp,
    /// When the event log has forgotten what it still holds.
    pub log_forgets_at: Timestamp,
    /// What it did to each table.
    pub tables: BTreeMap<String, ErasedTable>,
    /// What the person's events were billed at, under [`Policy::Adjust`]: nobody could find it out again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub billed: Vec<BilledSum>,
}

/// What an erasure did to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErasedTable {
    /// Rows that lost something.
    pub rows: u64,
    /// The table's version in which no file it names is left; absent while it is planned.
    pub version: Option<u64>,
    /// Files in whose place others stand.
    pub twins: Vec<Twin>,
    /// Files no version needed any more; they are removed without a twin.
    pub dropped: Vec<String>,
}

/// A file and what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twin {
    /// The path that is gone, within the table's folder.
    pub old: String,
    /// Its day.
    pub day: Day,
    /// The file without the person.
    pub new: OutputFile,
}

/// Every record, by number.
#[derive(Debug, Clone, Default)]
pub struct Erasures(Vec<Erasure>);

impl Erasures {
    /// Reads the records.
    ///
    /// # Errors
    /// `Unavailable`, or `Corrupt` when one does not read.
    pub async fn load(root: &LakeRoot) -> Result<Self, Error> {
        let store = root.store();
        let listed: Result<Vec<_>, _> = store.list(Some(&root.path(FOLDER))).try_collect().await;
        let listed = listed.map_err(|e| Error::unavailable("listing the erasures", e))?;
        let mut records = Vec::with_capacity(listed.len());
        for meta in listed.into_iter().filter(|m| m.location.as_ref().ends_with(".json")) {
            let doing = || format!("reading {}", meta.location);
            let got = store.get(&meta.location).await.map_err(|e| Error::storage(doing(), e))?;
            let bytes = got.bytes().await.map_err(|e| Error::storage(doing(), e))?;
            let record: Erasure =
                serde_json::from_slice(&bytes).map_err(|e| Error::Corrupt(format!("{}: {e}", meta.location)))?;
            records.push(record);
        }
        records.sort_by_key(|r| r.number);
        Ok(Self(records))
    }

    /// The records, oldest first.
    #[must_use]
    pub fn records(&self) -> &[Erasure] {
        &self.0
    }

    /// The number the next record takes.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.0.last().map_or(1, |r| r.number.saturating_add(1))
    }

    /// The file that holds the rows of `file` of `table` today: itself, or its newest twin.
    #[must_use]
    pub fn current(&self, table: &str, file: &OutputFile) -> OutputFile {
        let mut current = file.clone();
        // In order of number: a twin can only be erased again by a later erasure.
        for twin in self.tables(table).flat_map(|t| &t.twins) {
            if twin.old == current.path {
                current = twin.new.clone();
            }
        }
        current
    }

    /// A run's record with the files it wrote as they are named today.
    #[must_use]
    pub fn today(&self, mut record: RunRecord) -> RunRecord {
        for (table, output) in &mut record.outputs {
            output.files = output.files.iter().map(|file| self.current(table, file)).collect();
        }
        record
    }

    /// The paths of `table` that erasures took away.
    #[must_use]
    pub fn gone(&self, table: &str) -> BTreeSet<&str> {
        let gone = self.tables(table).flat_map(|t| t.twins.iter().map(|t| &t.old).chain(&t.dropped));
        gone.map(String::as_str).collect()
    }

    /// The twins of `table` that are not in it yet.
    pub(crate) fn waiting(&self, table: &str) -> impl Iterator<Item = &Twin> {
        let planned = self.0.iter().filter(|r| r.state == State::Planned);
        planned.filter_map(move |r| r.tables.get(table)).flat_map(|t| &t.twins)
    }

    fn tables(&self, table: &str) -> impl Iterator<Item = &ErasedTable> {
        self.0.iter().filter_map(move |r| r.tables.get(table))
    }
}

/// The files of a run as they are today: what erasures replaced is named by its twin.
///
/// # Errors
/// As [`Erasures::load`].
pub async fn current_files(root: &LakeRoot, table: &str, files: &[OutputFile]) -> Result<Vec<OutputFile>, Error> {
    let erasures = Erasures::load(root).await?;
    Ok(files.iter().map(|f| erasures.current(table, f)).collect())
}

/// Writes a record: a new one, or its last state over the plan.
///
/// # Errors
/// `Conflict` when another erasure took the number; `Unavailable`.
pub(crate) async fn save(root: &LakeRoot, record: &Erasure) -> Result<(), Error> {
    let path = root.path(&format!("{FOLDER}/{:06}.json", record.number));
    let text = serde_json::to_vec_pretty(record).map_err(|e| Error::Invalid(e.to_string()))?;
    let taken = || Error::conflict(FOLDER, format!("erasure {} was begun by another process", record.number));
    let failed = |e| Error::unavailable(format!("writing {path}"), e);
    if record.state == State::Planned {
        let created = create_once(&*root.store(), &path, text.into()).await.map_err(failed)?;
        return if created { Ok(()) } else { Err(taken()) };
    }
    root.store().put(&path, text.into()).await.map(drop).map_err(failed)
}

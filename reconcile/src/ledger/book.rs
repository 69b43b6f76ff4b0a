//! The table of adjustments: imports by id, and what is known of a day.
//! Guarantee: an import is one commit, all rows or none; an id is there once; two imports at the same time cannot
//! both pass the same check, because each commit moves the table's number on from the one that was read.
//! On crash: files without a commit are orphans that vacuum takes; importing again is safe.
//! Never: changes or removes an adjustment.

use std::collections::{BTreeMap, BTreeSet};

use lake::file::NewFile;
use lake::positions;
use lake::sort::sorted_file;
use lake::table::{Committed, Txn};
use lake::tables::LEDGER_ADJUSTMENTS;
use lake::{LakeRoot, Table};
use serde::Serialize;
use shared::id::RefId;
use shared::progress::Positions;
use shared::time::{Day, Timestamp};

use super::adjustment::Signed;
use super::rows::{BadRow, FIELDS};
use super::stored;
use crate::columns::Columns;
use crate::error::Error;

/// So many times an import is checked again when others keep importing first.
const MAX_ROUNDS: usize = 50;

/// What an import did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Adjustments that were not there before.
    pub added: u64,
    /// Rows that were there already, or stand in the file twice, with the same content.
    pub repeated: u64,
    /// The days that the added ones correct.
    pub days: BTreeSet<Day>,
}

/// The table.
#[derive(Debug)]
pub struct AdjustmentBook {
    table: Table,
}

impl AdjustmentBook {
    /// Opens the table at its newest version.
    ///
    /// # Errors
    /// Those of the lake.
    pub async fn open(lake: &LakeRoot) -> Result<Self, Error> {
        Ok(Self { table: Table::open(lake, &LEDGER_ADJUSTMENTS).await? })
    }

    /// The version of the table that is read.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.table.version()
    }

    /// The adjustments of a day, by id.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a row does not read; those of the lake.
    pub async fn of_day(&self, day: Day) -> Result<Vec<Signed>, Error> {
        let mut found = Vec::new();
        for file in self.table.files_of(day)? {
            found.extend(self.read(&file).await?);
        }
        found.sort_by(|a, b| a.adjustment.id.cmp(&b.adjustment.id));
        Ok(found)
    }

    /// The days that have adjustments, with how many.
    ///
    /// # Errors
    /// Those of the lake.
    pub fn days(&self) -> Result<BTreeMap<Day, u64>, Error> {
        let mut days = BTreeMap::new();
        for file in self.table.files()? {
            *days.entry(file.day).or_default() += file.rows;
        }
        Ok(days)
    }

    async fn read(&self, file: &lake::table::DataFile) -> Result<Vec<Signed>, Error> {
        let mut rows = Vec::new();
        for batch in self.table.read(file, None).await? {
            rows.extend(stored::adjustments_of(&batch?, file.day, &file.path)?);
        }
        Ok(rows)
    }

    /// Adds the rows that are not there yet, as one commit. Rows carry the number they have in their file.
    ///
    /// # Errors
    /// [`Error::BadRows`] when an id is there with other content: then nothing was added.
    pub async fn import(&mut self, rows: &[(u64, Signed)], now: Timestamp, dry_run: bool) -> Result<Imported, Error> {
        for _ in 0..MAX_ROUNDS {
            let known = self.known(rows).await?;
            let (fresh, imported) = sift(rows, known)?;
            if fresh.is_empty() || dry_run || self.commit(fresh, &[], now).await? {
                return Ok(imported);
            }
            self.table.refresh().await?;
        }
        Err(always_second())
    }

    /// How far the topic was taken in: the next position of each partition.
    pub(crate) async fn taken(&self, topic: &str, partitions: u32) -> Result<Positions, Error> {
        Ok(positions::numbers(&self.table, partitions, |p| app_id(topic, p)).await?)
    }

    /// As [`AdjustmentBook::import`], and notes in the same commit that the topic was taken in from one place to another;
    /// `None` when somebody else took it on from there first, and nothing was added.
    pub(crate) async fn take(
        &mut self,
        rows: &[(u64, Signed)],
        topic: &str,
        (from, to): (&Positions, &Positions),
        now: Timestamp,
    ) -> Result<Option<Imported>, Error> {
        let moves = positions::moves(from, to, |p| app_id(topic, p))?;
        for _ in 0..MAX_ROUNDS {
            let known = self.known(rows).await?;
            let (fresh, imported) = sift(rows, known)?;
            if self.commit(fresh, &moves, now).await? {
                return Ok(Some(imported));
            }
            self.table.refresh().await?;
            for Txn { app_id, from, .. } in &moves {
                if self.table.transaction_version(app_id).await?.unwrap_or(0) != from.unwrap_or(0) {
                    return Ok(None);
                }
            }
        }
        Err(always_second())
    }

    /// Reads the table's newest version.
    pub(crate) async fn refresh(&mut self) -> Result<(), Error> {
        Ok(self.table.refresh().await?)
    }

    /// The adjustments in the table whose ids are in `rows`: only files that hold one are read whole.
    async fn known(&self, rows: &[(u64, Signed)]) -> Result<BTreeMap<RefId, Signed>, Error> {
        let wanted: BTreeSet<&str> = rows.iter().map(|(_, s)| s.adjustment.id.as_str()).collect();
        let mut known = BTreeMap::new();
        for file in self.table.files()? {
            let mut holds_one = false;
            for batch in self.table.read(&file, Some(&["adjustment_id"])).await? {
                let batch = batch?;
                let ids = Columns::of(&batch, &file.path).text("adjustment_id")?;
                holds_one |= ids.iter().flatten().any(|id| wanted.contains(id));
            }
            if holds_one {
                known.extend(self.read(&file).await?.into_iter().map(|s| (s.adjustment.id.clone(), s)));
            }
        }
        Ok(known)
    }

    /// Whether our rows are in and the positions moved; otherwise somebody else came first.
    async fn commit(&mut self, fresh: Vec<Signed>, moves: &[Txn], now: Timestamp) -> Result<bool, Error> {
        let app_id = LEDGER_ADJUSTMENTS.name;
        let at = self.table.transaction_version(app_id).await?.unwrap_or(0);
        let mut txns = moves.to_vec();
        txns.extend((!fresh.is_empty()).then(|| Txn::advance(app_id, at, at + 1)));
        let mut days: BTreeMap<Day, Vec<Signed>> = BTreeMap::new();
        for signed in fresh {
            days.entry(signed.adjustment.day).or_default().push(signed);
        }
        let mut files: Vec<NewFile> = Vec::new();
        for (day, rows) in days {
            let batch = stored::adjustments(&rows, now)?;
            let encoded = sorted_file(&LEDGER_ADJUSTMENTS, day, &format!("import-{}", at + 1), &[batch])?;
            files.push(self.table.store(encoded).await?);
        }
        let paths: Vec<String> = files.iter().map(|f| f.path.clone()).collect();
        match self.table.append(files, &txns).await {
            Ok(Committed::Now(_)) => Ok(true),
            // Ours with a lost answer, or another import that moved the number first: the files tell.
            Ok(Committed::Already(_)) => {
                let there: BTreeSet<String> = self.table.files()?.into_iter().map(|f| f.path).collect();
                Ok(!paths.is_empty() && paths.iter().all(|p| there.contains(p)))
            }
            Err(lake::Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The transaction name of one partition of a topic in the table.
fn app_id(topic: &str, partition: u32) -> String {
    format!("{}/{topic}/{partition}", LEDGER_ADJUSTMENTS.name)
}

fn always_second() -> Error {
    let why = format!("others imported first {MAX_ROUNDS} times");
    lake::Error::Conflict { table: LEDGER_ADJUSTMENTS.name.to_owned(), why }.into()
}

/// Which rows are new, given those that are there.
fn sift(rows: &[(u64, Signed)], mut known: BTreeMap<RefId, Signed>) -> Result<(Vec<Signed>, Imported), Error> {
    let mut imported = Imported { added: 0, repeated: 0, days: BTreeSet::new() };
    let (mut fresh, mut problems) = (Vec::new(), Vec::new());
    for (number, signed) in rows {
        match known.get(&signed.adjustment.id) {
            None => {
                imported.added += 1;
                imported.days.insert(signed.adjustment.day);
                known.insert(signed.adjustment.id.clone(), signed.clone());
                fresh.push(signed.clone());
            }
            Some(there) if there.adjustment == signed.adjustment => imported.repeated += 1,
            Some(there) => {
                let (old, new) = (there.adjustment.cells(), signed.adjustment.cells());
                let differs = FIELDS.iter().zip(old.iter().zip(&new)).find(|(_, (old, new))| old != new);
                let (field, (old, new)) = differs.map_or(("", ("", "")), |(f, (o, n))| (*f, (o.as_str(), n.as_str())));
                let id = &signed.adjustment.id;
                let why =
                    format!("adjustment {id} is there with {old:?}, not {new:?}: give the new one an id of its own");
                problems.push(BadRow { row: *number, field, why });
            }
        }
    }
    if problems.is_empty() { Ok((fresh, imported)) } else { Err(Error::BadRows(problems)) }
}

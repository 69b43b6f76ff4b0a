//! The record of every run, in the table `runs`: the last thing a run commits, and what makes it visible.
//! Guarantee: records of one day are numbered without a gap in time: a record is only added where the one it started
//! from is still the last.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use lake::LakeRoot;
use lake::run_record::RunRecord;
use lake::table::{Committed, Table, Txn};
use lake::tables::RUNS;
use shared::time::Day;

use crate::error::Error;
use crate::source::{Rows, Source, column};
use crate::tasks;

fn app_id(day: Day) -> String {
    format!("{}/{day}", RUNS.name)
}

/// The runs of a lake.
pub(crate) struct Runs(Table);

impl Runs {
    /// Opens the table.
    ///
    /// # Errors
    /// Those of the lake.
    pub(crate) async fn open(root: &LakeRoot) -> Result<Self, Error> {
        Ok(Self(Table::open(root, &RUNS).await?))
    }

    /// The records of a day, oldest first.
    ///
    /// # Errors
    /// When a record does not read.
    pub(crate) async fn of(&self, day: Day) -> Result<Vec<RunRecord>, Error> {
        let store = self.0.root().store();
        let files = self.0.files_of(day)?.iter().map(|f| Source::new(&store, f)).collect();
        let records = tasks::each(1, files, |file: Source| {
            let mut records = Vec::new();
            for batch in file.read(&["record"], Rows::All)? {
                let batch = batch?;
                let texts: &StringArray = column(&batch, "record")?;
                for text in texts.iter().flatten() {
                    records.push(RunRecord::from_json(text).map_err(|e| Error::Corrupt(e.to_string()))?);
                }
            }
            Ok(records)
        });
        let mut records = records.await?.concat();
        records.sort_by_key(|r| r.run);
        Ok(records)
    }

    /// Adds a record, where the day's last one is still `before` (0 for none).
    ///
    /// # Errors
    /// [`Error::Conflict`] when another run came first.
    pub(crate) async fn add(&mut self, record: &RunRecord, before: u64) -> Result<(), Error> {
        let text = record.to_json().map_err(|e| Error::Internal(e.to_string()))?;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("run", Arc::new(Int64Array::from(vec![number(record.run)?]))),
            ("outcome", Arc::new(StringArray::from(vec![record.outcome.as_str()]))),
            ("record", Arc::new(StringArray::from(vec![text.as_str()]))),
        ];
        let batch = RecordBatch::try_from_iter(columns)?.with_schema(RUNS.file_schema())?;
        let file = self.0.write_parquet(vec![batch], record.day, &format!("run-{}", record.run)).await?;
        let path = file.path.clone();
        let txn = Txn::advance(app_id(record.day), number(before)?, number(record.run)?);
        let lost = |why: String| Error::Conflict { day: record.day, why };
        match self.0.append(vec![file], &[txn]).await {
            Ok(Committed::Now(_)) => Ok(()),
            // Ours with a lost answer, or another run's with the very same record: both are this record.
            Ok(Committed::Already(_)) if self.0.files_of(record.day)?.iter().any(|f| f.path == path) => Ok(()),
            Ok(Committed::Already(_)) => Err(lost(format!("run {} is recorded already", record.run))),
            Err(lake::Error::Conflict { why, .. }) => Err(lost(why)),
            Err(error) => Err(error.into()),
        }
    }
}

/// A run's number as Delta keeps it.
pub(crate) fn number(run: u64) -> Result<i64, Error> {
    i64::try_from(run).map_err(|_| Error::Invalid(format!("{run} is not a run number")))
}

/// The records of a day's runs, oldest first; none where it was never run.
///
/// # Errors
/// When the lake cannot be read.
pub async fn runs_of(root: &LakeRoot, day: Day) -> Result<Vec<RunRecord>, Error> {
    Runs::open(root).await?.of(day).await
}

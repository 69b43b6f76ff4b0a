//! The run records of batch, read from the `runs` table: which gold stands for a day, or stood for a settlement.
//! Files that an erasure replaced are named by their twins.
//! Reads: `runs`. Writes: nothing. Guarantee: the newest run of a day is the one with the largest number.

use std::collections::BTreeMap;

use lake::erasures::Erasures;
use lake::run_record::RunRecord;
use lake::table::DataFile;
use lake::tables::RUNS;
use lake::{LakeRoot, Table};
use shared::time::Day;

use crate::columns::Columns;
use crate::error::Error;

/// The newest run of `day`, if batch has run it.
///
/// # Errors
/// Those of the lake; [`Error::Damaged`] when a record does not read.
pub async fn newest(lake: &LakeRoot, day: Day) -> Result<Option<RunRecord>, Error> {
    let table = Table::open(lake, &RUNS).await?;
    let mut newest = None;
    for file in table.files_of(day)? {
        read(&table, &file, &mut newest).await?;
    }
    Ok(newest)
}

/// Run `run` of `day`.
///
/// # Errors
/// As [`newest`]; [`Error::Damaged`] when there is no such run.
pub async fn one(lake: &LakeRoot, day: Day, run: u64) -> Result<RunRecord, Error> {
    let table = Table::open(lake, &RUNS).await?;
    let mut found = None;
    for file in table.files_of(day)? {
        each(&table, &file, |record| found = found.take().or((record.run == run).then_some(record))).await?;
    }
    found.ok_or_else(|| Error::damaged("the table of runs", format!("it has no run {run} of {day}")))
}

/// The newest run of every day that has one, by day.
///
/// # Errors
/// As [`newest`].
pub async fn newest_of_all_days(lake: &LakeRoot) -> Result<Vec<RunRecord>, Error> {
    let table = Table::open(lake, &RUNS).await?;
    let mut days: BTreeMap<Day, Option<RunRecord>> = BTreeMap::new();
    for file in table.files()? {
        read(&table, &file, days.entry(file.day).or_default()).await?;
    }
    Ok(days.into_values().flatten().collect())
}

async fn read(table: &Table, file: &DataFile, newest: &mut Option<RunRecord>) -> Result<(), Error> {
    each(table, file, |record| {
        if newest.as_ref().is_none_or(|n| n.run < record.run) {
            *newest = Some(record);
        }
    })
    .await
}

async fn each(table: &Table, file: &DataFile, mut take: impl FnMut(RunRecord)) -> Result<(), Error> {
    let erasures = Erasures::load(table.root()).await?;
    for batch in table.read(file, Some(&["record"])).await? {
        let batch = batch?;
        for text in Columns::of(&batch, &file.path).text("record")?.iter().flatten() {
            let record = RunRecord::from_json(text).map_err(|e| Error::damaged(&file.path, e))?;
            take(erasures.today(record));
        }
    }
    Ok(())
}

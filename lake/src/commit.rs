//! A buffer → files and commits: `bronze/bad` first, then `bronze/events`, each with its positions in the commit.
//! On crash between the two: the bad rows are in and their transaction numbers say so, so the replay leaves them out.
//! Never: moves a position without its rows, or rows without their position.

use std::collections::BTreeMap;

use metrics::counter;
use shared::telemetry::metric_names::{LAKE_COMMITS, LAKE_EVENTS};
use shared::time::Day;

use crate::buffer::Buffer;
use crate::columns::events_file;
use crate::convert::bad_to_batch;
use crate::error::Error;
use crate::file::{EncodedFile, NewFile};
use crate::positions::{DEAD_LETTERS, EVENTS, Progress, bad_app_id, events_app_id, moves, numbers};
use crate::root::LakeRoot;
use crate::sort::sorted_file;
use crate::table::{Committed, Table, Txn};
use crate::tables::{BRONZE_BAD, BRONZE_EVENTS};
use shared::progress::Positions;

/// The two bronze tables and where they stand.
pub(crate) struct Bronze {
    events: Table,
    bad: Table,
    /// The positions in the tables' transaction numbers.
    pub(crate) at: Progress,
    /// Up to where undecodable events are in the bad table.
    pub(crate) undecodable: Positions,
}

impl Bronze {
    pub(crate) async fn open(root: &LakeRoot) -> Result<Self, Error> {
        let (events, bad) = (Table::open(root, &BRONZE_EVENTS).await?, Table::open(root, &BRONZE_BAD).await?);
        Ok(Self { events, bad, at: Progress::default(), undecodable: Positions::default() })
    }

    /// Reads where the tables stand now.
    pub(crate) async fn reload(&mut self, event_partitions: u32, dead_letter_partitions: u32) -> Result<(), Error> {
        self.events.refresh().await?;
        self.bad.refresh().await?;
        self.at =
            crate::positions::committed(&self.events, event_partitions, &self.bad, dead_letter_partitions).await?;
        self.undecodable = numbers(&self.bad, event_partitions, |p| bad_app_id(EVENTS, p)).await?;
        Ok(())
    }

    /// Commits everything that is buffered. `stem` names the files and is never used twice for other rows.
    ///
    /// # Errors
    /// `Conflict` when another archiver was faster: reload, and read again from there; `Unavailable`.
    pub(crate) async fn publish(&mut self, mut buffer: Buffer, stem: &str) -> Result<(), Error> {
        self.publish_bad(&mut buffer, stem).await?;
        self.publish_events(buffer, stem).await
    }

    async fn publish_bad(&mut self, buffer: &mut Buffer, stem: &str) -> Result<(), Error> {
        let mut txns = moves(&self.undecodable, &buffer.undecodable, |p| bad_app_id(EVENTS, p))?;
        txns.extend(moves(&self.at.dead_letters, &buffer.next.dead_letters, |p| bad_app_id(DEAD_LETTERS, p))?);
        if txns.is_empty() {
            return Ok(());
        }
        let encode = |day, stem: &str, rows: Vec<_>| sorted_file(&BRONZE_BAD, day, stem, &[bad_to_batch(&rows)?]);
        let files = write(&self.bad, buffer.bad_days(), stem, encode).await?;
        report("bad", &files, append(&mut self.bad, &files, &txns).await?);
        self.undecodable = buffer.undecodable.clone();
        self.at.dead_letters = buffer.next.dead_letters.clone();
        Ok(())
    }

    async fn publish_events(&mut self, buffer: Buffer, stem: &str) -> Result<(), Error> {
        let txns = moves(&self.at.events, &buffer.next.events, events_app_id)?;
        if txns.is_empty() {
            return Ok(());
        }
        let encode = |day, stem: &str, records: Vec<_>| events_file(day, stem, &records);
        let files = write(&self.events, buffer.days, stem, encode).await?;
        report("events", &files, append(&mut self.events, &files, &txns).await?);
        self.at.events = buffer.next.events;
        Ok(())
    }
}

/// Sorts, encodes and stores one file a day.
async fn write<R: Send + 'static>(
    table: &Table,
    days: BTreeMap<Day, Vec<R>>,
    stem: &str,
    encode: impl Fn(Day, &str, Vec<R>) -> Result<EncodedFile, Error> + Send + 'static,
) -> Result<Vec<NewFile>, Error> {
    let stem = stem.to_owned();
    let encode = move || days.into_iter().map(|(day, rows)| encode(day, &stem, rows)).collect::<Result<Vec<_>, _>>();
    let mut files = Vec::new();
    for encoded in tokio::task::spawn_blocking(encode).await?? {
        files.push(table.store(encoded).await?);
    }
    Ok(files)
}

/// Files that lost the race can never be committed, so they go at once; others are left to vacuum.
async fn append(table: &mut Table, files: &[NewFile], txns: &[Txn]) -> Result<Committed, Error> {
    let outcome = table.append(files.to_vec(), txns).await;
    if let Err(Error::Conflict { .. }) = &outcome {
        table.discard(files).await;
    }
    outcome
}

fn report(table: &'static str, files: &[NewFile], committed: Committed) {
    let rows: u64 = files.iter().map(|f| f.rows).sum();
    match committed {
        Committed::Now(version) => {
            tracing::debug!(table, version, rows, files = files.len(), "committed");
            counter!(LAKE_EVENTS, "table" => table).increment(rows);
            counter!(LAKE_COMMITS).increment(1);
        }
        Committed::Already(version) => tracing::info!(table, version, rows, "the rows were there already"),
    }
}

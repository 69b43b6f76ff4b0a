//! Adjustments that other systems publish on a topic: one JSON object a record, with the fields of an import's row.
//!
//! Guarantee: every record up to where the topic ended when asked is added, there already, or refused with its reasons;
//! what was added and how far was read are one commit of the table, so nothing counts twice or is passed over.
//! On crash: what was not committed is read again; a refusal may then be there twice, with the same position.
//! Never: reads on from positions that the topic's group reported.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use shared::event_log::{EventLog, NewRecord, Record};
use shared::time::{Day, Timestamp};

use super::adjustment::{Adjustment, Signed};
use super::book::AdjustmentBook;
use super::rows::{BadRow, Format, lines, read_rows};
use crate::checksum::sha256;
use crate::error::Error;

/// The name under which progress is reported to the log.
const GROUP: &str = "adjustments";
/// The most records of one commit.
const MOST: usize = 10_000;
/// How long one poll waits; the end is known, so there is something to come.
const WAIT: Duration = Duration::from_millis(500);
/// After so many polls in a row that brought nothing, nothing will come: half a minute.
const MOST_IDLE: u32 = 60;

/// What taking in did. Two that take in the same records at the same time may both tell of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// Records read.
    pub records: u64,
    /// Adjustments that were not there before.
    pub added: u64,
    /// Records that were there already with the same content.
    pub repeated: u64,
    /// Records that are no adjustment, or contradict one that is there.
    pub refused: u64,
    /// The days that the added ones correct.
    pub days: BTreeSet<Day>,
}

/// Takes in what `log`, the topic `topic`, holds since the last time; refusals go to `refusals`.
///
/// # Errors
/// [`Error::Log`] when the log is away or its retention removed records that were never taken in; [`Error::Invalid`] when
/// its last positions hold no record; those of the table.
pub async fn receive(
    book: &mut AdjustmentBook,
    (topic, log): (&str, &dyn EventLog),
    refusals: &dyn EventLog,
    sign: impl Fn(Adjustment, String) -> Result<Signed, Error>,
    now: Timestamp,
) -> Result<Received, Error> {
    let bounds = log.bounds().await?;
    let mut received = Received::default();
    loop {
        let taken = book.taken(topic, log.partitions()).await?;
        if taken.covers(&bounds.end) {
            return Ok(received);
        }
        let mut from = taken.clone();
        for (partition, start) in &bounds.start.0 {
            from.0.entry(*partition).or_insert(*start);
        }
        let mut consumer = log.consumer(GROUP, &from).await?;
        let (mut records, mut polls) = (Vec::new(), 0);
        while records.is_empty() && !from.covers(&bounds.end) {
            if polls == MOST_IDLE {
                return Err(nothing_comes(topic));
            }
            polls += 1;
            records = consumer.poll(MOST, WAIT).await?;
        }
        let reached = consumer.positions();
        let mut batch = Batch::of(&records, &sign)?;
        batch.refuse_conflicts(book, now).await?;
        batch.publish_refusals(topic, refusals, &records, now).await?;
        match book.take(&batch.rows, topic, (&taken, &reached), now).await? {
            Some(imported) => {
                received.records += records.len() as u64;
                received.added += imported.added;
                received.repeated += imported.repeated;
                received.refused += batch.refused.len() as u64;
                received.days.extend(imported.days);
                consumer.report(&reached).await?;
            }
            None => book.refresh().await?,
        }
    }
}

/// The topic ends beyond its last record: marks of transactions are positions that hold none.
fn nothing_comes(topic: &str) -> Error {
    Error::Invalid(format!(
        "topic {topic} ends with positions that hold no record: name a new topic in kafka.adjustments_topic, and publish \
         adjustments there without transactions"
    ))
}

/// Some records, each either a row or refused. They are numbered from 0.
struct Batch {
    rows: Vec<(u64, Signed)>,
    refused: BTreeMap<u64, String>,
}

impl Batch {
    fn of(records: &[Record], sign: impl Fn(Adjustment, String) -> Result<Signed, Error>) -> Result<Self, Error> {
        let mut batch = Self { rows: Vec::new(), refused: BTreeMap::new() };
        for (number, record) in (0..).zip(records) {
            match read_rows(&record.payload, Format::Ndjson).as_deref() {
                Ok([row]) => batch.rows.push((number, sign(row.adjustment.clone(), sha256(&record.payload))?)),
                Ok(rows) => drop(batch.refused.insert(number, format!("{} adjustments in one record", rows.len()))),
                Err(problems) => drop(batch.refused.insert(number, lines(problems))),
            }
        }
        Ok(batch)
    }

    /// Sets aside what contradicts an adjustment that is there, or an earlier record.
    async fn refuse_conflicts(&mut self, book: &mut AdjustmentBook, now: Timestamp) -> Result<(), Error> {
        match book.import(&self.rows, now, true).await {
            Err(Error::BadRows(problems)) => {
                self.refused.extend(problems.into_iter().map(|BadRow { row, why, .. }| (row, why)));
                self.rows.retain(|(number, _)| !self.refused.contains_key(number));
                Ok(())
            }
            checked => checked.map(drop),
        }
    }

    async fn publish_refusals(
        &self,
        topic: &str,
        refusals: &dyn EventLog,
        records: &[Record],
        now: Timestamp,
    ) -> Result<(), Error> {
        let refused = (0..).zip(records).filter_map(|(number, record)| Some((record, self.refused.get(&number)?)));
        let letters = refused.map(|(record, why)| {
            tracing::warn!(topic, partition = record.partition, position = record.position, why, "adjustment refused");
            let letter = json!({
                "topic": topic,
                "partition": record.partition,
                "position": record.position,
                "why": why,
                "record": String::from_utf8_lossy(&record.payload),
            });
            NewRecord { partition: 0, append_time: now, payload: Bytes::from(letter.to_string()) }
        });
        let letters: Vec<_> = letters.collect();
        if !letters.is_empty() {
            refusals.append(letters).await?;
        }
        Ok(())
    }
}

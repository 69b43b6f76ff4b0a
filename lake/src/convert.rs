//! Events and bad records ↔ Arrow rows of `bronze/events` and `bronze/bad`, both ways and without loss.
//! Pure. Never: repairs a value; a row that does not read back as an event is corruption.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use shared::event::{Country, Details, DeviceType, Event, EventKind, Fingerprint};
use shared::id::BadId;
use shared::money::Currency;
use shared::time::Timestamp;
use shared::verdict::InvalidCode;
use shared::wire::BadRecord;

use crate::columns::{Columns, Place};
use crate::error::Error;
use crate::tables::{BRONZE_BAD, BRONZE_EVENTS, TableDef};

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// The event.
    pub event: Event,
    /// Its log partition.
    pub partition: u32,
    /// Its log position.
    pub position: u64,
    /// The time it bills at under the lake's counting rules; its day is the row's partition.
    pub billing_time: Timestamp,
}

/// A bad record with its place in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Which log: `events` or `dead_letters`.
    pub topic: String,
    /// Its log partition.
    pub partition: u32,
    /// Its log position.
    pub position: u64,
    /// What was refused.
    pub record: BadRecord,
}

/// The value of `id_hash` for an event id: the first eight bytes of its SHA-256, as a signed integer of their order.
/// Equal ids have equal hashes; different ids may. Rows in this order are in the order of the settlement's leaves.
#[must_use]
pub fn id_hash(event_id: &str) -> i64 {
    shared::billed::key(event_id).prefix()
}

/// Rows of `bronze/events`, without the partition column.
///
/// # Errors
/// `Invalid` when a partition or position does not fit its column.
pub fn events_to_batch(rows: &[Archived]) -> Result<RecordBatch, Error> {
    let mut columns = Columns::new(rows.len());
    for Archived { event, partition, position, billing_time } in rows {
        let (id_hash, partition, position) = (id_hash(event.event_id.as_str()), *partition, *position);
        columns.push(&event.into(), &Place { id_hash, partition, position, billing_time: *billing_time })?;
    }
    columns.finish()
}

/// Rows of `bronze/bad`, without the partition column.
///
/// # Errors
/// `Invalid` when a partition or position does not fit its column.
pub fn bad_to_batch(rows: &[BadRow]) -> Result<RecordBatch, Error> {
    let columns: Vec<ArrayRef> = vec![
        texts(rows, |r| Some(&r.record.reason)),
        texts(rows, |r| Some(&r.record.detail)),
        texts(rows, |r| Some(&r.record.stage)),
        Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.record.raw))),
        longs(rows.iter().map(|r| Some(i64::try_from(r.record.count).unwrap_or(i64::MAX)))),
        times(rows.iter().map(|r| Timestamp(r.record.ingest_time))),
        texts(rows, |r| Some(&r.record.region)),
        texts(rows, |r| Some(&r.topic)),
        partitions(rows.iter().map(|r| r.partition))?,
        positions(rows.iter().map(|r| r.position))?,
    ];
    batch(&BRONZE_BAD, columns)
}

/// The events of rows of `bronze/events`.
///
/// # Errors
/// `Corrupt` when a column is absent or a value is not one that [`events_to_batch`] writes.
pub fn events_from_batch(batch: &RecordBatch) -> Result<Vec<Archived>, Error> {
    let rows = Rows::of(&BRONZE_EVENTS, batch);
    (0..batch.num_rows()).map(|row| event_from(&rows, row)).collect()
}

/// The bad records of rows of `bronze/bad`.
///
/// # Errors
/// `Corrupt` when a column is absent or a value is not one that [`bad_to_batch`] writes.
pub fn bad_from_batch(batch: &RecordBatch) -> Result<Vec<BadRow>, Error> {
    let rows = Rows::of(&BRONZE_BAD, batch);
    (0..batch.num_rows())
        .map(|row| {
            let record = BadRecord {
                reason: rows.must(row, "reason")?.to_owned(),
                detail: rows.must(row, "detail")?.to_owned(),
                stage: rows.must(row, "stage")?.to_owned(),
                raw: rows.bytes(row, "raw")?.to_vec(),
                count: rows.unsigned(row, "count")?,
                ingest_time: rows.time(row, "ingest_time")?.0,
                region: rows.must(row, "region")?.to_owned(),
            };
            let (partition, position) = (rows.partition(row)?, rows.unsigned(row, "position")?);
            Ok(BadRow { topic: rows.must(row, "topic")?.to_owned(), partition, position, record })
        })
        .collect()
}

fn event_from(rows: &Rows<'_>, row: usize) -> Result<Archived, Error> {
    let fingerprint = rows.bytes(row, "fingerprint")?;
    let event = Event {
        event_id: rows.id(row, "event_id")?,
        kind: rows.word(row, "event_type", EventKind::parse)?,
        event_time: rows.time(row, "event_time")?,
        ingest_time: rows.time(row, "ingest_time")?,
        ad_id: rows.id(row, "ad_id")?,
        campaign_id: rows.id(row, "campaign_id")?,
        advertiser_id: rows.may_id(row, "advertiser_id")?,
        details: details_from(rows, row)?,
        region: rows.id(row, "region")?,
        invalid: rows.may_word(row, "invalid", InvalidCode::parse)?,
        fingerprint: Fingerprint(fingerprint.try_into().map_err(|_| rows.broken(row, "fingerprint"))?),
        traceparent: rows.text(row, "traceparent")?.map(str::to_owned),
    };
    let billing_time = rows.time(row, "billing_time")?;
    Ok(Archived { event, partition: rows.partition(row)?, position: rows.unsigned(row, "position")?, billing_time })
}

fn details_from(rows: &Rows<'_>, row: usize) -> Result<Details, Error> {
    let extra = match rows.text(row, "extra")? {
        Some(json) => serde_json::from_str(json).map_err(|_| rows.broken(row, "extra"))?,
        None => Default::default(),
    };
    Ok(Details {
        creative_id: rows.may_id(row, "creative_id")?,
        publisher_id: rows.may_id(row, "publisher_id")?,
        impression_id: rows.may_id(row, "impression_id")?,
        user_pseudo_id: rows.may_id(row, "user_pseudo_id")?,
        session_id: rows.may_id(row, "session_id")?,
        bid_request_id: rows.may_id(row, "bid_request_id")?,
        country: rows.word(row, "country", Country::parse)?,
        device_type: rows.word(row, "device_type", DeviceType::parse)?,
        ip_hash: rows.text(row, "ip_hash")?.map(str::to_owned),
        user_agent: rows.text(row, "user_agent")?.map(str::to_owned),
        url: rows.text(row, "url")?.map(str::to_owned),
        cost_micros: rows.long(row, "cost_micros")?,
        currency: rows.may_word(row, "currency", Currency::parse)?,
        extra,
    })
}

fn batch(def: &TableDef, columns: Vec<ArrayRef>) -> Result<RecordBatch, Error> {
    RecordBatch::try_new(def.file_schema(), columns).map_err(|e| Error::Invalid(format!("rows of {}: {e}", def.name)))
}

fn texts<'a, R>(rows: &'a [R], of: impl Fn(&'a R) -> Option<&'a str>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

fn longs(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn times(values: impl Iterator<Item = Timestamp>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(|t| t.0)).with_timezone("UTC"))
}

fn partitions(values: impl Iterator<Item = u32>) -> Result<ArrayRef, Error> {
    let values = values.map(i32::try_from).collect::<Result<Vec<_>, _>>();
    Ok(Arc::new(Int32Array::from(values.map_err(|e| Error::Invalid(format!("log partition: {e}")))?)))
}

fn positions(values: impl Iterator<Item = u64>) -> Result<ArrayRef, Error> {
    let values = values.map(i64::try_from).collect::<Result<Vec<_>, _>>();
    Ok(Arc::new(Int64Array::from(values.map_err(|e| Error::Invalid(format!("log position: {e}")))?)))
}

/// Typed reading of a batch by column name.
struct Rows<'a> {
    def: &'static TableDef,
    batch: &'a RecordBatch,
}

impl<'a> Rows<'a> {
    fn of(def: &'static TableDef, batch: &'a RecordBatch) -> Self {
        Self { def, batch }
    }

    fn broken(&self, row: usize, column: &str) -> Error {
        Error::Corrupt(format!("{}: column {column} of row {row} is not one that was written", self.def.name))
    }

    /// The column, where it is present and not null in `row`.
    fn cell<T: 'static>(
        &self,
        row: usize,
        column: &str,
        cast: impl FnOnce(&'a ArrayRef) -> Option<&'a T>,
    ) -> Result<Option<&'a T>, Error> {
        let values = self.batch.column_by_name(column).ok_or_else(|| self.broken(row, column))?;
        let typed = cast(values).ok_or_else(|| self.broken(row, column))?;
        Ok(values.is_valid(row).then_some(typed))
    }

    fn text(&self, row: usize, column: &str) -> Result<Option<&'a str>, Error> {
        Ok(self.cell(row, column, |v| v.as_string_opt::<i32>())?.map(|v| v.value(row)))
    }

    fn must(&self, row: usize, column: &str) -> Result<&'a str, Error> {
        self.text(row, column)?.ok_or_else(|| self.broken(row, column))
    }

    fn bytes(&self, row: usize, column: &str) -> Result<&'a [u8], Error> {
        let values = self.cell(row, column, |v| v.as_binary_opt::<i32>())?;
        values.map(|v| v.value(row)).ok_or_else(|| self.broken(row, column))
    }

    fn long(&self, row: usize, column: &str) -> Result<Option<i64>, Error> {
        Ok(self.cell(row, column, |v| v.as_primitive_opt::<Int64Type>())?.map(|v| v.value(row)))
    }

    fn unsigned(&self, row: usize, column: &str) -> Result<u64, Error> {
        let value = self.long(row, column)?.and_then(|v| u64::try_from(v).ok());
        value.ok_or_else(|| self.broken(row, column))
    }

    fn partition(&self, row: usize) -> Result<u32, Error> {
        let values = self.cell(row, "partition", |v| v.as_primitive_opt::<Int32Type>())?;
        values.and_then(|v| u32::try_from(v.value(row)).ok()).ok_or_else(|| self.broken(row, "partition"))
    }

    fn time(&self, row: usize, column: &str) -> Result<Timestamp, Error> {
        let values = self.cell(row, column, |v| v.as_primitive_opt::<TimestampMicrosecondType>())?;
        values.map(|v| Timestamp(v.value(row))).ok_or_else(|| self.broken(row, column))
    }

    fn id<T: std::str::FromStr<Err = BadId>>(&self, row: usize, column: &str) -> Result<T, Error> {
        self.must(row, column)?.parse().map_err(|_| self.broken(row, column))
    }

    fn may_id<T: std::str::FromStr<Err = BadId>>(&self, row: usize, column: &str) -> Result<Option<T>, Error> {
        self.text(row, column)?.map(str::parse).transpose().map_err(|_| self.broken(row, column))
    }

    fn word<T>(&self, row: usize, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        parse(self.must(row, column)?).ok_or_else(|| self.broken(row, column))
    }

    fn may_word<T>(&self, row: usize, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Error> {
        self.text(row, column)?.map(|text| parse(text).ok_or_else(|| self.broken(row, column))).transpose()
    }
}

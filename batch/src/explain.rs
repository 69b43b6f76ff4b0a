//! The life of one event id: everywhere it was archived, in archive order, and what the last run of each day made of
//! it. Reads one 8-byte column per file that can hold the id, then only the rows that do.

use std::sync::Arc;

use arrow::array::{
    Array, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use lake::LakeRoot;
use lake::convert::id_hash;
use lake::run_record::RunRecord;
use lake::table::{DataFile, Table};
use lake::tables::{BRONZE_EVENTS, SILVER_EVENTS};
use object_store::ObjectStore;
use serde::Serialize;
use shared::id::EventId;
use shared::time::{Day, Timestamp};

use crate::error::Error;
use crate::runs::Runs;
use crate::source::{Rows, Source, column};
use crate::tasks;

/// One archived event with the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Occurrence {
    /// The day it bills on.
    pub day: Day,
    /// What happened.
    pub event_type: String,
    /// The ad.
    pub ad_id: String,
    /// The campaign.
    pub campaign_id: String,
    /// When it happened, by the client.
    pub event_time: Timestamp,
    /// When it was accepted.
    pub ingest_time: Timestamp,
    /// Where.
    pub region: String,
    /// Its log partition.
    pub partition: i32,
    /// Its log position.
    pub position: i64,
    /// What capture found invalid.
    pub invalid: Option<String>,
    /// The payload's identity, in hexadecimal.
    pub fingerprint: String,
    /// What batch made of it, if its day has been run since.
    pub judged: Option<Judgement>,
}

/// What batch made of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// The run that says so.
    pub run: u64,
    /// The time it bills at.
    pub billing_time: Timestamp,
    /// Whether its own time was out of bounds.
    pub clamped: bool,
    /// Its verdict.
    pub verdict: String,
    /// The currency.
    pub currency: String,
    /// How its campaign paid.
    pub price_model: String,
    /// The price book version that brought the price in.
    pub price_version: i64,
    /// What it costs, in nanos of the currency.
    pub cost_nanos: i64,
}

/// Everything the lake knows about an id, in archive order; nothing where it was never archived.
///
/// # Errors
/// When the lake cannot be read.
pub async fn explain(root: &LakeRoot, event_id: &EventId) -> Result<Vec<Occurrence>, Error> {
    let store = root.store();
    let hash = id_hash(event_id.as_str());
    let bronze = Table::open(root, &BRONZE_EVENTS).await?;
    let can_hold = |f: &DataFile| f.ranges.get("id_hash").is_none_or(|(low, high)| (*low..=*high).contains(&hash));
    let files = bronze.files()?.into_iter().filter(can_hold).map(|f| (f.day, Source::new(&store, &f))).collect();
    let id: Arc<str> = event_id.as_str().into();
    let wanted = id.clone();
    let found = tasks::each(2, files, move |(day, file): (Day, Source)| archived(&file, day, hash, &wanted)).await?;
    let mut occurrences: Vec<Occurrence> = found.concat();
    let order = |o: &Occurrence| (o.ingest_time, o.region.clone(), o.partition, o.position);
    occurrences.sort_by_key(order);
    let mut days: Vec<Day> = occurrences.iter().map(|o| o.day).collect();
    days.sort_unstable();
    days.dedup();
    let (runs, silver) = (Runs::open(root).await?, Table::open(root, &SILVER_EVENTS).await?);
    for day in days {
        let Some(run) = runs.of(day).await?.pop() else { continue };
        let judged = judged(&silver, &store, &run, hash, id.clone()).await?;
        for occurrence in occurrences.iter_mut().filter(|o| o.day == day) {
            let place = (occurrence.partition, occurrence.position);
            occurrence.judged = judged.iter().find(|(at, _)| *at == place).map(|(_, j)| j.clone());
        }
    }
    Ok(occurrences)
}

/// The rows of a bronze file that have the id.
fn archived(file: &Source, day: Day, hash: i64, id: &str) -> Result<Vec<Occurrence>, Error> {
    let rows = rows_where(file, "id_hash", |batch, row| {
        Ok(column::<Int64Array>(batch, "id_hash")?.values().get(row) == Some(&hash))
    })?;
    let columns = [
        "event_id",
        "event_type",
        "ad_id",
        "campaign_id",
        "event_time",
        "ingest_time",
        "region",
        "partition",
        "position",
        "invalid",
        "fingerprint",
    ];
    let mut found = Vec::new();
    for batch in file.read(&columns, Rows::These(&rows))? {
        let batch = batch?;
        for row in (0..batch.num_rows()).filter(|row| is(&batch, *row, id)) {
            found.push(occurrence(&batch, row, day)?);
        }
    }
    Ok(found)
}

fn occurrence(batch: &RecordBatch, row: usize, day: Day) -> Result<Occurrence, Error> {
    let text = |name: &str| Ok::<_, Error>(column::<StringArray>(batch, name)?.value(row).to_owned());
    let invalid: &StringArray = column(batch, "invalid")?;
    let fingerprint = column::<BinaryArray>(batch, "fingerprint")?.value(row);
    Ok(Occurrence {
        day,
        event_type: text("event_type")?,
        ad_id: text("ad_id")?,
        campaign_id: text("campaign_id")?,
        event_time: time(batch, "event_time", row)?,
        ingest_time: time(batch, "ingest_time", row)?,
        region: text("region")?,
        partition: column::<Int32Array>(batch, "partition")?.value(row),
        position: column::<Int64Array>(batch, "position")?.value(row),
        invalid: (!invalid.is_null(row)).then(|| invalid.value(row).to_owned()),
        fingerprint: fingerprint.iter().map(|b| format!("{b:02x}")).collect(),
        judged: None,
    })
}

/// A log partition and position.
type Place = (i32, i64);

/// What a run made of every event with the id.
async fn judged(
    silver: &Table,
    store: &Arc<dyn ObjectStore>,
    run: &RunRecord,
    hash: i64,
    id: Arc<str>,
) -> Result<Vec<(Place, Judgement)>, Error> {
    let Some(output) = run.output(SILVER_EVENTS.name) else { return Ok(Vec::new()) };
    let at = silver.at_version(output.version).await?;
    let named = |f: &DataFile| output.files.iter().any(|o| o.path == f.path);
    let files = at.files_of(run.day)?.into_iter().filter(named).map(|f| Source::new(store, &f)).collect();
    let number = run.run;
    let found = tasks::each(2, files, move |file: Source| {
        if !can_hold(&file, hash)? {
            return Ok(Vec::new());
        }
        let rows = rows_where(&file, "event_id", |batch, row| Ok(is(batch, row, &id)))?;
        let columns = [
            "partition",
            "position",
            "billing_time",
            "clamped",
            "verdict",
            "currency",
            "price_model",
            "price_version",
            "cost_nanos",
        ];
        let mut found = Vec::new();
        for batch in file.read(&columns, Rows::These(&rows))? {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                let place = (
                    column::<Int32Array>(&batch, "partition")?.value(row),
                    column::<Int64Array>(&batch, "position")?.value(row),
                );
                found.push((place, judgement(&batch, row, number)?));
            }
        }
        Ok(found)
    });
    Ok(found.await?.concat())
}

/// A silver file is in the order of its ids' hashes: the first and the last row tell what it can hold.
fn can_hold(file: &Source, hash: i64) -> Result<bool, Error> {
    let last = u32::try_from(file.rows().saturating_sub(1)).unwrap_or(u32::MAX);
    let ends = if last == 0 { vec![0] } else { vec![0, last] };
    let mut hashes = Vec::new();
    for batch in file.read(&["event_id"], Rows::These(&ends))? {
        hashes.extend(column::<StringArray>(&batch?, "event_id")?.iter().flatten().map(id_hash));
    }
    Ok(hashes.first().zip(hashes.last()).is_some_and(|(low, high)| (*low..=*high).contains(&hash)))
}

fn judgement(batch: &RecordBatch, row: usize, run: u64) -> Result<Judgement, Error> {
    let text = |name: &str| Ok::<_, Error>(column::<StringArray>(batch, name)?.value(row).to_owned());
    let long = |name: &str| Ok::<_, Error>(column::<Int64Array>(batch, name)?.value(row));
    Ok(Judgement {
        run,
        billing_time: time(batch, "billing_time", row)?,
        clamped: column::<BooleanArray>(batch, "clamped")?.value(row),
        verdict: text("verdict")?,
        currency: text("currency")?,
        price_model: text("price_model")?,
        price_version: long("price_version")?,
        cost_nanos: long("cost_nanos")?,
    })
}

fn time(batch: &RecordBatch, name: &str, row: usize) -> Result<Timestamp, Error> {
    Ok(Timestamp(column::<TimestampMicrosecondArray>(batch, name)?.value(row)))
}

fn is(batch: &RecordBatch, row: usize, id: &str) -> bool {
    column::<StringArray>(batch, "event_id").is_ok_and(|ids| ids.value(row) == id)
}

/// The rows of which one column says so.
fn rows_where(
    file: &Source,
    name: &str,
    wanted: impl Fn(&RecordBatch, usize) -> Result<bool, Error>,
) -> Result<Vec<u32>, Error> {
    let (mut rows, mut base) = (Vec::new(), 0);
    for batch in file.read(&[name], Rows::All)? {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            if wanted(&batch, row)? {
                rows.push(base + u32::try_from(row).unwrap_or(u32::MAX));
            }
        }
        base += u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
    }
    Ok(rows)
}

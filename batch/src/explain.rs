//! The life of one event id: everywhere it was archived, in archive order, who holds the id, and what the last run of
//! each day made of it. Reads a few pages per file that can hold the id ([`crate::lookup`]), so its time grows with the
//! number of files and not with the rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array, BinaryArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use lake::LakeRoot;
use lake::convert::id_hash;
use lake::run_record::RunRecord;
use lake::table::{DataFile, Table};
use lake::tables::{BRONZE_EVENTS, SILVER_EVENTS};
use shared::explain::{Judgement, Occurrence, Place, Repeated, Windows, verdict_sentence};
use shared::id::EventId;
use shared::time::{Day, Timestamp};
use shared::verdict::InvalidCode;

use crate::error::Error;
use crate::lookup;
use crate::runs::Runs;
use crate::source::{Rows, Source, column};
use crate::tasks;
use crate::whatif::standing_files;

/// Files looked at at once.
const WORKERS: usize = 4;

/// Everything the lake knows about an id, in archive order; nothing where it was never archived. Prices and
/// settlements are for others to add.
///
/// # Errors
/// When the lake cannot be read.
pub async fn explain(root: &LakeRoot, event_id: &EventId) -> Result<Vec<Occurrence>, Error> {
    let bronze = Table::open(root, &BRONZE_EVENTS).await?;
    let mut occurrences = archived(&bronze, event_id.as_str()).await?;
    let first = holder(&occurrences);
    let days: BTreeSet<Day> = occurrences.iter().map(|o| o.day).collect();
    let (runs, silver) = (Runs::open(root).await?, Table::open(root, &SILVER_EVENTS).await?);
    for day in days {
        let Some(run) = runs.of(day).await?.pop() else { continue };
        let judged = judged(&silver, &run, event_id.as_str()).await?;
        for occurrence in occurrences.iter_mut().filter(|o| o.day == day) {
            let place = (occurrence.place.partition, occurrence.place.position);
            occurrence.judged = judged.iter().find(|(at, _)| *at == place).map(|(_, j)| j.clone());
        }
    }
    for occurrence in &mut occurrences {
        occurrence.first = first.clone().filter(|f| *f != occurrence.place);
        if let Some(repeated) = occurrence.judged.as_mut().and_then(|j| j.repeats.as_mut()) {
            let before = archived(&bronze, &repeated.event_id).await?;
            repeated.place = holder(&before);
        }
    }
    Ok(occurrences)
}

/// The place of the event that holds the id: the first that is not forged.
fn holder(occurrences: &[Occurrence]) -> Option<Place> {
    let is_forged = |o: &Occurrence| {
        o.invalid_at_capture.as_deref().and_then(InvalidCode::parse).is_some_and(InvalidCode::is_forged)
    };
    occurrences.iter().find(|o| !is_forged(o)).map(|o| o.place.clone())
}

/// Every archived event with the id, in archive order.
async fn archived(bronze: &Table, id: &str) -> Result<Vec<Occurrence>, Error> {
    let (store, hash, id): (_, _, Arc<str>) = (bronze.root().store(), id_hash(id), id.into());
    let can_hold = |f: &DataFile| f.ranges.get("id_hash").is_none_or(|(low, high)| (*low..=*high).contains(&hash));
    let files = bronze.files()?.into_iter().filter(can_hold).map(|f| (f.day, Source::new(&store, &f))).collect();
    let find = move |(day, file): (Day, Source)| in_bronze(&file.opened()?, day, hash, &id);
    let mut found: Vec<Occurrence> = tasks::each(WORKERS, files, find).await?.concat();
    found.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(found)
}

/// The rows of a bronze file that have the id.
fn in_bronze(file: &Source, day: Day, hash: i64, id: &str) -> Result<Vec<Occurrence>, Error> {
    let rows = lookup::by_hash(file, hash)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
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
        let ids: &StringArray = column(&batch, "event_id")?;
        for row in (0..batch.num_rows()).filter(|row| ids.value(*row) == id) {
            found.push(occurrence(&batch, row, day)?);
        }
    }
    Ok(found)
}

fn occurrence(batch: &RecordBatch, row: usize, day: Day) -> Result<Occurrence, Error> {
    let invalid: &StringArray = column(batch, "invalid")?;
    let fingerprint = column::<BinaryArray>(batch, "fingerprint")?.value(row);
    let (partition, position) = log_place(batch, row)?;
    Ok(Occurrence {
        day,
        event_type: text(batch, "event_type", row)?,
        ad_id: text(batch, "ad_id", row)?,
        campaign_id: text(batch, "campaign_id", row)?,
        event_time: time(batch, "event_time", row)?,
        place: Place {
            ingest_time: time(batch, "ingest_time", row)?,
            region: text(batch, "region", row)?,
            partition,
            position,
        },
        invalid_at_capture: (!invalid.is_null(row)).then(|| invalid.value(row).to_owned()),
        fingerprint: fingerprint.iter().map(|b| format!("{b:02x}")).collect(),
        first: None,
        judged: None,
    })
}

/// A log partition and position.
type LogPlace = (i32, i64);

fn log_place(batch: &RecordBatch, row: usize) -> Result<LogPlace, Error> {
    let partition = column::<Int32Array>(batch, "partition")?.value(row);
    Ok((partition, column::<Int64Array>(batch, "position")?.value(row)))
}

/// What a run made of every event with the id.
async fn judged(silver: &Table, run: &RunRecord, id: &str) -> Result<Vec<(LogPlace, Judgement)>, Error> {
    let files = standing_files(silver, run).await?;
    let (number, rules, id): (_, _, Arc<str>) = (run.run, run.counting.rules_version, id.into());
    let found = tasks::each(WORKERS, files, move |file: Source| {
        let file = file.opened()?;
        let rows = if lookup::can_hold(&file, &id)? { lookup::by_id(&file, &id)? } else { Vec::new() };
        if rows.is_empty() {
            return Ok(Vec::new());
        }
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
            "repeat_of",
        ];
        let mut found = Vec::new();
        for batch in file.read(&columns, Rows::These(&rows))? {
            let batch = batch?;
            for row in 0..batch.num_rows() {
                found.push((log_place(&batch, row)?, judgement(&batch, row, number, rules)?));
            }
        }
        Ok(found)
    });
    Ok(found.await?.concat())
}

fn judgement(batch: &RecordBatch, row: usize, run: u64, rules_version: u32) -> Result<Judgement, Error> {
    let long = |name: &str| Ok::<_, Error>(column::<Int64Array>(batch, name)?.value(row));
    let (billing_time, verdict) = (time(batch, "billing_time", row)?, text(batch, "verdict", row)?);
    let repeats: &StringArray = column(batch, "repeat_of")?;
    let repeated = (!repeats.is_null(row)).then(|| repeats.value(row).to_owned());
    Ok(Judgement {
        run,
        rules_version,
        billing_time,
        clamped: column::<BooleanArray>(batch, "clamped")?.value(row),
        windows: Windows::of(billing_time),
        why: verdict_sentence(&verdict).to_owned(),
        verdict,
        repeats: repeated.map(|event_id| Repeated { event_id, place: None }),
        currency: text(batch, "currency", row)?,
        price_model: text(batch, "price_model", row)?,
        price_version: long("price_version")?,
        price: None,
        cost_nanos: long("cost_nanos")?,
        settled: None,
    })
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Result<String, Error> {
    Ok(column::<StringArray>(batch, name)?.value(row).to_owned())
}

fn time(batch: &RecordBatch, name: &str, row: usize) -> Result<Timestamp, Error> {
    Ok(Timestamp(column::<TimestampMicrosecondArray>(batch, name)?.value(row)))
}

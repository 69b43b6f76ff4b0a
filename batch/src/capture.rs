//! Conservation at the edge, by hour of ingest: what came in is what is archived and what was refused, and the archive
//! has every event and refusal that a process wrote a tally of, and every event that a gateway set aside. A log that lost its end has no gap in its positions;
//! this is what shows it.
//! Guarantee: a tally counts once, and only where the archive has come as far as the tally's process had; a killed
//! process leaves events without a tally, which is stated and no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
use lake::run_record::CaptureHour;
use lake::table::DataFile;
use object_store::ObjectStore;
use shared::progress::Positions;
use shared::tally::{SET_ASIDE, TALLY, Tally};
use shared::time::{Day, HOUR, Timestamp};

use crate::error::{Difference, Error};
use crate::positions::Covered;
use crate::snapshot::{EVENTS_TOPIC, Snapshot};
use crate::source::{Rows, Source, column};
use crate::tasks;

/// Which process a tally is of, and its number: region, stage, epoch, number.
type TallyKey = (String, String, Timestamp, u64);

/// What the archive of refusals says.
#[derive(Debug, Default)]
struct Edge {
    refused: BTreeMap<Timestamp, BTreeMap<String, u64>>,
    /// Records of the events log that do not decode: they were accepted once.
    undecodable: BTreeMap<Timestamp, u64>,
    tallies: BTreeMap<TallyKey, Tally>,
    /// The ids of events that were too large for the log, and the hour they came.
    set_aside: BTreeMap<String, Timestamp>,
}

/// Every hour of the day, and what contradicts the tallies. `written` is how far the events log has come by now.
///
/// # Errors
/// When a file cannot be read, or a tally does not read.
pub(crate) async fn capture(
    snapshot: &Snapshot,
    store: &Arc<dyn ObjectStore>,
    covered: &Covered,
    written: &Positions,
    workers: usize,
    day: Day,
) -> Result<(Vec<CaptureHour>, Vec<Difference>), Error> {
    let sources = |files: Vec<DataFile>| files.iter().map(|f| Source::new(store, f)).collect::<Vec<_>>();
    let of_day = |f: &DataFile| f.ingest_time().is_none_or(|(low, high)| low < day.end() && high >= day.start());
    let events: Vec<DataFile> = snapshot.events.files()?.into_iter().filter(of_day).collect();
    let archived = tasks::fold(workers, sources(events.clone()), BTreeMap::new, count_events).await?;
    let bad = sources(snapshot.bad.files_of(day)?);
    let edges = tasks::fold(workers, bad, Edge::default, |edge, file| read_edge(edge, &file)).await?;
    let (archived, edge) = (sum(archived), merge(edges));
    let mut tallied: BTreeMap<Timestamp, (u64, u64)> = BTreeMap::new();
    let mut differences = Vec::new();
    if !edge.set_aside.is_empty() {
        differences = undelivered(sources(events), workers, edge.set_aside).await?;
    }
    for (key, tally) in &edge.tallies {
        if covered.events.covers(&tally.through) {
            let hour = tallied.entry(tally.hour).or_default();
            *hour = (hour.0 + tally.accepted, hour.1 + tally.refused);
        } else if !written.covers(&tally.through) {
            differences.extend(lost(key, tally, written));
        }
    }
    let mut hours = Vec::new();
    for hour in day.hours() {
        let of = |counts: &BTreeMap<Timestamp, u64>| counts.get(&hour).copied().unwrap_or(0);
        let (accepted, refused_by_tally) = tallied.get(&hour).copied().unwrap_or_default();
        let refused = edge.refused.get(&hour).cloned().unwrap_or_default();
        let (archived, unread) = (of(&archived), of(&edge.undecodable));
        let all_refused: u64 = refused.values().sum();
        differences.extend(short(hour, "events that were acknowledged", accepted, archived + unread));
        differences.extend(short(hour, "refusals that were written", refused_by_tally, all_refused - unread));
        let untallied = archived.saturating_sub(accepted);
        hours.push(CaptureHour { hour, received: archived + all_refused, accepted, untallied, archived, refused });
    }
    Ok((hours, differences))
}

fn short(hour: Timestamp, what: &str, expected: u64, found: u64) -> Option<Difference> {
    (found < expected).then(|| Difference {
        place: hour.to_string(),
        what: format!("{what} and are archived"),
        expected: i128::from(expected),
        found: i128::from(found),
    })
}

/// What was set aside and is not archived.
async fn undelivered(
    events: Vec<Source>,
    workers: usize,
    set_aside: BTreeMap<String, Timestamp>,
) -> Result<Vec<Difference>, Error> {
    let wanted = Arc::new(set_aside);
    let ids = Arc::clone(&wanted);
    let find = move |found: &mut BTreeSet<String>, file: Source| {
        for batch in file.read(&["event_id"], Rows::All)? {
            let batch = batch?;
            let archived = column::<StringArray>(&batch, "event_id")?.iter().flatten();
            found.extend(archived.filter(|id| ids.contains_key(*id)).map(str::to_owned));
        }
        Ok(())
    };
    let found: BTreeSet<String> =
        tasks::fold(workers, events, BTreeSet::new, find).await?.into_iter().flatten().collect();
    let missing = wanted.iter().filter(|(id, _)| !found.contains(*id));
    let difference = |(id, hour): (&String, &Timestamp)| Difference {
        place: hour.to_string(),
        what: format!("archived is event {id}, which a gateway set aside as too large for the log"),
        expected: 1,
        found: 0,
    };
    Ok(missing.map(difference).collect())
}

/// The log ends before what a process wrote to it.
fn lost((region, stage, ..): &TallyKey, tally: &Tally, written: &Positions) -> Vec<Difference> {
    let is_short = |(partition, next): &(&u32, &u64)| written.next(**partition) < **next;
    let difference = |(partition, next): (&u32, &u64)| Difference {
        place: format!("{} events partition {partition}", tally.hour),
        what: format!("end of the log, written by {stage} in {region}"),
        expected: i128::from(*next),
        found: i128::from(written.next(*partition)),
    };
    tally.through.0.iter().filter(is_short).map(difference).collect()
}

fn count_events(hours: &mut BTreeMap<Timestamp, u64>, file: Source) -> Result<(), Error> {
    for batch in file.read(&["ingest_time"], Rows::All)? {
        let batch = batch?;
        let times: &TimestampMicrosecondArray = column(&batch, "ingest_time")?;
        for time in times.values() {
            *hours.entry(Timestamp(*time).floor(HOUR)).or_default() += 1;
        }
    }
    Ok(())
}

fn read_edge(edge: &mut Edge, file: &Source) -> Result<(), Error> {
    for batch in file.read(&["reason", "detail", "stage", "count", "ingest_time", "region", "topic"], Rows::All)? {
        let batch = batch?;
        let text = |name: &str| column::<StringArray>(&batch, name);
        let (reasons, details, stages) = (text("reason")?, text("detail")?, text("stage")?);
        let (regions, topics) = (text("region")?, text("topic")?);
        let counts: &Int64Array = column(&batch, "count")?;
        let times: &TimestampMicrosecondArray = column(&batch, "ingest_time")?;
        for row in 0..batch.num_rows() {
            let (reason, hour) = (reasons.value(row), Timestamp(times.value(row)).floor(HOUR));
            let count =
                u64::try_from(counts.value(row)).map_err(|_| Error::Corrupt("a count is negative".to_owned()))?;
            if reason == TALLY {
                let tally = Tally::from_json(details.value(row))
                    .ok_or_else(|| Error::Corrupt(format!("{:?} is no tally", details.value(row))))?;
                let (region, stage) = (regions.value(row).to_owned(), stages.value(row).to_owned());
                edge.tallies.insert((region, stage, tally.epoch, tally.number), tally);
                continue;
            }
            if reason == SET_ASIDE {
                edge.set_aside.insert(details.value(row).to_owned(), hour);
                continue;
            }
            *edge.refused.entry(hour).or_default().entry(reason.to_owned()).or_default() += count;
            if topics.value(row) == EVENTS_TOPIC {
                *edge.undecodable.entry(hour).or_default() += count;
            }
        }
    }
    Ok(())
}

fn sum(parts: Vec<BTreeMap<Timestamp, u64>>) -> BTreeMap<Timestamp, u64> {
    let mut all = BTreeMap::new();
    for (hour, count) in parts.into_iter().flatten() {
        *all.entry(hour).or_default() += count;
    }
    all
}

fn merge(parts: Vec<Edge>) -> Edge {
    let mut all = Edge::default();
    for part in parts {
        for (hour, reasons) in part.refused {
            let hour = all.refused.entry(hour).or_default();
            reasons.into_iter().for_each(|(reason, n)| *hour.entry(reason).or_default() += n);
        }
        for (hour, n) in part.undecodable {
            *all.undecodable.entry(hour).or_default() += n;
        }
        all.tallies.extend(part.tallies);
        all.set_aside.extend(part.set_aside);
    }
    all
}

//! The same traffic as JSON lines: written once for everybody who is measured, and read by us the way an event goes
//! from the edge to a row: JSON → judged → record → `speed::Worker` → changed rows.
//! Rows go to a CSV file as they change, with absolute values, so the greatest of a key is its last.
//! Never: reads a row back; whoever compares does.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde_json::json;
use shared::event::{Admission, Event, Submission};
use shared::event_log::Record;
use shared::id::RefId;
use shared::rollup::{RollupKey, RollupRow};
use shared::time::{SECOND, Timestamp};
use shared::wire::encode_event;
use speed::{Outcome, Tally};

use crate::traffic::{Shape, Traffic, line};
use crate::{FLUSH_SECONDS, worker};

const PARTITIONS: u32 = 2;

/// Writes `0.ndjson` and `1.ndjson`, each in the order of its events.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn write(folder: &Path, shape: &Shape) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for partition in 0..PARTITIONS {
        files.push(BufWriter::new(File::create(folder.join(format!("{partition}.ndjson")))?));
    }
    let mut traffic = Traffic::new(shape)?;
    for _ in 0..shape.events {
        let event = traffic.next()?;
        let partition = usize::try_from(shared::partition::partition_of(event.ad_id.as_str(), PARTITIONS))?;
        let file = files.get_mut(partition).context("no such partition")?;
        serde_json::to_writer(&mut *file, &line(&event))?;
        file.write_all(b"\n")?;
    }
    files.iter_mut().try_for_each(Write::flush)?;
    println!("{}", json!({ "events": shape.events, "first": traffic.unique() }));
    Ok(())
}

/// Reads what [`write`] wrote; prints one JSON line.
///
/// # Errors
/// When a line is not an event, or the disk refuses.
pub(crate) fn read(folder: &Path) -> anyhow::Result<()> {
    let readers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let folder = folder.to_owned();
            std::thread::spawn(move || one(&folder, partition))
        })
        .collect();
    let (mut events, mut rows, mut all) = (0, 0, Tally::default());
    for reader in readers {
        let Ok(done) = reader.join() else { bail!("a reader panicked") };
        let (tally, changed) = done?;
        rows += changed;
        for outcome in Outcome::ALL {
            events += tally.of(outcome);
            all.add_many(outcome, tally.of(outcome));
        }
    }
    println!("{}", json!({ "events": events, "outcomes": all.by_word(), "rows": rows }));
    Ok(())
}

fn one(folder: &Path, partition: u32) -> anyhow::Result<(Tally, usize)> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(folder.join(format!("{partition}.ndjson")))?);
    let mut out = BufWriter::new(File::create(folder.join(format!("{partition}.rows.csv")))?);
    let (mut worker, region) = (worker(partition)?, RefId::new("local")?);
    let (mut text, mut position, mut rows) = (Vec::new(), 0, 0);
    let flush_every = i64::try_from(FLUSH_SECONDS)? * SECOND;
    let mut flush_at = Timestamp::MIN;
    while input.read_until(b'\n', &mut text)? > 0 {
        let event = admit(&text, &region)?;
        let now = event.ingest_time;
        if now >= flush_at {
            rows += put(&mut out, worker.take_changed_rows(now))?;
            flush_at = now.plus(flush_every);
        }
        let payload: Bytes = encode_event(&event).into();
        worker.apply(&Record { partition, position, append_time: now, payload });
        position += 1;
        text.clear();
    }
    rows += put(&mut out, worker.take_changed_rows(flush_at))?;
    out.flush()?;
    Ok((worker.tally(), rows))
}

fn admit(text: &[u8], region: &RefId) -> anyhow::Result<Event> {
    let submission = Submission::from_json(text)?;
    let admission = Admission {
        ingest_time: submission.ingest_time.context("a line without ingestTime")?,
        region: region.clone(),
        campaign_id: submission.campaign_id.clone().context("a line without campaignId")?,
        advertiser_id: submission.advertiser_id.clone(),
        invalid: None,
        traceparent: None,
    };
    Ok(submission.admit(admission))
}

fn put(out: &mut impl Write, rows: Vec<RollupRow>) -> anyhow::Result<usize> {
    let all = rows.len();
    for RollupRow { key, counts, .. } in rows {
        let RollupKey::AdMinute { minute, ad_id, campaign_id, .. } = key else { continue };
        let (minute, campaign) = (minute.0 / SECOND, campaign_id.as_str());
        writeln!(out, "{minute},{ad_id},{campaign},{},{},{}", counts.impressions, counts.clicks, counts.conversions)?;
    }
    Ok(all)
}

//! One hot part of the product for each run, so that its instructions can be counted (`benches/instructions.py` runs it
//! under callgrind): `--set-up-only` does all but the work, and the difference between the two runs is the work.
//! Instruction counts repeat on a machine that others use too, which seconds do not.
//! Never: measures anything itself. A part that gives a wrong result ends the program.

#[allow(dead_code)] // the timing is not used here
mod support;
#[allow(dead_code)]
#[path = "support/traffic.rs"]
mod traffic;

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use gateway::keys::SigningKeys;
use gateway::signature::{LinkClaims, Validity};
use lake::convert::{Archived, events_to_batch};
use lake::file::ParquetFile;
use lake::tables::BRONZE_EVENTS;
use shared::event::{Event, Submission};
use shared::event_log::embedded::{EmbeddedLog, Options};
use shared::event_log::{EventLog, NewRecord, Record};
use shared::id::RefId;
use shared::sketch::Sketch;
use shared::time::{HOUR, Timestamp};
use shared::verdict::InvalidCode;
use shared::wire::encode_event;
use speed::{Outcome, Settings, Worker};
use traffic::{Shape, Traffic, prices};

/// Records in one append to the log: about what a group commit finds waiting.
const APPENDED: usize = 100;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    /// A client's JSON to a judged submission, fingerprint included.
    Json,
    /// An event to log bytes.
    Encode,
    /// The speed layer on forged events: it decodes them and stops.
    Decode,
    /// The speed layer on events of robots: decoded and deduplicated.
    Dedup,
    /// The speed layer on billable events: decoded, deduplicated, priced and windowed.
    Window,
    /// The rows of those windows, once.
    Rows,
    /// Users into a sketch of unique users.
    Sketch,
    /// The signature of a click link.
    Hmac,
    /// Events to sorted columns and a zstd Parquet file in memory.
    Archive,
    /// Appends to the embedded log, each synced.
    Commit,
}

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    part: Part,
    #[command(flatten)]
    shape: Shape,
    /// Everything but the work.
    #[arg(long)]
    set_up_only: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Work that is ready to be done.
type Work = Box<dyn FnOnce() -> anyhow::Result<()>>;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let work = prepare(args.part, &args.shape)?;
    if !args.set_up_only {
        work()?;
    }
    Ok(())
}

fn prepare(part: Part, shape: &Shape) -> anyhow::Result<Work> {
    match part {
        Part::Json => json(shape),
        Part::Encode => encode(shape),
        Part::Decode => apply(shape, Some(InvalidCode::BadSignature), Outcome::Invalid),
        Part::Dedup => apply(shape, Some(InvalidCode::KnownBot), Outcome::Invalid),
        Part::Window => apply(shape, None, Outcome::Counted),
        Part::Rows => rows(shape),
        Part::Sketch => sketch(shape),
        Part::Hmac => hmac(shape),
        Part::Archive => archive(shape),
        Part::Commit => commit(shape),
    }
}

fn events(shape: &Shape, invalid: Option<InvalidCode>) -> anyhow::Result<Vec<Event>> {
    let mut traffic = Traffic::new(shape)?;
    (0..shape.events).map(|_| Ok(Event { invalid, ..traffic.next()? })).collect()
}

fn records(shape: &Shape, invalid: Option<InvalidCode>) -> anyhow::Result<Vec<Record>> {
    let as_record = |(position, event): (u64, Event)| Record {
        partition: 0,
        position,
        append_time: event.ingest_time,
        payload: encode_event(&event).into(),
    };
    Ok((0..).zip(events(shape, invalid)?).map(as_record).collect())
}

fn worker() -> anyhow::Result<Worker> {
    let mut worker = Worker::new(0, 0, &Settings::default());
    worker.set_prices(Arc::new(prices()?));
    Ok(worker)
}

fn json(shape: &Shape) -> anyhow::Result<Work> {
    let lines: Vec<_> = events(shape, None)?.iter().map(|event| traffic::line(event).to_string()).collect();
    Ok(Box::new(move || {
        for line in &lines {
            black_box(Submission::from_json(line.as_bytes())?);
        }
        Ok(())
    }))
}

fn encode(shape: &Shape) -> anyhow::Result<Work> {
    let events = events(shape, None)?;
    Ok(Box::new(move || {
        for event in &events {
            black_box(encode_event(event));
        }
        Ok(())
    }))
}

fn apply(shape: &Shape, invalid: Option<InvalidCode>, expected: Outcome) -> anyhow::Result<Work> {
    let (records, mut worker) = (records(shape, invalid)?, worker()?);
    Ok(Box::new(move || {
        worker.apply_all(&records);
        let of = |outcome| worker.tally().of(outcome);
        let all = of(expected) + of(Outcome::Duplicate);
        ensure!(all == worker.tally().total() && of(expected) > 0, "{:?}", worker.tally());
        Ok(())
    }))
}

fn rows(shape: &Shape) -> anyhow::Result<Work> {
    let mut worker = worker()?;
    worker.apply_all(&records(shape, None)?);
    Ok(Box::new(move || {
        ensure!(!black_box(worker.changed_rows()).is_empty(), "no row");
        Ok(())
    }))
}

fn sketch(shape: &Shape) -> anyhow::Result<Work> {
    let events = events(shape, None)?;
    Ok(Box::new(move || {
        let mut sketch = Sketch::new();
        for user in events.iter().filter_map(|event| event.details.user_pseudo_id.as_ref()) {
            sketch.add(Sketch::hash(user.as_str()));
        }
        ensure!(!black_box(sketch).is_empty(), "an empty sketch");
        Ok(())
    }))
}

fn hmac(shape: &Shape) -> anyhow::Result<Work> {
    let now = Timestamp(1_767_607_200_000_000);
    let mut keys = SigningKeys::default();
    keys.create(RefId::new("k1")?, [7; 32], now)?;
    let expires_at = Some(now.plus(HOUR));
    let mut signed = Vec::new();
    for event in events(shape, None)? {
        let impression_id = event.details.impression_id.context("no impression")?;
        let claims = LinkClaims { ad_id: event.ad_id.as_str(), impression_id: impression_id.as_str(), expires_at };
        let signature = keys.sign_link(&claims).context("no key")?.signature;
        signed.push((event.ad_id, impression_id, signature));
    }
    let validity = Validity { now, max_ahead: 24 * HOUR };
    Ok(Box::new(move || {
        for (ad_id, impression_id, signature) in &signed {
            let claims = LinkClaims { ad_id: ad_id.as_str(), impression_id: impression_id.as_str(), expires_at };
            keys.verify(Some(signature), Some("k1"), |key| claims.canonical(key), expires_at, validity)?;
        }
        Ok(())
    }))
}

fn archive(shape: &Shape) -> anyhow::Result<Work> {
    let mut rows = Vec::new();
    for (position, event) in (0..).zip(events(shape, None)?) {
        rows.push(Archived { partition: 0, position, billing_time: event.event_time, event });
    }
    let day = rows.first().context("no row")?.billing_time.day();
    Ok(Box::new(move || {
        let mut file = ParquetFile::new(&BRONZE_EVENTS, day, "hot")?;
        file.write(&events_to_batch(&rows)?)?;
        ensure!(file.finish()?.file.rows == rows.len() as u64, "rows are missing");
        Ok(())
    }))
}

fn commit(shape: &Shape) -> anyhow::Result<Work> {
    let folder = tempfile::tempdir()?;
    let log = EmbeddedLog::open(folder.path(), Options { partitions: 1, ..Options::default() })?;
    let mut appends = vec![Vec::new()];
    for Record { append_time, payload, .. } in records(shape, None)? {
        if appends.last().is_some_and(|last| last.len() == APPENDED) {
            appends.push(Vec::new());
        }
        let record = NewRecord { partition: 0, append_time, payload };
        appends.last_mut().context("no append")?.push(record);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(Box::new(move || {
        for records in appends {
            black_box(runtime.block_on(log.append(records))?);
        }
        drop((log, folder));
        Ok(())
    }))
}

//! What one thread of the speed layer takes: log records through `speed::Worker` (decode → dedup → window), and its
//! changed rows every ten seconds of event time, in memory. Prints one JSON line.
//! No log, store or clock is in the figure, and making the records is not timed. A smaller run is added up row by row
//! first; a wrong sum ends the program, since a fast wrong answer is none. Then two partitions on two threads against
//! one on one, by the wall clock.
//! With `--write-json` it writes the same traffic as JSON lines for others to read, with `--read-json` it reads them.

#[path = "support/json_lines.rs"]
mod json_lines;
mod support;
#[path = "support/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use clap::Parser;
use serde_json::json;
use shared::rollup::{RollupKey, RollupRow};
use shared::time::{Timestamp, stopwatch};
use speed::{Outcome, Settings, Worker};
use support::{cpu_seconds, resident_bytes};
use traffic::{Shape, Traffic, prices};

/// Changed rows are taken this often, as in production.
const FLUSH_SECONDS: u64 = 10;

/// The allocator of the product: the system's bills the worker for freeing what the generator made.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Only writes the events as JSON lines into this folder, one file for each of two partitions.
    #[arg(long)]
    write_json: Option<PathBuf>,
    /// Reads such a folder instead, one thread for each file, and writes the rows as they change beside them.
    #[arg(long)]
    read_json: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let Args { shape, write_json, read_json, .. } = Args::parse();
    if let Some(folder) = write_json {
        return json_lines::write(&folder, &shape);
    }
    if let Some(folder) = read_json {
        return json_lines::read(&folder);
    }
    in_memory(&shape)
}

fn in_memory(shape: &Shape) -> anyhow::Result<()> {
    check_sums(shape)?;
    let mut traffic = Traffic::new(shape)?;
    let mut worker = worker(0)?;
    let (mut apply, mut flush, mut rows) = (Spent::default(), Spent::default(), 0);
    let mut left = shape.events;
    let mut before = None;
    while left > 0 {
        let records = traffic.take(left.min(shape.rate * FLUSH_SECONDS))?;
        left -= records.len() as u64;
        // The first records are made: what is resident more at the end is the worker's.
        if before.is_none() {
            before = Some(resident_bytes("VmRSS")?);
        }
        apply.time(|| worker.apply_all(&records))?;
        rows += flush.time(|| worker.take_changed_rows(traffic.now()))?.len();
    }
    let state_bytes = resident_bytes("VmRSS")?.saturating_sub(before.unwrap_or(0));
    let (ids, id_bytes) = worker.remembered_ids();
    ensure!(ids as u64 == traffic.unique(), "{ids} ids are remembered, made were {}", traffic.unique());
    print(shape, &worker, &traffic, (&apply, &flush), rows, (state_bytes, id_bytes), speed_up(shape)?)
}

/// How many times the events of one worker two workers on threads of their own take in the same wall time.
fn speed_up(shape: &Shape) -> anyhow::Result<f64> {
    let one = wall_seconds(shape, 1)?;
    Ok(2.0 * one / wall_seconds(shape, 2)?)
}

/// Wall seconds in which so many workers take a quarter of the events each, at the same time.
fn wall_seconds(shape: &Shape, workers: u64) -> anyhow::Result<f64> {
    let mut parts = Vec::new();
    for seed in shape.seed..shape.seed + workers {
        let shape = Shape { events: (shape.events / 4).max(1), seed, ..shape.clone() };
        let mut traffic = Traffic::new(&shape)?;
        let records = traffic.take(shape.events)?;
        parts.push((worker(0)?, traffic, records));
    }
    let flush_records = usize::try_from(shape.rate * FLUSH_SECONDS)?;
    let started = stopwatch();
    std::thread::scope(|scope| {
        for (worker, _, records) in &mut parts {
            scope.spawn(move || {
                for records in records.chunks(flush_records) {
                    worker.apply_all(records);
                    std::hint::black_box(worker.take_changed_rows(Timestamp::MIN));
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    parts.iter().try_for_each(|(worker, traffic, _)| check_tally(worker, traffic))?;
    Ok(seconds)
}

fn print(
    shape: &Shape,
    worker: &Worker,
    traffic: &Traffic,
    (apply, flush): (&Spent, &Spent),
    rows: usize,
    (state_bytes, id_bytes): (u64, usize),
    speed_up: f64,
) -> anyhow::Result<()> {
    check_tally(worker, traffic)?;
    let events = shape.events as f64;
    let figures = json!({
        "events": shape.events,
        "counted": worker.tally().of(Outcome::Counted),
        "duplicates": worker.tally().of(Outcome::Duplicate),
        "eventsPerCpuSecond": events / (apply.cpu + flush.cpu),
        "applyNanosPerEvent": apply.cpu * 1e9 / events,
        "flushNanosPerEvent": flush.cpu * 1e9 / events,
        "wallNanosPerEvent": (apply.wall + flush.wall) * 1e9 / events,
        "rows": rows,
        "recordBytes": traffic.bytes / shape.events,
        "stateBytes": state_bytes,
        "stateBytesPerId": state_bytes as f64 / traffic.unique() as f64,
        "idBytesPerId": id_bytes as f64 / traffic.unique() as f64,
        "speedUpOfTwoThreads": speed_up,
        "peakResidentBytes": resident_bytes("VmHWM")?,
    });
    println!("{figures}");
    Ok(())
}

/// A tenth of the events, added up from the rows: nothing is missing and nothing is there twice.
fn check_sums(shape: &Shape) -> anyhow::Result<()> {
    let mut traffic = Traffic::new(shape)?;
    let mut worker = worker(0)?;
    let mut shown = BTreeMap::new();
    let mut left = shape.events / 10;
    while left > 0 {
        let records = traffic.take(left.min(shape.rate * FLUSH_SECONDS))?;
        left -= records.len() as u64;
        worker.apply_all(&records);
        let ads = |row: RollupRow| matches!(row.key, RollupKey::AdMinute { .. }).then_some((row.key, row.counts));
        shown.extend(worker.take_changed_rows(traffic.now()).into_iter().filter_map(ads));
    }
    check_tally(&worker, &traffic)?;
    let sum: u64 = shown.values().map(|c| c.impressions + c.clicks + c.conversions).sum();
    let counted = worker.tally().of(Outcome::Counted);
    ensure!(sum == counted, "the rows hold {sum} events, {counted} were counted");
    Ok(())
}

fn check_tally(worker: &Worker, traffic: &Traffic) -> anyhow::Result<()> {
    let (counted, duplicates) = (worker.tally().of(Outcome::Counted), worker.tally().of(Outcome::Duplicate));
    ensure!(
        (counted, duplicates) == (traffic.unique(), traffic.duplicates),
        "{counted} counted and {duplicates} duplicates, made were {} and {}",
        traffic.unique(),
        traffic.duplicates
    );
    Ok(())
}

fn worker(partition: u32) -> anyhow::Result<Worker> {
    let mut worker = Worker::new(partition, 0, &Settings::default());
    worker.set_prices(Arc::new(prices()?));
    Ok(worker)
}

/// Seconds spent in a part of the work.
#[derive(Debug, Default)]
struct Spent {
    cpu: f64,
    wall: f64,
}

impl Spent {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        let (cpu, wall) = (cpu_seconds()?, stopwatch());
        let result = work();
        self.wall += wall.elapsed().as_secs_f64();
        self.cpu += cpu_seconds()? - cpu;
        Ok(result)
    }
}

//! What one thread of the speed layer takes: log records through `speed::Worker` (decode → dedup → window), and its
//! changed rows every ten seconds of event time, in memory. Prints one JSON line.
//! No log, store or clock is in the figure, and making the records is not timed. A smaller run is added up row by row
//! first; a wrong sum ends the program, since a fast wrong answer is none.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::json;
use shared::event::{Country, Details, DeviceType, Event, EventKind, Fingerprint};
use shared::event_log::Record;
use shared::id::{AdId, CampaignId, EventId, ImpressionId, RefId};
use shared::money::Currency;
use shared::price::{PriceBook, PriceModel, PriceRow};
use shared::rollup::{RollupKey, RollupRow};
use shared::time::{SECOND, Timestamp, stopwatch};
use shared::wire::encode_event;
use speed::{Outcome, Settings, Worker};
use support::{Dice, cpu_seconds, resident_bytes};

/// 2026-01-05T10:00:00Z.
const START: Timestamp = Timestamp(1_767_607_200_000_000);
/// Changed rows are taken this often, as in production.
const FLUSH_SECONDS: u64 = 10;
/// One record in so many is a second sending of one of the last [`REMEMBERED`].
const DUPLICATE_EVERY: u64 = 100;
const REMEMBERED: usize = 20_000;
const CAMPAIGNS: u64 = 1_000;
const USERS: u64 = 1_000_000;
const COUNTRIES: [&str; 8] = ["US", "DE", "FR", "GB", "JP", "BR", "IN", "ES"];
const AGENT: &str =
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1";

#[derive(Debug, Parser)]
struct Args {
    /// Records.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Records in a second of event time.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Ads, drawn with the weights 1, 1/2, 1/3, …
    #[arg(long, default_value_t = 100_000)]
    ads: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    check_sums(&args)?;
    let mut traffic = Traffic::new(&args)?;
    let mut worker = worker()?;
    let (mut apply, mut flush, mut rows) = (Spent::default(), Spent::default(), 0);
    let mut left = args.events;
    let mut before = None;
    while left > 0 {
        let records = traffic.take(left.min(args.rate * FLUSH_SECONDS))?;
        left -= records.len() as u64;
        // The first records are made: what is resident more at the end is the worker's.
        if before.is_none() {
            before = Some(resident_bytes("VmRSS")?);
        }
        apply.time(|| apply_all(&mut worker, &records))?;
        rows += flush.time(|| worker.take_changed_rows(traffic.now()))?.len();
    }
    let state_bytes = resident_bytes("VmRSS")?.saturating_sub(before.unwrap_or(0));
    print(&args, &worker, &traffic, (&apply, &flush), rows, state_bytes)
}

fn apply_all(worker: &mut Worker, records: &[Record]) {
    for record in records {
        worker.apply(record);
    }
}

fn print(
    args: &Args,
    worker: &Worker,
    traffic: &Traffic,
    (apply, flush): (&Spent, &Spent),
    rows: usize,
    state_bytes: u64,
) -> anyhow::Result<()> {
    check_tally(worker, traffic)?;
    let events = args.events as f64;
    let figures = json!({
        "events": args.events,
        "counted": worker.tally().of(Outcome::Counted),
        "duplicates": worker.tally().of(Outcome::Duplicate),
        "eventsPerCpuSecond": events / (apply.cpu + flush.cpu),
        "applyNanosPerEvent": apply.cpu * 1e9 / events,
        "flushNanosPerEvent": flush.cpu * 1e9 / events,
        "wallNanosPerEvent": (apply.wall + flush.wall) * 1e9 / events,
        "rows": rows,
        "recordBytes": traffic.bytes / args.events,
        "stateBytes": state_bytes,
        "stateBytesPerId": state_bytes as f64 / traffic.unique() as f64,
        "peakResidentBytes": resident_bytes("VmHWM")?,
    });
    println!("{figures}");
    Ok(())
}

/// A tenth of the events, added up from the rows: nothing is missing and nothing is there twice.
fn check_sums(args: &Args) -> anyhow::Result<()> {
    let mut traffic = Traffic::new(args)?;
    let mut worker = worker()?;
    let mut shown = BTreeMap::new();
    let mut left = args.events / 10;
    while left > 0 {
        let records = traffic.take(left.min(args.rate * FLUSH_SECONDS))?;
        left -= records.len() as u64;
        apply_all(&mut worker, &records);
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

fn worker() -> anyhow::Result<Worker> {
    let mut rows = Vec::new();
    for campaign in 0..CAMPAIGNS {
        rows.push(PriceRow {
            campaign_id: CampaignId::new(format!("camp-{campaign}"))?,
            model: if campaign % 2 == 0 { PriceModel::Cpm } else { PriceModel::Cpc },
            price_micros: 1_234_567,
            currency: Currency::parse("EUR").context("a currency")?,
            valid_from: "2026-01-01T00:00:00Z".to_owned(),
        });
    }
    let mut worker = Worker::new(0, 0, &Settings::default());
    worker.set_prices(Arc::new(PriceBook::default().import(rows)?));
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

/// Log records of one partition, in the order of their positions.
struct Traffic {
    dice: Dice,
    rate: u64,
    /// Running sums of the ads' weights.
    weights: Vec<u64>,
    made: u64,
    duplicates: u64,
    bytes: u64,
    recent: VecDeque<Event>,
}

impl Traffic {
    fn new(args: &Args) -> anyhow::Result<Self> {
        ensure!(args.events > 0 && args.rate > 0 && args.ads > 0, "events, rate and ads must be at least 1");
        let mut sum = 0_u64;
        let weights = (1..=u64::from(args.ads)).map(|rank| {
            sum += 1_000_000_000 / rank + 1;
            sum
        });
        Ok(Self {
            dice: Dice::new(args.seed),
            rate: args.rate,
            weights: weights.collect(),
            made: 0,
            duplicates: 0,
            bytes: 0,
            recent: VecDeque::new(),
        })
    }

    fn unique(&self) -> u64 {
        self.made - self.duplicates
    }

    fn now(&self) -> Timestamp {
        START.plus(i64::try_from(self.made * 1_000_000 / self.rate).unwrap_or(i64::MAX))
    }

    fn take(&mut self, n: u64) -> anyhow::Result<Vec<Record>> {
        (0..n).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> anyhow::Result<Record> {
        let now = self.now();
        let is_again = self.dice.below(DUPLICATE_EVERY) == 0 && !self.recent.is_empty();
        let event = if is_again {
            self.duplicates += 1;
            let which = usize::try_from(self.dice.below(self.recent.len() as u64))?;
            let first = self.recent.get(which).context("no such event")?;
            Event { ingest_time: now, ..first.clone() }
        } else {
            let event = self.event(now)?;
            self.recent.push_back(event.clone());
            if self.recent.len() > REMEMBERED {
                self.recent.pop_front();
            }
            event
        };
        let payload = encode_event(&event);
        self.bytes += payload.len() as u64;
        let position = self.made;
        self.made += 1;
        Ok(Record { partition: 0, position, append_time: now, payload: payload.into() })
    }

    fn event(&mut self, now: Timestamp) -> anyhow::Result<Event> {
        let dice = &mut self.dice;
        let roll = dice.below(self.weights.last().copied().unwrap_or(1));
        let ad = self.weights.partition_point(|sum| *sum <= roll) as u64;
        let user = dice.below(USERS);
        let kind = match dice.below(1_000) {
            0..920 => EventKind::Impression,
            920..995 => EventKind::Click,
            _ => EventKind::Conversion,
        };
        let country = COUNTRIES.get(usize::try_from(dice.below(8))?).copied().and_then(Country::parse);
        let device = DeviceType::ALL.get(usize::try_from(dice.below(5))?).copied();
        let mut fingerprint = [0; 16];
        fingerprint[..8].copy_from_slice(&dice.bits().to_le_bytes());
        Ok(Event {
            event_id: EventId::new(format!("{:016x}{:016x}", dice.bits(), dice.bits()))?,
            kind,
            event_time: now.plus(-i64::try_from(dice.below(20 * SECOND.unsigned_abs()))?),
            ingest_time: now,
            ad_id: AdId::new(format!("ad-{ad}"))?,
            campaign_id: CampaignId::new(format!("camp-{}", ad % CAMPAIGNS))?,
            advertiser_id: None,
            details: Details {
                creative_id: Some(RefId::new(format!("cr-{}", ad % 7))?),
                publisher_id: Some(RefId::new(format!("pub-{}", user % 50))?),
                impression_id: Some(ImpressionId::new(format!("imp-{:016x}", dice.bits()))?),
                user_pseudo_id: Some(RefId::new(format!("u-{user}"))?),
                country: country.unwrap_or_default(),
                device_type: device.unwrap_or_default(),
                user_agent: Some(AGENT.to_owned()),
                ..Details::default()
            },
            region: RefId::new("local")?,
            invalid: None,
            fingerprint: Fingerprint(fingerprint),
            traceparent: None,
        })
    }
}

//! What the tests share: a small lake with a log in front of it, events from short specs, and rows read back as text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use batch::{Deps, Error, Outcome, Request, Settings, progress, recompute};
use lake::convert::{Archived, events_to_batch};
use lake::file::{NewFile, ParquetFile};
use lake::run_record::RunRecord;
use lake::table::Txn;
use lake::tables::{BRONZE_EVENTS, by_name};
use lake::{LakeRoot, Table};
use proptest::prelude::*;
use shared::event::{Country, Details, DeviceType, Event, EventKind, Fingerprint};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{EventLog, NewRecord};
use shared::id::{AdId, CampaignId, EventId, ImpressionId, RefId};
use shared::money::Currency;
use shared::price::{PriceBook, PriceModel, PriceRow};
use shared::time::{DAY, Day, HOUR, MINUTE, ManualClock, SECOND, Timestamp};
use shared::verdict::{Counting, InvalidCode};
use shared::wire::encode_event;

pub(crate) const PARTITIONS: u32 = 2;

pub(crate) fn start() -> Timestamp {
    Timestamp::parse("2026-01-05T00:00:00Z").unwrap()
}

pub(crate) fn day() -> Day {
    start().day()
}

/// An event in short: small numbers, so that everything collides with everything.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) id: u8,
    pub(crate) kind: EventKind,
    pub(crate) impression: Option<u8>,
    pub(crate) payload: u8,
    /// After [`start`], microseconds.
    pub(crate) ingest: i64,
    /// Ingest time minus event time, microseconds.
    pub(crate) age: i64,
    pub(crate) invalid: Option<InvalidCode>,
    pub(crate) is_bot: bool,
    pub(crate) ad: u8,
    pub(crate) campaign: u8,
    pub(crate) user: Option<u8>,
    pub(crate) device: DeviceType,
    pub(crate) country: &'static str,
    pub(crate) cost: Option<(i64, &'static str)>,
    pub(crate) region: &'static str,
    pub(crate) partition: u32,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            id: 0,
            kind: EventKind::Click,
            impression: None,
            payload: 0,
            ingest: 0,
            age: 0,
            invalid: None,
            is_bot: false,
            ad: 0,
            campaign: 0,
            user: None,
            device: DeviceType::Other,
            country: "ZZ",
            cost: None,
            region: "eu",
            partition: 0,
        }
    }
}

impl Spec {
    pub(crate) fn event(&self) -> Event {
        let ingest_time = start().plus(self.ingest);
        let agent = if self.is_bot { "Googlebot/2.1" } else { "Mozilla/5.0 Firefox/140.0" };
        Event {
            event_id: EventId::new(format!("id-{}", self.id)).unwrap(),
            kind: self.kind,
            event_time: ingest_time.plus(-self.age),
            ingest_time,
            ad_id: AdId::new(format!("ad{}", self.ad)).unwrap(),
            campaign_id: CampaignId::new(format!("c{}", self.campaign)).unwrap(),
            advertiser_id: None,
            details: Details {
                impression_id: self.impression.map(|i| ImpressionId::new(format!("imp{i}")).unwrap()),
                user_pseudo_id: self.user.map(|u| RefId::new(format!("u{u}")).unwrap()),
                country: Country::parse(self.country).unwrap(),
                device_type: self.device,
                user_agent: Some(agent.to_owned()),
                cost_micros: self.cost.map(|(micros, _)| micros),
                currency: self.cost.and_then(|(_, code)| Currency::parse(code)),
                ..Details::default()
            },
            region: RefId::new(self.region).unwrap(),
            invalid: self.invalid,
            fingerprint: Fingerprint([self.payload; 16]),
            traceparent: None,
        }
    }
}

/// Anything the contract speaks of, often at its bounds.
pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let ingest =
        (0..12_i64, prop_oneof![Just(0), Just(1), Just(SECOND)]).prop_map(|(slot, more)| slot * 6 * HOUR + more);
    let age = prop_oneof![
        4 => Just(0),
        2 => Just(SECOND),
        2 => Just(20 * HOUR),
        1 => Just(7 * DAY),
        1 => Just(7 * DAY + 1),
        1 => Just(-5 * MINUTE),
        1 => Just(-5 * MINUTE - 1),
    ];
    let kind =
        prop_oneof![3 => Just(EventKind::Click), 1 => Just(EventKind::Impression), 1 => Just(EventKind::Conversion)];
    let invalid = prop_oneof![
        7 => Just(None),
        1 => Just(Some(InvalidCode::BadSignature)),
        1 => Just(Some(InvalidCode::Rate)),
    ];
    let who = (0..25_u8, kind, proptest::option::of(0..4_u8), 0..2_u8, ingest, age, invalid);
    let device = prop_oneof![Just(DeviceType::Ctv), Just(DeviceType::Other), Just(DeviceType::Tablet)];
    let cost = proptest::option::of((0..9_i64, prop_oneof![Just("EUR"), Just("USD")]));
    let country = prop_oneof![Just("DE"), Just("ZZ")];
    let what = (proptest::bool::weighted(0.1), 0..4_u8, 0..5_u8, proptest::option::of(0..3_u8), device, country, cost);
    (who, what, 0..PARTITIONS, prop_oneof![Just("eu"), Just("us")]).prop_map(|(who, what, partition, region)| {
        let (id, kind, impression, payload, ingest, age, invalid) = who;
        let (is_bot, ad, campaign, user, device, country, cost) = what;
        Spec {
            id,
            kind,
            impression,
            payload,
            ingest,
            age,
            invalid,
            is_bot,
            ad,
            campaign,
            user,
            device,
            country,
            cost,
            region,
            partition,
        }
    })
}

/// c0 changes from clicks to impressions at noon of day 1, c1 pays per thousand, c2 what is reported, c3 has no price
/// before day 1, c4 pays conversions.
pub(crate) fn prices() -> PriceBook {
    let row = |campaign: &str, model, price_micros, currency: &str, valid_from: &str| PriceRow {
        campaign_id: CampaignId::new(campaign).unwrap(),
        model,
        price_micros,
        currency: Currency::parse(currency).unwrap(),
        valid_from: valid_from.to_owned(),
    };
    let old = "2025-01-01T00:00:00Z";
    let first = PriceBook::default()
        .import([
            row("c0", PriceModel::Cpc, 5_000, "EUR", old),
            row("c1", PriceModel::Cpm, 1_234, "USD", old),
            row("c2", PriceModel::Reported, 0, "GBP", old),
            row("c4", PriceModel::Cpa, 900_000, "EUR", old),
        ])
        .unwrap();
    first
        .import([
            row("c0", PriceModel::Cpm, 7, "EUR", "2026-01-06T12:00:00Z"),
            row("c3", PriceModel::Cpc, 11, "EUR", "2026-01-06T00:00:00Z"),
        ])
        .unwrap()
}

/// How an archive is cut into files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// Commits of so many events, files in hash order.
    Sorted(usize),
    /// The same, in the order of arrival.
    Unsorted(usize),
}

/// A lake with its logs.
pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) root: LakeRoot,
    pub(crate) deps: Deps,
    pub(crate) clock: ManualClock,
    pub(crate) settings: Settings,
    log: Arc<MemoryLog>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(start().plus(20 * DAY));
        let root = LakeRoot::open_folder(&folder.path().join("lake")).unwrap().with_clock(Arc::new(clock.clone()));
        let log = Arc::new(MemoryLog::new(PARTITIONS));
        let deps = Deps {
            root: root.clone(),
            events: log.clone(),
            dead_letters: Arc::new(MemoryLog::new(1)),
            clock: Arc::new(clock.clone()),
            prices: Arc::new(prices()),
            counting: Arc::new(Counting::default()),
        };
        let settings = Settings { threads: 2, spill_dir: folder.path().to_owned(), ..Settings::default() };
        Self { _folder: folder, root, deps, clock, settings, log }
    }

    /// Appends events to the log and answers them with their places.
    pub(crate) async fn log(&self, events: Vec<(u32, Event)>) -> Vec<Archived> {
        let counting = Counting::default();
        let mut placed = Vec::new();
        for (partition, event) in events {
            let payload = encode_event(&event).into();
            let record = NewRecord { partition, append_time: start(), payload };
            let at = self.log.append(vec![record]).await.unwrap()[0];
            let billing_time = counting.billing_time(event.event_time, event.ingest_time).at;
            placed.push(Archived { event, partition, position: at.position, billing_time });
        }
        placed
    }

    /// Archives events as the lake's archiver would: files by day, and the positions with them.
    pub(crate) async fn archive(&self, rows: &[Archived], layout: Layout) {
        let (size, sorted) = match layout {
            Layout::Sorted(n) => (n, true),
            Layout::Unsorted(n) => (n, false),
        };
        let mut table = Table::open(&self.root, &BRONZE_EVENTS).await.unwrap();
        for chunk in rows.chunks(size.max(1)) {
            let mut files = Vec::new();
            let mut days: BTreeMap<Day, Vec<Archived>> = BTreeMap::new();
            for row in chunk {
                days.entry(row.billing_time.day()).or_default().push(row.clone());
            }
            for (day, mut rows) in days {
                if sorted {
                    rows.sort_by_key(|r| (lake::convert::id_hash(r.event.event_id.as_str()), r.partition, r.position));
                }
                files.push(self.store(&table, day, &rows).await);
            }
            table.append(files, &self.positions(chunk)).await.map(|_| ()).unwrap();
        }
    }

    async fn store(&self, table: &Table, day: Day, rows: &[Archived]) -> NewFile {
        let first = &rows[0];
        let mut file =
            ParquetFile::new(&BRONZE_EVENTS, day, &format!("part-{}-{}", first.partition, first.position)).unwrap();
        file.write(&events_to_batch(rows).unwrap()).unwrap();
        table.store(file.finish().unwrap()).await.unwrap()
    }

    fn positions(&self, rows: &[Archived]) -> Vec<Txn> {
        let mut next: BTreeMap<u32, u64> = BTreeMap::new();
        for row in rows {
            let at = next.entry(row.partition).or_default();
            *at = (*at).max(row.position + 1);
        }
        next.into_iter().map(|(p, n)| Txn::raise(format!("bronze/events/{p}"), i64::try_from(n).unwrap())).collect()
    }

    /// Logs and archives in one.
    pub(crate) async fn take(&self, specs: &[Spec], layout: Layout) -> Vec<Archived> {
        let rows = self.log(specs.iter().map(|s| (s.partition, s.event())).collect()).await;
        self.archive(&rows, layout).await;
        rows
    }

    pub(crate) async fn run(&self, day: Day) -> Result<Outcome, Error> {
        self.run_with(Request { day, dry_run: false, force: false }).await
    }

    pub(crate) async fn run_with(&self, request: Request) -> Result<Outcome, Error> {
        recompute(&self.deps, &self.settings, request, &progress::silent()).await
    }

    /// The rows that a record names in one of its tables, in order, every value as text (times in microseconds).
    pub(crate) async fn rows(&self, record: &RunRecord, table: &str) -> Vec<Vec<String>> {
        let output = &record.outputs[table];
        let def = by_name(table).unwrap();
        let table = Table::open(&self.root, def).await.unwrap().at_version(output.version).await.unwrap();
        let files = table.files_of(record.day).unwrap();
        let mut rows = Vec::new();
        for named in &output.files {
            let file = files.iter().find(|f| f.path == named.path).unwrap();
            for batch in table.read(file, None).await.unwrap() {
                rows.extend(text(&batch.unwrap()));
            }
        }
        rows
    }
}

fn text(batch: &RecordBatch) -> Vec<Vec<String>> {
    let plain = |column: &Arc<dyn Array>| match column.data_type() {
        DataType::Timestamp(..) => cast(column, &DataType::Int64).unwrap(),
        _ => column.clone(),
    };
    let columns: Vec<_> = batch.columns().iter().map(plain).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|c| array_value_to_string(c, row).unwrap()).collect()).collect()
}

/// The SHA-256 of every file of the gold tables, in order.
pub(crate) fn gold_hashes(record: &RunRecord) -> Vec<(String, String)> {
    let gold = record.outputs.iter().filter(|(name, _)| name.starts_with("gold/"));
    gold.flat_map(|(name, o)| o.files.iter().map(|f| (name.clone(), f.sha256.clone()))).collect()
}

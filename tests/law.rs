//! The Lambda law: for any set of events, in any order, repeated, cut into batches anywhere, with any layer stopped
//! or dropped anywhere, with ads spread over any number of partitions that changes meanwhile, what serving shows after
//! reconcile equals a naive recount, to the nano.
//!
//! One thread drives the real layers through their ports: memory log, a lake in a folder, the memory serving store,
//! a clock that stands. Then again with ClickHouse for the serving store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::event::{Details, Event, EventKind, Fingerprint};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{EventLog, NewRecord};
use shared::id::{AdId, CampaignId, EventId, ImpressionId, RefId};
use shared::money::Currency;
use shared::partition::salted_partition_of;
use shared::price::{PriceBook, PriceModel, PriceRow};
use shared::rollup::RollupKey;
use shared::serving_store::ServingStore;
use shared::shutdown::Shutdown;
use shared::testing::MemoryServingStore;
use shared::time::{Clock, DAY, Day, HOUR, MINUTE, ManualClock, SECOND, Timestamp};
use shared::verdict::{Counting, InvalidCode};
use shared::wire::encode_event;

use crate::naive::{Cell, Logged, Sums, recount};

const PARTITIONS: u32 = 3;
/// The traffic spans two billing days around this midnight.
pub(crate) const MIDNIGHT: Timestamp = Timestamp(20_458 * DAY);

/// What happens between two batches of records.
#[derive(Debug, Clone, Copy)]
enum Between {
    Nothing,
    /// Speed runs a little and stops in order.
    SpeedStops,
    /// Speed runs a little and is dropped where it stands.
    SpeedDies,
    /// The lake archives everything.
    LakeDrains,
    /// The lake is dropped while it archives.
    LakeDies,
}

fn between() -> impl Strategy<Value = Between> {
    use Between::{LakeDies, LakeDrains, Nothing, SpeedDies, SpeedStops};
    prop::sample::select(vec![Nothing, SpeedStops, SpeedDies, LakeDrains, LakeDies])
}

fn event() -> impl Strategy<Value = Event> {
    let what = (
        0..12_u8,
        prop::sample::select(vec![EventKind::Click, EventKind::Click, EventKind::Impression, EventKind::Conversion]),
        0..6_u8,
        0..2_u8,
    );
    let time =
        (-3 * HOUR..3 * HOUR, prop_oneof![4 => -30 * SECOND..30 * SECOND, 1 => -26 * HOUR..HOUR, 1 => -8 * DAY..DAY]);
    let rest = (
        prop::option::of(0..4_u8),
        0..3_u8,
        prop::option::of(0..5_000_i64),
        prop_oneof![
            8 => Just(None),
            1 => Just(Some(InvalidCode::BadSignature)),
            1 => Just(Some(InvalidCode::Expired)),
            1 => Just(Some(InvalidCode::InactiveAd)),
        ],
        0..5_u8,
    );
    (what, time, rest).prop_map(
        |((id, kind, ad, payload), (ingest, offset), (impression, user, cost, invalid, agent))| Event {
            event_id: EventId::new(format!("event-{id}-{}", kind.as_str())).unwrap(),
            kind,
            event_time: MIDNIGHT.plus(ingest + offset),
            ingest_time: MIDNIGHT.plus(ingest),
            ad_id: AdId::new(format!("ad-{ad}")).unwrap(),
            campaign_id: CampaignId::new(format!("campaign-{}", ad % 5)).unwrap(),
            advertiser_id: None,
            details: Details {
                impression_id: impression.map(|i| ImpressionId::new(format!("imp-{i}")).unwrap()),
                user_pseudo_id: Some(RefId::new(format!("user-{user}")).unwrap()),
                creative_id: Some(RefId::new("creative").unwrap()),
                user_agent: (agent == 0).then(|| "NiceBot/1.0".to_owned()),
                cost_micros: cost,
                currency: cost.filter(|c| c % 2 == 0).map(|_| Currency::parse("JPY").unwrap()),
                ..Details::default()
            },
            region: RefId::new("law").unwrap(),
            invalid,
            fingerprint: Fingerprint([payload; 16]),
            traceparent: None,
        },
    )
}

/// Fewer than `most` events, repeated and shuffled.
fn traffic(most: usize) -> impl Strategy<Value = Vec<Event>> {
    (prop::collection::vec(event(), 1..most), prop::collection::vec(any::<prop::sample::Index>(), 0..30)).prop_flat_map(
        |(mut events, again)| {
            let repeated: Vec<Event> = again.iter().map(|i| i.get(&events).clone()).collect();
            events.extend(repeated);
            Just(events).prop_shuffle()
        },
    )
}

fn prices() -> PriceBook {
    let row = |n: u8, model, micros, currency: &str, from: i64| PriceRow {
        campaign_id: CampaignId::new(format!("campaign-{n}")).unwrap(),
        model,
        price_micros: micros,
        currency: Currency::parse(currency).unwrap(),
        valid_from: MIDNIGHT.plus(from).to_string(),
    };
    PriceBook::default()
        .import([
            row(0, PriceModel::Cpc, 123_457, "EUR", -30 * DAY),
            row(0, PriceModel::Cpm, 999_999, "USD", 20 * MINUTE),
            row(1, PriceModel::Cpm, 1_234_567, "USD", -30 * DAY),
            row(2, PriceModel::Cpa, 7_000_001, "JPY", -30 * DAY),
            row(3, PriceModel::Reported, 0, "EUR", -30 * DAY),
            // campaign-4 has no price.
        ])
        .unwrap()
}

/// What a world stands on.
pub(crate) struct Ground {
    log: Arc<dyn EventLog>,
    bad: Arc<dyn EventLog>,
    store: Arc<dyn ServingStore>,
    lake: lake::LakeRoot,
    data: lake::LakeRoot,
    folder: tempfile::TempDir,
}

impl Ground {
    /// Logs in memory, and a folder.
    pub(crate) fn here(partitions: u32, store: Arc<dyn ServingStore>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = |name: &str| lake::LakeRoot::open_folder(&folder.path().join(name)).unwrap();
        Self {
            log: Arc::new(MemoryLog::new(partitions)),
            bad: Arc::new(MemoryLog::new(1)),
            store,
            lake: root("lake"),
            data: root("data"),
            folder,
        }
    }
}

pub(crate) struct World {
    ground: Ground,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) store: Arc<dyn ServingStore>,
    clock: Arc<ManualClock>,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) counting: Counting,
}

impl World {
    pub(crate) fn new(ground: Ground, identical_clicks: bool) -> Self {
        Self {
            log: ground.log.clone(),
            store: ground.store.clone(),
            ground,
            clock: Arc::new(ManualClock::at(MIDNIGHT.plus(2 * DAY))),
            prices: Arc::new(prices()),
            counting: Counting { identical_clicks, ..Counting::default() },
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn lake(&self) -> lake::LakeRoot {
        self.ground.lake.clone().with_clock(self.clock())
    }

    /// Appends events whose ads are spread over so many partitions.
    async fn append(&self, events: &[Event], salts: u32) {
        let partitions = self.log.partitions();
        let place = |e: &Event| salted_partition_of(e.ad_id.as_str(), e.event_id.as_str(), salts, partitions);
        self.append_at(events.iter().map(|e| (place(e), encode_event(e)))).await;
    }

    pub(crate) async fn append_at(&self, placed: impl Iterator<Item = (u32, Vec<u8>)>) {
        self.clock.advance(SECOND);
        let append_time = self.clock.now();
        let record = |(partition, payload)| NewRecord { partition, append_time, payload: Bytes::from(payload) };
        let records: Vec<_> = placed.map(record).collect();
        let number = records.len();
        if number > 0 {
            assert_eq!(self.log.append(records).await.unwrap().len(), number);
        }
    }

    pub(crate) fn archiver(&self, flush_rows: usize) -> lake::archiver::Archiver {
        self.clock.advance(1); // files are named by the moment
        let deps = lake::archiver::Deps {
            events: self.log.clone(),
            dead_letters: self.ground.bad.clone(),
            root: self.lake(),
            clock: self.clock(),
            region: RefId::new("law").unwrap(),
            counting: self.counting.clone(),
        };
        let settings = lake::archiver::Settings { flush_rows, ..lake::archiver::Settings::default() };
        lake::archiver::Archiver::new(settings, deps)
    }

    fn start_speed(&self, poll_records: usize) -> (Shutdown, tokio::task::JoinHandle<Result<(), speed::Error>>) {
        let settings = speed::Settings {
            state_dir: self.ground.folder.path().join("speed"),
            counting: self.counting.clone(),
            flush_interval: shared::config::Span::millis(1),
            checkpoint_interval: shared::config::Span::millis(1),
            poll_wait: shared::config::Span::millis(1),
            poll_records,
            ..speed::Settings::default()
        };
        let book = self.prices.clone();
        let deps = speed::Deps {
            events: self.log.clone(),
            store: self.store.clone(),
            prices: Arc::new(move || book.clone()),
            state: None,
            clock: self.clock(),
        };
        let shutdown = Shutdown::new();
        let running = tokio::spawn(speed::Speed::new(settings, deps).run(shutdown.clone()));
        (shutdown, running)
    }

    async fn moment(&self) {
        self.clock.advance(2_000);
        shared::time::sleep(Duration::from_millis(1)).await;
    }

    /// Runs speed until the store has everything that the log has.
    pub(crate) async fn speed_through(&self) {
        let (shutdown, running) = self.start_speed(1_000);
        let end = self.log.bounds().await.unwrap().end;
        loop {
            let writers = self.store.writers().await.unwrap();
            let reached = |p: &u32| writers.get(p).map_or(0, |status| status.next_position);
            if end.0.iter().all(|(partition, end)| reached(partition) == *end) {
                break;
            }
            assert!(!running.is_finished(), "speed ended at {writers:?}");
            self.moment().await;
        }
        shutdown.request();
        running.await.unwrap().unwrap();
    }

    /// Runs speed for a little while; then asks it to stop, or drops it.
    async fn speed(&self, dies: bool) {
        let (shutdown, running) = self.start_speed(7);
        for _ in 0..20 {
            self.moment().await;
        }
        if dies {
            running.abort();
        } else {
            shutdown.request();
        }
        match running.await {
            Ok(ended) => ended.unwrap(),
            Err(e) => assert!(e.is_cancelled(), "{e}"),
        }
    }

    async fn meanwhile(&self, what: Between) {
        match what {
            Between::Nothing => {}
            Between::SpeedStops => self.speed(false).await,
            Between::SpeedDies => self.speed(true).await,
            Between::LakeDrains => drop(self.archiver(40).drain().await.unwrap()),
            Between::LakeDies => {
                let archiver = self.archiver(40);
                let dropped = tokio::time::timeout(Duration::from_millis(15), archiver.drain()).await;
                if let Ok(ended) = dropped {
                    ended.unwrap();
                }
            }
        }
    }

    /// Everything the log holds, as a naive reader sees it.
    pub(crate) async fn logged(&self) -> Vec<Logged> {
        let bounds = self.log.bounds().await.unwrap();
        let mut consumer = self.log.consumer("naive", &bounds.start).await.unwrap();
        let mut all = Vec::new();
        while !consumer.positions().covers(&bounds.end) {
            let records = consumer.poll(1_000, Duration::from_secs(1)).await.unwrap();
            all.extend(
                records.into_iter().map(|r| (shared::wire::decode_event(&r.payload).unwrap(), r.partition, r.position)),
            );
        }
        all
    }

    /// Recounts and reconciles every day that has events; answers the verdicts batch gave.
    pub(crate) async fn settle(&self, days: &[Day], changes: bool) -> BTreeMap<String, u64> {
        let deps = batch::Deps {
            root: self.lake(),
            events: self.log.clone(),
            dead_letters: self.ground.bad.clone(),
            clock: self.clock(),
            prices: self.prices.clone(),
            counting: Arc::new(self.counting.clone()),
        };
        let settings = batch::Settings { threads: 2, ..batch::Settings::default() };
        let reconcile_deps = reconcile::Deps {
            lake: self.lake(),
            data: self.ground.data.clone().with_clock(self.clock()),
            store: self.store.clone(),
            clock: self.clock(),
            signer: reconcile::Signer::from_seed(&[7; 32]).unwrap(),
        };
        let mut verdicts = BTreeMap::new();
        for day in days {
            let request = batch::Request { day: *day, dry_run: false, force: true };
            let outcome = batch::recompute(&deps, &settings, request, &batch::progress::silent()).await.unwrap();
            assert_eq!(outcome.published, changes, "{day}");
            for (verdict, n) in outcome.record.verdicts {
                *verdicts.entry(verdict).or_default() += n;
            }
            let request = reconcile::Request { day: *day, force: true, reason: None };
            let settled =
                reconcile::run(&reconcile_deps, &reconcile::Settings::default(), &request, &|_| {}).await.unwrap();
            match settled {
                reconcile::Outcome::Settled(_) => assert!(changes),
                reconcile::Outcome::AlreadySettled(summary) => {
                    assert!(!changes && summary.rows_changed == 0, "{summary:?}")
                }
                other => panic!("{other:?}"),
            }
        }
        verdicts.retain(|_, n| *n > 0);
        verdicts
    }

    pub(crate) async fn shown(&self, days: &[Day]) -> BTreeMap<Cell, Sums> {
        let mut cells = BTreeMap::new();
        for hour in days.iter().flat_map(|d| d.hours()) {
            for row in self.store.read_hour(hour).await.unwrap() {
                if let RollupKey::AdMinute { minute, ad_id, campaign_id, currency } = row.key {
                    let c = row.counts;
                    let cell = (ad_id.to_string(), minute.0, campaign_id.to_string(), currency.to_string());
                    cells.insert(cell, (c.impressions, c.clicks, c.conversions, c.cost_nanos));
                }
            }
        }
        cells
    }
}

/// Events; what happens between them, and over how many partitions ads are spread from then on; and a counting rule.
type Case = (Vec<Event>, Vec<(prop::sample::Index, (Between, u32))>, bool);

fn cases(most: usize) -> impl Strategy<Value = Case> {
    let cuts = prop::collection::vec((any::<prop::sample::Index>(), (between(), 1..=PARTITIONS)), 0..4);
    (traffic(most), cuts, any::<bool>())
}

async fn law((events, cuts, identical_clicks): Case, ground: Ground) {
    let world = World::new(ground, identical_clicks);
    let mut places: Vec<(usize, (Between, u32))> =
        cuts.iter().map(|(i, what)| (i.index(events.len() + 1), *what)).collect();
    places.sort_by_key(|(place, _)| *place);
    let (mut done, mut salts) = (0, 1);
    for (place, (what, next_salts)) in places {
        world.append(&events[done..place], salts).await;
        (done, salts) = (place, next_salts);
        world.meanwhile(what).await;
    }
    world.append(&events[done..], salts).await;
    world.archiver(40).drain().await.unwrap();

    let logged = world.logged().await;
    let days: std::collections::BTreeSet<Day> =
        logged.iter().map(|(e, ..)| crate::naive::billing_time(e, &world.counting).day()).collect();
    let days: Vec<Day> = days.into_iter().collect();
    let naive = recount(logged, &world.counting, &world.prices);
    let verdicts = world.settle(&days, true).await;
    assert_eq!(verdicts, naive.verdicts);
    assert_eq!(world.shown(&days).await, naive.cells);

    // Speed goes on, late and from wherever it was: nothing exact changes, and the same again changes nothing.
    world.speed(false).await;
    assert_eq!(world.shown(&days).await, naive.cells);
    assert_eq!(world.settle(&days, false).await, naive.verdicts);
}

/// Tries so many cases of fewer than `most` events, each on a ground of its own.
fn holds(tries: u32, most: usize, ground: impl FnMut(&tokio::runtime::Runtime) -> Ground) {
    let config = Config { cases: tries, max_shrink_iters: 40, ..Config::default() };
    let ground = std::cell::RefCell::new(ground);
    let outcome = TestRunner::new(config).run(&cases(most), |case| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ground = (*ground.borrow_mut())(&runtime);
        runtime.block_on(law(case, ground));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn serving_after_reconcile_equals_a_naive_recount() {
    holds(12, 120, |_| Ground::here(PARTITIONS, Arc::new(MemoryServingStore::new())));
}

/// Log, lake, publications and serving store, each the real one.
#[cfg(all(feature = "clickhouse", feature = "kafka", feature = "redis", feature = "s3"))]
#[test]
fn on_every_real_part_serving_after_reconcile_equals_a_naive_recount() {
    use crate::outside::Outside;
    use crate::support::Ledger;

    let mut ledger = Ledger::new();
    ledger.set("KAFKA__RETENTION", "36500d"); // the clock of this test stands in the past
    let outside = Outside::everything(&mut ledger);
    let (stores, mut made) = (ledger.settings().object_store, 0);
    holds(1, 24, |runtime| {
        made += 1;
        ledger.set("KAFKA__EVENTS_TOPIC", format!("law.{made}"));
        ledger.set("KAFKA__DEAD_LETTERS_TOPIC", format!("law.{made}.dlq"));
        ledger.set("CLICKHOUSE__DATABASE", format!("law_{}_{made}", std::process::id()));
        ledger.set("OBJECT_STORE__LAKE_URL", format!("{}/{made}", stores.lake_url));
        ledger.set("OBJECT_STORE__PUBLISHED_URL", format!("{}/{made}", stores.published_url));
        ledger.ok(&["kafka", "ensure"]);
        let parts = ledger.parts();
        runtime.block_on(async {
            let logs = parts.log_writer().await.unwrap();
            Ground {
                log: logs.events,
                bad: logs.dead_letters,
                store: parts.serving_store().await.unwrap(),
                lake: parts.lake_root().unwrap(),
                data: parts.data_root().unwrap(),
                folder: tempfile::tempdir().unwrap(),
            }
        })
    });
    drop(outside);
}

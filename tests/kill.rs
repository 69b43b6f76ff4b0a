//! Twenty SIGKILLs of the real binary under HTTP load, across all roles; then drain, batch, reconcile: on what is embedded,
//! and on Kafka, ClickHouse, S3 and Redis with these killed too. Only settings differ. The client's journal says what was
//! acknowledged and what was ever sent; nothing may be lost, doubled or invented.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clickledger::client::Client;
use clickledger::simulate::{self, Label, Live, World};
use clickledger::wiring::Parts;
use lake::convert::events_from_batch;
use lake::tables::{BRONZE_EVENTS, SILVER_EVENTS};
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use shared::rollup::RollupKey;
use shared::time::{Clock, Day, SystemClock};

use crate::naive::{Cell, Logged, Sums, recount};
use crate::outside::Outside;
use crate::support::Ledger;

const KILLS: usize = 20;
const CLIENTS: u64 = 4;
const ROLES: [&str; 4] = ["gateway", "speed", "lake", "serving"];
/// Long enough to start, recover and do some work before the next kill, short enough to be often in the middle of it.
const BETWEEN_KILLS: std::ops::Range<u64> = 700..1_600;

/// What one client sent and saw answered.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) sent: BTreeSet<String>,
    pub(crate) acknowledged: BTreeSet<String>,
}

pub(crate) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sends honest and dishonest events; an honest one is sent again until it is answered.
async fn client(parts: Parts, gateway: SocketAddr, seed: u64, stop: Arc<AtomicBool>) -> Journal {
    let settings = traffic(seed);
    let mut live = Live::new(settings, parts.event_signer().unwrap());
    let clock = SystemClock::default();
    let mut connection = Client::new(gateway);
    let mut journal = Journal::default();
    while !stop.load(Ordering::Relaxed) {
        let item = live.next_at(clock.now());
        let honest = !matches!(item.label, Label::Forged | Label::Poison);
        // Clients' worlds overlap on purpose: the same ids come over several connections.
        let id = item.event_id.clone().filter(|_| honest);
        journal.sent.extend(id.clone());
        loop {
            let sent = connection
                .send("POST", "/v1/events", &[("content-type", "application/json")], Bytes::from(item.body.clone()))
                .await;
            match sent {
                Ok(answer) if answer.status == 503 || answer.status == 429 => {}
                Ok(answer) => {
                    if answer.status == 202 || answer.status == 409 {
                        journal.acknowledged.extend(id);
                    } else {
                        assert!(!honest, "an honest event was answered {}: {:?}", answer.status, answer.body);
                    }
                    break;
                }
                Err(_) if stop.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
            shared::time::sleep(Duration::from_millis(20)).await;
        }
        shared::time::sleep(Duration::from_millis(2)).await;
    }
    journal
}

pub(crate) fn traffic(seed: u64) -> simulate::Settings {
    simulate::Settings {
        seed,
        ads: 50,
        campaigns: 10,
        start: SystemClock::default().now().day(),
        ..simulate::Settings::default()
    }
}

pub(crate) fn furnish(ledger: &Ledger) {
    ledger.ok(&["keys", "create", "signing"]);
    let world = World::new(&traffic(0));
    let (ads, prices) = (ledger.path().join("ads.csv"), ledger.path().join("prices.csv"));
    world.write_ads(&mut std::fs::File::create(ads).unwrap()).unwrap();
    world.write_prices(&mut std::fs::File::create(prices).unwrap()).unwrap();
    ledger.ok(&["ads", "import", "ads.csv"]);
    ledger.ok(&["prices", "import", "prices.csv"]);
}

fn stop_in_order(children: &mut BTreeMap<&'static str, Child>) {
    for child in children.values_mut() {
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }
    for (role, child) in children.iter_mut() {
        let status = child.wait().unwrap();
        assert!(status.success(), "{role} ended with {status} after SIGTERM");
    }
}

#[test]
fn twenty_kills_under_load_lose_nothing_and_double_nothing() {
    survive(Ledger::new(), Outside::default());
}

#[cfg(all(feature = "clickhouse", feature = "kafka", feature = "redis", feature = "s3"))]
#[test]
fn on_every_real_part_twenty_kills_and_one_of_each_part_lose_nothing_and_double_nothing() {
    let mut ledger = Ledger::new();
    let outside = Outside::everything(&mut ledger);
    survive(ledger, outside);
}

fn survive(mut ledger: Ledger, mut outside: Outside) {
    let gateway = free_port();
    ledger.set("GATEWAY__LISTEN", gateway);
    ledger.set("SERVING__LISTEN", free_port());
    ledger.set("GATEWAY__RATE_LIMIT__PER_SECOND", 100_000);
    ledger.set("GATEWAY__RATE_LIMIT__BURST", 100_000);
    ledger.set("SPEED__FLUSH_INTERVAL", "300ms");
    ledger.set("SPEED__CHECKPOINT_INTERVAL", "500ms");
    ledger.set("LAKE__FLUSH_AGE", "500ms");
    ledger.set("LOG__SEGMENT_BYTES", "256KiB");
    furnish(&ledger);
    let parts = ledger.parts();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut children: BTreeMap<&'static str, Child> =
        ROLES.iter().map(|role| (*role, ledger.spawn(role, &[role]))).collect();
    let clients: Vec<_> =
        (0..CLIENTS).map(|n| runtime.spawn(client(parts.clone(), gateway, n % 3, stop.clone()))).collect();
    let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(20);
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(dice.random_range(BETWEEN_KILLS)));
        // Every role dies at least four times; chance says when within its life.
        let role = ROLES[kill % ROLES.len()];
        let child = children.get_mut(role).unwrap();
        // A role that starts while a part is away says so (75) and is started again, as a supervisor would.
        let ended = child.try_wait().unwrap();
        let may_end = ended.is_none_or(|status| outside.is_any() && status.code() == Some(75));
        assert!(may_end, "{role} ended by itself ({ended:?}):\n{}", ledger.log(role));
        child.kill().unwrap();
        child.wait().unwrap();
        *child = ledger.spawn(role, &[role]);
        if kill % 5 == 2 {
            outside.crash_and_restart(kill / 5);
        }
    }
    std::thread::sleep(Duration::from_millis(1_500));
    stop.store(true, Ordering::Relaxed);
    let journals: Vec<Journal> = clients.into_iter().map(|c| runtime.block_on(c).unwrap()).collect();
    stop_in_order(&mut children);
    let sent: BTreeSet<String> = journals.iter().flat_map(|j| j.sent.iter().cloned()).collect();
    let acknowledged: BTreeSet<String> = journals.iter().flat_map(|j| j.acknowledged.iter().cloned()).collect();
    assert!(
        acknowledged.len() > 1_000,
        "only {} events were acknowledged\n{}",
        acknowledged.len(),
        ledger.log("gateway")
    );

    ledger.ok(&["lake", "--drain"]);
    runtime.block_on(check(&ledger, &parts, &sent, &acknowledged));
}

pub(crate) async fn check(ledger: &Ledger, parts: &Parts, sent: &BTreeSet<String>, acknowledged: &BTreeSet<String>) {
    let archived = archived(parts).await;
    let ids: BTreeSet<String> = archived.iter().map(|(e, ..)| e.event_id.to_string()).collect();
    let lost: Vec<_> = acknowledged.difference(&ids).collect();
    assert!(lost.is_empty(), "I1: {} acknowledged events are lost, such as {:?}", lost.len(), lost.first());
    let invented: Vec<_> = ids.difference(sent).collect();
    assert!(invented.is_empty(), "I2: {} events were never sent, such as {:?}", invented.len(), invented.first());

    let rules = &parts.settings().counting;
    let prices = parts.price_store().newest().unwrap();
    let days: BTreeSet<Day> = archived.iter().map(|(e, ..)| crate::naive::billing_time(e, rules).day()).collect();
    let events = archived.len() as u64;
    let naive = recount(archived, rules, &prices);

    let mut verdicts = BTreeMap::<String, u64>::new();
    for day in &days {
        let day = day.to_string();
        let run = ledger.ok(&["batch", "run", "--force", "--date", &day]).json();
        for (verdict, n) in run["verdicts"].as_object().unwrap() {
            *verdicts.entry(verdict.clone()).or_default() += n.as_u64().unwrap();
        }
        let settled = ledger.ok(&["reconcile", "run", "--force", "--date", &day]).json();
        let place = parts.published(settled["settlement"]["folder"].as_str().unwrap()).unwrap();
        ledger.ok(&["settlement", "verify", place.to_str().unwrap()]);
    }
    verdicts.retain(|_, n| *n > 0);
    assert_eq!(verdicts, naive.verdicts, "I9: verdicts");
    assert_eq!(verdicts.values().sum::<u64>(), events, "I9: archived events each have one verdict");
    assert_eq!(judged(parts).await, naive.by_position, "every position has the verdict of the naive recount");
    assert_eq!(shown(parts, &days).await, naive.cells, "I3: serving after reconcile");

    // I7: the speed layer goes on from its checkpoint, a zombie to every owned hour.
    ledger.ok(&["speed", "--run-for", "3s"]);
    assert_eq!(shown(parts, &days).await, naive.cells, "I7: a speed write changed an owned hour");
    for day in &days {
        let day = day.to_string();
        let again = ledger.run(&["batch", "run", "--force", "--date", &day]);
        assert_eq!(again.code, 99, "I4: batch again: {}\n{}", again.stdout, again.stderr);
        let again = ledger.run(&["reconcile", "run", "--date", &day]);
        assert_eq!(again.code, 99, "I4: reconcile again: {}\n{}", again.stdout, again.stderr);
        assert_eq!(again.json()["rowsChanged"], Value::from(0), "I4");
    }
    println!("{events} archived, {} acknowledged, verdicts {verdicts:?}", acknowledged.len());
}

pub(crate) async fn archived(parts: &Parts) -> Vec<Logged> {
    let table = lake::Table::open(&parts.lake_root().unwrap(), &BRONZE_EVENTS).await.unwrap();
    let mut all = Vec::new();
    for file in table.files().unwrap() {
        for batch in table.read(&file, None).await.unwrap() {
            all.extend(
                events_from_batch(&batch.unwrap()).unwrap().into_iter().map(|a| (a.event, a.partition, a.position)),
            );
        }
    }
    let positions: BTreeSet<(u32, u64)> = all.iter().map(|(_, partition, position)| (*partition, *position)).collect();
    assert_eq!(positions.len(), all.len(), "a log position is in the lake twice");
    all
}

async fn judged(parts: &Parts) -> BTreeMap<(u32, u64), String> {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    let table = lake::Table::open(&parts.lake_root().unwrap(), &SILVER_EVENTS).await.unwrap();
    let mut verdicts = BTreeMap::new();
    for file in table.files().unwrap() {
        for batch in table.read(&file, Some(&["verdict", "partition", "position"])).await.unwrap() {
            let batch = batch.unwrap();
            let column = |name: &str| batch.column_by_name(name).unwrap().clone();
            let (verdict, partition, position) = (column("verdict"), column("partition"), column("position"));
            for row in 0..batch.num_rows() {
                let place = (
                    u32::try_from(partition.as_primitive::<Int32Type>().value(row)).unwrap(),
                    u64::try_from(position.as_primitive::<Int64Type>().value(row)).unwrap(),
                );
                let before = verdicts.insert(place, verdict.as_string::<i32>().value(row).to_owned());
                assert!(before.is_none(), "{place:?} has two verdicts");
            }
            assert_eq!(verdict.null_count(), 0);
        }
    }
    verdicts
}

async fn shown(parts: &Parts, days: &BTreeSet<Day>) -> BTreeMap<Cell, Sums> {
    let store = parts.serving_store().await.unwrap();
    let mut cells = BTreeMap::new();
    for hour in days.iter().flat_map(|d| d.hours()) {
        for row in store.read_hour(hour).await.unwrap() {
            if let RollupKey::AdMinute { minute, ad_id, campaign_id, currency } = row.key {
                let c = row.counts;
                let cell = (ad_id.to_string(), minute.0, campaign_id.to_string(), currency.to_string());
                cells.insert(cell, (c.impressions, c.clicks, c.conversions, c.cost_nanos));
            }
        }
    }
    cells
}

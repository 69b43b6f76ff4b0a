//! The production shape: two gateways, two speed workers in a consumer group, lake and serving as processes of their own on
//! Kafka, ClickHouse, S3 and Redis, under signed traffic with duplicates, late and poison events. Meanwhile every role is
//! restarted in turn, roles are killed, Kafka and then ClickHouse are away for a while, and Redis forgets everything. In the
//! end nothing may be lost, doubled or invented, and the bill equals a naive recount.
//!
//! Short by default. `CLICKLEDGER_SOAK_SECONDS` and `CLICKLEDGER_SOAK_RATE` (events/s) make it as long and heavy as
//! wanted, `CLICKLEDGER_BINARY` runs another build. It prints what it measured.

mod faults;
mod load;
mod visible;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::kill::{self, Journal};
use crate::outside::Outside;
use crate::support::Ledger;

/// So many connections send; each pair of gateways shares them.
const CONNECTIONS: u64 = 8;
/// Long enough for every fault to happen and to be recovered from.
const SECONDS: u64 = 60;
const RATE: u64 = 400;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// Bytes that an archived event takes on each part, with everything that is kept for it. Of Kafka the events' segments
/// only: it makes indexes larger than they need be.
fn sizes(ledger: &Ledger, events: u64) -> String {
    let per_event = |part: &str, counts: fn(&Path) -> bool| bytes_in(&ledger.path().join(part), counts) / events.max(1);
    let log = per_event("kafka/logs", |file| {
        file.extension().is_some_and(|e| e == "log") && file.to_string_lossy().contains("/ads.events.v1-")
    });
    let [lake, rollups] = ["s3", "clickhouse"].map(|part| per_event(part, |_| true));
    format!("{events} events: {log} bytes each on the log, {lake} in the object store, {rollups} in ClickHouse")
}

/// The bytes of the files that count.
fn bytes_in(folder: &Path, counts: fn(&Path) -> bool) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = |path: &Path| path.metadata().map_or(0, |m| m.len());
    let each = entries
        .map(|e| e.path())
        .map(|path| if path.is_dir() { bytes_in(&path, counts) } else { u64::from(counts(&path)) * bytes(&path) });
    each.sum()
}

#[test]
fn on_every_real_part_restarts_kills_and_outages_lose_nothing_and_double_nothing() {
    let (seconds, rate) = (number("CLICKLEDGER_SOAK_SECONDS", SECONDS), number("CLICKLEDGER_SOAK_RATE", RATE));
    let mut ledger = Ledger::new();
    let mut outside = Outside::everything(&mut ledger);
    let addresses = faults::Addresses::free();
    ledger.set("SERVING__LISTEN", addresses.serving);
    ledger.set("SERVING__REQUIRE_KEYS", false);
    ledger.set("GATEWAY__RATE_LIMIT__PER_SECOND", 1_000_000);
    ledger.set("GATEWAY__RATE_LIMIT__BURST", 1_000_000);
    ledger.set("SPEED__STATE_URL", ledger.settings().object_store.lake_url.replace("/lake", "/speed"));
    ledger.set("KAFKA__SESSION_TIMEOUT", "6s");
    ledger.set("SPEED__FLUSH_INTERVAL", "2s");
    ledger.set("SPEED__CHECKPOINT_INTERVAL", "5s");
    ledger.set("LAKE__FLUSH_AGE", "5s");
    kill::furnish(&ledger);
    visible::furnish(&ledger);
    let parts = ledger.parts();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut roles = faults::Roles::start(&ledger, &addresses);
    let pace = load::Pace::of(rate, CONNECTIONS);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|n| {
            let gateway = addresses.gateways[usize::try_from(n % 2).unwrap()];
            // Every third world is shared: the same ids come over several connections and gateways.
            runtime.spawn(load::client(parts.clone(), gateway, n % 6, pace, stop.clone()))
        })
        .collect();
    let probe = runtime.spawn(visible::probe(parts.clone(), addresses, stop.clone()));
    let outages = faults::run(&mut roles, &mut outside, Duration::from_secs(seconds));
    stop.store(true, Ordering::Relaxed);
    let journals: Vec<Journal> = clients.into_iter().map(|c| runtime.block_on(c).unwrap()).collect();
    let probes = runtime.block_on(probe).unwrap();
    roles.stop_in_order();
    println!("{}", probes.summary(&outages));
    println!("{}", roles.summary());

    let of = |pick: fn(&Journal) -> &BTreeSet<String>| -> BTreeSet<String> {
        journals.iter().flat_map(|j| pick(j).iter().cloned()).collect()
    };
    let (mut sent, acknowledged) = (of(|j| &j.sent), of(|j| &j.acknowledged));
    let least = usize::try_from(rate * seconds / 4).unwrap();
    assert!(acknowledged.len() > least, "only {} events were acknowledged\n{}", acknowledged.len(), roles.log());
    ledger.ok(&["lake", "--drain"]);
    let archived = runtime.block_on(kill::archived(&parts));
    println!("{}", sizes(&ledger, archived.len() as u64));
    sent.extend(probes.ids(&archived));
    drop(archived);
    runtime.block_on(kill::check(&ledger, &parts, &sent, &acknowledged));
}

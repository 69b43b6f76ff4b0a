//! One ad brings half of the traffic, or nine tenths, and comes and goes during the day: once it is found no partition
//! has twice the mean, and no number shows where an event was placed, neither the approximate nor the exact ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway::hot::{HotAds, Settings};
use shared::config::Span;
use shared::event::{Admission, Event, Submission};
use shared::partition::partition_of;
use shared::rollup::{Counts, RollupKey};
use shared::testing::MemoryServingStore;
use shared::time::{Day, HOUR, SECOND};
use shared::wire::{encode_placed_event, salt_map_version};

use crate::law::{Ground, MIDNIGHT, World};
use crate::naive::recount;

const PARTITIONS: u32 = 8;
/// Events in each window of five seconds.
const EVENTS: usize = 3_000;

/// The windows of one day: so many percent of each on the hot ad, and the rest on forty others. One in fifty comes twice.
fn traffic(percent: usize) -> Vec<Vec<Event>> {
    let mut id = 0;
    let mut next = |hot_percent: usize| {
        id += 1;
        let ad = if (id * 37) % 100 < hot_percent { 99 } else { (id * 7) % 40 };
        let json = format!(
            r#"{{"eventId":"e-{id}","eventType":"click","timestamp":{},"adId":"ad-{ad}","userPseudoId":"u-{}"}}"#,
            MIDNIGHT.plus(HOUR).as_millis(),
            id % 700,
        );
        let ingest_time = MIDNIGHT.plus(HOUR + i64::try_from(id).unwrap() * SECOND / 600);
        let mut event = Submission::from_json(json.as_bytes()).unwrap().admit(Admission {
            ingest_time,
            region: "here".parse().unwrap(),
            campaign_id: format!("campaign-{}", ad % 5).parse().unwrap(),
            advertiser_id: None,
            invalid: None,
            traceparent: None,
        });
        event.event_time = ingest_time;
        event
    };
    let shares = [20, percent, percent, 0, 0, 0, percent];
    shares
        .map(|hot_percent| {
            let events = (0..EVENTS).map(|_| next(hot_percent));
            events.enumerate().flat_map(|(n, e)| if n % 50 == 0 { vec![e.clone(), e] } else { vec![e] }).collect()
        })
        .into()
}

/// Where each event goes and by which version of the map, window after window.
fn placed_by_detector(windows: &[Vec<Event>]) -> Vec<Vec<(u32, u64)>> {
    let settings = Settings { min_per_second: 10, leave_after: Span::secs(10), ..Settings::default() };
    let mut now = MIDNIGHT;
    let hot = HotAds::new(settings, PARTITIONS, now);
    let mut place = |events: &Vec<Event>| {
        let map = hot.map();
        hot.pass(events.iter().map(|event| &event.ad_id));
        let placed = events.iter().map(|event| (map.partition_of(event, PARTITIONS), map.version())).collect();
        now = now.plus(5 * SECOND);
        hot.tick(now);
        placed
    };
    windows.iter().map(&mut place).collect()
}

/// Everything shown of a day, of every grain.
async fn rows(world: &World, day: Day) -> BTreeMap<RollupKey, Counts> {
    let mut rows = BTreeMap::new();
    for hour in day.hours() {
        rows.extend(world.store.read_hour(hour).await.unwrap().into_iter().map(|row| (row.key, row.counts)));
    }
    rows
}

/// Events placed so, through speed and then through lake, batch and reconcile: what is shown after each.
async fn run(windows: &[Vec<Event>], placed: &[Vec<(u32, u64)>]) -> [BTreeMap<RollupKey, Counts>; 2] {
    let world = World::new(Ground::here(PARTITIONS, Arc::new(MemoryServingStore::new())), false);
    for (events, places) in windows.iter().zip(placed) {
        let records = events.iter().zip(places);
        world.append_at(records.map(|(e, (partition, version))| (*partition, encode_placed_event(e, *version)))).await;
    }
    world.speed_through().await;
    let approximate = rows(&world, MIDNIGHT.day()).await;
    let late = |outcomes: &BTreeMap<String, u64>| outcomes.get("late").copied().unwrap_or_default();
    let writers = world.store.writers().await.unwrap();
    assert_eq!(writers.values().map(|w| late(&w.outcomes)).sum::<u64>(), 0, "a window closed early");

    world.archiver(10_000).drain().await.unwrap();
    let naive = recount(world.logged().await, &world.counting, &world.prices);
    assert_eq!(world.settle(&[MIDNIGHT.day()], true).await, naive.verdicts);
    assert_eq!(world.shown(&[MIDNIGHT.day()]).await, naive.cells);
    [approximate, rows(&world, MIDNIGHT.day()).await]
}

/// The load of the heaviest partition, in percent of the mean.
fn heaviest(places: &[(u32, u64)]) -> usize {
    let mut load = [0; PARTITIONS as usize];
    places.iter().for_each(|(partition, _)| load[*partition as usize] += 1);
    load.iter().max().unwrap() * load.len() * 100 / places.len()
}

#[tokio::test]
async fn a_hot_ad_loads_no_partition_twice_as_much_as_the_others_and_no_number_shows_it() {
    for percent in [50, 90] {
        let windows = traffic(percent);
        let salted = placed_by_detector(&windows);
        let at_home = |e: &Event| (partition_of(e.ad_id.as_str(), PARTITIONS), 0);
        let plain: Vec<Vec<(u32, u64)>> = windows.iter().map(|events| events.iter().map(at_home).collect()).collect();
        assert!(heaviest(&plain[2]) > 400, "{percent}: {}", heaviest(&plain[2]));
        assert!(heaviest(&salted[2]) < 200, "{percent}: {}", heaviest(&salted[2]));

        // The map changed while the day went on: found, more salts, calm again.
        let mut versions: Vec<u64> = salted.iter().flatten().map(|(_, version)| *version).collect();
        assert!(versions.is_sorted());
        versions.dedup();
        assert_eq!(versions.len(), 4, "{versions:?}");
        let record = encode_placed_event(&windows[6][0], versions[3]);
        assert_eq!(salt_map_version(&record), Some(versions[3]));

        assert_eq!(run(&windows, &salted).await, run(&windows, &plain).await);
    }
}

#[tokio::test]
async fn a_repetition_that_the_map_sent_elsewhere_counts_twice_until_reconcile_and_once_after() {
    let world = World::new(Ground::here(PARTITIONS, Arc::new(MemoryServingStore::new())), false);
    let event = traffic(50).swap_remove(1).swap_remove(0);
    world.append_at([(1, 0), (1, 7), (2, 8)].into_iter().map(|(p, v)| (p, encode_placed_event(&event, v)))).await;
    let clicks = async || rows(&world, MIDNIGHT.day()).await.into_iter().map(|(key, counts)| (key, counts.clicks));
    world.speed_through().await;
    assert!(clicks().await.all(|(_, clicks)| clicks == 2), "once in each partition it came to");
    world.archiver(10_000).drain().await.unwrap();
    let verdicts = world.settle(&[MIDNIGHT.day()], true).await;
    assert_eq!(verdicts, BTreeMap::from([("billable".to_owned(), 1), ("duplicate".to_owned(), 2)]));
    assert!(clicks().await.all(|(_, clicks)| clicks == 1));
}

//! Traffic in windows: who becomes hot, how far it is spread, and when it is calm again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shared::event::{Admission, Event, Submission};
use shared::time::MINUTE;

use super::*;

const PARTITIONS: u32 = 8;
const BEGIN: Timestamp = Timestamp(1_800_000_000 * SECOND);

fn settings() -> Settings {
    Settings { min_per_second: 100, ..Settings::default() }
}

fn template() -> Event {
    let json = br#"{"eventId":"e","eventType":"click","timestamp":1800000000000,"adId":"a"}"#;
    Submission::from_json(json).unwrap().admit(Admission {
        ingest_time: BEGIN,
        region: "here".parse().unwrap(),
        campaign_id: "c".parse().unwrap(),
        advertiser_id: None,
        invalid: None,
        traceparent: None,
    })
}

fn event(ad: &str, id: &str) -> Event {
    Event { event_id: id.parse().unwrap(), ad_id: ad.parse().unwrap(), ..template() }
}

/// Traffic at a gateway, in windows of five seconds.
struct Traffic {
    hot: HotAds,
    now: Timestamp,
    sent: u64,
}

impl Traffic {
    fn new() -> Self {
        Self::after(BEGIN)
    }

    fn after(now: Timestamp) -> Self {
        Self { hot: HotAds::new(settings(), PARTITIONS, now), now, sent: 0 }
    }

    /// One window of `events`, so many thousandths of them on each named ad and the rest on 500 others; how many went to
    /// each partition.
    fn window(&mut self, events: u64, shares: &[(&str, u64)]) -> BTreeMap<u32, u64> {
        let mut load = BTreeMap::new();
        let (map, mut event) = (self.hot.map(), template());
        for n in 0..events {
            let mut left = (n * 619) % 1_000;
            let named = shares.iter().find(|(_, share)| {
                let is_it = left < *share;
                left = left.saturating_sub(*share);
                is_it
            });
            let ad = named.map_or_else(|| format!("other-{}", (n * 7_919) % 500), |(ad, _)| (*ad).to_owned());
            (event.ad_id, event.event_id) = (ad.parse().unwrap(), format!("e-{}", self.sent).parse().unwrap());
            self.sent += 1;
            self.hot.pass(std::iter::once(&event.ad_id));
            *load.entry(map.partition_of(&event, PARTITIONS)).or_default() += 1;
        }
        self.now = self.now.plus(settings().window.as_micros());
        self.hot.tick(self.now);
        load
    }

    fn salts(&self, ad: &str) -> Option<u32> {
        self.hot.map().salts().get(ad).copied()
    }

    fn version(&self) -> u64 {
        self.hot.map().version()
    }
}

fn heaviest(load: &BTreeMap<u32, u64>) -> f64 {
    let sum: u64 = load.values().sum();
    let most = load.values().max().copied().unwrap_or_default();
    f64::from(u32::try_from(most * u64::from(PARTITIONS)).unwrap()) / f64::from(u32::try_from(sum).unwrap())
}

#[test]
fn once_found_a_hot_ad_loads_no_partition_with_twice_the_mean() {
    for share in [120, 250, 500, 900] {
        let mut traffic = Traffic::new();
        let before = heaviest(&traffic.window(20_000, &[("hot", share)]));
        let after = heaviest(&traffic.window(20_000, &[("hot", share)]));
        assert!(after < 2.0, "{share}: {before} and then {after}");
        assert!(share < 250 || before > 2.0, "{share}: {before}");
        assert_eq!(traffic.hot.map().salts().keys().map(AdId::as_str).collect::<Vec<_>>(), ["hot"]);
    }
}

#[test]
fn several_hot_ads_are_each_spread_as_far_as_they_need() {
    let mut traffic = Traffic::new();
    let shares = [("a", 400), ("b", 200), ("c", 100), ("d", 50)];
    traffic.window(40_000, &shares);
    assert_eq!(["a", "b", "c", "d"].map(|ad| traffic.salts(ad)), [Some(8), Some(4), Some(2), None]);
    assert!(heaviest(&traffic.window(40_000, &shares)) < 2.0);
}

#[test]
fn a_repeated_event_comes_to_the_partition_of_the_first_while_the_map_stands() {
    let mut traffic = Traffic::new();
    traffic.window(20_000, &[("hot", 500)]);
    let map = traffic.hot.map();
    traffic.window(20_000, &[("hot", 500)]);
    assert_eq!(map, traffic.hot.map());
    for n in 0..100 {
        let first = event("hot", &format!("again-{n}"));
        assert_eq!(map.partition_of(&first, PARTITIONS), traffic.hot.map().partition_of(&first.clone(), PARTITIONS));
    }
    // Who is not hot is where Kafka's own partitioner puts it.
    let other = event("other-1", "e");
    assert_eq!(map.partition_of(&other, PARTITIONS), partition_of("other-1", PARTITIONS));
}

#[test]
fn an_ad_at_the_threshold_does_not_come_and_go() {
    let mut traffic = Traffic::new();
    // Half of a partition's fair share is 62.5 thousandths; now above it, now below.
    traffic.window(20_000, &[("edge", 100)]);
    let version = traffic.version();
    assert_eq!(traffic.salts("edge"), Some(2));
    for round in 0..200 {
        traffic.window(5_000, &[("edge", if round % 2 == 0 { 45 } else { 90 })]);
    }
    assert_eq!((traffic.salts("edge"), traffic.version()), (Some(2), version));
}

#[test]
fn an_ad_leaves_when_it_has_been_calm_for_long_enough_and_not_before() {
    let mut traffic = Traffic::new();
    traffic.window(20_000, &[("hot", 500)]);
    let (hot, began) = (traffic.version(), traffic.now);
    while traffic.now < began.plus(4 * MINUTE) {
        traffic.window(2_000, &[]);
    }
    traffic.window(20_000, &[("hot", 500)]);
    assert_eq!((traffic.salts("hot"), traffic.version()), (Some(8), hot));
    let calm = traffic.now;
    while traffic.salts("hot").is_some() {
        traffic.window(2_000, &[]);
        assert!(traffic.now <= calm.plus(6 * MINUTE));
    }
    assert!(traffic.now > calm.plus(5 * MINUTE));
    assert!(traffic.version() > hot);
    assert_eq!(traffic.hot.map().partition_of(&event("hot", "e"), PARTITIONS), partition_of("hot", PARTITIONS));
}

#[test]
fn no_traffic_at_all_is_calm() {
    let mut traffic = Traffic::new();
    traffic.window(20_000, &[("hot", 500)]);
    for _ in 0..62 {
        traffic.window(0, &[]);
    }
    assert_eq!(traffic.salts("hot"), None);
}

#[test]
fn salts_grow_with_the_ad_and_do_not_shrink_while_it_is_hot() {
    let mut traffic = Traffic::new();
    let mut versions = vec![traffic.version()];
    for (share, salts) in [(100, 2), (200, 4), (900, 8), (100, 8)] {
        traffic.window(40_000, &[("hot", share)]);
        assert_eq!(traffic.salts("hot"), Some(salts));
        versions.push(traffic.version());
    }
    assert!(versions[..4].windows(2).all(|pair| pair[0] < pair[1]), "{versions:?}");
    assert_eq!(versions[3], versions[4]);
}

#[test]
fn the_version_after_a_restart_is_greater_than_any_before() {
    let mut traffic = Traffic::new();
    traffic.window(20_000, &[("hot", 500)]);
    let mut restarted = Traffic::after(traffic.now);
    assert_eq!(restarted.version(), 0);
    restarted.window(20_000, &[("hot", 500)]);
    assert!(restarted.version() > traffic.version());
}

#[test]
fn an_ad_with_little_traffic_is_never_hot() {
    let mut traffic = Traffic::new();
    // 80 a second, all of it one ad.
    (0..20).for_each(|_| drop(traffic.window(400, &[("only", 1_000)])));
    assert_eq!((traffic.salts("only"), traffic.version()), (None, 0));
}

#[test]
fn a_clock_set_back_starts_a_window_and_changes_nothing() {
    let mut traffic = Traffic::new();
    traffic.window(20_000, &[("hot", 500)]);
    let version = traffic.version();
    traffic.now = BEGIN.plus(-MINUTE);
    traffic.window(20_000, &[("hot", 900)]);
    traffic.window(20_000, &[("hot", 500), ("other", 250)]);
    assert_eq!(traffic.version(), version + 1);
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    assert_eq!(Settings::default().problems("hot_ads"), []);
    let wrong = Settings { enter_percent: 20, leave_percent: 20, min_per_second: 0, ..Settings::default() };
    let fields: Vec<_> = wrong.problems("hot_ads").into_iter().map(|p| p.field).collect();
    assert_eq!(fields, ["hot_ads.leave_percent", "hot_ads.min_per_second"]);
}

proptest! {
    #[test]
    fn one_event_in_so_many_is_counted_wherever_the_numbers_begin(from in any::<u64>()) {
        let counted = (0..16_000).filter(|n| is_sampled(from.wrapping_add(*n))).count();
        prop_assert!((800..1_200).contains(&counted), "{counted}");
    }
}

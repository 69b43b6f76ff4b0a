//! A worker alone: outcomes, bounds, what it tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use shared::config::Span;
use shared::event::Event;
use shared::event_log::Record;
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::RollupKey;
use shared::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};
use shared::wire::encode_event;

use super::events::{START, click, prices, records, traffic};
use crate::checkpoint::{StateMessage, as_before, decode, encode};
use crate::{Outcome, Settings, Worker};

struct Feed {
    worker: Worker,
    position: u64,
}

impl Feed {
    fn new(settings: &Settings) -> Self {
        let mut worker = Worker::new(0, 0, settings);
        worker.set_prices(Arc::new(prices()));
        Self { worker, position: 0 }
    }

    fn event(&mut self, event: &Event, append_time: Timestamp) -> Outcome {
        self.bytes(encode_event(event), append_time)
    }

    fn bytes(&mut self, bytes: Vec<u8>, append_time: Timestamp) -> Outcome {
        let record = Record { partition: 0, position: self.position, append_time, payload: Bytes::from(bytes) };
        self.position += 1;
        self.worker.apply(&record)
    }

    fn click(&mut self, id: &str, at: Timestamp) -> Outcome {
        self.event(&click(id, at, 0), at)
    }
}

#[test]
fn an_event_from_the_future_does_not_make_the_others_late() {
    let mut feed = Feed::new(&Settings::default());
    // A client clock five minutes ahead, another a year ahead, and an imported row of tomorrow.
    assert_eq!(feed.event(&click("a", START, -5 * MINUTE), START), Outcome::Counted);
    assert_eq!(feed.event(&click("b", START, -365 * DAY), START), Outcome::Counted);
    assert_eq!(feed.event(&click("c", START.plus(DAY), 0), START), Outcome::Counted);
    assert!(feed.worker.watermark() <= START);
    assert_eq!(feed.event(&click("d", START, 10 * MINUTE), START), Outcome::Counted);
}

#[test]
fn an_event_beyond_the_lateness_is_late_and_told_by_hour() {
    let settings = Settings::default();
    let mut feed = Feed::new(&settings);
    assert_eq!(feed.click("a", START), Outcome::Counted);
    let edge = settings.out_of_orderness.as_micros() + settings.allowed_lateness.as_micros();
    assert_eq!(feed.event(&click("b", START, edge), START), Outcome::Counted);
    assert_eq!(feed.event(&click("c", START, edge + 1), START), Outcome::Late);
    // It still claims its id.
    assert_eq!(feed.click("c", START), Outcome::Duplicate);
    let status = feed.worker.status(START, feed.worker.watermark(), 0);
    assert_eq!(status.late_by_hour.into_iter().collect::<Vec<_>>(), [(START.plus(-edge - 1).floor(HOUR), 1)]);
    assert_eq!(status.outcomes.values().sum::<u64>(), 4);
}

#[test]
fn a_closed_window_leaves_the_memory_only_after_its_rows_were_flushed() {
    let mut feed = Feed::new(&Settings::default());
    feed.click("a", START);
    feed.click("b", START.plus(6 * HOUR));
    let minutes = |rows: Vec<shared::rollup::RollupRow>| {
        rows.into_iter().filter(|r| matches!(r.key, RollupKey::AdMinute { .. })).count()
    };
    assert_eq!(minutes(feed.worker.changed_rows()), 2);
    assert_eq!(minutes(feed.worker.take_changed_rows(START)), 2);
    assert_eq!(feed.worker.take_changed_rows(START).len(), 0);
    assert_eq!(feed.worker.stage().0.minutes.unwrap().minutes.len(), 1);
    assert_eq!(feed.event(&click("c", START.plus(6 * HOUR), 6 * HOUR), START.plus(6 * HOUR)), Outcome::Late);
}

#[test]
fn a_row_is_absolute_and_comes_again_only_when_it_changed() {
    let mut feed = Feed::new(&Settings::default());
    feed.click("a", START);
    assert_eq!(feed.worker.take_changed_rows(START).len(), 3);
    feed.click("a", START);
    assert_eq!(feed.worker.take_changed_rows(START).len(), 0);
    feed.click("b", START);
    let rows = feed.worker.take_changed_rows(START);
    assert!(rows.iter().all(|row| row.counts.clicks == 2 && row.counts.cost_nanos == 500_000_000), "{rows:?}");
    assert!(rows.is_sorted_by_key(|row| row.key.clone()));
}

#[test]
fn prices_are_those_of_the_book_that_was_set_last_and_of_the_time_of_the_event() {
    let mut feed = Feed::new(&Settings::default());
    let nanos = |feed: &mut Feed, id: &str, at| {
        assert_eq!(feed.click(id, at), Outcome::Counted);
        feed.worker.take_changed_rows(at).iter().map(|row| row.counts.cost_nanos).max()
    };
    // c0: 0.25 EUR until 2:07 after START, then 0.300001 USD.
    let change = START.plus(2 * HOUR + 7 * MINUTE);
    assert_eq!(nanos(&mut feed, "a", change.plus(-1)), Some(250_000_000));
    assert_eq!(nanos(&mut feed, "b", change), Some(300_001_000));
    assert_eq!(nanos(&mut feed, "c", change.plus(-1)), Some(500_000_000));
    feed.worker.set_prices(Arc::default());
    assert_eq!(nanos(&mut feed, "d", change.plus(MINUTE)), Some(0));
    feed.worker.set_prices(Arc::new(prices()));
    assert_eq!(nanos(&mut feed, "e", change.plus(2 * MINUTE)), Some(600_002_000));
}

#[test]
fn too_many_open_rows_close_the_oldest_minutes_early_whenever_they_are_flushed() {
    let settings = Settings { max_open_rows: 20, ..Settings::default() };
    let outcomes = |flush_every: u32| -> Vec<Outcome> {
        let mut feed = Feed::new(&settings);
        (0..60_u32)
            .map(|n| {
                let rows = if n % flush_every == 0 { feed.worker.take_changed_rows(START).len() } else { 0 };
                assert!(flush_every > 1 || rows <= 3, "{rows} rows of one event");
                // Every third click happened twenty minutes ago.
                let age = if n % 3 == 0 { 20 * MINUTE } else { 0 };
                let at = START.plus(i64::from(n) * MINUTE);
                feed.event(&click(&format!("e{n}"), at, age), at)
            })
            .collect()
    };
    let seldom = outcomes(1_000);
    assert_eq!(seldom, outcomes(1));
    assert_eq!(seldom, outcomes(7));
    assert!(seldom.contains(&Outcome::Late));
    assert!(seldom.iter().filter(|o| **o == Outcome::Counted).count() >= 40);
}

#[test]
fn a_window_that_was_closed_stays_closed_when_a_restart_brings_more_lateness() {
    let settings = Settings::default();
    let mut feed = Feed::new(&settings);
    feed.click("a", START);
    feed.click("b", START.plus(3 * HOUR));
    assert_eq!(feed.worker.take_changed_rows(START).len(), 6);
    let patient = Settings { allowed_lateness: Span::secs(6 * 3_600), ..settings };
    feed.worker = restored(&feed.worker, &patient);
    // Counted now, it would be a row of one click over the row of two.
    let now = START.plus(3 * HOUR);
    assert_eq!(feed.event(&click("c", now, 3 * HOUR), now), Outcome::Late);
}

/// The worker that a process start makes of what `worker` would save now.
fn restored(worker: &Worker, settings: &Settings) -> Worker {
    restored_from(|message| message, worker, settings)
}

fn restored_from(saved: impl Fn(StateMessage) -> StateMessage, worker: &Worker, settings: &Settings) -> Worker {
    let (message, appends) = worker.stage();
    let message = saved(message);
    let read = |file: &str, length: u64| {
        let append = appends.iter().find(|append| append.file == file)?;
        (append.bytes.len() as u64 == length).then(|| append.bytes.clone())
    };
    let mut restored = Worker::restore(&decode(&encode(&message)).unwrap(), settings, None, read).unwrap();
    restored.set_prices(Arc::new(prices()));
    restored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_restored_worker_goes_on_like_the_one_that_was_saved(
        happenings in traffic(300),
        jitter in prop::collection::vec(0..20 * MINUTE, 300),
        at in any::<prop::sample::Index>(),
    ) {
        let settings = Settings {
            dedup_window: Span::secs(3_600),
            max_dedup_ids: 60,
            max_open_rows: 40,
            ..Settings::default()
        };
        let mut saved = Feed::new(&settings);
        let records = records(&happenings, 1);
        let at = at.index(records.len());
        for (record, back) in records.iter().zip(&jitter).take(at) {
            saved.bytes(record.payload.to_vec(), record.append_time.plus(-back));
        }
        let mut again = Feed { worker: restored(&saved.worker, &settings), position: saved.position };
        for (record, back) in records.iter().zip(&jitter).skip(at) {
            // The clock of the log went back a little.
            let append_time = record.append_time.plus(-back);
            let outcome = saved.bytes(record.payload.to_vec(), append_time);
            prop_assert_eq!(again.bytes(record.payload.to_vec(), append_time), outcome);
        }
        let (a, b) = (saved.worker.stage().0, again.worker.stage().0);
        prop_assert_eq!(&a, &b);
        prop_assert_eq!(a, restored_from(as_before, &saved.worker, &settings).stage().0);
    }

    #[test]
    fn rows_are_the_sums_of_their_events_whatever_ads_campaigns_and_currencies_meet(
        events in prop::collection::vec((0..6_u8, 0..3_u8, 0..3_u8, 0..40_i64), 1..300),
        flush in prop::collection::vec(any::<bool>(), 300),
    ) {
        let mut feed = Feed::new(&Settings::default());
        let (mut shown, mut expected, mut now) = (BTreeMap::new(), BTreeMap::new(), START);
        for (n, ((ad, campaign, currency, minutes), flush)) in events.into_iter().zip(flush).enumerate() {
            now = now.plus(minutes * MINUTE);
            let mut event = click(&format!("e{n}"), now, 0);
            event.ad_id = AdId::new(format!("ad{ad}")).unwrap();
            // All but c2 pay nothing in no currency or cpc; c2 pays what and in what the event says.
            event.campaign_id = CampaignId::new(format!("c{}", campaign + 1)).unwrap();
            event.details.impression_id = None;
            event.details.cost_micros = Some(5);
            event.details.currency = ["EUR", "CHF", "USD"].get(usize::from(currency)).and_then(|c| Currency::parse(c));
            prop_assert_eq!(feed.event(&event, now), Outcome::Counted);
            let price = prices().in_force(event.campaign_id.as_str(), now).clone();
            let cost = price.cost(event.kind, event.details.cost_micros, event.details.currency).unwrap();
            let (ad_id, campaign_id) = (event.ad_id.clone(), event.campaign_id.clone());
            let key = RollupKey::AdMinute { minute: now.floor(MINUTE), ad_id, campaign_id, currency: cost.currency };
            let (clicks, nanos) = expected.entry(key).or_insert((0, 0));
            (*clicks, *nanos) = (*clicks + 1, *nanos + i128::from(cost.nanos));
            if flush {
                let rows = feed.worker.take_changed_rows(now);
                shown.extend(rows.into_iter().map(|row| (row.key, (row.counts.clicks, row.counts.cost_nanos))));
            }
        }
        let rows = feed.worker.take_changed_rows(now);
        shown.extend(rows.into_iter().map(|row| (row.key, (row.counts.clicks, row.counts.cost_nanos))));
        shown.retain(|key, _| matches!(key, RollupKey::AdMinute { .. }));
        prop_assert_eq!(shown, expected);
    }

    #[test]
    fn records_taken_together_do_what_they_do_one_by_one(
        happenings in traffic(300),
        noise in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut records: Vec<Record> = (0..)
            .zip(records(&happenings, 1))
            .map(|(n, r)| Record { partition: 0, position: n, append_time: r.append_time, payload: r.payload })
            .collect();
        for at in noise {
            at.get_mut(&mut records).payload = Bytes::from_static(b"no event");
        }
        let (mut one, mut all) = (Feed::new(&Settings::default()).worker, Feed::new(&Settings::default()).worker);
        for record in &records {
            one.apply(record);
        }
        all.apply_all(&records);
        prop_assert_eq!(one.stage().0, all.stage().0);
    }

    #[test]
    fn rows_come_by_key_wherever_ids_begin_to_differ(
        ids in prop::collection::vec(("(|same|same-campaign-and)[a-b]{1,3}", "(|same|same-campaign-and)[a-b]{1,3}"), 1..60),
    ) {
        let mut feed = Feed::new(&Settings::default());
        for (n, (ad, campaign)) in ids.into_iter().enumerate() {
            let mut event = click(&format!("e{n}"), START.plus(n as i64 % 3 * MINUTE), 0);
            event.ad_id = AdId::new(ad).unwrap();
            event.campaign_id = CampaignId::new(campaign).unwrap();
            event.details.impression_id = None;
            prop_assert_eq!(feed.event(&event, event.ingest_time), Outcome::Counted);
        }
        prop_assert!(feed.worker.changed_rows().is_sorted_by(|a, b| a.key < b.key));
    }
}

#[test]
fn an_id_is_known_for_the_dedup_window_and_bytes_that_are_no_event_are_dead_letters() {
    let settings = Settings { dedup_window: Span::secs(3_600), ..Settings::default() };
    let mut feed = Feed::new(&settings);
    assert_eq!(feed.click("a", START), Outcome::Counted);
    assert_eq!(feed.click("a", START.plus(HOUR - 1)), Outcome::Duplicate);
    assert_eq!(feed.click("a", START.plus(3 * HOUR)), Outcome::Counted);
    for bytes in [vec![], vec![1], vec![9, 9, 9], encode_event(&click("b", START, 0))[..40].to_vec()] {
        assert_eq!(feed.bytes(bytes, START), Outcome::DeadLetter);
    }
    assert_eq!(feed.worker.tally().total(), 7);
}

#[test]
fn what_it_tells_about_itself_follows_from_the_records() {
    let mut feed = Feed::new(&Settings::default());
    feed.event(&click("a", START, 2 * SECOND), START);
    feed.event(&click("b", START.plus(SECOND), 3 * SECOND), START.plus(SECOND));
    let status = feed.worker.status(START.plus(9 * SECOND), feed.worker.watermark(), 4);
    assert_eq!(status.max_event_time, START.plus(-2 * SECOND));
    assert_eq!(status.as_of, START.plus(SECOND));
    assert_eq!(status.watermark, START.plus(-32 * SECOND));
    assert_eq!((status.next_position, status.lag, status.ingest_p95_ms), (2, 4, 9_000));
}

//! The generator against the edge it feeds: what it calls an event is one, what it calls poison is refused, and the
//! same payload in another dress has the same fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use shared::event::{EventKind, Fingerprint, Submission};
use shared::price::{PriceBook, PriceRow};
use shared::time::{DAY, SECOND, Timestamp};
use shared::verdict::Counting;

use super::*;

fn signer() -> Signer {
    Box::new(|draft, expires_at| Proof {
        key_id: Some("k1".to_owned()),
        signature: format!("{}.{}.{}", draft.event_id, draft.event_time.0, expires_at.0),
    })
}

fn settings() -> Settings {
    Settings { events: 40_000, ads: 200, ..Settings::default() }
}

fn history() -> Vec<Item> {
    History::new(settings(), signer()).collect()
}

fn events(items: &[Item]) -> Vec<(&Item, Submission)> {
    items.iter().filter(|i| i.label != Label::Poison).map(|i| (i, Submission::from_json(&i.body).unwrap())).collect()
}

#[test]
fn the_default_settings_are_in_order_and_problems_are_all_named() {
    assert!(Settings::default().problems().is_empty());
    let broken = Settings { zipf: f64::NAN, bots: 1.5, ads: 0, ..Settings::default() };
    let fields: Vec<String> = broken.problems().into_iter().map(|p| p.field).collect();
    assert_eq!(fields, ["simulate.bots", "simulate.ads", "simulate.zipf"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let (once, again) = (history(), history());
    assert!(once == again);
    let other: Vec<Item> = History::new(Settings { seed: 2, ..settings() }, signer()).collect();
    assert!(once != other);
    assert_eq!(once.len(), 40_000);
}

#[test]
fn every_case_occurs_in_a_history() {
    let seen: BTreeSet<Label> = history().iter().map(|i| i.label).collect();
    assert_eq!(seen, BTreeSet::from(Label::ALL));
}

#[test]
fn every_poison_is_refused_for_its_one_fault_and_has_no_line_end() {
    for poison in poison::ALL {
        let bytes = poison.bytes();
        assert!(!bytes.contains(&b'\n'));
        let text = String::from_utf8_lossy(&bytes);
        let refused = Submission::from_json(&bytes).expect_err(&text);
        assert_eq!(refused.reason, poison.reason, "{:.200}: {}", text, refused.detail);
    }
}

#[test]
fn lines_carry_their_ingest_time_inside_the_history() {
    let items = history();
    let settings = settings();
    let end = settings.start.start().plus(i64::from(settings.days) * DAY);
    for (item, event) in events(&items) {
        assert!(!item.body.contains(&b'\n'));
        assert_eq!(event.ingest_time, Some(item.at));
        assert!(item.at >= settings.start.start() && item.at < end);
        let billing = Counting::default().billing_time(event.event_time, item.at).at.day();
        let (first, last) = settings.billing_days();
        assert!((first..=last).contains(&billing), "{billing}");
    }
}

#[test]
fn duplicates_have_one_fingerprint_and_conflicts_several() {
    let items = history();
    let mut first: BTreeMap<String, Fingerprint> = BTreeMap::new();
    let mut bodies: BTreeMap<String, usize> = BTreeMap::new();
    for (item, event) in events(&items) {
        let id = event.event_id.to_string();
        let known = first.entry(id.clone()).or_insert(event.fingerprint);
        match item.label {
            Label::Duplicate | Label::CrossDayDuplicate => {
                // The first line with an id may itself be a forgery of the same payload, never another payload,
                // unless a conflict overtook it in the file.
                *bodies.entry(id).or_default() += usize::from(*known == event.fingerprint);
            }
            Label::Conflict => assert_ne!(*known, event.fingerprint, "{id}"),
            _ => {}
        }
    }
    let copies = items.iter().filter(|i| matches!(i.label, Label::Duplicate | Label::CrossDayDuplicate)).count();
    assert_eq!(bodies.values().sum::<usize>(), copies);
}

#[test]
fn chains_of_clicks_touch_both_sides_of_the_window() {
    let items = history();
    let window = Settings::default().repeat_click.as_micros();
    let mut clicks: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (item, event) in events(&items) {
        if let (EventKind::Click, Some(impression)) = (event.kind, event.details.impression_id) {
            clicks.entry(impression.to_string()).or_default().push(item.at.0);
        }
    }
    let mut distances = BTreeSet::new();
    for times in clicks.values_mut() {
        times.sort_unstable();
        distances.extend(times.windows(2).map(|pair| pair[1] - pair[0]));
    }
    for distance in [0, window - 1, window, window + 1] {
        assert!(distances.contains(&distance), "no two clicks are {distance} µs apart");
    }
}

#[test]
fn bounds_of_the_billing_time_are_met_to_the_microsecond() {
    let items = History::new(Settings { clamped: 0.2, ..settings() }, signer()).collect::<Vec<_>>();
    let (late, future) = (7 * DAY, 300 * SECOND);
    let offsets: BTreeSet<i64> = events(&items).iter().map(|(item, event)| event.event_time.since(item.at)).collect();
    for offset in [-late - 1, -late, -late + 1, future - 1, future, future + 1, -late - 1_000, future + 1_000] {
        assert!(offsets.contains(&offset), "no event is {offset} µs from its ingest time");
    }
}

#[test]
fn ingest_times_tie_and_the_file_is_not_in_their_order() {
    let items = history();
    assert!(items.windows(2).any(|pair| pair[0].at == pair[1].at && pair[0].event_id != pair[1].event_id));
    assert!(items.windows(2).any(|pair| pair[0].at > pair[1].at));
}

#[test]
fn live_items_are_signed_and_happen_around_now() {
    let mut live = Live::new(settings(), signer());
    let start = Timestamp::parse("2026-06-01T12:00:00Z").unwrap();
    let mut labels = BTreeSet::new();
    for i in 0..40_000 {
        let now = start.plus(i * 5_000);
        let item = live.next_at(now);
        labels.insert(item.label);
        assert_eq!(item.at, now);
        if item.label != Label::Poison {
            let event = Submission::from_json(&item.body).unwrap();
            assert!(event.auth.is_some());
            assert_eq!(event.ingest_time, None);
        }
    }
    let history_only = BTreeSet::from([Label::CrossDayDuplicate, Label::LateAfterClose]);
    assert_eq!(labels, &BTreeSet::from(Label::ALL) - &history_only);
}

#[test]
fn the_price_file_is_a_price_book_with_every_model_and_three_currencies() {
    let world = World::new(&settings());
    let mut csv = Vec::new();
    world.write_prices(&mut csv).unwrap();
    let text = String::from_utf8(csv).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let f: Vec<&str> = line.split(',').collect();
        PriceRow {
            campaign_id: f[0].parse().unwrap(),
            model: shared::price::PriceModel::parse(f[1]).unwrap(),
            price_micros: f[2].parse().unwrap(),
            currency: shared::money::Currency::parse(f[3]).unwrap(),
            valid_from: f[4].to_owned(),
        }
    });
    let book = PriceBook::default().import(rows).unwrap();
    let prices: Vec<_> = book.prices.values().flatten().collect();
    let models: BTreeSet<_> = prices.iter().map(|p| p.model).collect();
    let currencies: BTreeSet<_> = prices.iter().map(|p| p.currency).collect();
    assert_eq!(models.len(), 5);
    assert_eq!(currencies.len(), 3);
    let day_two = settings().start.plus(1);
    assert!(prices.iter().any(|p| p.valid_from > day_two.start() && p.valid_from < day_two.end()));
    assert!(book.prices.len() < 60, "some campaign has no price at all");
}

#[test]
fn a_history_is_written_with_its_journal_and_tally() {
    let small = Settings { events: 2_500, ..settings() };
    let (mut lines, mut journal, mut told) = (Vec::new(), Vec::new(), Vec::new());
    let tally = write_history(History::new(small, signer()), &mut lines, &mut journal, &mut |n| told.push(n)).unwrap();
    assert_eq!(tally.values().sum::<u64>(), 2_500);
    assert_eq!(lines.iter().filter(|b| **b == b'\n').count(), 2_500);
    assert_eq!(journal.iter().filter(|b| **b == b'\n').count(), 2_501);
    assert_eq!(told, [1_000, 2_000]);
}

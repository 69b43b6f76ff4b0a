//! A day whose run is asked for again after the archive has grown: computed again where that can change it, and only
//! there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use batch::progress::Progress;
use batch::{Outcome, Request, Status, Step, progress, recompute};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::event::EventKind;
use shared::time::{DAY, HOUR, SECOND};
use shared::verdict::InvalidCode;

use crate::help::{Layout, Spec, World, day, spec};
use crate::model;

/// Runs [`day`] again; also tells whether events were judged.
async fn again(world: &World) -> (Outcome, bool) {
    let judged = Arc::new(AtomicBool::new(false));
    let listener: progress::Listener = Arc::new({
        let judged = judged.clone();
        move |p: Progress| judged.store(judged.load(Ordering::SeqCst) || p.step == Step::Judge, Ordering::SeqCst)
    });
    let request = Request { day: day(), dry_run: false, force: false };
    let outcome = recompute(&world.deps, &world.settings, request, &listener).await.unwrap();
    (outcome, judged.load(Ordering::SeqCst))
}

fn click(id: u8, ingest: i64) -> Spec {
    Spec { id, ingest, ..Spec::default() }
}

fn on(impression: u8, id: u8, ingest: i64) -> Spec {
    Spec { impression: Some(impression), ..click(id, ingest) }
}

/// A click that counts for the day before.
fn earlier(spec: Spec) -> Spec {
    Spec { age: DAY, ..spec }
}

/// Clicks of the day, of the next and of the day before: the last two are on one impression.
fn first() -> Vec<Spec> {
    vec![click(1, HOUR), on(8, 2, 5 * HOUR), click(3, DAY + HOUR), earlier(on(7, 4, HOUR)), on(7, 5, 2 * HOUR)]
}

#[tokio::test]
async fn what_cannot_change_a_day_is_told_without_judging_it() {
    let world = World::new();
    world.take(&first(), Layout::Sorted(9)).await;
    let record = world.run(day()).await.unwrap().record;
    // A later claim on an id, and a forged one, take nothing from the day. An impression is no click; what repeats a click of the day is not of the day.
    let impression = Spec { kind: EventKind::Impression, ..on(8, 22, 4 * HOUR) };
    let forged = Spec { invalid: Some(InvalidCode::BadSignature), ..click(1, 0) };
    let others =
        [click(1, DAY), earlier(forged), on(9, 20, DAY), earlier(click(21, HOUR)), earlier(impression), on(8, 23, DAY)];
    world.take(&others, Layout::Sorted(2)).await;
    let (outcome, judged) = again(&world).await;
    assert_eq!((outcome.status, outcome.record, judged), (Status::Unchanged, record, false));
}

#[tokio::test]
async fn what_can_change_a_day_makes_it_judged_again() {
    let cases = [
        ("a late event", Spec { age: DAY, ..click(30, DAY + HOUR) }),
        ("an earlier claim on an id of the day", earlier(click(1, 0))),
        ("a click that one of the day repeats", earlier(on(8, 31, 4 * HOUR))),
        ("the id of a click that one of the day repeats", earlier(click(4, HOUR - SECOND))),
    ];
    for (what, spec) in cases {
        let world = World::new();
        world.take(&first(), Layout::Sorted(9)).await;
        world.run(day()).await.unwrap();
        world.take(&[spec], Layout::Sorted(9)).await;
        assert!(again(&world).await.1, "{what}");
    }
}

#[tokio::test]
async fn merging_another_days_files_does_not_make_a_day_judged_again() {
    let world = World::new();
    // Two days, and some ids of the second were seen on the first: the merged file says so as the small ones did.
    let specs: Vec<Spec> = (0..40).map(|n| Spec { age: i64::from(n % 2) * DAY, ..click(n % 30, HOUR) }).collect();
    world.take(&specs, Layout::Sorted(7)).await;
    world.run(day()).await.unwrap();
    let mut bronze = lake::Table::open(&world.root, &lake::tables::BRONZE_EVENTS).await.unwrap();
    let (settings, next) = (lake::maintenance::Settings::default(), Some(day().plus(-1)));
    let merged = lake::maintenance::optimize(&mut bronze, &settings, next).await.unwrap();
    assert!(merged.files_before > merged.files_after, "{merged:?}");
    assert!(!again(&world).await.1);
}

#[test]
fn a_day_after_any_growth_of_the_archive_is_what_a_recount_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Half of what comes later shares no id and no impression with what was there.
    let later = (spec(), any::<bool>()).prop_map(|(spec, is_new)| {
        let fresh = |n: u8| if is_new { n + 100 } else { n };
        Spec { id: fresh(spec.id), impression: spec.impression.map(fresh), ..spec }
    });
    let cases = (proptest::collection::vec(spec(), 1..40), proptest::collection::vec(later, 1..4), 1..9_usize);
    let mut runner = TestRunner::new(Config { cases: 24, max_shrink_iters: 100, ..Config::default() });
    let result = runner.run(&cases, |(before, later, files)| {
        runtime.block_on(async {
            let world = World::new();
            let mut archive = world.take(&before, Layout::Sorted(files)).await;
            world.run(day()).await.unwrap();
            archive.extend(world.take(&later, Layout::Sorted(files)).await);
            let (outcome, _) = again(&world).await;
            let judged = model::recount(&archive, &world.deps.prices);
            let silver: BTreeSet<_> = world.rows(&outcome.record, "silver/events").await.into_iter().collect();
            assert_eq!(silver, model::silver(&judged, day()));
            assert_eq!(world.rows(&outcome.record, "gold/billing_day").await, model::billing_lines(&judged, day()));
            let tree = (outcome.record.merkle.root.to_string(), outcome.record.merkle.leaves);
            assert_eq!(tree, model::merkle(&judged, day()));
        });
        Ok(())
    });
    result.unwrap();
}

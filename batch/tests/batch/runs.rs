//! Runs: what becomes visible, when, and what never changes again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use batch::progress::Progress;
use batch::{Error, Request, Status, Step, backfill, explain, progress, recompute, runs_of};
use shared::id::EventId;
use shared::price::PriceBook;
use shared::time::{DAY, HOUR};

use crate::help::{Layout, Spec, World, day, gold_hashes};
use crate::model;

fn request() -> Request {
    Request { day: day(), dry_run: false, force: false }
}

fn click(id: u8, ingest: i64) -> Spec {
    Spec { id, ingest, partition: u32::from(id % 2), ..Spec::default() }
}

#[tokio::test]
async fn running_again_changes_nothing() {
    let world = World::new();
    world.take(&[click(1, 0), click(2, HOUR), click(1, 2 * HOUR)], Layout::Sorted(2)).await;
    let first = world.run(day()).await.unwrap();
    assert_eq!((first.status, first.record.run), (Status::Computed, 1));
    for force in [false, true] {
        let again = world.run_with(Request { force, ..request() }).await.unwrap();
        assert_eq!((again.status, again.published), (Status::Unchanged, false));
        assert_eq!(again.record, first.record);
    }
    assert_eq!(runs_of(&world.root, day()).await.unwrap(), [first.record]);
}

#[tokio::test]
async fn a_late_event_makes_a_new_run_and_leaves_the_old_one_readable() {
    let world = World::new();
    let mut archive = world.take(&[click(1, 0), click(2, HOUR)], Layout::Sorted(9)).await;
    let first = world.run(day()).await.unwrap().record;
    let before = world.rows(&first, "gold/billing_day").await;
    archive.extend(world.take(&[Spec { age: 2 * DAY, ..click(3, 2 * DAY + HOUR) }], Layout::Sorted(9)).await);
    let second = world.run(day()).await.unwrap();
    assert_eq!((second.status, second.record.run), (Status::Restated, 2));
    assert_eq!(second.previous.as_ref(), Some(&first));
    let judged = model::recount(&archive, &world.deps.prices);
    assert_eq!(world.rows(&second.record, "gold/billing_day").await, model::billing_lines(&judged, day()));
    assert_eq!(world.rows(&first, "gold/billing_day").await, before);
    assert_eq!(runs_of(&world.root, day()).await.unwrap(), [first, second.record]);
}

#[tokio::test]
async fn what_does_not_touch_the_day_is_no_new_run() {
    let world = World::new();
    world.take(&[click(1, 0)], Layout::Sorted(9)).await;
    let first = world.run(day()).await.unwrap().record;
    world.take(&[click(9, 2 * DAY)], Layout::Sorted(9)).await;
    let again = world.run(day()).await.unwrap();
    assert_eq!((again.status, again.record), (Status::Unchanged, first));
}

#[tokio::test]
async fn a_dry_run_says_what_a_run_would_and_writes_nothing() {
    let world = World::new();
    world.take(&[click(1, 0), click(4, HOUR)], Layout::Sorted(9)).await;
    let dry = world.run_with(Request { dry_run: true, ..request() }).await.unwrap();
    assert_eq!((dry.status, dry.published), (Status::Computed, false));
    assert_eq!(runs_of(&world.root, day()).await.unwrap(), []);
    let real = world.run(day()).await.unwrap();
    assert_eq!(gold_hashes(&dry.record), gold_hashes(&real.record));
    assert_eq!((dry.record.verdicts, dry.record.totals), (real.record.verdicts, real.record.totals));
}

#[tokio::test]
async fn the_record_holds_the_balance_and_the_warnings() {
    let world = World::new();
    let unpriced = Spec { campaign: 3, ..click(5, 3 * HOUR) };
    world.take(&[click(1, 0), click(1, HOUR), unpriced], Layout::Sorted(9)).await;
    let record = world.run(day()).await.unwrap().record;
    assert_eq!((record.verdicts["billable"], record.verdicts["duplicate"], record.verdicts.len()), (2, 1, 10));
    assert_eq!(record.hours.iter().map(|h| h.archived).sum::<u64>(), 3);
    assert!(record.hours.iter().all(|h| h.archived == h.verdicts.values().sum::<u64>()));
    let taken: Vec<_> = record.partitions.iter().map(|p| (p.topic.as_str(), p.partition, p.next, p.events)).collect();
    assert_eq!(taken, [("events", 0, 0, 0), ("events", 1, 3, 3), ("dead_letters", 0, 0, 0)]);
    assert_eq!(record.warnings.len(), 1);
    assert!(record.warnings[0].contains("campaign c3"), "{:?}", record.warnings);
    let eur = shared::money::Currency::parse("EUR").unwrap();
    assert_eq!(record.totals[&eur].cost_nanos, 5_000_000);
}

/// Two runs of one day with different prices, both computed before either publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_runs_at_once_one_wins() {
    for _ in 0..3 {
        let world = World::new();
        world.take(&[click(1, 0), click(2, HOUR)], Layout::Sorted(9)).await;
        let barrier = Arc::new(Barrier::new(2));
        let start = |prices: PriceBook| {
            let (mut deps, settings, barrier) = (world.deps.clone(), world.settings.clone(), barrier.clone());
            deps.prices = Arc::new(prices);
            let listener: progress::Listener = Arc::new(move |p: Progress| {
                if (p.step, p.done) == (Step::Publish, 0) {
                    barrier.wait();
                }
            });
            tokio::spawn(async move { recompute(&deps, &settings, request(), &listener).await })
        };
        let (a, b) = (start(crate::help::prices()), start(PriceBook::default()));
        let results = [a.await.unwrap(), b.await.unwrap()];
        let won: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        let lost: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
        assert_eq!((won.len(), lost.len()), (1, 1), "{results:?}");
        assert!(matches!(lost[0], Error::Conflict { .. }), "{}", lost[0]);
        assert_eq!(lost[0].exit_code(), 12);
        assert_eq!(runs_of(&world.root, day()).await.unwrap(), [won[0].record.clone()]);
        assert!(!world.rows(&won[0].record, "gold/billing_day").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_between_two_tables_is_invisible_and_the_next_one_succeeds() {
    for dies_after in 1..=5_u64 {
        let world = World::new();
        let archive = world.take(&[click(1, 0), click(2, HOUR)], Layout::Sorted(9)).await;
        let (deps, settings, died) = (world.deps.clone(), world.settings.clone(), Arc::new(AtomicBool::new(false)));
        let listener: progress::Listener = Arc::new({
            let died = died.clone();
            move |p: Progress| {
                if (p.step, p.done) == (Step::Publish, dies_after) {
                    died.store(true, Ordering::SeqCst);
                    panic!("killed on purpose");
                }
            }
        });
        let killed = tokio::spawn(async move { recompute(&deps, &settings, request(), &listener).await.is_ok() }).await;
        assert!(killed.is_err() && died.load(Ordering::SeqCst));
        assert_eq!(runs_of(&world.root, day()).await.unwrap(), []);
        let outcome = world.run(day()).await.unwrap();
        assert_eq!((outcome.status, outcome.record.run), (Status::Computed, 2));
        let judged = model::recount(&archive, &world.deps.prices);
        assert_eq!(world.rows(&outcome.record, "gold/ad_minute").await, model::ad_minutes(&judged, day()));
        assert_eq!(world.run(day()).await.unwrap().status, Status::Unchanged);
    }
}

#[tokio::test]
async fn backfill_takes_the_days_in_order() {
    let world = World::new();
    world.take(&[click(1, 0), click(1, DAY), click(2, 2 * DAY)], Layout::Sorted(9)).await;
    let days = (day(), day().plus(2));
    let outcomes = backfill(&world.deps, &world.settings, days, request(), &progress::silent()).await.unwrap();
    let found: Vec<_> = outcomes.iter().map(|o| (o.record.day, o.record.verdicts["billable"])).collect();
    assert_eq!(found, [(day(), 1), (day().plus(1), 0), (day().plus(2), 1)]);
}

#[tokio::test]
async fn an_event_can_be_explained_wherever_it_was_archived() {
    let mut world = World::new();
    world.settings.silver_file_rows = 2;
    let others = (10..30).map(|id| click(id, HOUR));
    let specs: Vec<Spec> = [click(1, HOUR), click(1, DAY)].into_iter().chain(others).collect();
    world.take(&specs, Layout::Sorted(5)).await;
    world.run(day()).await.unwrap();
    let id = EventId::new("id-1").unwrap();
    let life = explain(&world.root, &id).await.unwrap();
    let verdicts: Vec<_> = life.iter().map(|o| (o.day, o.judged.as_ref().map(|j| j.verdict.as_str()))).collect();
    assert_eq!(verdicts, [(day(), Some("billable")), (day().plus(1), None)]);
    assert_eq!(life[0].judged.as_ref().unwrap().cost_nanos, 5_000_000);
    assert_eq!(explain(&world.root, &EventId::new("nobody").unwrap()).await.unwrap(), []);
}

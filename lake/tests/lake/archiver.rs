//! The archiver on healthy stores: every record once, positions with the rows, races, poison, shutdown, retention.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use lake::archiver::Settings;
use lake::positions::Progress;
use lake::tables::{BRONZE_BAD, BRONZE_EVENTS};
use lake::{LakeRoot, Table};
use object_store::memory::InMemory;
use proptest::prelude::*;
use shared::error::ErrorKind;
use shared::event_log::memory::MemoryLog;
use shared::event_log::{EventLog, Retention};
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::time::{DAY, SECOND};

use crate::help::{Watched, World, append, bronze, dead_letter, eager, memory_lake, payload, start};

fn lake() -> LakeRoot {
    memory_lake(Arc::new(InMemory::new()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_archived_once_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let root = LakeRoot::open_folder(&dir.path().join("data/lake")).unwrap();
    let world = World::with(0..500, 0..40).await;
    let ends = world.archiver(&root, eager(100)).drain().await.unwrap();
    assert_eq!(ends.events, world.events.bounds().await.unwrap().end);
    world.assert_archived(&root).await;
    let groups = world.events.group_positions().await.unwrap();
    assert_eq!(groups["lake"], ends.events, "progress is reported for lag displays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_archivers_racing_on_one_lake_archive_every_record_once() {
    for round in 0..4 {
        let world = World::with(0..150, 0..20).await;
        let root = lake();
        let archivers = [
            world.archiver(&root, eager(20 + round)),
            world.archiver(&root, eager(33)),
            world.archiver(&root, eager(7)),
        ];
        let runs = archivers.map(|a| tokio::spawn(async move { a.drain().await.map(drop) }));
        for run in runs {
            run.await.unwrap().unwrap();
        }
        world.assert_archived(&root).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archivers_that_share_the_partitions_archive_every_record_once_and_none_of_the_others() {
    let world = World::with(0..300, 0..20).await;
    let root = lake();
    let all = world.events.partitions();
    assert!(all >= 2, "there is something to share");
    let share = |partitions: Vec<u32>| Settings { partitions, ..eager(20) };
    let second = world.archiver(&root, share((1..all).collect()));
    let ends = second.drain().await.unwrap();
    assert!(!ends.events.0.contains_key(&0) && ends.dead_letters.0.is_empty(), "{ends:?}");
    let table = Table::open(&root, &BRONZE_EVENTS).await.unwrap();
    assert_eq!(table.transaction_version("bronze/events/0").await.unwrap(), None, "partition 0 is another's");
    let first = world.archiver(&root, share(vec![0]));
    append(world.events.as_ref(), (300..400).map(|n| (n, payload(n)))).await;
    let runs = [first, second].map(|a| tokio::spawn(async move { a.drain().await.map(drop) }));
    for run in runs {
        run.await.unwrap().unwrap();
    }
    world.assert_archived(&root).await;
}

async fn stored_files(root: &LakeRoot) -> usize {
    let listed: Vec<_> = root.store().list(None).try_collect().await.unwrap();
    listed.iter().filter(|f| f.location.as_ref().contains("/day=")).count()
}

async fn committed_files(root: &LakeRoot) -> usize {
    let (events, bad) =
        (Table::open(root, &BRONZE_EVENTS).await.unwrap(), Table::open(root, &BRONZE_BAD).await.unwrap());
    events.files().unwrap().len() + bad.files().unwrap().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn stopping_and_starting_anywhere_archives_every_record_once(
        steps in prop::collection::vec((0..40_i64, 0..10_i64, 1..30_usize), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (world, root) = (World::with(0..0, 0..0).await, lake());
            let (mut events, mut dead_letters) = (0, 0);
            for (more_events, more_dead_letters, flush_rows) in steps {
                append(world.events.as_ref(), (events..events + more_events).map(|n| (n, payload(n)))).await;
                let letters = dead_letters..dead_letters + more_dead_letters;
                append(world.dead_letters.as_ref(), letters.map(|n| (n, dead_letter(n)))).await;
                (events, dead_letters) = (events + more_events, dead_letters + more_dead_letters);
                world.archiver(&root, eager(flush_rows)).drain().await.unwrap();
                world.assert_archived(&root).await;
            }
        });
    }
}

#[tokio::test]
async fn archiving_stops_where_it_was_asked_to_and_goes_on_from_there() {
    let (world, root) = (World::with(0..90, 0..10).await, lake());
    let part = Progress { events: Positions([(0, 10), (1, 5)].into()), dead_letters: Positions::default() };
    world.archiver(&root, eager(1_000)).archive_until(&part).await.unwrap();
    assert!(bronze(&root).await.0.len() >= 15 - 4, "what was asked for is there");
    world.archiver(&root, eager(1_000)).drain().await.unwrap();
    world.assert_archived(&root).await;
}

#[tokio::test]
async fn poison_lands_in_bad_with_its_bytes_and_blocks_nothing() {
    let (world, root) = (World::with(0..40, 0..0).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    let (events, bad) = bronze(&root).await;
    assert_eq!(events.len() + bad.len(), 40);
    assert_eq!(bad.len(), 6);
    for row in bad {
        assert_eq!(
            (row.topic.as_str(), row.record.stage.as_str(), row.record.reason.as_str()),
            ("events", "lake", "undecodable")
        );
        assert!(row.record.raw.is_empty() || row.record.raw == b"\x01 not an event \xff");
        assert!(!row.record.detail.is_empty());
    }
}

#[tokio::test]
async fn a_shutdown_commits_what_waits() {
    let (mut world, root) = (World::with(0..50, 0..5).await, lake());
    let watched = Arc::new(Watched::new(Arc::clone(&world.events)));
    world.events = watched.clone();
    let shutdown = Shutdown::new();
    let lazy = Settings { flush_rows: 1_000_000, ..eager(1) };
    let running = tokio::spawn(world.archiver(&root, lazy).run(shutdown.clone()));
    watched.read.notified().await; // all events are read, and after the next turn all dead letters too
    watched.read.notified().await;
    assert_eq!(Table::open(&root, &BRONZE_EVENTS).await.unwrap().files().unwrap().len(), 0, "nothing was due");
    shutdown.request();
    running.await.unwrap().unwrap();
    world.assert_archived(&root).await;
}

#[tokio::test]
async fn an_archiver_that_lost_a_race_takes_its_files_away_and_goes_on_behind_the_winner() {
    let (mut world, root) = (World::with(0..50, 0..5).await, lake());
    let plain = Arc::clone(&world.events);
    let watched = Arc::new(Watched::new(Arc::clone(&plain)));
    world.events = watched.clone();
    let shutdown = Shutdown::new();
    let lazy = Settings { flush_rows: 1_000_000, ..eager(1) };
    let loser = tokio::spawn(world.archiver(&root, lazy).run(shutdown.clone()));
    watched.read.notified().await; // the loser holds all events and has committed none
    world.events = plain;
    let some = Progress { events: Positions([(0, 2)].into()), dead_letters: Positions::default() };
    world.archiver(&root, eager(5)).archive_until(&some).await.unwrap();
    world.clock.advance(60 * SECOND); // now the loser's rows are due
    while watched.opened() < 2 {
        watched.read.notified().await; // it lost, and begins again from the winner's commit
    }
    shutdown.request();
    loser.await.unwrap().unwrap();
    world.archiver(&root, eager(5)).drain().await.unwrap();
    world.assert_archived(&root).await;
    assert_eq!(stored_files(&root).await, committed_files(&root).await);
}

#[tokio::test]
async fn rows_wait_for_their_age_and_then_are_committed() {
    let (world, root) = (World::with(0..50, 0..5).await, lake());
    let shutdown = Shutdown::new();
    let settings = Settings { flush_rows: 1_000_000, ..eager(1) };
    let running = tokio::spawn(world.archiver(&root, settings).run(shutdown.clone()));
    while world.events.group_positions().await.unwrap().is_empty() {
        world.clock.advance(SECOND); // the clock alone makes rows old: the test waits for nothing else
        tokio::task::yield_now().await;
    }
    world.archiver(&root, eager(1_000)).drain().await.unwrap();
    shutdown.request();
    running.await.unwrap().unwrap();
    world.assert_archived(&root).await;
}

#[tokio::test]
async fn a_log_that_lost_what_was_not_archived_stops_the_archiver() {
    let (world, root) = (World::with(0..30, 0..0).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    append(world.events.as_ref(), (30..60).map(|n| (n, payload(n)))).await;
    let nothing = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    world.events.enforce(nothing, start().plus(DAY)).await.unwrap();
    let bounds = world.events.bounds().await.unwrap();
    assert!(bounds.start.next(0) > 10, "the log forgot: {bounds:?}");
    let stopped = world.archiver(&root, eager(10)).drain().await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Corrupt, "{stopped}");
    assert!(stopped.to_string().contains("retention removed records"), "{stopped}");
}

#[tokio::test]
async fn another_log_than_the_one_archived_stops_the_archiver() {
    let (mut world, root) = (World::with(0..30, 0..0).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    world.events = Arc::new(MemoryLog::new(3)) as Arc<dyn EventLog>;
    let stopped = world.archiver(&root, eager(10)).drain().await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Corrupt, "{stopped}");
}

#[tokio::test]
async fn a_new_lake_takes_an_old_log_from_its_oldest_record() {
    let (world, root) = (World::with(0..30, 0..0).await, lake());
    let nothing = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    world.events.enforce(nothing, start().plus(DAY)).await.unwrap();
    append(world.events.as_ref(), (30..60).map(|n| (n, payload(n)))).await;
    let kept = world.events.bounds().await.unwrap();
    world.archiver(&root, eager(10)).drain().await.unwrap();
    let (events, bad) = bronze(&root).await;
    assert_eq!(events.len() + bad.len(), kept.start.lag(&kept.end) as usize);
    assert!(!events.is_empty());
}

#[test]
fn all_problems_of_the_settings_are_reported_at_once() {
    assert_eq!(Settings::default().problems(), vec![]);
    let bad =
        Settings { flush_rows: 0, poll_records: 0, retry_max: shared::config::Span::millis(1), ..Settings::default() };
    let fields: Vec<_> = bad.problems().into_iter().map(|p| p.field).collect();
    assert_eq!(fields, ["lake.flush_rows", "lake.poll_records", "lake.retry_min"]);
}

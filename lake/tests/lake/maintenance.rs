//! Optimize and vacuum beside running writers.

use std::sync::Arc;

use lake::maintenance::{Pin, Settings, optimize, stats, vacuum};
use lake::tables::BRONZE_EVENTS;
use lake::{LakeRoot, Table};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use shared::config::Span;
use shared::time::{Clock, DAY, ManualClock, SystemClock};

use crate::help::{World, append, bronze, eager, memory_lake, payload};

fn lake() -> LakeRoot {
    memory_lake(Arc::new(InMemory::new()))
}

#[tokio::test]
async fn merging_files_changes_no_row_and_leaves_fewer_sorted_files() {
    let (world, root) = (World::with(0..400, 0..20).await, lake());
    world.archiver(&root, eager(20)).drain().await.unwrap();
    let mut table = Table::open(&root, &BRONZE_EVENTS).await.unwrap();
    let before = table.files().unwrap();
    let done = optimize(&mut table, &Settings::default(), None).await.unwrap();
    let after = table.files().unwrap();
    assert_eq!(done.files_before - done.files_after, (before.len() - after.len()) as u64);
    let mut days: Vec<_> = before.iter().map(|f| f.day).collect();
    days.dedup();
    assert_eq!(after.len(), days.len(), "one file a day is left");
    world.assert_archived(&root).await;
    assert_eq!(
        optimize(&mut table, &Settings::default(), None).await.unwrap().files_before,
        0,
        "nothing is left to do"
    );
}

#[tokio::test]
async fn merging_one_day_leaves_the_others_alone() {
    let (world, root) = (World::with(0..200, 0..0).await, lake());
    world.archiver(&root, eager(20)).drain().await.unwrap();
    let mut table = Table::open(&root, &BRONZE_EVENTS).await.unwrap();
    let before = table.files().unwrap();
    let day = before.last().unwrap().day;
    optimize(&mut table, &Settings::default(), Some(day)).await.unwrap();
    assert_eq!(table.files_of(day).unwrap().len(), 1);
    let others = |files: Vec<lake::table::DataFile>| files.into_iter().filter(|f| f.day != day).collect::<Vec<_>>();
    assert_eq!(others(table.files().unwrap()), others(before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merging_beside_a_running_archiver_loses_and_doubles_nothing() {
    let (world, root) = (World::with(0..0, 0..0).await, lake());
    let world = Arc::new(world);
    let writer = {
        let (world, root) = (Arc::clone(&world), root.clone());
        tokio::spawn(async move {
            for step in 0..8 {
                append(world.events.as_ref(), (step * 50..(step + 1) * 50).map(|n| (n, payload(n)))).await;
                world.archiver(&root, eager(9)).drain().await.unwrap();
            }
        })
    };
    let mut table = Table::open(&root, &BRONZE_EVENTS).await.unwrap();
    while !writer.is_finished() {
        optimize(&mut table, &Settings::default(), None).await.unwrap();
    }
    writer.await.unwrap();
    world.assert_archived(&root).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_merges_at_once_lose_and_double_nothing() {
    let (world, root) = (World::with(0..300, 0..0).await, lake());
    world.archiver(&root, eager(15)).drain().await.unwrap();
    let merges = (0..3).map(|_| {
        let root = root.clone();
        tokio::spawn(async move {
            let mut table = Table::open(&root, &BRONZE_EVENTS).await.unwrap();
            optimize(&mut table, &Settings::default(), None).await.unwrap();
        })
    });
    for merge in futures::future::join_all(merges).await {
        merge.unwrap();
    }
    world.assert_archived(&root).await;
}

/// A lake whose clock runs `days` ahead of the machine's, so that files written now are old.
fn later(root: &LakeRoot, days: i64) -> LakeRoot {
    let now = SystemClock::default().now();
    root.clone().with_clock(Arc::new(ManualClock::at(now.plus(days * DAY))))
}

#[tokio::test]
async fn vacuum_takes_what_nobody_needs_and_keeps_pinned_versions_readable() {
    let (world, root) = (World::with(0..300, 0..0).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    let mut table = Table::open(&later(&root, 0), &BRONZE_EVENTS).await.unwrap();
    let pinned = table.version();
    let pinned_files = table.files().unwrap();
    optimize(&mut table, &Settings::default(), None).await.unwrap();
    let orphan = table.root().path("bronze/events/day=2026-01-05/orphan.parquet");
    root.store().put(&orphan, "left by a crash".into()).await.unwrap();

    let week = Span::secs(7 * 86_400);
    let mut now = Table::open(&later(&root, 1), &BRONZE_EVENTS).await.unwrap();
    assert_eq!(vacuum(&mut now, week, &[], false).await.unwrap().files, 0, "nothing is old enough");

    let pin = Pin { table: "bronze/events".to_owned(), version: pinned };
    let mut old = Table::open(&later(&root, 9), &BRONZE_EVENTS).await.unwrap();
    let dry = vacuum(&mut old, week, std::slice::from_ref(&pin), true).await.unwrap();
    let wet = vacuum(&mut old, week, std::slice::from_ref(&pin), false).await.unwrap();
    assert_eq!((dry.files, wet.files), (1, 1), "only the orphan goes");
    assert!(root.store().head(&orphan).await.is_err());
    let then = Table::open(&root, &BRONZE_EVENTS).await.unwrap().at_version(pinned).await.unwrap();
    assert_eq!(then.files().unwrap(), pinned_files);
    for file in &pinned_files {
        assert_eq!(root.store().head(&file.object_path).await.unwrap().size, file.size);
    }

    assert!(wet.log_files >= 20, "the log before the last checkpoint under the pin goes: {wet:?}");
    assert!(then.at_version(pinned + 1).await.is_ok());
    assert!(then.at_version(3).await.is_err(), "no pin holds version 3");

    let without = vacuum(&mut old, week, &[], false).await.unwrap();
    assert_eq!(without.files, pinned_files.len() as u64, "without the pin the merged files go");
    world.assert_archived(&root).await;
}

#[tokio::test]
async fn an_old_file_that_was_merged_away_yesterday_stays_for_the_retention() {
    let (world, root) = (World::with(0..100, 0..0).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    let mut table = Table::open(&later(&root, 20), &BRONZE_EVENTS).await.unwrap();
    let merged_away = optimize(&mut table, &Settings::default(), None).await.unwrap().files_before;
    assert!(merged_away > 0);
    let week = Span::secs(7 * 86_400);
    let mut next_day = Table::open(&later(&root, 21), &BRONZE_EVENTS).await.unwrap();
    assert_eq!(vacuum(&mut next_day, week, &[], false).await.unwrap().files, 0, "a reader may still read them");
    let mut next_week = Table::open(&later(&root, 28), &BRONZE_EVENTS).await.unwrap();
    assert_eq!(vacuum(&mut next_week, week, &[], false).await.unwrap().files, merged_away);
    world.assert_archived(&root).await;
}

#[tokio::test]
async fn a_pin_that_cannot_be_read_stops_the_vacuum_before_it_removes_anything() {
    let (world, root) = (World::with(0..100, 0..0).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    let mut table = Table::open(&later(&root, 30), &BRONZE_EVENTS).await.unwrap();
    optimize(&mut table, &Settings::default(), None).await.unwrap();
    let pin = Pin { table: "bronze/events".to_owned(), version: 1_000 };
    let mut table = Table::open(&later(&root, 60), &BRONZE_EVENTS).await.unwrap();
    assert!(vacuum(&mut table, Span::secs(86_400), &[pin], false).await.is_err());
    let listed: Vec<_> = futures::TryStreamExt::try_collect(root.store().list(None)).await.unwrap();
    assert!(listed.iter().filter(|f| f.location.as_ref().ends_with(".parquet")).count() > table.files().unwrap().len());
}

#[tokio::test]
async fn the_figures_add_up() {
    let (world, root) = (World::with(0..100, 0..10).await, lake());
    world.archiver(&root, eager(10)).drain().await.unwrap();
    let (events, bad) = bronze(&root).await;
    let figures = stats(&root, &Settings::default()).await.unwrap();
    assert_eq!(figures.len(), lake::tables::ALL.len());
    assert_eq!((figures[0].table.as_str(), figures[0].rows), ("bronze/events", events.len() as u64));
    assert_eq!((figures[1].table.as_str(), figures[1].rows), ("bronze/bad", bad.len() as u64));
    assert_eq!(figures[0].files, figures[0].small_files);
    assert_eq!(figures[2].rows, 0);
}

#[tokio::test]
async fn silver_is_not_merged_because_its_order_is_batchs_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = lake::LakeRoot::open_folder(folder.path()).unwrap();
    let mut silver = Table::open(&root, &lake::tables::SILVER_EVENTS).await.unwrap();
    let refused = optimize(&mut silver, &Settings::default(), None).await.unwrap_err();
    assert!(refused.to_string().contains("silver/events is not merged"), "{refused}");
}

//! The loop: it flushes by the clock, survives a store that is away, stops cleanly, and gives way to a newer one.

use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use shared::config::Span;
use shared::error::ErrorKind;
use shared::event_log::{EventLog, NewRecord, Retention};
use shared::shutdown::Shutdown;
use shared::time::{Clock, HOUR, SECOND, Timestamp};
use shared::wire::encode_event;

use super::events::{START, click, records, traffic};
use super::faults::{Mood, MoodyStore};
use super::harness::{PARTITIONS, World, block_on};
use crate::pipeline::Pipeline;
use crate::{Error, Settings, Speed};

fn some_records() -> Vec<NewRecord> {
    let happenings = traffic(400).new_tree(&mut TestRunner::deterministic()).unwrap().current();
    records(&happenings, PARTITIONS)
}

fn record(partition: u32, id: &str, at: Timestamp) -> NewRecord {
    NewRecord { partition, append_time: at, payload: encode_event(&click(id, at, 0)).into() }
}

/// Waits until a pipeline for all partitions has read the clock for the first time.
async fn started(store: &MoodyStore) {
    store.started.subscribe().wait_for(|n| *n >= u64::from(PARTITIONS)).await.unwrap();
}

/// Waits for so many flushes from now on, whatever comes of them.
async fn tried(store: &MoodyStore, times: u64) {
    let mut tried = store.tried.subscribe();
    let from = *tried.borrow();
    tried.wait_for(|n| *n >= from + times).await.unwrap();
}

#[test]
fn it_flushes_by_the_clock_survives_an_outage_and_stops_with_everything_shown() {
    block_on(async {
        let world = World::new();
        world.append(some_records()).await;
        let shutdown = Shutdown::new();
        let speed = Speed::new(world.settings.clone(), world.deps());
        let running = tokio::spawn(speed.run(shutdown.clone()));
        started(&world.store).await;
        world.store.set_mood(Mood::Refuses);
        world.clock.advance(10 * SECOND);
        tried(&world.store, 1).await;
        assert!(world.store.rows().is_empty());
        world.store.set_mood(Mood::Fine);
        world.clock.advance(10 * SECOND);
        tried(&world.store, u64::from(PARTITIONS)).await;
        assert!(!world.store.rows().is_empty());
        shutdown.request();
        running.await.unwrap().unwrap();
        let mut again = world.start().await;
        assert!(!again.positions().0.values().all(|next| *next == 0), "a checkpoint was saved");
        world.drain(&mut again).await;
        world.assert_counted().await;
    });
}

#[test]
fn polling_stops_when_the_store_stays_away_and_nothing_is_lost() {
    block_on(async {
        let mut world = World::new();
        world.settings.max_unflushed_records = 1_000;
        world.settings.poll_records = 100;
        let ids = (0..5_000).map(|n| record(0, &format!("e{n}"), START));
        world.append(ids.collect()).await;
        world.store.set_mood(Mood::Refuses);
        let shutdown = Shutdown::new();
        let running = tokio::spawn(Speed::new(world.settings.clone(), world.deps()).run(shutdown.clone()));
        tried(&world.store, 2).await;
        assert_eq!(world.store.reached(0), 1_000, "it goes no further than the bound");
        world.store.set_mood(Mood::Fine);
        tried(&world.store, u64::from(PARTITIONS)).await;
        assert_eq!(world.store.status(0).outcomes["counted"], 1_000);
        shutdown.request();
        running.await.unwrap().unwrap();
        world.drain(&mut world.start().await).await;
        world.assert_counted().await;
    });
}

#[test]
fn a_zombie_of_an_older_generation_changes_no_row() {
    block_on(async {
        let world = World::new();
        let all = some_records();
        let half = all.len() / 2;
        world.append(all[..half].to_vec()).await;
        // Another machine, another state folder, the same store.
        let elsewhere = tempfile::tempdir().unwrap();
        let settings = Settings { state_dir: elsewhere.path().to_owned(), ..world.settings.clone() };
        let mut zombie = Pipeline::start(settings, world.deps()).await.unwrap();
        zombie.read(1_000).await.unwrap();
        world.append(all[half..].to_vec()).await;
        world.drain(&mut world.start().await).await;
        world.assert_counted().await;
        zombie.flush_and_save(true).await.unwrap();
        world.assert_counted().await;
    });
}

#[test]
fn a_restart_shows_every_open_row_again_so_that_a_store_that_lost_its_last_writes_heals() {
    block_on(async {
        let world = World::new();
        world.append((0..90).map(|n| record(0, &format!("e{n}"), START.plus(n * SECOND))).collect()).await;
        world.drain(&mut world.start().await).await;
        world.store.lose_rows();
        world.drain(&mut world.start().await).await;
        world.assert_counted().await;
    });
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    block_on(async {
        let world = World::new();
        let first = world.start().await;
        let second = Pipeline::start(world.settings.clone(), world.deps()).await;
        assert!(matches!(second.err(), Some(Error::Owned(_))));
        // One that goes away while the other waits is waited for.
        let settings = world.settings.clone();
        let (second, ()) = tokio::join!(Pipeline::start(settings, world.deps()), async { drop(first) });
        assert!(second.is_ok());
    });
}

#[test]
fn partitions_can_be_divided_among_processes() {
    block_on(async {
        let world = World::new();
        world.append(some_records()).await;
        for partitions in [vec![0, 2], vec![1]] {
            let settings = Settings { partitions: partitions.clone(), ..world.settings.clone() };
            let mut pipeline = Pipeline::start(settings, world.deps()).await.unwrap();
            let end = world.log.bounds().await.unwrap().end;
            while partitions.iter().any(|p| pipeline.positions().next(*p) < end.next(*p)) {
                pipeline.read(1_000).await.unwrap();
            }
            pipeline.flush_and_save(true).await.unwrap();
        }
        world.assert_counted().await;
    });
}

#[test]
fn an_idle_partition_shows_the_watermark_of_the_others() {
    block_on(async {
        let world = World::new();
        world.append(vec![record(0, "a", START), record(1, "b", START.plus(HOUR))]).await;
        let mut pipeline = world.start().await;
        pipeline.read(1_000).await.unwrap();
        pipeline.flush_and_save(true).await.unwrap();
        let watermark = |partition: u32| world.store.status(partition).watermark;
        assert_eq!(watermark(0), START.plus(-30 * SECOND));
        // Partition 1 goes on, 0 and 2 are quiet.
        world.clock.advance(60 * SECOND);
        world.append(vec![record(1, "c", START.plus(2 * HOUR))]).await;
        pipeline.read(1_000).await.unwrap();
        pipeline.flush_and_save(true).await.unwrap();
        for partition in 0..PARTITIONS {
            assert_eq!(watermark(partition), START.plus(2 * HOUR - 30 * SECOND), "partition {partition}");
        }
        // What wakes up late is still judged by its own partition.
        world.append(vec![record(0, "d", START.plus(SECOND))]).await;
        world.drain(&mut pipeline).await;
        world.assert_counted().await;
        assert_eq!(world.store.status(0).outcomes["counted"], 2);
    });
}

#[test]
fn a_log_that_forgot_records_before_they_were_read_is_an_error() {
    block_on(async {
        let world = World::new();
        world.append((0..50).map(|n| record(0, &format!("e{n}"), START)).collect()).await;
        let mut pipeline = world.start().await;
        pipeline.read(1_000).await.unwrap();
        pipeline.flush_and_save(true).await.unwrap();
        drop(pipeline);
        world.append((0..50).map(|n| record(0, &format!("f{n}"), START)).collect()).await;
        let nothing = Retention { max_age: std::time::Duration::ZERO, max_bytes: 0 };
        world.log.enforce(nothing, world.clock.now().plus(HOUR)).await.unwrap();
        let error = Pipeline::start(world.settings.clone(), world.deps()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        // A lost state folder begins where the log begins; a damaged one asks first.
        let checkpoint = world.newest_checkpoint(0).unwrap();
        std::fs::write(&checkpoint, b"junk").unwrap();
        let error = Pipeline::start(world.settings.clone(), world.deps()).await.err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        std::fs::remove_dir_all(world.folder(0)).unwrap();
        let start = world.start().await.positions().next(0);
        assert_eq!(start, world.log.bounds().await.unwrap().start.next(0));
    });
}

#[test]
fn settings_that_cannot_work_are_refused_with_every_reason() {
    block_on(async {
        let world = World::new();
        let settings =
            Settings { partitions: vec![PARTITIONS], flush_interval: Span::millis(0), ..Settings::default() };
        let error = Speed::new(settings, world.deps()).run(Shutdown::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(["flush_interval", "state_dir", "partitions"].iter().all(|word| text.contains(word)), "{text}");
        assert!(Arc::strong_count(&world.deps().store) == 1);
    });
}

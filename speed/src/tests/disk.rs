//! More event ids than memory has room for: they are on disk, found there after any restart, and a disk that fails makes
//! nobody count twice.

use shared::error::ErrorKind;
use shared::event_log::NewRecord;
use shared::time::SECOND;
use shared::wire::encode_event;

use super::events::{START, click};
use super::harness::{PARTITIONS, World, block_on};

/// Clicks on partition 0, a second apart from `from` on, by their numbers.
fn clicks(from: i64, numbers: impl Iterator<Item = i64>) -> Vec<NewRecord> {
    let record = |(second, n): (i64, i64)| {
        let at = START.plus(second * SECOND);
        NewRecord { partition: 0, append_time: at, payload: encode_event(&click(&format!("e{n}"), at, 0)).into() }
    };
    (from..).zip(numbers).map(record).collect()
}

/// Room for so many ids in the memory of each partition.
fn crowded(mut world: World, ids: u64) -> World {
    world.settings.max_dedup_ids = ids * u64::from(PARTITIONS);
    world.settings.max_dedup_ids_on_disk = 100_000;
    world
}

fn many_ids_are_all_known_after_a_restart(world: World) {
    block_on(async {
        let world = crowded(world, 400);
        world.append(clicks(0, 0..5_000)).await;
        let mut pipeline = world.start().await;
        world.drain(&mut pipeline).await;
        // Across a restart, and again in the process that learnt some of them itself.
        for from in [5_000, 10_000] {
            drop(pipeline);
            pipeline = world.start().await;
            world.append(clicks(from, (0..5_000).rev())).await;
            world.drain(&mut pipeline).await;
        }
        let outcomes = world.store.status(0).outcomes;
        assert_eq!((outcomes["counted"], outcomes["duplicate"]), (5_000, 10_000));
        world.assert_counted().await;
    });
}

#[test]
fn ids_beyond_memory_are_known_with_state_in_a_folder() {
    many_ids_are_all_known_after_a_restart(World::new());
}

#[test]
fn ids_beyond_memory_are_known_with_state_in_an_object_store() {
    many_ids_are_all_known_after_a_restart(World::on_objects());
}

#[test]
fn without_room_on_disk_the_oldest_are_forgotten_as_before() {
    block_on(async {
        let mut world = crowded(World::new(), 400);
        world.settings.max_dedup_ids_on_disk = 0;
        world.append(clicks(0, (0..2_000).chain(0..100))).await;
        world.drain(&mut world.start().await).await;
        assert_eq!(world.store.status(0).outcomes["counted"], 2_100);
    });
}

#[test]
fn a_disk_that_fails_ends_the_worker_and_a_restart_counts_everything_once() {
    block_on(async {
        let mut world = crowded(World::on_objects(), 400);
        let file = tempfile::NamedTempFile::new().unwrap();
        world.settings.state_dir = file.path().to_owned();
        world.append(clicks(0, (0..600).chain(0..600))).await;
        let mut pipeline = world.start().await;
        pipeline.read(300).await.unwrap();
        pipeline.flush_and_save(true).await.unwrap();
        let error = pipeline.read(900).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.to_string().starts_with(&format!("cannot write event ids to {}", file.path().display())),
            "{error}"
        );
        drop(pipeline);
        let folder = tempfile::tempdir().unwrap();
        world.settings.state_dir = folder.path().to_owned();
        let mut pipeline = world.start().await;
        assert_eq!(pipeline.positions().next(0), 300);
        world.drain(&mut pipeline).await;
        assert_eq!(world.store.status(0).outcomes["duplicate"], 600);
        world.assert_counted().await;
        // Nothing is left in the folder but what has no name.
        drop(pipeline);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

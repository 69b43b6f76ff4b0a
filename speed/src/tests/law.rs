//! The law of the speed layer: for any events, any batching and any crashes, the rows are those of a naive recount.

use proptest::prelude::*;

use super::events::{Happening, records, traffic};
use super::faults::Mood;
use super::harness::{PARTITIONS, World, block_on};
use crate::Error;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Appends that many of the records to the log.
    Append(usize),
    /// Polls up to that many.
    Read(usize),
    /// Flushes without saving, as a crash between the two leaves it.
    Flush,
    FlushAndSave,
    /// The process dies and another one starts.
    Crash,
    /// It dies after the dedup files were written and before the checkpoint's rename.
    CrashInsideSave,
    /// It dies and a byte of a newest checkpoint flips.
    CrashWithDamage(u32, u8),
    /// It dies and a dedup file is cut.
    CrashWithShortFile(u32),
    /// Flushes while the store is away, or loses its answer.
    FlushIn(Mood),
    /// Time passes.
    Wait(i64),
    /// The object store goes away after so many writes of a save, and the process dies.
    CrashAfterWrites(u64),
    /// Another process takes all partitions over; the old one goes on for a moment and saves.
    Zombie(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..40_usize).prop_map(Step::Append),
        8 => (1..30_usize).prop_map(Step::Read),
        4 => Just(Step::Flush),
        4 => Just(Step::FlushAndSave),
        3 => Just(Step::Crash),
        1 => (0..PARTITIONS, any::<u8>()).prop_map(|(p, b)| Step::CrashWithDamage(p, b)),
        1 => (0..PARTITIONS).prop_map(Step::CrashWithShortFile),
        1 => Just(Step::FlushIn(Mood::Refuses)),
        1 => Just(Step::FlushIn(Mood::Forgets)),
        1 => (0..60_i64).prop_map(Step::Wait),
    ]
}

/// What can also happen to state in a folder.
fn step_in_folder() -> impl Strategy<Value = Step> {
    prop_oneof![24 => step(), 1 => Just(Step::CrashInsideSave)]
}

/// What can also happen to state that any machine reaches.
fn step_on_objects() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => step(),
        1 => (0..20_u64).prop_map(Step::CrashAfterWrites),
        1 => (0..30_usize).prop_map(Step::Zombie),
    ]
}

fn damage(world: &World, partition: u32, byte: u8) {
    let Some(path) = world.newest_checkpoint(partition) else { return };
    let mut bytes = std::fs::read(&path).unwrap();
    let at = usize::from(byte) * bytes.len() / 256;
    bytes[at] ^= byte | 1;
    std::fs::write(&path, bytes).unwrap();
}

fn cut_a_file(world: &World, partition: u32) {
    let files = std::fs::read_dir(world.folder(partition)).unwrap().map(|entry| entry.unwrap().path());
    let mut ids: Vec<_> =
        files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ids-")).collect();
    ids.sort();
    if let Some(path) = ids.first() {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
}

fn lose_newest_checkpoints(world: &World) {
    for partition in 0..PARTITIONS {
        if let Some(path) = world.newest_checkpoint(partition) {
            std::fs::remove_file(path).unwrap();
        }
        let damaged = world.folder(partition).join("damaged");
        if damaged.exists() {
            std::fs::remove_file(damaged).unwrap();
        }
    }
}

async fn play(world: World, happenings: &[Happening], steps: &[Step]) {
    let mut waiting = records(happenings, PARTITIONS).into_iter();
    let mut pipeline = world.start().await;
    for step in steps {
        match *step {
            Step::Append(n) => world.append(waiting.by_ref().take(n).collect()).await,
            Step::Read(n) => pipeline.read(n).await.unwrap(),
            Step::Flush => assert!(pipeline.flush(shared::time::Clock::now(&world.clock)).await.unwrap()),
            Step::FlushAndSave => pipeline.flush_and_save(true).await.unwrap(),
            Step::Crash => {
                drop(pipeline);
                pipeline = world.start().await;
            }
            Step::CrashInsideSave => {
                pipeline.flush_and_save(true).await.unwrap();
                drop(pipeline);
                lose_newest_checkpoints(&world);
                pipeline = world.start().await;
                // The one before was whole, with all its files.
                assert!((0..PARTITIONS).all(|p| !world.folder(p).join("damaged").exists()));
            }
            Step::CrashWithDamage(partition, byte) => {
                drop(pipeline);
                damage(&world, partition, byte);
                pipeline = world.start().await;
            }
            Step::CrashWithShortFile(partition) => {
                drop(pipeline);
                cut_a_file(&world, partition);
                pipeline = world.start().await;
            }
            Step::FlushIn(mood) => {
                world.store.set_mood(mood);
                pipeline.flush_and_save(true).await.unwrap();
                world.store.set_mood(Mood::Fine);
            }
            Step::CrashAfterWrites(writes) => {
                let objects = world.objects.as_ref().unwrap();
                objects.after(writes);
                pipeline.flush_and_save(true).await.unwrap();
                drop(pipeline);
                objects.mend();
                pipeline = world.start().await;
            }
            Step::Zombie(records) => {
                let mut zombie = std::mem::replace(&mut pipeline, world.start().await);
                zombie.read(records).await.unwrap();
                if let Err(error) = zombie.flush_and_save(true).await {
                    assert!(matches!(error, Error::Superseded { .. }), "{error}");
                }
            }
            Step::Wait(seconds) => world.clock.advance(seconds * shared::time::SECOND),
        }
    }
    world.append(waiting.collect()).await;
    world.drain(&mut pipeline).await;
    world.assert_counted().await;
    // Once more from the last checkpoint, and once more from nothing at all.
    drop(pipeline);
    world.drain(&mut world.start().await).await;
    world.assert_counted().await;
    std::fs::remove_dir_all(&world.settings.state_dir).unwrap();
    world.drain(&mut world.start().await).await;
    world.assert_counted().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_rows_are_those_of_a_recount_whatever_the_batches_and_crashes(
        happenings in traffic(250),
        steps in prop::collection::vec(step_in_folder(), 0..50),
    ) {
        block_on(play(World::new(), &happenings, &steps));
    }

    #[test]
    fn the_same_holds_for_state_in_an_object_store_and_two_owners_at_once(
        happenings in traffic(250),
        steps in prop::collection::vec(step_on_objects(), 0..50),
    ) {
        block_on(play(World::on_objects(), &happenings, &steps));
    }
}

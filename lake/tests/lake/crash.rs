//! The archiver against a store that dies, fails or loses answers at every single write.

use std::sync::Arc;

use object_store::memory::InMemory;

use crate::help::{Fault, Faulty, World, append, eager, memory_lake, payload};

/// Runs to the end over a store with one fault, restarting after a crash; then checks everything.
/// Answers whether the fault came.
async fn survives(fault: Fault, nth_put: i64, times: i64) -> bool {
    let world = World::with(0..60, 0..12).await;
    let disk: Arc<InMemory> = Arc::new(InMemory::new());
    let faulty = Faulty::new(disk.clone(), fault, nth_put, times);
    let first = world.archiver(&memory_lake(faulty.clone()), eager(25));
    let crashed = tokio::select! {
        outcome = first.drain() => { outcome.unwrap(); false }
        () = faulty.crashed.notified() => true,
    };
    drop(first);
    let healthy = memory_lake(disk);
    if crashed {
        world.archiver(&healthy, eager(40)).drain().await.unwrap();
    }
    world.assert_archived(&healthy).await;
    append(world.events.as_ref(), (60..70).map(|n| (n, payload(n)))).await;
    world.archiver(&healthy, eager(1_000)).drain().await.unwrap();
    world.assert_archived(&healthy).await;
    faulty.has_struck()
}

async fn survives_at_every_put(fault: Fault, times: i64) {
    let mut nth_put = 0;
    while survives(fault, nth_put, times).await {
        nth_put += 1;
    }
    assert!(nth_put > 10, "the fault struck at {nth_put} different writes only");
}

#[tokio::test]
async fn a_crash_before_any_write_loses_nothing_and_doubles_nothing() {
    survives_at_every_put(Fault::CrashBefore, 1).await;
}

#[tokio::test]
async fn a_crash_after_any_write_loses_nothing_and_doubles_nothing() {
    survives_at_every_put(Fault::CrashAfter, 1).await;
}

#[tokio::test]
async fn a_write_that_happened_but_was_reported_as_failed_is_not_done_twice() {
    survives_at_every_put(Fault::LoseAnswer, 1).await;
}

#[tokio::test]
async fn a_store_that_is_full_for_a_while_is_waited_for() {
    survives_at_every_put(Fault::Fail, 3).await;
}

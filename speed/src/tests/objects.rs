//! State in an object store: it moves, stays small, and two owners at once do it no harm.

use shared::error::ErrorKind;
use shared::event_log::NewRecord;
use shared::time::SECOND;
use shared::wire::encode_event;

use super::events::{START, click};
use super::harness::{World, block_on};
use crate::Error;
use crate::pipeline::Pipeline;

/// `count` clicks on partition 0 from the `from`th on, a second apart.
fn clicks(from: i64, count: i64) -> Vec<NewRecord> {
    let record = |n: i64| {
        let at = START.plus(n * SECOND);
        NewRecord { partition: 0, append_time: at, payload: encode_event(&click(&format!("e{n}"), at, 0)).into() }
    };
    (from..from + count).map(record).collect()
}

#[test]
fn many_saves_leave_few_objects_and_all_that_is_remembered() {
    block_on(async {
        let world = World::on_objects();
        let mut pipeline = world.start().await;
        let mut most = 0;
        for n in 0..600 {
            world.append(clicks(n, 1)).await;
            world.drain(&mut pipeline).await;
            most = most.max(world.pieces(0));
        }
        assert!(most < 80, "{most} objects");
        drop(pipeline);
        // Everything comes again and is known.
        world.append(clicks(0, 600)).await;
        world.drain(&mut world.start().await).await;
        assert_eq!(world.store.status(0).outcomes["duplicate"], 600);
        world.assert_counted().await;
    });
}

#[test]
fn an_older_owner_neither_removes_nor_hides_what_a_newer_one_needs() {
    block_on(async {
        let world = World::on_objects();
        world.append(clicks(0, 100)).await;
        let mut zombie = world.start().await;
        zombie.read(40).await.unwrap();
        zombie.flush_and_save(true).await.unwrap();
        let mut newer = world.start().await;
        assert_eq!(newer.positions().next(0), 40);
        // The zombie goes further than the newer owner, and saves.
        zombie.read(60).await.unwrap();
        let refused = zombie.flush_and_save(true).await.unwrap_err();
        assert!(matches!(refused, Error::Superseded { generation: 1, newest: 2, .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        let mut newest = world.start().await;
        assert_eq!(newest.positions().next(0), 40, "the newer owner's checkpoint counts");
        newer.read(60).await.unwrap();
        assert!(newer.flush_and_save(true).await.is_err());
        world.drain(&mut newest).await;
        world.assert_counted().await;
    });
}

#[test]
fn a_store_that_is_away_is_not_an_empty_one() {
    block_on(async {
        let world = World::on_objects();
        world.append(clicks(0, 10)).await;
        let mut pipeline = world.start().await;
        world.objects.as_ref().unwrap().after(0);
        world.drain(&mut pipeline).await;
        drop(pipeline);
        let error = Pipeline::start(world.settings.clone(), world.deps()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        world.objects.as_ref().unwrap().mend();
        world.drain(&mut world.start().await).await;
        world.assert_counted().await;
    });
}

//! The gates: what is not ready, does not balance or contradicts itself is not published.

use batch::{Error, Request, runs_of};
use lake::Table;
use lake::convert::Archived;
use lake::table::Txn;
use lake::tables::{BRONZE_EVENTS, GOLD_BILLING_DAY};
use shared::error::ErrorKind;
use shared::time::{HOUR, SECOND};
use shared::verdict::Counting;

use crate::help::{Layout, Spec, World, day, start};

fn clicks(n: u8) -> Vec<Spec> {
    (0..n)
        .map(|id| Spec { id, ingest: i64::from(id) * HOUR, partition: u32::from(id % 2), ..Spec::default() })
        .collect()
}

async fn nothing_is_visible(world: &World) {
    assert_eq!(runs_of(&world.root, day()).await.unwrap(), []);
    assert_eq!(Table::open(&world.root, &GOLD_BILLING_DAY).await.unwrap().files().unwrap(), []);
}

#[tokio::test]
async fn a_missing_row_stops_the_run_and_names_its_partition() {
    let world = World::new();
    let rows = world.log(clicks(10).iter().map(|s| (s.partition, s.event())).collect()).await;
    let without: Vec<Archived> = rows.iter().filter(|r| (r.partition, r.position) != (1, 2)).cloned().collect();
    world.archive(&without, Layout::Sorted(4)).await;
    let error = world.run(day()).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Corrupt, 13));
    let Error::Conservation { differences, .. } = error else { panic!("{error}") };
    assert_eq!(differences.0.len(), 1, "{differences}");
    assert_eq!(differences.0[0].place, "events partition 1");
    assert_eq!((differences.0[0].expected, differences.0[0].found), (5, 4));
    nothing_is_visible(&world).await;
}

#[tokio::test]
async fn a_doubled_row_in_place_of_another_stops_the_run_though_the_number_is_right() {
    let world = World::new();
    let mut rows = world.log(clicks(10).iter().map(|s| (s.partition, s.event())).collect()).await;
    let (lost, kept) = (rows.iter().position(|r| (r.partition, r.position) == (0, 1)).unwrap(), rows[0].clone());
    rows[lost] = kept;
    world.archive(&rows, Layout::Sorted(100)).await;
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 13);
    assert!(error.to_string().contains("events partition 0"), "{error}");
    nothing_is_visible(&world).await;
}

#[tokio::test]
async fn a_day_that_is_open_or_not_wholly_archived_is_not_ready() {
    let world = World::new();
    let rows = world.log(clicks(6).iter().map(|s| (s.partition, s.event())).collect()).await;
    world.archive(&rows[..4], Layout::Sorted(100)).await;
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 10, "{error}");
    assert!(error.to_string().contains("2 records behind"), "{error}");
    world.archive(&rows[4..], Layout::Sorted(100)).await;
    world.clock.set(day().end().plus(2 * HOUR - SECOND));
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 10, "{error}");
    assert!(batch::ready(&world.deps, &world.settings, day(), false).await.is_err());
    let early = Request { day: day(), dry_run: true, force: true };
    assert!(world.run_with(early).await.is_ok(), "asked for by force");
    world.clock.advance(SECOND);
    batch::ready(&world.deps, &world.settings, day(), false).await.unwrap();
    assert!(world.run(day()).await.unwrap().published);
}

#[tokio::test]
async fn other_time_bounds_than_the_archives_are_refused() {
    let mut world = World::new();
    world.take(&[Spec { age: 20 * HOUR, ingest: 20 * HOUR, ..Spec::default() }], Layout::Sorted(1)).await;
    let counting = Counting { max_late_seconds: 3_600, ..Counting::default() };
    world.deps.counting = std::sync::Arc::new(counting);
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    nothing_is_visible(&world).await;
}

#[tokio::test]
async fn an_event_stored_under_another_day_is_noticed() {
    let world = World::new();
    let mut rows = world.log(vec![(0, Spec::default().event())]).await;
    rows[0].billing_time = start().plus(24 * HOUR); // as if the archive had filed it there
    world.archive(&rows, Layout::Sorted(1)).await;
    assert!(world.run(day().plus(1)).await.is_err());
    assert_eq!(runs_of(&world.root, day().plus(1)).await.unwrap(), []);
}

#[tokio::test]
async fn an_amount_that_does_not_fit_is_an_error() {
    let world = World::new();
    let cost = Some((i64::MAX, "EUR"));
    world.take(&[Spec { campaign: 2, cost, ..Spec::default() }], Layout::Sorted(1)).await;
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 13, "{error}");
    assert!(error.to_string().contains("id-0"), "{error}");
}

#[tokio::test]
async fn a_day_without_events_has_a_run_without_files() {
    let world = World::new();
    let mut bronze = Table::open(&world.root, &BRONZE_EVENTS).await.unwrap();
    bronze.append(Vec::new(), &[Txn::raise("bronze/events/0", 0)]).await.map(|_| ()).unwrap();
    let outcome = world.run(day()).await.unwrap();
    assert!(outcome.published);
    assert!(outcome.record.outputs.values().all(|o| o.files.is_empty()));
    assert_eq!(outcome.record.hours.len(), 24);
    assert_eq!(world.run(day()).await.unwrap().status, batch::Status::Unchanged);
}

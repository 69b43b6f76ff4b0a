//! The gates: what is not ready, does not balance or contradicts itself is not published.

use batch::{Error, Request, runs_of};
use lake::Table;
use lake::convert::{Archived, BadRow, bad_to_batch};
use lake::table::Txn;
use lake::tables::{BRONZE_BAD, BRONZE_EVENTS, GOLD_BILLING_DAY};
use shared::error::ErrorKind;
use shared::progress::Positions;
use shared::tally::{SET_ASIDE, TALLY, Tally};
use shared::time::{HOUR, SECOND, Timestamp};
use shared::verdict::Counting;
use shared::wire::BadRecord;

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

/// Archives tallies of a gateway, as the dead-letter log's only records.
async fn archive_tallies(world: &World, tallies: &[Tally]) {
    let notes = tallies.iter().map(|tally| (TALLY, tally.to_json(), tally.hour));
    archive_notes(world, notes.collect()).await;
}

/// Archives notes of a gateway (reason, detail and hour), as the dead-letter log's only records.
async fn archive_notes(world: &World, notes: Vec<(&str, String, Timestamp)>) {
    let mut table = Table::open(&world.root, &BRONZE_BAD).await.unwrap();
    let row = |(position, (reason, detail, hour)): (u64, (&str, String, Timestamp))| BadRow {
        topic: "dead_letters".to_owned(),
        partition: 0,
        position,
        record: BadRecord {
            reason: reason.to_owned(),
            detail,
            stage: "gateway".to_owned(),
            region: "eu".to_owned(),
            ingest_time: hour.0,
            ..BadRecord::default()
        },
    };
    let rows: Vec<BadRow> = (0..).zip(notes).map(row).collect();
    let file = table.write_parquet(vec![bad_to_batch(&rows).unwrap()], day(), "tallies").await.unwrap();
    let next = i64::try_from(rows.len()).unwrap();
    table.append(vec![file], &[Txn::raise("bronze/bad/dead_letters/0", next)]).await.map(|_| ()).unwrap();
}

/// One event was acknowledged in each of the first ten hours, and the log reaches position 5 in both partitions.
fn tally(number: u64, hour: i64, accepted: u64) -> Tally {
    let through = Positions([(0, 5), (1, 5)].into());
    Tally { epoch: start(), number, hour: start().plus(hour * HOUR), accepted, refused: 0, through }
}

#[tokio::test]
async fn tallies_that_the_archive_bears_out_are_in_the_record_and_a_repeated_one_counts_once() {
    let world = World::new();
    world.take(&clicks(10), Layout::Sorted(4)).await;
    archive_tallies(&world, &[tally(1, 0, 1), tally(2, 3, 1), tally(2, 3, 1)]).await;
    let record = world.run(day()).await.unwrap().record;
    let hours: Vec<(u64, u64, u64)> = record.capture.iter().map(|h| (h.received, h.accepted, h.untallied)).collect();
    assert_eq!(
        (hours.len(), hours[0], hours[1], hours[3], hours[12]),
        (24, (1, 1, 0), (1, 0, 1), (1, 1, 0), (0, 0, 0))
    );
    assert_eq!(record.quarantined, [].into(), "a tally is no refusal");
}

#[tokio::test]
async fn an_acknowledged_event_that_is_not_archived_stops_the_run_and_names_its_hour() {
    let world = World::new();
    world.take(&clicks(10), Layout::Sorted(4)).await;
    archive_tallies(&world, &[tally(1, 0, 1), tally(2, 3, 2)]).await;
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 13, "{error}");
    let Error::Conservation { differences, .. } = error else { panic!("{error}") };
    assert_eq!(differences.0.len(), 1, "{differences}");
    assert_eq!(differences.0[0].place, start().plus(3 * HOUR).to_string());
    assert_eq!((differences.0[0].expected, differences.0[0].found), (2, 1));
    nothing_is_visible(&world).await;
}

#[tokio::test]
async fn an_event_that_was_set_aside_and_not_delivered_stops_the_run_though_others_make_up_the_number() {
    let world = World::new();
    world.take(&clicks(10), Layout::Sorted(4)).await;
    // Of these ten only two are in a tally: it would not miss one.
    let at = start().plus(2 * HOUR);
    let set_aside = |id: &str| (SET_ASIDE, id.to_owned(), at);
    let notes = vec![(TALLY, tally(1, 0, 1).to_json(), start()), set_aside("id-3"), set_aside("id-77")];
    archive_notes(&world, notes).await;
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 13, "{error}");
    let Error::Conservation { differences, .. } = error else { panic!("{error}") };
    assert_eq!(differences.0.len(), 1, "{differences}");
    assert!(differences.0[0].what.contains("id-77") && differences.0[0].place == at.to_string(), "{differences}");
    nothing_is_visible(&world).await;

    // Delivered, it counts; and the notes are no refusals.
    let world = World::new();
    world.take(&clicks(10), Layout::Sorted(4)).await;
    archive_notes(&world, vec![set_aside("id-3"), set_aside("id-9")]).await;
    let record = world.run(day()).await.unwrap().record;
    assert_eq!((record.quarantined, record.capture.iter().map(|h| h.archived).sum::<u64>()), ([].into(), 10));
}

#[tokio::test]
async fn a_tally_ahead_of_the_archive_waits_and_one_ahead_of_the_log_is_a_loss() {
    let world = World::new();
    let rows = world.log(clicks(10).iter().map(|s| (s.partition, s.event())).collect()).await;
    world.archive(&rows[..8], Layout::Sorted(4)).await;
    archive_tallies(&world, &[tally(1, 9, 1)]).await;
    // The archive is behind the log, which an early run may be: the tally of the last hour cannot be judged yet.
    world.clock.set(start().plus(-SECOND));
    let early = Request { day: day(), dry_run: true, force: true };
    let record = world.run_with(early).await.unwrap().record;
    assert_eq!(record.capture.iter().map(|h| (h.accepted, h.archived)).max(), Some((0, 1)));

    let world = World::new();
    world.take(&clicks(8), Layout::Sorted(4)).await;
    archive_tallies(&world, &[tally(1, 9, 1)]).await; // somebody wrote five records to each partition
    let error = world.run(day()).await.unwrap_err();
    assert_eq!(error.exit_code(), 13, "{error}");
    assert!(error.to_string().contains("events partition 1"), "{error}");
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

//! Settlements: same inputs, same bytes; a restatement is a new version; the sequence has no gap.

use std::collections::BTreeMap;
use std::path::Path;

use reconcile::Outcome;
use reconcile::settlements::Settlements;
use reconcile::verify::verify;
use shared::time::Day;
use shared::verdict::Verdict;

use crate::world::{DAY, Fact, World};

pub(crate) fn clicks(n: u8) -> Vec<Fact> {
    (0..n).map(|i| Fact::click(i64::from(i) * 5, i % 3, i, 1_500 + i64::from(i))).collect()
}

pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect()
}

async fn settled(world: &World, day: Day) -> Outcome {
    let outcome = world.run(day).await.unwrap();
    assert!(matches!(outcome, Outcome::Settled(_)), "{outcome:?}");
    outcome
}

#[tokio::test]
async fn the_same_inputs_give_the_same_bytes() {
    let (one, two) = (World::new(), World::new());
    for world in [&one, &two] {
        world.batch(DAY, 1, &clicks(20)).await;
        settled(world, DAY).await;
    }
    let folder = files(&one.settlement(DAY, 1));
    assert_eq!(folder, files(&two.settlement(DAY, 1)));
    let names: Vec<&str> = folder.keys().map(String::as_str).collect();
    assert_eq!(names, ["SHA256SUMS", "lines-0000.csv.gz", "lines-0000.parquet", "manifest.json", "manifest.sig"]);
    let verified = verify(&one.settlement(DAY, 1)).unwrap();
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    assert_eq!(verified.rows_read, 40);
}

#[tokio::test]
async fn a_restatement_is_a_new_version_and_the_old_one_stays() {
    let world = World::new();
    world.batch(DAY, 1, &clicks(20)).await;
    settled(&world, DAY).await;
    let first = files(&world.settlement(DAY, 1));

    world.batch(DAY, 2, &clicks(21)).await;
    settled(&world, DAY).await;
    assert_eq!(files(&world.settlement(DAY, 1)), first);
    let settlements = Settlements::new(world.data.clone());
    let second = settlements.newest(DAY).await.unwrap().unwrap();
    assert_eq!((second.version, second.supersedes, second.sequence, second.run), (2, Some(1), 2, 2));
    assert_eq!(second.reason, "events archived for the day: 20 → 21");
    assert_eq!(second.row_count, 21);
    assert!(verify(&world.settlement(DAY, 2)).unwrap().is_sound());
    assert_eq!(world.run(DAY).await.unwrap().exit_code(), 99);
    assert!(!world.settlement(DAY, 3).exists());
}

#[tokio::test]
async fn a_run_with_the_same_lines_publishes_nothing() {
    let mut world = World::new();
    world.batch(DAY, 1, &clicks(20)).await;
    settled(&world, DAY).await;
    world.batch(DAY, 2, &clicks(20)).await;
    world.settings.rows_per_file = 3; // how lines are cut into files is not their content
    assert_eq!(world.run(DAY).await.unwrap().exit_code(), 99);
    assert!(!world.settlement(DAY, 2).exists());
}

#[tokio::test]
async fn another_event_billed_for_the_same_price_is_a_new_version() {
    let world = World::new();
    let (billed, not) = (Fact::click(7, 1, 1, 500), Fact::click(7, 1, 1, 500).with_verdict(Verdict::RepeatClick));
    world.batch(DAY, 1, &[billed.clone(), not.clone()]).await;
    settled(&world, DAY).await;
    world.batch(DAY, 2, &[not, billed]).await;
    settled(&world, DAY).await;
    let settlements = Settlements::new(world.data.clone());
    let [first, second] = [1, 2].map(|version| settlements.manifest(DAY, version));
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!(first.content_sha256, second.content_sha256);
    assert_ne!(first.merkle.root, second.merkle.root);
}

#[tokio::test]
async fn lines_are_cut_into_parts_that_verify() {
    let mut world = World::new();
    world.settings.rows_per_file = 7;
    world.batch(DAY, 1, &clicks(20)).await;
    settled(&world, DAY).await;
    let names: Vec<String> = files(&world.settlement(DAY, 1)).into_keys().collect();
    assert_eq!(names.len(), 3 + 2 * 3);
    let verified = verify(&world.settlement(DAY, 1)).unwrap();
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    let rows: Vec<u64> = verified.manifest.unwrap().files.iter().map(|f| f.row_count).collect();
    assert_eq!(rows, [7, 7, 7, 7, 6, 6]);
}

#[tokio::test]
async fn a_day_without_events_has_a_settlement_without_lines() {
    let world = World::new();
    world.batch(DAY, 1, &[]).await;
    settled(&world, DAY).await;
    let verified = verify(&world.settlement(DAY, 1)).unwrap();
    assert!(verified.is_sound(), "{:#?}", verified.findings);
    assert_eq!((verified.files_read, verified.rows_read), (2, 0));
}

#[tokio::test]
async fn publishers_at_the_same_time_leave_no_gap_and_no_double() {
    let world = World::new();
    let days: Vec<Day> = (0..4).map(|i| DAY.plus(i)).collect();
    for (i, day) in (1..).zip(&days) {
        world.batch(*day, 1, &clicks(i)).await;
    }
    let deps = world.deps();
    let runs = days.iter().flat_map(|day| [world.run_with(&deps, *day, true), world.run_with(&deps, *day, true)]);
    for outcome in futures::future::join_all(runs).await {
        let outcome = outcome.unwrap();
        assert!(matches!(outcome, Outcome::Settled(_) | Outcome::AlreadySettled(_)), "{outcome:?}");
    }
    let listed = Settlements::new(world.data.clone()).list().await.unwrap();
    let mut numbers: Vec<u64> = listed.iter().map(|l| l.manifest.sequence).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for listed in listed {
        assert_eq!(listed.manifest.version, 1);
        assert!(verify(&world.folder.path().join(&listed.folder)).unwrap().is_sound());
    }
    let staged = world.folder.path().join("settlement/staging");
    assert_eq!(std::fs::read_dir(staged).unwrap().count(), 0, "staged files are left");
}

#[tokio::test]
async fn a_reason_given_by_a_person_is_kept() {
    let world = World::new();
    world.batch(DAY, 1, &clicks(2)).await;
    let request = reconcile::Request { day: DAY, force: true, reason: Some("month end".to_owned()) };
    reconcile::run(&world.deps(), &world.settings, &request, &|_| ()).await.unwrap();
    let listed = Settlements::new(world.data.clone()).show(DAY, None).await.unwrap();
    assert_eq!(listed.manifest.reason, "month end");
    assert!(Settlements::new(world.data.clone()).show(DAY, Some(2)).await.is_err());
}

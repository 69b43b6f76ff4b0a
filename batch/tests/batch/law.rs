//! The law: silver, gold and the Merkle root are what a naive walk through the whole archive says, whatever the files, the threads
//! and the memory.

use std::collections::{BTreeMap, BTreeSet};

use batch::{Request, Settings};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use shared::config::ByteSize;
use shared::event::EventKind;
use shared::time::{DAY, Day, HOUR, SECOND};

use crate::help::{Layout, Spec, World, day, gold_hashes, spec};
use crate::model;

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![(1..40_usize).prop_map(Layout::Sorted), (1..40_usize).prop_map(Layout::Unsorted)]
}

/// How many days of an archive are checked: those with the most events.
const CHECKED_DAYS: usize = 4;

/// Everything recomputed for the fullest days equals the recount.
async fn check(world: &World, specs: &[Spec], layout: Layout) {
    let archive = world.take(specs, layout).await;
    let judged = model::recount(&archive, &world.deps.prices);
    let mut days: BTreeMap<Day, usize> = BTreeMap::new();
    archive.iter().for_each(|r| *days.entry(r.billing_time.day()).or_default() += 1);
    let mut days: Vec<_> = days.into_iter().collect();
    days.sort_by_key(|(_, events)| std::cmp::Reverse(*events));
    for (day, _) in days.into_iter().take(CHECKED_DAYS) {
        let outcome = world.run(day).await.unwrap();
        assert!(outcome.published);
        let record = outcome.record;
        let silver = world.rows(&record, "silver/events").await;
        let expected = model::silver(&judged, day);
        assert_eq!(silver.len(), expected.len());
        assert_eq!(silver.into_iter().collect::<BTreeSet<_>>(), expected, "silver of {day}");
        assert_eq!(world.rows(&record, "gold/ad_minute").await, model::ad_minutes(&judged, day));
        assert_eq!(world.rows(&record, "gold/campaign_hour").await, model::campaign_hours(&judged, day));
        assert_eq!(world.rows(&record, "gold/billing_day").await, model::billing_lines(&judged, day));
        let tree = (record.merkle.root.to_string(), record.merkle.leaves);
        assert_eq!(tree, model::merkle(&judged, day), "leaves of {day}");
    }
}

#[test]
fn every_day_of_any_archive_equals_a_naive_recount() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cases = (proptest::collection::vec(spec(), 1..80), layout(), 1..4_usize, any::<bool>());
    let mut runner = TestRunner::new(Config { cases: 16, max_shrink_iters: 100, ..Config::default() });
    let result = runner.run(&cases, |(specs, layout, threads, is_tight)| {
        runtime.block_on(async {
            let mut world = World::new();
            let tight = Settings { memory_limit: ByteSize(600), silver_file_rows: 3, ..world.settings.clone() };
            let settings = if is_tight { tight } else { world.settings.clone() };
            world.settings = Settings { threads, ..settings };
            check(&world, &specs, layout).await;
        });
        Ok(())
    });
    result.unwrap();
}

/// Every clause of contract 2 by name, so that a failure says which.
#[tokio::test]
async fn the_clauses_of_the_contract_hold_across_days() {
    let world = World::new();
    let click = |id, ingest| Spec { id, ingest, ..Spec::default() };
    let on = |impression, id, ingest| Spec { impression: Some(impression), ..click(id, ingest) };
    let specs = [
        click(1, HOUR),
        click(1, DAY + HOUR),                     // the same on the next day: duplicate
        Spec { payload: 9, ..click(1, 2 * DAY) }, // another payload: conflict
        Spec { invalid: Some(shared::verdict::InvalidCode::BadSignature), ..click(2, 0) }, // forged: claims nothing
        click(2, DAY),                            // so the real one bills
        on(7, 3, DAY - SECOND),                   // a chain over midnight
        on(7, 4, 2 * DAY - 2 * SECOND),           // within 24 h of the one before: repeat
        on(7, 5, 3 * DAY - 2 * SECOND - 1),       // within 24 h of the repeat: repeat
        on(7, 6, 4 * DAY - 2 * SECOND - 1),       // exactly 24 h later: bills
        on(8, 10, DAY),
        Spec { payload: 3, ..on(8, 1, DAY + 1) }, // a conflict takes no part in the chain
        Spec { is_bot: true, ..on(8, 11, DAY + 2) }, // nor does a bot
        on(8, 12, 2 * DAY),                       // 24 h after the first: bills
        Spec { kind: EventKind::Impression, ..on(8, 13, 2 * DAY + 1) }, // nor an impression
    ];
    let archive = world.take(&specs, Layout::Sorted(3)).await;
    let judged = model::recount(&archive, &world.deps.prices);
    let mut verdicts: Vec<(u64, String)> = judged.iter().map(|j| (j.row.position, j.verdict.clone())).collect();
    verdicts.sort();
    let verdicts: Vec<&str> = verdicts.iter().map(|(_, v)| v.as_str()).collect();
    let expected = [
        "billable",
        "duplicate",
        "conflict",
        "invalid:bad_signature",
        "billable",
        "billable",
        "repeat_click",
        "repeat_click",
        "billable",
        "billable",
        "conflict",
        "invalid:known_bot",
        "billable",
        "billable",
    ];
    assert_eq!(verdicts, expected, "the model itself");
    for offset in 0..5 {
        let record = world.run(day().plus(offset)).await.unwrap().record;
        let silver: BTreeSet<_> = world.rows(&record, "silver/events").await.into_iter().collect();
        assert_eq!(silver, model::silver(&judged, day().plus(offset)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_events_give_the_same_bytes_whatever_the_threads_memory_and_files() {
    let specs: Vec<Spec> = (0..1_500_u32).map(scattered).collect();
    let mut hashes = BTreeSet::new();
    for (threads, memory, layout) in [
        (1, 1 << 30, Layout::Sorted(5_000)),
        (2, 1 << 30, Layout::Sorted(170)),
        (8, 1 << 30, Layout::Unsorted(400)),
        (2, 4_000, Layout::Sorted(700)),
    ] {
        let mut world = World::new();
        world.settings =
            Settings { threads, memory_limit: ByteSize(memory), silver_file_rows: 200, ..world.settings.clone() };
        world.take(&specs, layout).await;
        let record = world.run(day()).await.unwrap().record;
        let all: Vec<_> = record.outputs.values().flat_map(|o| o.files.iter().map(|f| f.sha256.clone())).collect();
        assert!(record.outputs["silver/events"].files.len() > 1, "several buckets");
        hashes.insert(all);
    }
    assert_eq!(hashes.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_silver_is_cut_into_files_is_no_new_run() {
    let mut world = World::new();
    let specs: Vec<Spec> = (0..1_500_u32).map(scattered).collect();
    world.take(&specs, Layout::Sorted(400)).await;
    let cut = |rows, world: &World| Settings { silver_file_rows: rows, ..world.settings.clone() };
    world.settings = cut(100, &world);
    let before = world.run(day()).await.unwrap().record;
    world.settings = cut(5_000, &world);
    let again = world.run_with(Request { day: day(), dry_run: false, force: true }).await.unwrap();
    assert_eq!(again.status, batch::Status::Unchanged);
    let blocks = |record: &lake::run_record::RunRecord| record.outputs["gold/proof_blocks"].files.clone();
    assert!(before.outputs["silver/events"].files.len() > 1 && !blocks(&before).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_the_archives_files_changes_nothing() {
    let world = World::new();
    let specs: Vec<Spec> = (0..600_u32).map(scattered).collect();
    world.take(&specs, Layout::Sorted(50)).await;
    let before = world.run(day()).await.unwrap().record;
    let mut bronze = lake::Table::open(&world.root, &lake::tables::BRONZE_EVENTS).await.unwrap();
    let merged = lake::maintenance::optimize(&mut bronze, &lake::maintenance::Settings::default(), None).await.unwrap();
    assert!(merged.files_before > merged.files_after, "{merged:?}");
    let request = Request { day: day(), dry_run: false, force: true };
    let after = world.run_with(request).await.unwrap();
    assert_eq!(after.status, batch::Status::Unchanged);
    let request = Request { dry_run: true, ..request };
    assert_eq!(gold_hashes(&world.run_with(request).await.unwrap().record), gold_hashes(&before));
}

/// Event `n` of a fixed mixture, mostly of the first day.
fn scattered(n: u32) -> Spec {
    let mix = |salt: u32, of: u32| (n.wrapping_mul(2_654_435_761).rotate_left(salt) ^ salt) % of;
    let small = |salt, of| u8::try_from(mix(salt, of)).unwrap();
    let kinds = [EventKind::Click, EventKind::Impression, EventKind::Conversion];
    Spec {
        id: small(1, 251),
        kind: kinds[mix(2, 3) as usize],
        impression: (mix(3, 2) == 0).then(|| small(4, 40)),
        payload: small(5, 2),
        ingest: i64::from(mix(6, 30)) * HOUR + i64::from(mix(7, 3_600)) * SECOND,
        age: if mix(8, 20) == 0 { 2 * DAY } else { SECOND },
        is_bot: mix(9, 15) == 0,
        ad: small(10, 7),
        campaign: small(11, 5),
        user: (mix(12, 3) > 0).then(|| small(13, 200)),
        partition: mix(14, crate::help::PARTITIONS),
        ..Spec::default()
    }
}

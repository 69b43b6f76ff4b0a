//! What-if: a dry run under other rules and prices says exactly what a recount under them would change, and leaves
//! no trace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use batch::whatif::{Change, CostChange, Move};
use batch::{Request, Status, runs_of};
use proptest::prelude::*;
use shared::price::PriceBook;
use shared::time::HOUR;
use shared::verdict::Counting;

use crate::help::{Layout, Spec, World, day, prices, spec};
use crate::model::{self, Judged};

/// c0 pays something else, in another currency.
fn other_prices() -> PriceBook {
    let mut book = prices();
    book.version += 1;
    for price in book.prices.values_mut().flatten().filter(|p| p.price_micros == 5_000) {
        price.price_micros = 6_000;
        price.currency = shared::money::Currency::parse("USD").unwrap();
    }
    book
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The difference of two recounts of the day, event by event; `None` stands for the whole day.
fn naive(standing: &[Judged], shadow: &[Judged]) -> BTreeMap<Option<String>, Change> {
    let mut moves: BTreeMap<(Option<String>, String, String), u64> = BTreeMap::new();
    let mut costs: BTreeMap<(Option<String>, String), (i128, i128)> = BTreeMap::new();
    for (was, would) in standing.iter().zip(shadow) {
        assert_eq!((was.row.partition, was.row.position), (would.row.partition, would.row.position));
        if was.row.billing_time.day() != day() {
            continue;
        }
        let campaign = was.row.event.campaign_id.to_string();
        for who in [None, Some(campaign)] {
            if was.verdict != would.verdict {
                *moves.entry((who.clone(), was.verdict.clone(), would.verdict.clone())).or_default() += 1;
            }
            costs.entry((who.clone(), was.currency.clone())).or_default().0 += i128::from(was.cost);
            costs.entry((who, would.currency.clone())).or_default().1 += i128::from(would.cost);
        }
    }
    let mut changes: BTreeMap<Option<String>, Change> = BTreeMap::new();
    for ((who, from, to), events) in moves {
        changes.entry(who).or_default().moves.push(Move { from, to, events });
    }
    for ((who, currency), (standing_nanos, shadow_nanos)) in costs.into_iter().filter(|(_, (a, b))| a != b) {
        let cost = CostChange { currency, standing_nanos, shadow_nanos };
        changes.entry(who).or_default().costs.push(cost);
    }
    changes
}

/// A cost that does not change nets out of ours only where no event of it changed: compare the differences.
fn differences(change: &Change) -> (Vec<Move>, Vec<(String, i128)>) {
    let costs = change.costs.iter().map(|c| (c.currency.clone(), c.shadow_nanos - c.standing_nanos)).collect();
    (change.moves.clone(), costs)
}

async fn compare(specs: Vec<Spec>, rows: usize, hours: i64) {
    let mut world = World::new();
    let archive = world.take(&specs, Layout::Sorted(rows)).await;
    let standing = world.run(day()).await.unwrap().record;
    world.settings.silver_file_rows = 1_000;
    world.deps.counting = Arc::new(Counting { repeat_click_seconds: hours * 3_600, ..Counting::default() });
    world.deps.prices = Arc::new(other_prices());
    let (before, runs) = (files(world.root.folder().unwrap()), runs_of(&world.root, day()).await.unwrap());

    let dry = world.run_with(Request { day: day(), dry_run: true, force: false }).await.unwrap();

    assert!(!dry.published);
    assert_eq!(files(world.root.folder().unwrap()), before);
    assert_eq!(runs_of(&world.root, day()).await.unwrap(), runs);
    let shadow = dry.shadow.unwrap();
    assert_eq!(shadow.standing_run, Some(standing.run));
    assert_eq!(shadow.events, standing.verdicts.values().sum::<u64>());
    let wanted =
        naive(&model::recount(&archive, &prices()), &model::recount_with(&archive, &other_prices(), hours * HOUR));
    let mut found: BTreeMap<Option<String>, _> =
        shadow.campaigns.iter().map(|(id, change)| (Some(id.clone()), differences(change))).collect();
    if shadow.day != Change::default() {
        found.insert(None, differences(&shadow.day));
    }
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(who, change)| (who.clone(), differences(change))).collect();
    assert_eq!(found, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_what_if_differs_from_the_standing_run_as_two_naive_recounts_do(
        specs in proptest::collection::vec(spec(), 1..80),
        rows in 1..60_usize,
        hours in prop_oneof![Just(0_i64), Just(1), Just(7), Just(24), Just(60)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(specs, rows, hours));
    }
}

#[tokio::test]
async fn an_event_that_came_after_the_standing_run_is_absent_from_it() {
    let world = World::new();
    world.take(&[Spec { id: 1, ..Spec::default() }], Layout::Sorted(9)).await;
    world.run(day()).await.unwrap();
    world.take(&[Spec { id: 2, ingest: HOUR, ..Spec::default() }], Layout::Sorted(9)).await;
    let dry = world.run_with(Request { day: day(), dry_run: true, force: false }).await.unwrap();
    assert_eq!(dry.status, Status::Restated);
    let moves = dry.shadow.unwrap().day.moves;
    assert_eq!(moves, [Move { from: "absent".to_owned(), to: "billable".to_owned(), events: 1 }]);
}

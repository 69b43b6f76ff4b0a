//! Explaining every event of a random archive says what a naive recount says of it, whatever the file layout.

use batch::explain;
use proptest::prelude::*;
use shared::explain::Place;
use shared::id::EventId;

use crate::help::{Layout, Spec, World, day, spec};
use crate::model::{self, Judged};

fn place(j: &Judged) -> Place {
    let row = &j.row;
    Place {
        ingest_time: row.event.ingest_time,
        region: row.event.region.to_string(),
        partition: i32::try_from(row.partition).unwrap(),
        position: i64::try_from(row.position).unwrap(),
    }
}

async fn compare(specs: Vec<Spec>, layout: Layout, silver_rows: u64) {
    let mut world = World::new();
    world.settings.silver_file_rows = silver_rows;
    let archive = world.take(&specs, layout).await;
    world.run(day()).await.unwrap();
    let judged = model::recount(&archive, &world.deps.prices);
    for id in 0..25_u8 {
        let id = format!("id-{id}");
        let mut naive: Vec<&Judged> = judged.iter().filter(|j| j.row.event.event_id.as_str() == id).collect();
        naive.sort_by_key(|j| place(j));
        let first = naive.iter().find(|j| !j.verdict.ends_with("bad_signature")).map(|j| place(j));
        let life = explain(&world.root, &EventId::new(&id).unwrap()).await.unwrap();
        assert_eq!(life.len(), naive.len(), "{id}");
        for (found, wanted) in life.iter().zip(naive) {
            assert_eq!(found.place, place(wanted));
            assert_eq!(found.first, first.clone().filter(|f| *f != place(wanted)));
            let is_of_the_day = wanted.row.billing_time.day() == day();
            assert_eq!(found.judged.is_some(), is_of_the_day);
            let Some(j) = &found.judged else { continue };
            assert_eq!(
                (j.verdict.as_str(), j.cost_nanos, j.clamped),
                (wanted.verdict.as_str(), wanted.cost, wanted.clamped)
            );
            assert_eq!(j.windows.minute, wanted.row.billing_time.floor(60_000_000));
            let before = j.repeats.as_ref().map_or("", |r| r.event_id.as_str());
            assert_eq!(before, wanted.repeat_of);
            assert!(j.repeats.as_ref().is_none_or(|r| r.place.as_ref().is_some_and(|p| *p < found.place)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_explained_as_a_naive_recount_judges_it(
        specs in proptest::collection::vec(spec(), 1..90),
        rows in 1..40_usize,
        is_sorted in any::<bool>(),
        silver_rows in prop_oneof![Just(3_u64), Just(1_000)],
    ) {
        let layout = if is_sorted { Layout::Sorted(rows) } else { Layout::Unsorted(rows) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(compare(specs, layout, silver_rows));
    }
}

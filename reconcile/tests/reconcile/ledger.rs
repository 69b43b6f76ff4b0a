//! Adjustments count once whoever sends them how often and in whatever order; what is posted sums to zero and to what
//! is due.

use std::collections::BTreeMap;

use lake::{LakeRoot, Table};
use object_store::ObjectStoreExt;
use proptest::prelude::*;
use reconcile::Error;
use reconcile::ledger::{AdjustmentBook, Format, Posting, Reason, catch_up, postings, read_rows};
use reconcile::manifest::Manifest;
use reconcile::settlements::Settlements;
use shared::money::Currency;

use crate::law::{facts, runtime};
use crate::publish::clicks;
use crate::world::{DAY, World, adjustment};

async fn newest(world: &World) -> Manifest {
    Settlements::new(world.data.clone()).newest(DAY).await.unwrap().unwrap()
}

async fn posted(world: &World) -> Vec<Posting> {
    postings(&world.lake, Some(DAY)).await.unwrap()
}

/// Each transaction sums to zero by currency, and the receivables to what the newest settlement says is due.
async fn check_postings(world: &World) {
    let rows = posted(world).await;
    let mut sums: BTreeMap<(u64, Currency), i128> = BTreeMap::new();
    let mut receivable: BTreeMap<Currency, i64> = BTreeMap::new();
    for row in &rows {
        *sums.entry((row.transaction_id, row.currency)).or_default() += i128::from(row.amount_micros);
        if row.account().starts_with("receivable:") {
            *receivable.entry(row.currency).or_default() += row.amount_micros;
        }
    }
    assert!(sums.values().all(|sum| *sum == 0), "{rows:#?}");
    let due = newest(world).await.due_micros;
    for currency in due.keys().chain(receivable.keys()) {
        let of = |sums: &BTreeMap<Currency, i64>| sums.get(currency).copied().unwrap_or(0);
        assert_eq!(of(&receivable), of(&due), "{currency}: {rows:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// AT12.
    #[test]
    fn adjustments_twice_out_of_order_and_with_retries_have_one_net(
        facts in facts(),
        amounts in proptest::collection::vec(-5_000..5_000_i64, 1..8),
        sendings in proptest::collection::vec((proptest::collection::vec(0..8_usize, 1..6), any::<bool>()), 1..5),
    ) {
        runtime().block_on(async {
            let world = World::new();
            world.batch(DAY, 1, &facts).await;
            world.run(DAY).await.unwrap();
            let first = newest(&world).await;
            let all: Vec<_> = (0..).zip(&amounts).map(|(i, micros)| {
                let campaign = u8::try_from(i % 4).unwrap(); // one of them has no lines
                adjustment(&format!("adj-{}{i}", "x".repeat(i)), DAY, campaign, if *micros == 0 { 1 } else { *micros })
            }).collect();
            for (picked, settles) in &sendings {
                let file: Vec<_> = picked.iter().filter_map(|i| all.get(*i)).cloned().collect();
                world.adjust(&file).await.unwrap();
                if *settles {
                    world.run(DAY).await.unwrap();
                    check_postings(&world).await;
                }
            }
            world.adjust(&all).await.unwrap();
            world.adjust(&all).await.unwrap();
            world.run(DAY).await.unwrap();
            prop_assert_eq!(world.run(DAY).await.unwrap().exit_code(), 99);

            let last = newest(&world).await;
            let net: i64 = all.iter().map(|a| a.amount_micros).sum();
            prop_assert_eq!(last.adjustments.row_count, all.len() as u64);
            let eur = Currency::parse("EUR").unwrap();
            let due = |m: &Manifest| m.due_micros.get(&eur).copied().unwrap_or(0);
            prop_assert_eq!(due(&last) - due(&first), net);
            prop_assert_eq!(&last.content_sha256, &first.content_sha256, "lines are not touched");
            check_postings(&world).await;
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn imports_at_the_same_time_add_each_adjustment_once() {
    let world = World::new();
    let rows: Vec<_> = (1..=6).map(|i| adjustment(&format!("adj-{i}"), DAY.plus(i % 2), 1, i64::from(i))).collect();
    let imports = (0..6).map(|i| {
        let mut file = rows[i..].to_vec();
        file.extend_from_slice(&rows[..i]);
        file.truncate(4);
        let world = &world;
        async move { world.adjust(&file).await.unwrap() }
    });
    for imported in futures::future::join_all(imports).await {
        assert_eq!(imported.added + imported.repeated, 4);
    }
    let book = AdjustmentBook::open(&world.lake).await.unwrap();
    let there = [book.of_day(DAY).await.unwrap(), book.of_day(DAY.plus(1)).await.unwrap()].concat();
    let mut ids: Vec<_> = there.iter().map(|s| s.adjustment.id.to_string()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["adj-1", "adj-2", "adj-3", "adj-4", "adj-5", "adj-6"]);
}

#[tokio::test]
async fn an_id_with_other_content_is_refused_by_row_and_nothing_of_its_file_is_added() {
    let world = World::new();
    world.adjust(&[adjustment("adj-1", DAY, 1, 5)]).await.unwrap();
    let other_day = adjustment("adj-1", DAY.plus(3), 1, 5);
    let refused = world.adjust(&[adjustment("adj-2", DAY, 1, 1), other_day]).await.unwrap_err();
    let Error::BadRows(problems) = &refused else { panic!("{refused}") };
    assert_eq!((problems.len(), problems[0].row, problems[0].field), (1, 2, "day"));
    assert_eq!(refused.kind().exit_code(), 2);
    assert_eq!(AdjustmentBook::open(&world.lake).await.unwrap().of_day(DAY).await.unwrap().len(), 1);
}

#[test]
fn every_problem_of_every_row_is_named_by_row_and_field() {
    let csv = b"adjustmentId,day,campaignId,currency,amountMicros,clicks,reason,actor,note,corrects\n\
        a1,2026-01-05,c1,EUR,-5,-1,fraud_review,ann,fine,2026-01-05/1\n\
        a b,2026-01-32,,eur,1.5,x,because,,,7/x\n\
        a3,2026-01-05,c1,XXX,1,0,other,ann,,\n\
        a4,2026-01-05,c1,EUR,0,0,other,ann,,\n";
    let problems = read_rows(csv, Format::Csv).unwrap_err();
    let named: Vec<(u64, &str)> = problems.iter().map(|p| (p.row, p.field)).collect();
    let second =
        ["adjustmentId", "day", "campaignId", "currency", "clicks", "amountMicros", "reason", "actor", "corrects"];
    let expected: Vec<_> = second.map(|f| (2, f)).into_iter().chain([(3, "currency"), (4, "amountMicros")]).collect();
    assert_eq!(named, expected);

    let json = br#"{"adjustmentId":"a1","day":"2026-01-05","campaignId":"c1","currency":"EUR","amountMicros":-5,
"#;
    assert_eq!(read_rows(json, Format::Ndjson).unwrap_err()[0].row, 1);
    let one = br#"{"adjustmentId":"a1","day":"2026-01-05","campaignId":"c1","currency":"EUR","amountMicros":-5,"clicks":-1,"reason":"fraud_review","actor":"ann","note":"fine","corrects":"2026-01-05/1"}"#;
    let first: Vec<&[u8]> = csv.split_inclusive(|b| *b == b'\n').take(2).collect();
    let (from_json, from_csv) =
        (read_rows(one, Format::Ndjson).unwrap(), read_rows(&first.concat(), Format::Csv).unwrap());
    assert_eq!(from_json, from_csv);
    assert_eq!(from_json[0].adjustment.reason, Reason::FraudReview);
    let unknown = br#"{"adjustmentId":"a1","amount":1}"#;
    assert!(read_rows(unknown, Format::Ndjson).unwrap_err().iter().any(|p| p.why.contains("\"amount\"")));
}

#[tokio::test]
async fn settlements_that_a_kill_left_without_postings_are_posted_by_the_next() {
    let world = World::new();
    world.batch(DAY, 1, &clicks(9)).await;
    world.run(DAY).await.unwrap();
    world.adjust(&[adjustment("adj-1", DAY, 1, -2)]).await.unwrap();
    world.run(DAY).await.unwrap();
    let before = posted(&world).await;
    assert!(before.iter().any(|p| p.adjustment_id.is_some()));
    forget(&world.lake).await;
    assert_eq!(posted(&world).await, []);
    let settlements = Settlements::new(world.data.clone());
    assert_eq!(catch_up(&world.lake, &settlements).await.unwrap(), 2);
    assert_eq!(posted(&world).await, before);
    assert_eq!(catch_up(&world.lake, &settlements).await.unwrap(), 0);
    check_postings(&world).await;
}

/// Removes the table of postings, as if nothing had ever been posted.
async fn forget(lake: &LakeRoot) {
    use futures::TryStreamExt;
    let table = Table::open(lake, &lake::tables::LEDGER_POSTINGS).await.unwrap();
    let all: Vec<_> = lake.store().list(Some(&lake.path(table.def().name))).try_collect().await.unwrap();
    for file in all {
        lake.store().delete(&file.location).await.unwrap();
    }
}

#[tokio::test]
async fn a_day_goes_from_open_to_restated_and_what_is_closed_has_no_gap() {
    use reconcile::days::{State, days};
    let world = World::new();
    let (settlements, delay) = (Settlements::new(world.data.clone()), shared::time::HOUR);
    let at = |now| days(&world.lake, &settlements, now, delay);
    assert_eq!(at(DAY.start()).await.unwrap().days, []);

    for day in [DAY, DAY.plus(2)] {
        world.batch(day, 1, &clicks(2)).await;
    }
    let states = async |now| -> Vec<State> { at(now).await.unwrap().days.iter().map(|d| d.state).collect() };
    assert_eq!(states(DAY.end().plus(-1)).await, [State::Open; 3]);
    assert_eq!(states(DAY.end()).await, [State::Closing, State::Open, State::Open]);
    let later = DAY.plus(2).end().plus(delay);
    assert_eq!(states(later).await, [State::Closed; 3]);
    assert_eq!(at(later).await.unwrap().closed_through, None);

    world.run(DAY.plus(2)).await.unwrap();
    assert_eq!(at(later).await.unwrap().closed_through, None, "the first day is not settled");
    world.run(DAY).await.unwrap();
    assert_eq!(at(later).await.unwrap().closed_through, Some(DAY), "the day between is not settled");
    world.batch(DAY.plus(1), 1, &[]).await;
    world.run(DAY.plus(1)).await.unwrap();
    assert_eq!(at(later).await.unwrap().closed_through, Some(DAY.plus(2)));

    world.adjust(&[adjustment("adj-1", DAY, 1, 5)]).await.unwrap();
    let first = at(later).await.unwrap().days[0].clone();
    assert_eq!((first.state, first.unsettled_adjustments), (State::Settled, 1));
    world.run(DAY).await.unwrap();
    let first = at(later).await.unwrap().days[0].clone();
    assert_eq!((first.state, first.version, first.unsettled_adjustments), (State::Restated, Some(2), 0));
}

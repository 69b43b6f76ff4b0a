//! What a version changes is exactly its deltas, and rounding loses nothing that the control totals do not show.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use reconcile::settlements::Settlements;
use reconcile::verify::verify;
use serde_json::Value;
use shared::verdict::Verdict;

use crate::law::{facts, runtime};
use crate::publish::{clicks, files};
use crate::world::{DAY, World, adjustment};

type Rows = BTreeMap<Vec<String>, Vec<i128>>;

/// Rows of a CSV file by their key, their numbers as numbers; read without any code of ours.
fn rows(text: &str) -> Rows {
    let mut csv = csv::Reader::from_reader(text.as_bytes());
    let number = |cell: &str| cell.parse::<i128>().ok();
    let row = |record: csv::StringRecord| {
        let key = record.iter().skip(2).take(5).map(str::to_owned).collect();
        (key, record.iter().skip(7).filter_map(number).collect())
    };
    csv.records().map(|r| row(r.unwrap())).collect()
}

fn lines(folder: &Path) -> Rows {
    let mut all = Rows::new();
    for (name, bytes) in files(folder).into_iter().filter(|(name, _)| name.ends_with(".csv.gz")) {
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap_or_else(|e| panic!("{name}: {e}"));
        all.extend(rows(&text));
    }
    all
}

/// `a` plus `b`, row by row, without rows of nothing but zeros.
fn plus(a: &Rows, b: &Rows) -> Rows {
    let mut sum = a.clone();
    for (key, numbers) in b {
        let row = sum.entry(key.clone()).or_insert_with(|| vec![0; numbers.len()]);
        row.iter_mut().zip(numbers).for_each(|(x, y)| *x += y);
    }
    sum.retain(|_, row| row.iter().any(|n| *n != 0));
    sum
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_version_before_plus_the_deltas_is_the_new_version_to_the_nano(
        before in facts(),
        after in facts(),
        keeps in 0..40_usize,
        rows_per_file in 1..9_u64,
    ) {
        runtime().block_on(async {
            let mut world = World::new();
            world.settings.rows_per_file = rows_per_file;
            world.settings.notice_min_micros = 3;
            world.batch(DAY, 1, &before).await;
            world.run(DAY).await.unwrap();
            let after: Vec<_> = before.iter().take(keeps).chain(&after).cloned().collect();
            world.batch(DAY, 2, &after).await;
            if world.run(DAY).await.unwrap().exit_code() == 99 {
                return Ok(()); // by chance the same lines
            }
            let verified = verify(&world.settlement(DAY, 2)).unwrap();
            prop_assert!(verified.is_sound(), "{:#?}", verified.findings);
            let (one, two) = (lines(&world.settlement(DAY, 1)), lines(&world.settlement(DAY, 2)));
            let deltas = rows(&std::fs::read_to_string(world.settlement(DAY, 2).join("deltas.csv")).unwrap());
            prop_assert_eq!(plus(&one, &deltas), plus(&two, &Rows::new()));
            prop_assert!(deltas.keys().all(|key| one.get(key) != two.get(key)), "a line that did not change has a delta");
            Ok(())
        })?;
    }

    /// Σ lines in nanos is Σ events to the nano; rounding moves each line by at most half a micro.
    #[test]
    fn rounded_lines_differ_from_the_events_by_what_the_control_totals_show(facts in facts()) {
        runtime().block_on(async {
            let world = World::new();
            world.batch(DAY, 1, &facts).await;
            world.run(DAY).await.unwrap();
            let manifest = Settlements::new(world.data.clone()).newest(DAY).await.unwrap().unwrap();
            for (currency, total) in &manifest.totals {
                let of_currency = facts.iter().filter(|f| f.currency == currency.as_str());
                let events: i128 =
                    of_currency.filter(|f| f.verdict == Verdict::Billable).map(|f| i128::from(f.nanos)).sum();
                prop_assert_eq!(total.cost_nanos, events);
                let moved = i128::from(total.cost_micros) * 1_000 - events;
                prop_assert!(moved.abs() <= 500 * i128::from(total.row_count), "{currency}: {moved}");
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn an_adjustment_alone_makes_a_version_whose_notice_says_what_changed() {
    let mut world = World::new();
    world.settings.notice_min_micros = 100;
    world.batch(DAY, 1, &clicks(9)).await;
    world.run(DAY).await.unwrap();
    let first = files(&world.settlement(DAY, 1));
    world.adjust(&[adjustment("adj-1", DAY, 1, -500), adjustment("adj-2", DAY, 2, 40)]).await.unwrap();
    assert_eq!(world.run(DAY).await.unwrap().exit_code(), 0);
    assert_eq!(world.run(DAY).await.unwrap().exit_code(), 99);
    assert_eq!(files(&world.settlement(DAY, 1)), first);

    let second = files(&world.settlement(DAY, 2));
    let names: Vec<&str> = second.keys().map(String::as_str).collect();
    let expected = ["SHA256SUMS", "adjustments.csv", "deltas.csv", "lines-0000.csv.gz", "lines-0000.parquet"];
    assert_eq!(names, [&expected[..], &["manifest.json", "manifest.sig", "restatement.json"]].concat());
    assert!(verify(&world.settlement(DAY, 2)).unwrap().is_sound());
    assert_eq!(rows(std::str::from_utf8(&second["deltas.csv"]).unwrap()).len(), 0, "no line changed");

    let notice: Value = serde_json::from_slice(&second["restatement.json"]).unwrap();
    assert_eq!(notice["reason"], "adjustments: 0 → 2");
    assert_eq!(notice["campaigns"].as_array().unwrap().len(), 1);
    let named = &notice["campaigns"][0];
    assert_eq!((&named["campaignId"], named["deltaMicros"].as_i64()), (&Value::from("campaign-1"), Some(-500)));
    assert_eq!(
        (notice["below"]["EUR"]["campaigns"].as_u64(), notice["below"]["EUR"]["deltaMicros"].as_i64()),
        (Some(1), Some(40))
    );
    let manifest: Value = serde_json::from_slice(&second["manifest.json"]).unwrap();
    let (lines, due) = (manifest["totals"]["EUR"]["costMicros"].as_i64(), manifest["dueMicros"]["EUR"].as_i64());
    assert_eq!(due.unwrap() - lines.unwrap(), -460);
}

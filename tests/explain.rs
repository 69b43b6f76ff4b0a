//! Explanations: each kind of event told from the log to its settlement line, and campaigns whose steps sum to the
//! settlement, read from the published files.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::time::{Day, Timestamp};

use crate::dispute::{DAY_OF_THEIRS, world};

fn explained(id: &str) -> Value {
    world().ledger.ok(&["explain", "event", id, "--output", "json"]).json()
}

/// The labels and ids of what the simulator's journal says was sent on the settled day.
fn journal() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(world().ledger.path().join("history.journal.csv")).unwrap();
    let field = |l: &str, n: usize| l.split(',').nth(n).unwrap().to_owned();
    let is_of_the_day = |l: &&str| Timestamp(field(l, 2).parse().unwrap()).day() == Day::parse(DAY_OF_THEIRS).unwrap();
    text.lines().skip(1).filter(is_of_the_day).map(|l| (field(l, 1), field(l, 3))).collect()
}

/// The first event of this label of which `wanted` holds for some occurrence.
fn find(label: &str, wanted: impl Fn(&Value) -> bool) -> (Value, Value) {
    for (_, id) in journal().into_iter().filter(|(l, id)| l == label && !id.is_empty()).take(80) {
        let life = explained(&id);
        if let Some(found) = life["occurrences"].as_array().unwrap().iter().find(|o| wanted(o)) {
            return (life.clone(), found.clone());
        }
    }
    panic!("no {label} is as wanted");
}

#[test]
fn a_billed_click_is_told_from_the_log_to_its_line() {
    let is_billed = |o: &Value| {
        o["eventType"] == "click"
            && o["judged"]["verdict"] == "billable"
            && o["judged"]["priceModel"] == "cpc"
            && o["judged"]["settled"].is_object()
    };
    let (_, found) = find("fresh", is_billed);
    let judged = &found["judged"];
    assert!(found["partition"].is_number() && found["position"].is_number(), "{found}");
    assert_eq!(found["first"], Value::Null);
    assert_eq!(judged["price"]["priceMicros"].as_i64().unwrap() * 1_000, judged["costNanos"].as_i64().unwrap());
    let minute = judged["windows"]["minute"].as_str().unwrap();
    assert_eq!(minute.get(..16), judged["billingTime"].as_str().unwrap().get(..16), "{judged}");
    // The row it names is its line.
    let settled = &judged["settled"];
    let file = settled["file"].as_str().unwrap().replace(".parquet", ".csv.gz");
    let path = world().ledger.data().join(settled["folder"].as_str().unwrap()).join(file);
    let lines = std::process::Command::new("gzip").arg("-dc").arg(path).output().unwrap();
    let row = usize::try_from(settled["row"].as_u64().unwrap()).unwrap();
    let line = String::from_utf8(lines.stdout).unwrap().lines().nth(row).unwrap().to_owned();
    let cells: Vec<&str> = line.split(',').collect();
    assert_eq!((Value::from(cells[2]), Value::from(cells[3])), (found["campaignId"].clone(), found["adId"].clone()));
    assert_eq!(Value::from(cells[10]), settled["lineCostNanos"]);
}

#[test]
fn what_is_not_billed_names_what_stood_before_it() {
    let verdict = |wanted: &'static str| move |o: &Value| o["judged"]["verdict"] == wanted;
    let (life, found) = find("duplicate", verdict("duplicate"));
    let first = &life["occurrences"][0];
    for part in ["ingestTime", "region", "partition", "position"] {
        assert_eq!(found["first"][part], first[part], "{life}");
    }
    let (_, found) = find("conflict", verdict("conflict"));
    assert!(found["first"].is_object(), "{found}");
    let (_, found) = find("repeat_click", verdict("repeat_click"));
    let before = found["judged"]["repeats"].clone();
    assert!(
        before["ingestTime"].as_str() <= found["ingestTime"].as_str() && before["ingestTime"].is_string(),
        "{found}"
    );
    let chained = explained(before["eventId"].as_str().unwrap());
    assert_eq!(chained["occurrences"][0]["eventType"], "click");
    let (_, found) = find("forged", |o| o["judged"]["verdict"].as_str().is_some_and(|v| v.starts_with("invalid:")));
    assert!(found["invalidAtCapture"].is_string(), "{found}");
}

#[test]
fn an_unknown_id_is_said_to_be_unknown_and_a_page_is_for_people() {
    let answer = world().ledger.run(&["explain", "event", "nobody-sent-this"]);
    assert_eq!(answer.code, 2, "{}", answer.stderr);
    let (_, id) = journal().into_iter().find(|(l, _)| l == "fresh").unwrap();
    let answer = world().ledger.ok(&["explain", "event", &id]);
    assert!(answer.stdout.contains("holder") || answer.stdout.contains("first with its id"), "{}", answer.stdout);
}

#[test]
fn campaigns_sum_from_archived_to_what_is_settled() {
    let ledger = &world().ledger;
    let manifest: Value =
        serde_json::from_str(&ledger.ok(&["settlement", "show", "--date", DAY_OF_THEIRS]).stdout).unwrap();
    let mut billable = 0;
    let mut lines: BTreeMap<String, i64> = BTreeMap::new();
    for n in 0..60 {
        let id = format!("camp-{n}");
        let found = ledger.ok(&["explain", "campaign", &id, "--date", DAY_OF_THEIRS, "--output", "json"]).json();
        let steps = found["events"].as_array().unwrap();
        let at = |what: &str| steps.iter().position(|s| s["what"] == what).unwrap();
        let (events, middle) = (|n: usize| steps[n]["events"].as_i64().unwrap(), at("billable"));
        assert_eq!((0..middle).map(events).sum::<i64>(), events(middle), "{found:#}");
        assert_eq!((middle + 1..steps.len()).map(events).sum::<i64>(), events(middle), "{found:#}");
        billable += events(middle);
        for amounts in found["amounts"].as_array().unwrap() {
            let nanos = |name: &str| amounts[name].as_str().unwrap().parse::<i128>().unwrap();
            let priced = amounts["priced"].as_array().unwrap().iter();
            let priced: i128 = priced.map(|p| p["costNanos"].as_str().unwrap().parse::<i128>().unwrap()).sum();
            assert_eq!(priced, nanos("unroundedNanos"));
            let micros = amounts["linesMicros"].as_i64().unwrap();
            assert_eq!(nanos("unroundedNanos") + nanos("roundingNanos"), i128::from(micros) * 1_000);
            assert_eq!(amounts["settledMicros"].as_i64(), Some(micros));
            *lines.entry(amounts["currency"].as_str().unwrap().to_owned()).or_default() += micros;
        }
        let drift = &found["drift"];
        let causes = drift["causes"].as_array().unwrap().iter();
        assert_eq!(causes.map(|c| c["events"].as_u64().unwrap()).sum::<u64>(), drift["events"].as_u64().unwrap());
    }
    let settled: BTreeMap<String, i64> = manifest["totals"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(code, total)| (code.clone(), total["costMicros"].as_i64().unwrap()))
        .collect();
    assert_eq!(lines, settled);
    assert_eq!(Some(billable), manifest["verdicts"]["billable"].as_i64());
}

//! Money through the command line: an adjustment to a settled day, the ledger, the days; what a price import would
//! change; and a bronze file that is gone.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::outside::Outside;
use crate::rerun::copy_folder;
use crate::support::Ledger;

const DAY: &str = "2026-01-05";

/// A small archived day, not counted yet.
fn archived() -> Ledger {
    let ledger = Ledger::new();
    ledger.ok(&["keys", "create", "signing"]);
    ledger.ok(&["simulate", "--events", "3000", "--days", "1", "--from", DAY, "--to", "history.ndjson"]);
    ledger.ok(&["prices", "import", "history.prices.csv"]);
    ledger.ok(&["import", "history.ndjson"]);
    ledger.ok(&["lake", "--drain"]);
    ledger
}

/// A small settled day; tests work on copies of it.
fn settled() -> Ledger {
    static MADE: OnceLock<Ledger> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let ledger = archived();
        ledger.ok(&["batch", "run", "--date", DAY]);
        ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
        ledger
    });
    let copy = Ledger::new();
    copy_folder(&made.data(), &copy.data());
    copy
}

fn rows(ledger: &Ledger, args: &[&str]) -> Vec<Value> {
    let answer = ledger.ok(&[args, &["--output", "json"]].concat());
    serde_json::from_str(answer.stdout.trim()).unwrap()
}

#[test]
fn an_adjustment_to_a_settled_day_is_settled_and_posted_once() {
    let ledger = settled();
    let csv = "adjustmentId,day,campaignId,currency,clicks,amountMicros,reason,actor,note\n\
        adj-1,2026-01-05,camp-0,EUR,-4,-1000001,fraud_review,ann,a click farm\n\
        adj-2,2026-01-05,camp-1,EUR,0,250000,make_good,ann,\n";
    std::fs::write(ledger.path().join("review.csv"), csv).unwrap();
    let dry = ledger.ok(&["adjust", "import", "review.csv", "--dry-run"]).json();
    assert_eq!((dry["added"].as_u64(), dry["days"][0].as_str()), (Some(2), Some(DAY)));
    assert_eq!(rows(&ledger, &["adjust", "list"]).len(), 0);
    ledger.ok(&["adjust", "import", "review.csv"]);
    let again = ledger.ok(&["adjust", "import", "review.csv"]).json();
    assert_eq!((again["added"].as_u64(), again["repeated"].as_u64()), (Some(0), Some(2)));
    assert!(rows(&ledger, &["adjust", "list"]).iter().all(|r| r["signature"] == "holds"));

    std::fs::write(ledger.path().join("other.csv"), csv.replace("-1000001", "-1000002")).unwrap();
    let refused = ledger.run(&["adjust", "import", "other.csv"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("row 1, amountMicros"), "{}", refused.stderr);

    let day = |ledger: &Ledger| {
        let days: Value = serde_json::from_str(ledger.ok(&["days", "--output", "json"]).stdout.trim()).unwrap();
        days["days"].as_array().unwrap().iter().find(|d| d["day"] == DAY).unwrap().clone()
    };
    assert_eq!(
        (day(&ledger)["state"].as_str(), day(&ledger)["unsettledAdjustments"].as_u64()),
        (Some("settled"), Some(2))
    );
    assert_eq!(ledger.run(&["batch", "run", "--date", DAY]).code, 99, "no event is new");
    let before = ledger.ok(&["settlement", "show", "--date", DAY]).stdout;
    let before: Value = serde_json::from_str(&before).unwrap();
    let done = ledger.ok(&["reconcile", "run", "--date", DAY]).json();
    let of = |due: &Value| due["EUR"].as_i64().unwrap();
    assert_eq!(of(&done["settlement"]["dueMicros"]) - of(&before["dueMicros"]), -750_001);
    assert_eq!(ledger.run(&["reconcile", "run", "--date", DAY]).code, 99);
    assert_eq!(day(&ledger)["state"], "restated");
    let folder = ledger.data().join(done["settlement"]["folder"].as_str().unwrap());
    assert!(ledger.ok(&["settlement", "verify", folder.to_str().unwrap()]).json()["sound"].as_bool().unwrap());

    let explained = ledger.ok(&["explain", "campaign", "camp-0", "--date", DAY, "--output", "json"]).json();
    let eur = explained["amounts"].as_array().unwrap().iter().find(|a| a["currency"] == "EUR").unwrap();
    assert_eq!(eur["adjustmentsMicros"], -1_000_001, "{eur}");
    assert_eq!(eur["adjustments"][0]["adjustmentId"], "adj-1", "{eur}");
    assert_eq!(eur["dueMicros"].as_i64().unwrap(), eur["linesMicros"].as_i64().unwrap() - 1_000_001, "{eur}");

    let balance = rows(&ledger, &["ledger", "balance"]);
    let micros = |r: &Value| r["balanceMicros"].as_str().unwrap().parse::<i128>().unwrap();
    for currency in ["EUR", "USD"] {
        let ours: Vec<&Value> = balance.iter().filter(|r| r["currency"] == currency).collect();
        assert_eq!(ours.iter().map(|r| micros(r)).sum::<i128>(), 0, "{currency}");
    }
    let write_off = balance.iter().find(|r| r["account"] == "fraud_write_off:camp-0").unwrap();
    assert_eq!(micros(write_off), 1_000_001);
    assert!(rows(&ledger, &["ledger", "list", "--campaign", "camp-1"]).iter().any(|r| r["adjustmentId"] == "adj-2"));
}

/// What another system publishes on Kafka, by a client that is not ours.
#[test]
fn adjustments_on_the_topic_are_settled_by_the_next_reconcile_run_and_bad_ones_are_told_apart() {
    let mut ledger = settled();
    let kafka = Outside::kafka(&mut ledger);
    let row = |micros: i64| {
        format!(
            r#"{{"adjustmentId":"adj-9","day":"{DAY}","campaignId":"camp-0","currency":"EUR","clicks":-4,"amountMicros":{micros},"reason":"fraud_review","actor":"review"}}"#
        )
    };
    let sent = [row(-1_000_001), row(-1_000_001), row(-7), r#"{"adjustmentId":"adj-10"}"#.to_owned()].join("\n");
    kafka.publish("ads.adjustments.v1", &sent);

    let shown = |ledger: &Ledger| -> Value {
        serde_json::from_str(&ledger.ok(&["settlement", "show", "--date", DAY]).stdout).unwrap()
    };
    let due = |settlement: &Value| settlement["dueMicros"]["EUR"].as_i64().unwrap();
    let before = due(&shown(&ledger));
    let done = ledger.ok(&["reconcile", "run", "--date", DAY]);
    assert!(done.stderr.contains("2 adjustments were refused"), "{}", done.stderr);
    assert_eq!(due(&shown(&ledger)) - before, -1_000_001);
    assert!(rows(&ledger, &["adjust", "list"]).iter().all(|r| r["signature"] == "holds"));
    let letters: Vec<Value> =
        kafka.published("ads.adjustments.v1.dlq").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let told: Vec<_> = letters.iter().map(|l| (l["position"].as_u64().unwrap(), l["why"].as_str().unwrap())).collect();
    assert_eq!(told.iter().map(|(position, _)| *position).collect::<Vec<_>>(), [2, 3]);
    assert!(told[0].1.contains("adj-9 is there with") && told[1].1.contains("campaignId"), "{told:?}");

    let again = ledger.ok(&["adjust", "receive"]).json();
    assert_eq!((again["records"].as_u64(), again["added"].as_u64()), (Some(0), Some(0)));
    assert_eq!(ledger.run(&["reconcile", "run", "--date", DAY]).code, 99);
}

#[test]
fn a_price_import_says_which_days_it_would_touch_before_it_is_made() {
    let ledger = settled();
    let csv = "campaignId,model,priceMicros,currency,validFrom\ncamp-0,cpc,9,EUR,2026-01-05T23:00:00Z\n";
    std::fs::write(ledger.path().join("new.csv"), csv).unwrap();
    let dry = ledger.ok(&["prices", "import", "new.csv", "--dry-run"]);
    assert!(dry.stdout.contains("camp-0") && dry.stdout.contains("cpc 9 EUR"), "{}", dry.stdout);
    assert_eq!(dry.json()["days"]["settled"], serde_json::json!([DAY]));
    assert_eq!(ledger.run(&["batch", "run", "--date", DAY]).code, 99, "a dry run changes nothing");
    let bad = csv.replace(",9,", ",-9,") + "camp-0,cpz,1,EUR,2026-01-06T00:00:00Z\n";
    std::fs::write(ledger.path().join("bad.csv"), bad.clone()).unwrap();
    let refused = ledger.run(&["prices", "import", "bad.csv"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("row 2"), "{}", refused.stderr);
    ledger.ok(&["prices", "import", "new.csv"]);
    assert_eq!(ledger.ok(&["batch", "run", "--date", DAY]).json()["outcome"], "restated");
}

#[test]
fn a_price_import_says_what_it_would_cost_on_open_days_before_it_is_made() {
    let ledger = archived();
    // From noon on one campaign pays by the impression.
    let csv = "campaignId,model,priceMicros,currency,validFrom\ncamp-0,cpm,77000000,EUR,2026-01-05T12:00:00Z\n";
    std::fs::write(ledger.path().join("new.csv"), csv).unwrap();
    let import = ["prices", "import", "new.csv", "--dry-run"];
    let never_run = ledger.ok(&import).json();
    let euros = |run: &Value| -> i128 { run["totals"]["EUR"]["costNanos"].as_str().unwrap().parse().unwrap() };
    let before = euros(&ledger.ok(&["batch", "run", "--date", DAY]).json());
    let told = ledger.ok(&import).json();
    assert_eq!(told["costs"], never_run["costs"], "whether the day was run before or not");
    assert_eq!(told["days"]["open"], serde_json::json!([DAY]));
    let costs = told["costs"].as_array().unwrap();
    assert!(costs.iter().all(|c| c["campaignId"] == "camp-0") && !costs.is_empty(), "{costs:?}");
    let euro_costs = costs.iter().filter(|c| c["currency"] == "EUR");
    let change: i128 = euro_costs.map(|c| c["changeNanos"].as_str().unwrap().parse::<i128>().unwrap()).sum();
    ledger.ok(&import[..3]);
    let after = euros(&ledger.ok(&["batch", "run", "--date", DAY]).json());
    assert!(change != 0 && change == after - before, "{costs:?}: {before} → {after}");
}

fn delta_log(ledger: &Ledger) -> Vec<PathBuf> {
    let folder = ledger.data().join("lake/bronze/events/_delta_log");
    let mut commits: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    commits.retain(|p| p.extension().is_some_and(|e| e == "json"));
    commits.sort();
    commits
}

/// Takes every file of the day out of the table, as a careless hand might; the positions stay.
fn drop_files_of(commit: &Path, day: &str) -> usize {
    let text = std::fs::read_to_string(commit).unwrap();
    let gone = |line: &&str| line.contains("\"add\"") && line.contains(&format!("day={day}"));
    let kept: Vec<&str> = text.lines().filter(|line| !gone(line)).collect();
    std::fs::write(commit, kept.join("\n") + "\n").unwrap();
    text.lines().count() - kept.len()
}

#[test]
fn a_bronze_file_that_is_gone_stops_publication_with_a_table_of_hours_and_partitions() {
    let ledger = settled();
    let dropped: usize = delta_log(&ledger).iter().map(|commit| drop_files_of(commit, DAY)).sum();
    assert!(dropped > 0);
    let answer = ledger.run(&["batch", "run", "--force", "--date", DAY]);
    assert_eq!(answer.code, 13, "{}\n{}", answer.stdout, answer.stderr);
    for named in ["where", "difference", "events partition 0", "2026-01-05T13:00:00Z", "events that were acknowledged"]
    {
        assert!(answer.stderr.contains(named), "no {named:?} in\n{}", answer.stderr);
    }
    assert_eq!(ledger.run(&["reconcile", "run", "--date", DAY]).code, 99, "what was settled before stands");
}

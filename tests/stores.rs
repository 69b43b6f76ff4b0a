//! Moving from the embedded serving store to ClickHouse: filled from gold, compared, examined, and read by a client that is
//! not ours.

use std::collections::BTreeMap;
use std::process::Command;

use clickledger::wiring::Parts;
use serving::clickhouse::{ClickHouseStore, Settings};
use shared::rollup::RollupKey;
use shared::serving_store::ServingStore;
use shared::testing::conformance::serving_store as laws;
use shared::testing::parts::Part;
use shared::time::Day;

use crate::support::{Ledger, python};

const DAY: &str = "2026-01-05";
const DATABASE: &str = "clickledger";

/// A settled day in the embedded store.
fn settled() -> Ledger {
    let ledger = Ledger::new();
    ledger.ok(&["keys", "create", "signing"]);
    let simulate = ["simulate", "--events", "20000", "--days", "1", "--from", DAY, "--seed", "3", "--to", "day.ndjson"];
    ledger.ok(&simulate);
    ledger.ok(&["prices", "import", "day.prices.csv"]);
    ledger.ok(&["import", "day.ndjson"]);
    ledger.ok(&["lake", "--drain"]);
    ledger.ok(&["speed", "--run-for", "3s"]);
    ledger.ok(&["batch", "run", "--date", DAY]);
    ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
    ledger
}

#[test]
fn a_store_filled_from_gold_says_what_the_embedded_one_says_to_us_and_to_strangers() {
    let ledger = settled();
    let part = Part::start("clickhouse", "CLICKHOUSE_URL", &ledger.path().join("clickhouse"));
    let mut moved = Ledger::on(&ledger);
    moved.set("CLICKHOUSE__URL", &part.address);
    let said = |moved: &Ledger| {
        let doctor = moved.run(&["doctor"]).stdout;
        doctor.lines().find(|l| l.contains("serving store")).unwrap_or_default().to_owned()
    };
    assert!(said(&moved).contains("clickledger serving migrate"), "{}", said(&moved));
    moved.ok(&["serving", "migrate"]);
    assert!(said(&moved).contains("may read, add rows, take hours, forget"), "{}", said(&moved));

    let (file, url) = (ledger.data().join("serving/rollups.sqlite"), format!("{}/{DATABASE}", part.address));
    let file = file.to_str().unwrap();
    let verify = ["serving", "verify", "--left", file, "--right", &url, "--from", DAY, "--to", DAY];
    let empty = moved.run(&verify);
    assert_eq!(empty.code, 13, "{}{}", empty.stdout, empty.stderr);
    moved.ok(&["reconcile", "rebuild"]);
    let same = moved.ok(&verify).json();
    assert!(same["compared"].as_u64() > Some(100) && same["different"] == 0, "{same}");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ours = runtime.block_on(totals(&Parts::new(moved.settings())));
    assert!(ours.lines().count() > 10, "{ours}");
    assert_eq!(read_by_a_stranger(&part), ours);
}

async fn totals(parts: &Parts) -> String {
    let store = parts.serving_store().await.unwrap();
    let mut totals: BTreeMap<(String, String), (u64, u64, u64, i128)> = BTreeMap::new();
    for hour in Day::parse(DAY).unwrap().hours() {
        for row in store.read_hour(hour).await.unwrap() {
            if let RollupKey::AdMinute { campaign_id, currency, .. } = row.key {
                let (counts, key) = (row.counts, (campaign_id.to_string(), currency.to_string()));
                let sum = totals.entry(key).or_default();
                sum.0 += counts.impressions;
                sum.1 += counts.clicks;
                sum.2 += counts.conversions;
                sum.3 += counts.cost_nanos;
            }
        }
    }
    let line = |((campaign, currency), (i, c, v, cost)): (&(String, String), &(u64, u64, u64, i128))| {
        format!("{campaign} {currency} {i} {c} {v} {cost} settled settled\n")
    };
    totals.iter().map(line).collect()
}

fn read_by_a_stranger(part: &Part) -> String {
    let (host, port) = part.address.trim_start_matches("http://").split_once(':').unwrap();
    let output = Command::new(python())
        .args(["tests/oracle/read_clickhouse.py", host, port, DATABASE, "clickledger_reader", "clickledger_reader"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_difference_between_two_stores_is_named_by_campaign_and_day() {
    let ledger = Ledger::new();
    let part = Part::given_or_start("clickhouse", "CLICKHOUSE_URL", &ledger.path().join("clickhouse"));
    let database = format!("verify_{}", std::process::id());
    let settings = Settings { url: part.address.clone(), database: database.clone(), ..Settings::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = ledger.path().join("other.sqlite");
    let (left, right) =
        (serving::EmbeddedStore::open(&path).unwrap(), runtime.block_on(ClickHouseStore::open(&settings)).unwrap());
    let flush = |store: &dyn ServingStore, sequence, clicks: [u64; 2]| {
        let rows = (0..).zip(clicks).map(|(minute, clicks)| laws::ad_minute("a", minute, clicks, 7)).collect();
        runtime.block_on(store.upsert_approximate(laws::flush(0, sequence, rows))).unwrap();
    };
    let url = format!("{}/{database}", part.address);
    let verify =
        |left: &str| ledger.run(&["serving", "verify", "--left", left, "--right", &url, "--from", DAY, "--to", DAY]);
    flush(&left, 1, [4, 5]);
    flush(&right, 1, [4, 5]);
    assert_eq!(verify("other.sqlite").code, 0);
    for (sequence, clicks, said) in [(2, [4, 6], "clicks 9 and 10"), (3, [5, 4], "the same sums, spread otherwise")] {
        flush(&right, sequence, clicks);
        let answer = verify("other.sqlite");
        assert_eq!((answer.code, &answer.json()["different"]), (13, &1.into()), "{answer:?}");
        assert!(
            answer.stdout.contains("c1") && answer.stdout.contains(DAY) && answer.stdout.contains(said),
            "{answer:?}"
        );
    }
    assert_eq!(verify("nowhere.sqlite").code, 2);
    let nowhere = format!("{}/no_such_database", part.address);
    for _ in 0..2 {
        assert_eq!(verify(&nowhere).code, 75, "a database that is only looked at is not made");
    }
}

//! AT22: a settled day is computed again while live traffic is archived, small files are merged and old ones removed:
//! the inputs its settlement and its run are pinned to stay whole, and nothing about the day changes.

use std::collections::BTreeSet;
use std::time::Duration;

use clickledger::client::Client;
use clickledger::settings::Settings;
use clickledger::wiring::Parts;
use lake::LakeRoot;

use crate::support::Ledger;

const DAY: &str = "2026-01-05";

/// How many files the pinned versions have, and those that are not there.
async fn pinned_files(parts: &Parts) -> (usize, BTreeSet<String>) {
    let root: LakeRoot = parts.lake_root().unwrap();
    let (mut seen, mut missing) = (0, BTreeSet::new());
    for pin in parts.pinned_versions().await.unwrap() {
        let def = lake::tables::by_name(&pin.table).unwrap();
        let table = lake::Table::open(&root, def).await.unwrap().at_version(pin.version).await.unwrap();
        for file in table.files().unwrap() {
            seen += 1;
            if !root.folder().unwrap().join(def.name).join(&file.path).exists() {
                missing.insert(format!("{}/{}", def.name, file.path));
            }
        }
    }
    (seen, missing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_done_again_beside_traffic_merging_and_vacuum_keeps_its_pinned_inputs() {
    let mut ledger = Ledger::new();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = port();
    ledger.set("GATEWAY__LISTEN", gateway);
    ledger.set("SERVING__LISTEN", port());
    ledger.set("LAKE__FLUSH_AGE", "200ms");
    ledger.set("GATEWAY__RATE_LIMIT__PER_SECOND", 100_000);
    ledger.set("GATEWAY__RATE_LIMIT__BURST", 100_000);
    ledger.ok(&["keys", "create", "signing"]);
    ledger.ok(&["simulate", "--events", "6000", "--days", "1", "--to", "history.ndjson"]);
    ledger.ok(&["ads", "import", "history.ads.csv"]);
    ledger.ok(&["prices", "import", "history.prices.csv"]);
    ledger.ok(&["import", "history.ndjson"]);
    ledger.ok(&["lake", "--drain"]);
    let batch = ["batch", "run", "--date", DAY];
    let first = ledger.ok(&batch).json();
    ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);

    let mut up = ledger.spawn("up", &["up"]);
    let mut client = Client::new(gateway);
    while client.send("GET", "/livez", &[], bytes::Bytes::new()).await.is_err() {
        assert!(up.try_wait().unwrap().is_none(), "{}", ledger.log("up"));
        shared::time::sleep(Duration::from_millis(50)).await;
    }
    let url = format!("http://{gateway}");
    let mut traffic = ledger.spawn("traffic", &["simulate", "--rate", "300", "--duration", "12s", "--to", &url]);
    let parts = Parts::new(Settings { data: ledger.data(), ..Settings::default() });
    let (mut removed, mut rounds) = (0, 0);
    while traffic.try_wait().unwrap().is_none() || rounds < 3 {
        rounds += 1;
        ledger.ok(&["lake", "optimize"]);
        let again = ledger.run(&[&batch[..], &["--force"]].concat());
        assert_eq!(again.code, 99, "round {rounds}: {}\n{}", again.stdout, again.stderr);
        assert_eq!(again.json()["sha256"]["gold/billing_day"], first["sha256"]["gold/billing_day"]);
        // Longer than any of these commands takes, so that no running one loses its files.
        let vacuumed = ledger.ok(&["lake", "vacuum", "--retention", "4s"]).json();
        removed += vacuumed["tables"]["bronze/events"]["files"].as_u64().unwrap();
        let (pinned, missing) = pinned_files(&parts).await;
        assert!(pinned > 0 && missing.is_empty(), "round {rounds}: {missing:?}");
    }
    assert!(traffic.wait().unwrap().success(), "{}", ledger.log("traffic"));
    assert!(removed > 0, "nothing was merged away and removed in {rounds} rounds: the test saw no danger");
    assert!(std::process::Command::new("kill").args(["-TERM", &up.id().to_string()]).status().unwrap().success());
    assert!(up.wait().unwrap().success(), "{}", ledger.log("up"));
    let folder = ledger.data().join(format!("settlement/day={DAY}/v=1"));
    assert_eq!(ledger.ok(&["settlement", "verify", folder.to_str().unwrap()]).json()["sound"], true);
    assert_eq!(ledger.run(&["reconcile", "run", "--force", "--date", DAY]).code, 99);
}

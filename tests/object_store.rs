//! Lake, settlements and reports on a real S3 by settings alone: the same day settles to the same bytes as in a folder,
//! every command works there, and nothing is left on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clickledger::client::Client;
use clickledger::wiring::Parts;
use serde_json::{Value, json};
use shared::testing::s3::S3;

use crate::readers;
use crate::rerun::{copy_folder, settlement_bytes};
use crate::support::Ledger;

const DAY: &str = "2026-01-05";
const BATCH: [&str; 4] = ["batch", "run", "--date", DAY];

/// Two ledgers with the same keys, prices and log: one keeps everything in its folder, the other in the bucket.
fn twins(s3: &S3) -> (Ledger, Ledger) {
    let (mut here, mut there) = (Ledger::new(), Ledger::new());
    for ledger in [&mut here, &mut there] {
        ledger.set("LAKE__FLUSH_ROWS", 2_000); // several files, so that there is something to merge
    }
    here.ok(&["keys", "create", "signing"]);
    here.ok(&["keys", "create", "settlement"]);
    here.ok(&["simulate", "--events", "6000", "--days", "1", "--from", DAY, "--seed", "5", "--to", "history.ndjson"]);
    here.ok(&["prices", "import", "history.prices.csv"]);
    here.ok(&["ads", "import", "history.ads.csv"]);
    here.ok(&["import", "history.ndjson"]);
    copy_folder(&here.data(), &there.data());
    std::fs::remove_dir_all(there.data().join("settlement")).unwrap();
    keep_in(&mut there, s3);
    (here, there)
}

/// Settings that keep lake and publications in the bucket.
pub(crate) fn keep_in(ledger: &mut Ledger, s3: &S3) {
    let secret = ledger.path().join("secret");
    std::fs::write(&secret, &s3.secret_access_key).unwrap();
    let name = ledger.path().file_name().unwrap().to_string_lossy().into_owned();
    ledger.set("OBJECT_STORE__LAKE_URL", format!("s3://{}/{name}/lake", s3.bucket));
    ledger.set("OBJECT_STORE__PUBLISHED_URL", format!("s3://{}/{name}/published", s3.bucket));
    ledger.set("OBJECT_STORE__ENDPOINT", s3.endpoint());
    ledger.set("OBJECT_STORE__ALLOW_HTTP", true);
    ledger.set("OBJECT_STORE__ACCESS_KEY_ID", &s3.access_key_id);
    ledger.set("OBJECT_STORE__SECRET_ACCESS_KEY_FILE", secret.display());
}

/// Somebody of the history.
fn person(ledger: &Ledger) -> String {
    let history = std::fs::read_to_string(ledger.path().join("history.ndjson")).unwrap();
    let named = history.split("\"userPseudoId\":\"").nth(1).unwrap();
    named.split('"').next().unwrap().to_owned()
}

async fn download(parts: &Parts, place: &str, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    let root = parts.settings().object_store.root(place, to).unwrap();
    assert!(reconcile::download::download(&root, to).await.unwrap() > 0, "{place}");
    to.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_settles_on_s3_to_the_same_bytes_as_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::given_or_start(&folder.path().join("objects"));
    let (here, there) = twins(&s3);
    let checked = there.ok(&["doctor"]);
    assert_eq!(checked.stdout.matches("creates once").count(), 2, "{}", checked.stdout);
    for ledger in [&here, &there] {
        ledger.ok(&["lake", "--drain"]);
        ledger.ok(&BATCH);
        ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
        ledger.ok(&["lake", "optimize"]);
        assert_eq!(ledger.run(&[&BATCH[..], &["--force"]].concat()).code, 99, "merged files give the same gold");
        assert_eq!(ledger.run(&["reconcile", "run", "--date", DAY]).code, 99, "it is settled");
    }
    let place = there.parts().published(&format!("settlement/day={DAY}/v=1")).unwrap().display().to_string();
    let copy = download(&there.parts(), &place, &folder.path().join("copy")).await;
    let name = |files: std::collections::BTreeMap<PathBuf, Vec<u8>>| -> Vec<(String, Vec<u8>)> {
        files.into_iter().map(|(path, bytes)| (path.file_name().unwrap().to_str().unwrap().to_owned(), bytes)).collect()
    };
    let local = name(settlement_bytes(&here.data().join(format!("settlement/day={DAY}/v=1"))));
    let remote = name(settlement_bytes(&copy));
    assert_eq!(local.iter().map(|f| &f.0).collect::<Vec<_>>(), remote.iter().map(|f| &f.0).collect::<Vec<_>>());
    for (ours, theirs) in local.iter().zip(&remote) {
        assert_eq!(String::from_utf8_lossy(&ours.1), String::from_utf8_lossy(&theirs.1), "{}", ours.0);
    }
    let reach = [
        ("AWS_ENDPOINT_URL", s3.endpoint()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", &s3.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &s3.secret_access_key),
    ];
    let lake = there.parts().lake_root().unwrap();
    readers::agree(&lake, lake.url().as_str(), &reach).await;
    let lake = here.parts().lake_root().unwrap();
    readers::agree(&lake, lake.folder().unwrap().to_str().unwrap(), &[]).await;
    every_command_works_there(&there, &place, &person(&here));
    served(there, &local).await;
}

fn every_command_works_there(there: &Ledger, place: &str, person: &str) {
    let rows = |args: &[&str]| -> Value {
        serde_json::from_str(there.ok(&[args, &["--output", "json"]].concat()).stdout.trim()).unwrap()
    };
    assert_eq!(rows(&["settlement", "list"])[0]["sequence"], 1);
    assert_eq!(there.ok(&["settlement", "verify", place]).json()["sound"], true);
    let nothing = there.run(&["settlement", "verify", &place.replace("v=1", "v=9")]);
    assert!(nothing.code == 2 && nothing.stderr.contains("holds no files"), "{nothing:?}");
    let days = rows(&["days"])["days"].clone();
    assert!(days.as_array().unwrap().iter().any(|d| d["day"] == DAY && d["state"] == "settled"), "{days}");
    assert!(rows(&["ledger", "balance"]).as_array().unwrap().len() > 1);
    assert!(rows(&["bad", "list"]).as_array().is_some_and(|r| !r.is_empty()));
    let events = rows(&["lake", "stats"]).as_array().unwrap().iter().find(|t| t["table"] == "bronze/events").cloned();
    assert!(events.unwrap()["rows"].as_u64() > Some(5_000));
    there.ok(&["lake", "vacuum"]);
    let dry = there.run(&["batch", "run", "--dry-run", "--date", DAY]);
    assert!([0, 99].contains(&dry.code), "{dry:?}");
    // A person's files get twins there as here, and the settlement stays as it was.
    let erased = there.ok(&["privacy", "erase", "--subject", person]).json();
    assert!(erased["tables"]["bronze/events"]["filesRewritten"].as_u64() > Some(0), "{erased}");
    assert_eq!(there.ok(&["settlement", "verify", place]).json()["sound"], true);
    there.ok(&["reconcile", "rebuild"]);
    for kept in ["lake", "settlement", "reports"] {
        assert!(!there.data().join(kept).exists(), "{kept} is on this machine");
    }
    let shown = there.ok(&["config", "show"]).stdout;
    assert!(shown.contains("lake_url = \"s3://") && !shown.contains("clickledger-test-secret"), "{shown}");
}

/// The reports and the settlement's files through the serving API.
async fn served(mut there: Ledger, local: &[(String, Vec<u8>)]) {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    there.set("SERVING__LISTEN", address);
    there.set("SERVING__REQUIRE_KEYS", false);
    let mut serving = there.spawn("serving", &["serving"]);
    let mut client = Client::new(address);
    while client.send("GET", "/livez", &[], bytes::Bytes::new()).await.is_err() {
        assert!(serving.try_wait().unwrap().is_none(), "{}", there.log("serving"));
        shared::time::sleep(Duration::from_millis(50)).await;
    }
    let files = format!("/v1/reports/reconcile/{DAY}/files");
    for (name, bytes) in local {
        let answer = client.send("GET", &format!("{files}/1/{name}"), &[], bytes::Bytes::new()).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &bytes[..]), "{name}");
    }
    let url = format!("http://{address}{files}");
    assert_eq!(there.ok(&["settlement", "verify", &url]).json()["sound"], json!(true));
    serving.kill().unwrap();
    serving.wait().unwrap();
}

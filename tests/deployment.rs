//! What is shipped for running on real parts works as it stands: the production example, compose.yaml, and the commands of
//! docs/production.md on a real Redis and PostgreSQL.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use clickledger::cli::Cli;
use clickledger::client::Client;
use clickledger::settings::Settings;
use serde_json::Value;
use shared::testing::parts::Part;

use crate::support::{Ledger, python};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_production_example_can_be_used_and_holds_no_secret() {
    let path = root().join("config/production.example.toml");
    let settings = Settings::load(Some(&path), std::iter::empty()).unwrap();
    assert!(settings.kafka.is_used() && settings.postgres.is_used() && settings.gateway.dedup.redis.is_used());
    assert!(settings.clickhouse.is_used() && !settings.object_store.lake_url.is_empty());
    // Every section of the defaults is there, so that nobody finds one by accident.
    let sections = |file: &str| -> Vec<String> {
        let text = std::fs::read_to_string(root().join("config").join(file)).unwrap();
        text.lines().filter_map(|l| Some(l.strip_prefix('[')?.split_once(']')?.0.to_owned())).collect()
    };
    let (example, left_out) =
        (sections("production.example.toml"), ["counting", "gateway.rate_limit", "gateway.ip_hash", "serving.http"]);
    for section in sections("default.toml") {
        assert!(left_out.contains(&section.as_str()) || example.contains(&section), "[{section}] is missing");
    }
}

/// compose.yaml as JSON, read by Python's YAML.
fn compose() -> Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let mut reading =
        Command::new(python()).args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text = std::fs::read(root().join("compose.yaml")).unwrap();
    reading.stdin.take().unwrap().write_all(&text).unwrap();
    let read = reading.wait_with_output().unwrap();
    assert!(read.status.success(), "compose.yaml is not YAML");
    serde_json::from_slice(&read.stdout).unwrap()
}

#[test]
fn compose_starts_what_exists_at_the_versions_that_are_tested() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let volumes = compose["volumes"].as_object().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    let mut roles = Vec::new();
    for (name, service) in services {
        let image = text(&service["image"]);
        for depended in service["depends_on"].as_object().into_iter().flat_map(|d| d.keys()) {
            assert!(services.contains_key(depended), "{name} depends on {depended}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten().map(text) {
            assert!(volumes.contains_key(volume.split(':').next().unwrap()), "{name} has {volume}");
        }
        if image != "clickledger" {
            assert!(image.split_once(':').is_some_and(|(_, tag)| tag != "latest"), "{name}: {image} has no version");
            continue;
        }
        let words: Vec<String> = service["command"].as_array().unwrap().iter().map(text).collect();
        let line = std::iter::once("clickledger".to_owned()).chain(words.clone());
        if let Err(e) = Cli::try_parse_from(line) {
            panic!("{name}: {e}");
        }
        let environment: BTreeMap<String, String> =
            service["environment"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), text(v))).collect();
        Settings::load(None, environment.into_iter()).unwrap_or_else(|e| panic!("{name}: {e}"));
        roles.push(words.join(" "));
    }
    roles.sort();
    assert_eq!(roles, ["gateway", "kafka ensure", "lake", "postgres ensure", "serving", "serving migrate", "speed"]);
    let kafka = std::fs::read_to_string(root().join("tests/parts/kafka")).unwrap();
    let tested = kafka.lines().find_map(|l| l.strip_prefix("version=")).unwrap();
    assert_eq!(text(&services["kafka"]["image"]), format!("apache/kafka:{tested}"));
}

/// Waits until `said` says yes of what `/readyz` or a click answers.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..3_000 {
        if is_so().await {
            return;
        }
        shared::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not come");
}

#[test]
fn two_gateways_share_redis_and_postgres_by_settings_alone() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Part::start("redis", "REDIS_URL", &folder.path().join("redis"));
    let mut postgres = Part::start("postgres", "DATABASE_URL", &folder.path().join("postgres"));
    let mut ledgers = [Ledger::new(), Ledger::new()];
    let mut gateways = Vec::new();
    for ledger in &mut ledgers {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        ledger.set("GATEWAY__LISTEN", free);
        ledger.set("GATEWAY__DEDUP__REDIS__URL", &redis.address);
        ledger.set("GATEWAY__DEDUP__REDIS__TIMEOUT", "5s");
        ledger.set("POSTGRES__URL", &postgres.address);
        ledger.set("POSTGRES__POLL_INTERVAL", "200ms");
        gateways.push(free);
    }
    let [a, b] = &ledgers;
    assert_eq!(a.run(&["ads", "list"]).code, 0, "nothing is there yet: the file is used, with a warning");
    a.ok(&["postgres", "ensure"]);
    assert_eq!(a.ok(&["postgres", "ensure"]).json()["ads"], 0, "twice is once");
    std::fs::write(a.path().join("ads.csv"), "adId,campaignId,advertiserId,url\nad-1,c1,v1,https://shop.example/1\n")
        .unwrap();
    assert_eq!(a.ok(&["ads", "import", "ads.csv"]).json()["added"], 1);
    assert!(b.ok(&["ads", "list"]).stdout.contains("https://shop.example/1"), "the other machine has it");
    std::fs::write(a.path().join("bad.csv"), "adId,campaignId,advertiserId,url\nad-2,c1,thief,https://shop.example/\n")
        .unwrap();
    let refused = a.run(&["ads", "import", "bad.csv"]);
    assert!(refused.code == 2 && refused.stderr.contains("belongs to advertiser v1"), "{refused:?}");
    a.ok(&["keys", "create", "signing"]);
    std::fs::create_dir_all(b.data().join("keys")).unwrap();
    std::fs::copy(a.data().join("keys/signing_keys.json"), b.data().join("keys/signing_keys.json")).unwrap();
    let said = a.run(&["doctor", "--output", "json"]).stdout;
    for check in ["Redis", "PostgreSQL"] {
        assert!(said.contains(check), "{said}");
    }

    let mut children = [a.spawn("gateway", &["gateway"]), b.spawn("gateway", &["gateway"])];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let get = async |gateway: usize, path: &str| {
            let mut client = Client::new(gateways[gateway]);
            client.send("GET", path, &[], Bytes::new()).await
        };
        for gateway in 0..2 {
            until("a gateway", async || get(gateway, "/readyz").await.is_ok_and(|a| a.body == "ready\n")).await;
        }
        let signed = a.ok(&["sign", "--ad", "ad-1", "--impression", "imp-1"]).stdout;
        let click = &signed[signed.find("/click").unwrap()..].split(['"', '\n', ' ']).next().unwrap().to_owned();
        for gateway in [0, 1, 0, 1] {
            let answer = get(gateway, click).await.unwrap();
            assert_eq!(answer.location.as_deref(), Some("https://shop.example/1"), "{answer:?}");
        }
        // The database dies: clicks go on, and readiness says what is stale until it is back.
        postgres.crash_and_restart();
        let paused = "adId,campaignId,advertiserId,url,status\nad-1,c1,v1,https://shop.example/2,active\n";
        std::fs::write(a.path().join("ads.csv"), paused).unwrap();
        assert_eq!(a.ok(&["ads", "import", "ads.csv"]).json()["changed"], 1);
        for gateway in 0..2 {
            until("the changed ad", async || {
                get(gateway, click).await.unwrap().location.as_deref() == Some("https://shop.example/2")
            })
            .await;
            until("readiness", async || get(gateway, "/readyz").await.unwrap().body == "ready\n").await;
        }
    });
    for child in &mut children {
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert!(child.wait().unwrap().success(), "{}", a.log("gateway"));
    }
    // One of eight clicks and more is in the log: Redis said to the others that it is there already.
    let logged: u64 = ledgers
        .iter()
        .map(|ledger| {
            let parts = clickledger::wiring::Parts::new(Settings { data: ledger.data(), ..Settings::default() });
            runtime.block_on(async {
                let bounds = parts.log_reader().await.unwrap().events.bounds().await.unwrap();
                bounds.end.0.values().sum::<u64>()
            })
        })
        .sum();
    assert_eq!(logged, 1);
}

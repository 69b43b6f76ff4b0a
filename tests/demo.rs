//! The demo, as a new user runs it: on a clean folder, to its end; then its folder is served again.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use clickledger::client::{Answer, Client};
use serde_json::Value;
use shared::time::Day;

use crate::support::Ledger;

#[test]
fn the_demo_settles_its_day_and_its_folder_serves_what_it_settled() {
    let mut ledger = Ledger::new();
    let answer = ledger.ok(&["demo", "--exit", "--data", "data", "--seconds", "15", "--output", "json"]);
    let line = answer.json();
    assert_eq!(line["verified"], true);
    for verdict in ["billable", "conflict", "repeat_click", "invalid:bad_signature", "invalid:known_bot"] {
        assert!(line["batch"][verdict].as_u64() > Some(0), "the demo has no {verdict}: {line}");
    }
    let folder = format!("data/{}", line["settlement"]["folder"].as_str().unwrap());
    ledger.ok(&["settlement", "verify", &folder]);
    let listed = ledger.ok(&["bad", "list", "--output", "csv"]);
    for reason in ["malformed", "unauthorized", "duplicate"] {
        assert!(listed.stdout.contains(reason), "no {reason} among the refused:\n{}", listed.stdout);
    }
    explains_one_of_its_events(&ledger);

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    ledger.set("SERVING__LISTEN", address);
    ledger.set("SERVING__REQUIRE_KEYS", "false");
    let mut serving = ledger.spawn("serving", &["serving"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(served(address, line["day"].as_str().unwrap(), &line["settlement"]));
    let url = format!("http://{address}/v1/reports/reconcile/{}/files", line["day"].as_str().unwrap());
    assert_eq!(ledger.ok(&["settlement", "verify", &url]).json()["sound"], true, "over HTTP, with nothing but the URL");
    serving.kill().unwrap();
    serving.wait().unwrap();
}

/// One billable event of silver, explained by the command line.
fn explains_one_of_its_events(ledger: &Ledger) {
    let id = "select event_id from read_parquet('data/lake/silver/events/*/*.parquet', hive_partitioning = false) \
              where verdict = 'billable' order by event_id limit 1";
    let script = format!("import duckdb; print(duckdb.sql(\"{id}\").fetchall()[0][0])");
    let found = std::process::Command::new(crate::support::python())
        .args(["-c", &script])
        .current_dir(ledger.path())
        .output()
        .unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let id = String::from_utf8(found.stdout).unwrap();
    let explained = ledger.ok(&["explain", "event", id.trim(), "--output", "json"]).json();
    assert_eq!(explained["occurrences"][0]["judged"]["verdict"], "billable", "{explained}");
    ledger.ok(&["explain", "event", id.trim()]);
}

async fn served(address: SocketAddr, day: &str, settlement: &Value) {
    let mut client = Client::new(address);
    let mut tries = 0;
    while get(&mut client, "/livez").await.is_none_or(|a| a.status != 200) {
        tries += 1;
        assert!(tries < 200, "serving does not come up");
        shared::time::sleep(Duration::from_millis(50)).await;
    }
    let drift = json(&mut client, &format!("/v1/drift/{day}")).await;
    assert!(drift.to_string().contains(day), "{drift}");
    let files = json(&mut client, &format!("/v1/reports/reconcile/{day}/files")).await;
    let first = &files["files"][0];
    assert_eq!(files["version"], settlement["version"], "{files}");
    let url = first["url"].as_str().unwrap();
    let path = url.find("/v1/").map_or(url, |at| &url[at..]);
    let file = get(&mut client, path).await.unwrap();
    assert_eq!(file.status, 200, "{path}");
    // To the end of the day: the demo's traffic is in its last minute.
    let range = format!("from={day}T00:00:00Z&to={}", Day::parse(day).unwrap().end());
    let top = json(&mut client, &format!("/v1/reports/top?by=clicks&n=3&{range}")).await;
    let campaign = find(&top, "campaignId").unwrap_or_else(|| panic!("no campaign in {top}"));
    let hourly = json(&mut client, &format!("/v1/reports/campaigns/{campaign}/hourly?{range}")).await;
    assert_eq!(find(&hourly, "finality").as_deref(), Some("settled"), "{hourly}");
    let page = get(&mut client, "/").await.unwrap();
    assert_eq!(page.status, 200);
    let spec = json(&mut client, "/openapi.json").await;
    assert!(spec["paths"].as_object().is_some_and(|p| p.len() >= 8), "{spec}");
}

async fn get(client: &mut Client, path: &str) -> Option<Answer> {
    client.send("GET", path, &[], Bytes::new()).await.ok()
}

async fn json(client: &mut Client, path: &str) -> Value {
    let answer = get(client, path).await.unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

/// The first text value under `name`, anywhere.
fn find(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .find_map(|(k, v)| (k == name).then(|| v.as_str().map(str::to_owned)).flatten().or_else(|| find(v, name))),
        Value::Array(items) => items.iter().find_map(|v| find(v, name)),
        _ => None,
    }
}

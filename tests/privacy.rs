//! What a person leaves behind: no address anywhere (X4), and nothing at all once they are erased (AT13), while every
//! count, bill and settlement stays as it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::AsArray;
use bytes::Bytes;
use clickledger::client::Client;
use lake::LakeRoot;
use lake::erase::TABLES;
use serde_json::{Value, json};

use crate::support::Ledger;

/// Far longer than anything under test takes.
const GUARD: Duration = Duration::from_secs(60);
const PERSON: &str = "person-1f3a77";
const ADDRESS: &str = "203.0.113.77";
const DAY: &str = "2026-01-05";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

/// The files below `folder` that have `needle` in them, Parquet by its values.
fn traces(folder: &Path, needle: &str) -> Vec<PathBuf> {
    let is_in = |bytes: &[u8]| bytes.windows(needle.len()).any(|w| w == needle.as_bytes());
    files(folder).into_iter().filter(|path| is_in(&std::fs::read(path).unwrap_or_default())).collect()
}

/// How many values of the lake's tables have `needle` in them.
async fn traces_in_tables(lake: &Path, needle: &str) -> usize {
    let root = LakeRoot::open_folder(lake).unwrap();
    let mut found = 0;
    for def in TABLES {
        let table = lake::Table::open(&root, def).await.unwrap();
        for file in table.files().unwrap() {
            for batch in table.read(&file, None).await.unwrap() {
                for column in batch.unwrap().columns() {
                    let texts = column.as_string_opt::<i32>().into_iter().flatten().flatten();
                    found += texts.filter(|t| t.contains(needle)).count();
                    let raws = column.as_binary_opt::<i32>().into_iter().flatten().flatten();
                    found += raws.filter(|raw| raw.windows(needle.len()).any(|w| w == needle.as_bytes())).count();
                }
            }
        }
    }
    found
}

fn free_port() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn furnish(ledger: &Ledger) {
    ledger.ok(&["keys", "create", "signing"]);
    let ads = "adId,campaignId,advertiserId,url,status\nad-1,cam-1,adv-1,https://shop.example/,active\n";
    std::fs::write(ledger.path().join("ads.csv"), ads).unwrap();
    ledger.ok(&["ads", "import", "ads.csv"]);
    let prices = "campaignId,model,priceMicros,currency,validFrom\ncam-1,cpc,250000,EUR,2025-01-01T00:00:00Z\n";
    std::fs::write(ledger.path().join("prices.csv"), prices).unwrap();
    ledger.ok(&["prices", "import", "prices.csv"]);
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            shared::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(GUARD, waiting).await.is_ok(), "{what} does not happen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_nowhere_once_its_request_is_answered() {
    let mut ledger = Ledger::new();
    let gateway = free_port();
    ledger.set("GATEWAY__LISTEN", gateway);
    ledger.set("SERVING__LISTEN", free_port());
    ledger.set("GATEWAY__TRUSTED_PROXIES", "127.0.0.0/8");
    ledger.set("LAKE__FLUSH_AGE", "200ms");
    furnish(&ledger);
    let key = ledger.ok(&["keys", "create", "api", "--scopes", "sign"]).json()["key"].as_str().unwrap().to_owned();
    let mut up = ledger.spawn("up", &["up", "--log", "trace"]);
    let mut client = Client::new(gateway);
    until("the gateway", async || client.send("GET", "/livez", &[], Bytes::new()).await.is_ok()).await;
    let (bearer, from) = (format!("Bearer {key}"), ("x-forwarded-for", ADDRESS));
    let mut answers = Vec::new();
    for _ in 0..5 {
        let asked = Bytes::from(r#"{"adId":"ad-1"}"#);
        let made = client.send("POST", "/v1/impressions", &[("authorization", &bearer), from], asked).await.unwrap();
        let links: Value = serde_json::from_slice(&made.body).unwrap();
        let path = |url: &str| links[url].as_str().unwrap().split_once(&gateway.to_string()).unwrap().1.to_owned();
        for (path, status) in [(path("pixelUrl"), 200), (path("clickUrl"), 302), ("/click?adId=x".to_owned(), 400)] {
            let answer = client.send("GET", &path, &[from, ("user-agent", "Browser/1")], Bytes::new()).await.unwrap();
            assert_eq!(answer.status, status, "{path}");
            answers.push(answer.body);
        }
    }
    let refused = client.send("POST", "/v1/events", &[from], Bytes::from("{")).await.unwrap();
    answers.push(refused.body);
    answers.push(client.send("GET", "/metrics", &[], Bytes::new()).await.unwrap().body);
    assert!(std::process::Command::new("kill").args(["-TERM", &up.id().to_string()]).status().unwrap().success());
    assert!(up.wait().unwrap().success(), "{}", ledger.log("up"));
    ledger.ok(&["lake", "--drain"]);

    let events = ledger.data().join("lake");
    assert!(traces_in_tables(&events, "Browser/1").await >= 10, "the events are there");
    for needle in [ADDRESS, "203.0.113"] {
        assert_eq!(traces(ledger.path(), needle), Vec::<PathBuf>::new(), "{needle}");
        assert_eq!(traces_in_tables(&events, needle).await, 0, "{needle}");
        for body in &answers {
            assert!(!String::from_utf8_lossy(body).contains(needle));
        }
    }
}

/// One day of history: the person's events among others', with everything that decides a verdict.
fn history(ledger: &Ledger) {
    let mut lines = Vec::new();
    for n in 0..240 {
        let time = format!("{DAY}T{:02}:{:02}:00Z", n % 24, n % 60);
        let theirs = n % 6 == 0;
        let user = if theirs { PERSON.to_owned() } else { format!("person-{}", n % 11) };
        let agent = if n % 12 == 0 { "NiceBot/1" } else { "Browser/2" };
        let mut event = json!({
            "eventId": format!("e-{}", if n % 40 == 36 { n - 6 } else { n }), "eventType": "click", "timestamp": time,
            "ingestTime": time, "adId": "ad-1", "userPseudoId": user, "userAgent": agent, "creativeId": "c",
            "country": "DE", "deviceType": "mobile",
        });
        if theirs {
            event["url"] = format!("https://shop.example/?uid={PERSON}").into();
            event["sessionId"] = format!("session-{n}").into();
            event["favourite"] = PERSON.into();
            // Every other of their clicks is the same one within a second (a repeat under `identical_clicks`).
            let mut again = event.clone();
            again["eventId"] = format!("again-{n}").into();
            lines.push(again.to_string());
        }
        lines.push(event.to_string());
    }
    lines.push(format!(r#"{{"eventId":"bad","userPseudoId":"{PERSON}"}}"#));
    archive(ledger, &lines.join("\n"));
}

fn archive(ledger: &Ledger, lines: &str) {
    std::fs::write(ledger.path().join("history.ndjson"), lines).unwrap();
    ledger.ok(&["import", "history.ndjson"]);
    std::fs::remove_file(ledger.path().join("history.ndjson")).unwrap();
    ledger.ok(&["lake", "--drain"]);
}

/// A billable click of the person that arrives two days late.
fn late_click(ledger: &Ledger) {
    let event = json!({
        "eventId": "late", "eventType": "click", "timestamp": format!("{DAY}T12:00:30Z"),
        "ingestTime": "2026-01-07T12:00:30Z", "adId": "ad-1", "userPseudoId": PERSON, "userAgent": "Browser/2",
        "creativeId": "c", "country": "DE", "deviceType": "mobile",
    });
    archive(ledger, &event.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_person_is_in_no_file_and_every_bill_and_settlement_stays() {
    let mut ledger = Ledger::new();
    ledger.set("COUNTING__IDENTICAL_CLICKS", "true");
    furnish(&ledger);
    history(&ledger);
    let batch = ["batch", "run", "--date", DAY];
    let first = ledger.ok(&batch).json();
    for verdict in ["duplicate", "conflict", "repeat_click", "invalid:known_bot", "billable"] {
        let counted = first["verdicts"][verdict].as_u64();
        assert!(counted > Some(0) || verdict == "duplicate" || verdict == "conflict", "{verdict}: {first}");
    }
    ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
    let settlement = ledger.data().join(format!("settlement/day={DAY}/v=1"));
    let published = std::fs::read(settlement.join("manifest.json")).unwrap();

    let lake = ledger.data().join("lake");
    assert!(traces_in_tables(&lake, PERSON).await > 100);
    let erase = ["privacy", "erase", "--subject", PERSON];
    let dry = ledger.ok(&[&erase[..], &["--dry-run"]].concat());
    let done = ledger.ok(&erase);
    let told = done.json();
    assert_eq!(told["tables"]["bronze/events"]["rows"], dry.json()["tables"]["bronze/events"]["rows"]);
    assert_eq!(
        (&told["tables"]["bronze/events"]["rows"], &told["tables"]["bronze/bad"]["rows"]),
        (&json!(80), &json!(1))
    );

    // Nowhere but in the log, which says until when.
    assert_eq!(traces_in_tables(&lake, PERSON).await, 0);
    for answer in [&dry, &done] {
        assert!(!answer.stdout.contains(PERSON) && !answer.stderr.contains(PERSON), "{answer:?}");
    }
    let log = ledger.data().join("log");
    let left = |ledger: &Ledger| traces(ledger.path(), PERSON);
    assert!(
        !left(&ledger).is_empty() && left(&ledger).iter().all(|path| path.starts_with(&log)),
        "{:?}",
        left(&ledger)
    );
    assert!(told["logForgetsAt"].is_string());
    let listed: Value = serde_json::from_str(&ledger.ok(&["privacy", "list", "--output", "json"]).stdout).unwrap();
    assert_eq!((&listed[0]["state"], &listed[0]["subjectHash"]), (&json!("done"), &told["subjectHash"]));

    // Totals balance, the bill is the same, the settlement holds, and what explains an event still does.
    let again = ledger.ok(&[&batch[..], &["--force"]].concat()).json();
    assert_eq!((&again["verdicts"], &again["totals"]), (&first["verdicts"], &first["totals"]));
    assert_eq!(again["sha256"]["gold/billing_day"], first["sha256"]["gold/billing_day"]);
    assert_eq!(again["sha256"]["gold/ad_minute"], first["sha256"]["gold/ad_minute"]);
    assert_eq!(ledger.run(&["reconcile", "run", "--force", "--date", DAY]).code, 99, "there is nothing new to settle");
    assert_eq!(std::fs::read(settlement.join("manifest.json")).unwrap(), published);
    assert_eq!(ledger.ok(&["settlement", "verify", settlement.to_str().unwrap()]).json()["sound"], true);
    let proof = ledger.ok(&["settlement", "prove", "--event", "again-6", "--date", DAY]).stdout;
    assert!(!proof.contains(PERSON), "{proof}");
    std::fs::write(ledger.path().join("proof.json"), proof).unwrap();
    let folder = settlement.to_str().unwrap();
    let proven = ledger.run(&["settlement", "verify", "--proof", "proof.json", folder]);
    assert_eq!(proven.code, 0, "{}{}", proven.stdout, proven.stderr);
    let explained = ledger.ok(&["explain", "event", "again-6"]);
    assert!(explained.stdout.contains("billable") && !explained.stdout.contains(PERSON), "{}", explained.stdout);
    ledger.ok(&["lake", "vacuum", "--retention", "1h"]);
    assert_eq!(ledger.ok(&erase).json()["erasures"], json!([]), "nothing is left to erase");

    // Once the log's retention is over there is nothing at all.
    ledger.set("RETENTION__MAX_AGE", "1s");
    ledger.set("RETENTION__CHECK_INTERVAL", "1s");
    ledger.set("GATEWAY__LISTEN", free_port());
    let mut gateway = ledger.spawn("gateway", &["gateway"]);
    until("the log's retention", async || left(&ledger).is_empty()).await;
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

/// Of the person's 80 clicks half are a bot's; the other 40 and the late one were billed at a quarter of a euro.
const THEIRS: i64 = 41;
const THEIRS_MICROS: i64 = THEIRS * 250_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_under_the_policy_adjust_takes_back_what_was_billed_and_only_once() {
    let ledger = Ledger::new();
    furnish(&ledger);
    history(&ledger);
    let erase = ["privacy", "erase", "--subject", PERSON, "--policy", "adjust"];
    let early = ledger.run(&erase);
    assert!(early.code == 2 && early.stderr.contains("run batch first"), "{}{}", early.code, early.stderr);
    ledger.ok(&["batch", "run", "--date", DAY]);
    // A click that came after that run is billed by the next one: until then nobody knows what to take back.
    late_click(&ledger);
    let late = ledger.run(&erase);
    assert!(late.code == 2 && late.stderr.contains("run batch first"), "{}{}", late.code, late.stderr);
    ledger.ok(&["batch", "run", "--date", DAY]);
    ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
    let manifest = |version: u32| -> Value {
        let path = ledger.data().join(format!("settlement/day={DAY}/v={version}/manifest.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let due = |version: u32| manifest(version)["dueMicros"]["EUR"].as_i64().unwrap();

    assert_eq!(ledger.ok(&[&erase[..], &["--dry-run"]].concat()).json()["adjustments"], 1);
    let done = ledger.ok(&erase).json();
    assert_eq!((&done["adjustments"], &done["policy"]), (&json!(1), &json!("adjust")));
    let posted: Value =
        serde_json::from_str(&ledger.ok(&["adjust", "list", "--date", DAY, "--output", "json"]).stdout).unwrap();
    assert_eq!((&posted[0]["clicks"], &posted[0]["amountMicros"]), (&json!(-THEIRS), &json!(-THEIRS_MICROS)));
    assert_eq!((&posted[0]["reason"], &posted[0]["signature"]), (&json!("privacy_erasure"), &json!("holds")));
    ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
    assert_eq!(due(2), due(1) - THEIRS_MICROS);
    let folder = ledger.data().join(format!("settlement/day={DAY}/v=2"));
    assert_eq!(ledger.ok(&["settlement", "verify", folder.to_str().unwrap()]).json()["sound"], true);

    // Again: there is nobody to erase and nothing to take back, even from a ledger that lost the adjustment's commit.
    assert_eq!(ledger.ok(&erase).json()["adjustments"], 0);
    std::fs::remove_dir_all(ledger.data().join("lake/ledger/adjustments")).unwrap();
    assert_eq!(ledger.ok(&erase).json()["adjustments"], 1, "the record of the erasure says what to take back");
    assert_eq!(traces_in_tables(&ledger.data().join("lake"), PERSON).await, 0);
}

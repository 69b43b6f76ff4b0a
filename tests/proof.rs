//! Proofs, as finance and partners get them: from a simulated day through the real pipeline, with silver in many files.

use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use lake::tables::SILVER_EVENTS;
use lake::{LakeRoot, Table};
use reconcile::proof::Proof;
use reconcile::prove::prove;
use reconcile::settlements::Settlements;
use reconcile::verify::verify_proof;
use shared::id::EventId;
use shared::merkle::Hash256;
use shared::time::Day;

use crate::support::Ledger;

const DAY: &str = "2026-01-05";
/// Random clicks that are proven.
const CLICKS: usize = 1_000;

/// A settled day of some twenty blocks of leaves, silver in files of about a thousand rows.
fn settled() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.set("BATCH__SILVER_FILE_ROWS", 1_000);
    ledger.ok(&["keys", "create", "signing"]);
    let size = ["--events", "30000", "--days", "1", "--from", DAY, "--seed", "11"];
    ledger.ok(&[&["simulate"][..], &size, &["--to", "history.ndjson"]].concat());
    ledger.ok(&["prices", "import", "history.prices.csv"]);
    ledger.ok(&["import", "history.ndjson"]);
    ledger.ok(&["lake", "--drain"]);
    ledger.ok(&["batch", "run", "--date", DAY]);
    ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
    ledger
}

/// Id, type and verdict of every event of the day.
async fn events(lake: &LakeRoot, day: Day) -> Vec<(String, String, String)> {
    let silver = Table::open(lake, &SILVER_EVENTS).await.unwrap();
    let files = silver.files_of(day).unwrap();
    assert!(files.len() > 10, "silver is in many files");
    let mut events = Vec::new();
    for file in files {
        for batch in silver.read(&file, Some(&["event_id", "event_type", "verdict"])).await.unwrap() {
            let batch: RecordBatch = batch.unwrap();
            let text = |i: usize, row: usize| batch.column(i).as_string::<i32>().value(row).to_owned();
            events.extend((0..batch.num_rows()).map(|row| (text(0, row), text(1, row), text(2, row))));
        }
    }
    events
}

fn holds(folder: &Path, proof: &Proof) -> bool {
    verify_proof(folder, proof, None).unwrap().is_sound()
}

#[tokio::test]
async fn a_thousand_random_clicks_are_proven_and_what_is_not_billed_is_proven_absent() {
    let ledger = settled();
    let day = Day::parse(DAY).unwrap();
    let lake = LakeRoot::open_folder(&ledger.data().join("lake")).unwrap();
    let settlements = Settlements::new(LakeRoot::open_folder(&ledger.data()).unwrap());
    let folder = ledger.data().join(format!("settlement/day={DAY}/v=1"));
    let mut events = events(&lake, day).await;
    events.sort_by_key(|(id, _, _)| Hash256::of(format!("any order but that of the leaves: {id}").as_bytes()));
    let billed: std::collections::BTreeSet<&str> =
        events.iter().filter(|(_, _, v)| v == "billable").map(|(id, _, _)| id.as_str()).collect();

    let clicks = events.iter().filter(|(_, kind, verdict)| kind == "click" && verdict == "billable");
    let mut proofs = Vec::new();
    for (id, _, _) in clicks.take(CLICKS) {
        let proof = prove(&lake, &settlements, &EventId::new(id).unwrap(), (day, None)).await.unwrap();
        assert!(proof.is_billed() && holds(&folder, &proof), "{id}");
        proofs.push(proof);
    }
    assert_eq!(proofs.len(), CLICKS);
    for pair in proofs.windows(2) {
        let foreign = Proof { event_id: pair[1].event_id.clone(), ..pair[0].clone() };
        assert!(!holds(&folder, &foreign), "the proof of another click");
    }

    let absent: Vec<&String> = events.iter().map(|(id, _, _)| id).filter(|id| !billed.contains(id.as_str())).collect();
    assert!(absent.len() > 100, "robots, forgeries, repeats and duplicates of other days");
    let unknown: Vec<String> = (0..100).map(|i| format!("unknown-{i}")).collect();
    for id in absent.into_iter().take(200).chain(&unknown) {
        let proof = prove(&lake, &settlements, &EventId::new(id).unwrap(), (day, None)).await.unwrap();
        assert!(!proof.is_billed() && holds(&folder, &proof), "{id}");
        let lie = Proof { event_id: proofs[0].event_id.clone(), ..proof };
        assert!(!holds(&folder, &lie), "what is billed is not absent");
    }
    on_the_command_line(&ledger, &folder, proofs[0].event_id.as_str());
}

/// The same by the commands a person types, with the list of keys pinned.
fn on_the_command_line(ledger: &Ledger, folder: &Path, id: &str) {
    let folder = folder.to_str().unwrap();
    let keys = ledger.data().join("settlement/keys.json");
    let verify = |proof: &str| {
        ["settlement", "verify", "--key", keys.to_str().unwrap(), "--proof", proof, folder].map(str::to_owned)
    };
    let proven = ledger.ok(&["settlement", "prove", "--event", id]).stdout;
    for (name, text, code) in
        [("good.json", proven.clone(), 0), ("bent.json", proven.replace("|click|", "|conversion|"), 13)]
    {
        std::fs::write(ledger.path().join(name), text).unwrap();
        let args = verify(name);
        let answer = ledger.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(answer.code, code, "{name}: {}\n{}", answer.stdout, answer.stderr);
        assert_eq!(answer.json()["signedBy"]["trust"], "pinned");
    }
    assert_eq!(ledger.run(&["settlement", "prove", "--event", "nobody"]).code, 2, "no day bills it");
    let whole = ledger.ok(&["settlement", "verify", "--key", keys.to_str().unwrap(), folder]).json();
    assert_eq!(whole["sound"], true);

    ledger.ok(&["keys", "rotate", "settlement"]);
    let list = ledger.ok(&["keys", "list", "--output", "json"]).stdout;
    assert!(list.contains("\"retired\"") && !list.contains("seed"), "{list}");
    assert_eq!(
        ledger.ok(&["settlement", "verify", folder]).json()["signedBy"]["trust"],
        "listed",
        "an old key stays good"
    );
    let old = serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&keys).unwrap()).unwrap();
    let key = |i: usize| old["keys"][i]["publicKey"].as_str().unwrap().to_owned();
    assert_eq!(ledger.run(&["settlement", "verify", "--key", &key(0), folder]).code, 0);
    assert_eq!(ledger.run(&["settlement", "verify", "--key", &key(1), folder]).code, 13, "the new key did not sign it");
}

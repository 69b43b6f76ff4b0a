//! H8: the log once more into a store of its own gives what the speed layer gave, whatever restarts that had.

use std::time::Duration;

use shared::shutdown::Shutdown;

use crate::outside::Outside;
use crate::support::Ledger;

const DAY: &str = "2026-01-05";
/// Far longer than anything under test takes.
const GUARD: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gives_the_rows_that_speed_gave() {
    agrees(&Ledger::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_from_kafka_gives_the_rows_that_speed_gave() {
    let mut ledger = Ledger::new();
    let _kafka = Outside::kafka(&mut ledger);
    agrees(&ledger).await;
}

async fn agrees(ledger: &Ledger) {
    ledger.ok(&["keys", "create", "signing"]);
    let history = ["--events", "6000", "--days", "1", "--from", DAY, "--late", "100", "--to", "history.ndjson"];
    ledger.ok(&[&["simulate"][..], &history].concat());
    ledger.ok(&["prices", "import", "history.prices.csv"]);
    ledger.ok(&["import", "history.ndjson"]);
    // Some of it, a restart, the rest.
    ledger.ok(&["speed", "--run-for", "1s"]);
    let ends = speed_to_the_end(ledger).await;

    let replay = |more: &[&str]| ledger.run(&[&["replay", "--to", "shadow.sqlite"], more].concat());
    let told = replay(&[]);
    let told = (told.code, told.json());
    assert_eq!((told.0, told.1["records"].as_u64()), (0, Some(ends.iter().map(|(_, end)| end).sum())), "{told:?}");
    let live = ledger.data().join("serving/rollups.sqlite");
    let stores = ["--left", "shadow.sqlite", "--right", live.to_str().unwrap()];
    let days = ["--from", DAY, "--to", "2026-01-06"];
    let compared = ledger.ok(&[&["serving", "verify"], &stores[..], &days].concat()).json();
    assert!(compared["compared"].as_u64() > Some(100), "{compared}");

    // A store that has rows is not written into: the live one least of all.
    let refused = replay(&[]);
    assert!(refused.code == 2 && refused.stderr.contains("name an empty one"), "{refused:?}");
    std::fs::remove_file(ledger.path().join("shadow.sqlite")).unwrap();

    // A part: from a position in one partition, from a time to a time.
    let (partition, end) = *ends.iter().max_by_key(|(_, end)| *end).unwrap();
    let others: u64 = ends.iter().filter(|(p, _)| *p != partition).map(|(_, end)| end).sum();
    let told = replay(&["--from-position", &format!("{partition}:{}", end - 7)]).json();
    assert_eq!(told["records"].as_u64(), Some(others + 7), "{told}");
    std::fs::remove_file(ledger.path().join("shadow.sqlite")).unwrap();
    let told = replay(&["--from-time", "2026-01-05T00:00:00Z", "--until-time", "2026-01-06T00:00:00Z"]).json();
    assert_eq!(told["records"], 0, "nothing was appended then: {told}");
}

/// Runs the speed layer until it has shown the whole log; where each partition ends.
async fn speed_to_the_end(ledger: &Ledger) -> Vec<(u32, u64)> {
    let parts = ledger.parts();
    let (logs, store, stop) =
        (parts.log_reader().await.unwrap(), parts.serving_store().await.unwrap(), Shutdown::new());
    let ends: Vec<(u32, u64)> = logs.events.bounds().await.unwrap().end.0.into_iter().collect();
    let speed = tokio::spawn(parts.speed(logs, &stop).await.unwrap().run(stop.clone()));
    let shown = async {
        loop {
            let writers = store.writers().await.unwrap();
            if ends.iter().all(|(p, end)| writers.get(p).is_some_and(|status| status.next_position == *end)) {
                return;
            }
            shared::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(GUARD, shown).await.is_ok(), "speed does not come to the end of the log");
    stop.request();
    speed.await.unwrap().unwrap();
    ends
}

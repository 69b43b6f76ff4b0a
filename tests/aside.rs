//! An acknowledged event that the broker refuses for its size: everything after it goes on, the day is not published though
//! the numbers would do, `doctor` says what is wrong, and once the topic takes it, it is billed.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::time::Duration;

use bytes::Bytes;
use clickledger::client::Client;
use clickledger::simulate::{Label, Live};
use rand::{RngExt, SeedableRng};
use shared::time::{Clock, Day, SystemClock, sleep};

use crate::kill::{free_port, furnish, traffic};
use crate::outside::Outside;
use crate::support::Ledger;

/// Far longer than anything here takes.
const GUARD: Duration = Duration::from_secs(120);

fn within<T>(runtime: &tokio::runtime::Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(GUARD, work).await.expect("it does not come to pass") })
}

/// Honest events of a minute, signed.
fn honest(ledger: &Ledger, number: usize, seed: u64) -> Vec<String> {
    let mut live = Live::new(traffic(seed), ledger.parts().event_signer().unwrap());
    let now = SystemClock::default().now();
    let items = std::iter::from_fn(|| Some(live.next_at(now)));
    let fresh = items.filter(|item| matches!(item.label, Label::Fresh)).take(number);
    fresh.map(|item| String::from_utf8(item.body).unwrap()).collect()
}

/// Sends events until each is acknowledged.
async fn send(address: std::net::SocketAddr, events: &[String]) {
    let (mut connection, kind) = (Client::new(address), [("content-type", "application/json")]);
    for event in events {
        loop {
            let answer = connection.send("POST", "/v1/events", &kind, Bytes::from(event.clone())).await;
            match answer {
                Ok(answer) if answer.status == 202 => break,
                Ok(answer) => assert_eq!(answer.status, 503, "{}", String::from_utf8_lossy(&answer.body)),
                Err(_) => sleep(Duration::from_millis(50)).await, // it is not there yet
            }
        }
    }
}

fn stop(mut gateway: Child) {
    assert!(Command::new("kill").args(["-TERM", &gateway.id().to_string()]).status().unwrap().success());
    assert!(gateway.wait().unwrap().success());
}

/// Waits until so many events and notes have come to the topics.
async fn wait_for(ledger: &Ledger, events: u64, notes: u64) {
    let logs = ledger.parts().log_reader().await.unwrap();
    loop {
        let ends = (logs.events.bounds().await.unwrap().end, logs.dead_letters.bounds().await.unwrap().end);
        if ends.0.0.values().sum::<u64>() >= events && ends.1.0.values().sum::<u64>() >= notes {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until nothing is set aside.
async fn wait_for_delivery(ledger: &Ledger) {
    let aside = ledger.data().join("state/forward-events.aside");
    while std::fs::read_dir(&aside).unwrap().next().is_some() {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Sets the largest record that the topic takes, as an administrator does.
fn limit_topic(ledger: &Ledger, bytes: u32) {
    let kafka = &ledger.settings().kafka;
    let script = r#"
        libs=("${CLICKLEDGER_PARTS:-${XDG_CACHE_HOME:-$HOME/.cache}/clickledger-parts}"/kafka-*/libs)
        java -cp "$libs/*" kafka.admin.ConfigCommand --bootstrap-server "$1" --alter --entity-type topics \
            --entity-name "$2" --add-config "max.message.bytes=$3""#;
    let mut command = Command::new("bash");
    let done = command.args(["-c", script, "-", &kafka.bootstrap, &kafka.events_topic, &bytes.to_string()]).output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_day_that_lacks_an_event_which_was_set_aside_is_not_published_until_it_is_delivered() {
    let mut ledger = Ledger::new();
    let listen = free_port();
    ledger.set("GATEWAY__LISTEN", listen);
    let _kafka = Outside::kafka(&mut ledger);
    limit_topic(&ledger, 8_192);
    let doctor = ledger.run(&["doctor"]);
    assert!((doctor.stdout.clone() + &doctor.stderr).contains("max.message.bytes=8192"), "{doctor:?}");
    furnish(&ledger);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let today = || SystemClock::default().now().day();
    let mut days: BTreeSet<Day> = [today()].into();

    // Events that no tally has, because their gateway was killed: they would make up for one that is missing.
    let events = honest(&ledger, 41, 1);
    let mut gateway = ledger.spawn("gateway", &["gateway"]);
    within(&runtime, send(listen, &events[..20]));
    within(&runtime, wait_for(&ledger, 20, 0));
    gateway.kill().unwrap();
    gateway.wait().unwrap();

    let mut dice = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let noise: String = (0..30_000).map(|_| char::from(dice.random_range(b'a'..=b'z'))).collect();
    let large = format!(r#"{{"more":"{noise}",{}"#, events[40].trim_start().trim_start_matches('{'));
    let gateway = ledger.spawn("gateway", &["gateway"]);
    within(&runtime, send(listen, &[large]));
    within(&runtime, send(listen, &events[20..40]));
    within(&runtime, wait_for(&ledger, 20, 1));
    stop(gateway);
    days.insert(today());

    ledger.ok(&["lake", "--drain"]);
    let run = |day: &Day| ledger.run(&["batch", "run", "--force", "--date", &day.to_string()]);
    let refused: Vec<_> = days.iter().map(run).filter(|answer| answer.code == 13).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].stderr.contains("set aside"), "{}", refused[0].stderr);

    limit_topic(&ledger, 2 << 20);
    let gateway = ledger.spawn("gateway", &["gateway"]); // tries again when it starts
    within(&runtime, wait_for_delivery(&ledger));
    stop(gateway);
    ledger.ok(&["lake", "--drain"]);
    // What the killed gateway had sent and not noted came twice.
    let counted = |day: &Day| {
        let answer = run(day);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let verdicts = answer.json()["verdicts"].as_object().unwrap().clone();
        verdicts.iter().filter(|(v, _)| *v != "duplicate").filter_map(|(_, n)| n.as_u64()).sum::<u64>()
    };
    assert_eq!(days.iter().map(counted).sum::<u64>(), 41, "each once");
}

//! The demo, as a new user runs it: on a clean folder, to its end.

use crate::support::Ledger;

#[test]
fn the_demo_settles_its_day_and_leaves_a_folder_that_verifies() {
    let ledger = Ledger::new();
    let answer = ledger.ok(&["demo", "--exit", "--data", "demo", "--seconds", "15", "--output", "json"]);
    let line = answer.json();
    assert_eq!(line["verified"], true);
    for verdict in ["billable", "conflict", "repeat_click", "invalid:bad_signature", "invalid:known_bot"] {
        assert!(line["batch"][verdict].as_u64() > Some(0), "the demo has no {verdict}: {line}");
    }
    let folder = format!("demo/{}", line["settlement"]["folder"].as_str().unwrap());
    ledger.ok(&["settlement", "verify", &folder]);
    let listed = ledger.ok(&["bad", "list", "--data", "demo", "--output", "csv"]);
    for reason in ["malformed", "unauthorized", "duplicate"] {
        assert!(listed.stdout.contains(reason), "no {reason} among the refused:\n{}", listed.stdout);
    }
}

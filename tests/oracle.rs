//! The oracle: two million events of three days, with every case of the counting rules, through `import`, the lake,
//! `batch` and `reconcile`; DuckDB, reading the same lines by the contract alone, must give the same numbers to the
//! unrounded unit. Then the same again must change nothing (`rerun`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use clickledger::settings::Settings;
use serde_json::{Value, json};

use crate::support::{Ledger, python};

const EVENTS: &str = "2000000";
/// The first day's history; late events of this day come two days after.
const FIRST: &str = "2026-01-05";
/// Billing days: events at the bound for old ones bill seven days before the history begins.
const FROM: &str = "2025-12-29";
const TO: &str = "2026-01-08";
/// What is imported before the first day is settled for the first time.
const CUT: &str = "2026-01-07T00:00:00Z";

/// A history that is imported, recounted, settled and restated.
pub(crate) struct History {
    pub(crate) ledger: Ledger,
    /// The settled days' answers, by day.
    pub(crate) first: Value,
    pub(crate) second: Value,
}

/// Made once for all tests of this binary.
pub(crate) fn history() -> &'static History {
    static MADE: OnceLock<History> = OnceLock::new();
    MADE.get_or_init(|| make(Ledger::new(), EVENTS))
}

fn make(ledger: Ledger, events: &str) -> History {
    ledger.ok(&["keys", "create", "signing"]);
    let three_days = ["simulate", "--days", "3", "--from", FIRST, "--seed", "7", "--to", "history.ndjson"];
    ledger.ok(&[&three_days[..], &["--events", events]].concat());
    ledger.ok(&["prices", "import", "history.prices.csv"]);
    split(ledger.path());
    import(&ledger, "before.ndjson");
    // The speed layer sees the history too, as far as it comes; what it shows must not matter in the end.
    ledger.ok(&["speed", "--run-for", "10s"]);
    ledger.ok(&["batch", "run", "--date", FIRST]);
    let first = ledger.ok(&["reconcile", "run", "--force", "--date", FIRST]).json();
    import(&ledger, "after.ndjson");
    adjust(&ledger);
    ledger.ok(&["speed", "--run-for", "10s"]);
    ledger.ok(&["batch", "run", "--from", FROM, "--to", TO]);
    ledger.ok(&["reconcile", "run", "--force", "--from", FROM, "--to", TO]);
    let second = ledger.ok(&["settlement", "show", "--date", FIRST]);
    let second = serde_json::from_str(&second.stdout).unwrap();
    History { ledger, first, second }
}

fn import(ledger: &Ledger, file: &str) {
    let done = ledger.ok(&["import", file]).json();
    assert!(done["refused"].as_u64() > Some(0), "the history has poison in it: {done}");
    ledger.ok(&["lake", "--drain"]);
}

/// Adjusts the first day, which is settled, and the second, which is not: 0.1 to 2 % of events is an ordinary load. The
/// second file repeats half of the first and comes in another order.
fn adjust(ledger: &Ledger) {
    let row = |n: usize| {
        let (day, currency) = (["05", "06"][usize::from(n.is_multiple_of(5))], ["EUR", "USD", "JPY"][n % 3]);
        let micros = (i64::try_from(n).unwrap() * 7_919_321) % 5_000_003 - 2_500_001;
        let reason = ["fraud_review", "make_good", "overdelivery", "late_data", "other"][n % 5];
        format!("adj-{n},2026-01-{day},camp-{},{currency},-{},{micros},{reason},ann\n", n % 97, n % 4)
    };
    let head = "adjustmentId,day,campaignId,currency,clicks,amountMicros,reason,actor\n".to_owned();
    let first: String = (0..6_000).map(row).collect();
    let second: String = (3_000..9_000).rev().map(row).collect();
    for (file, rows) in [("adjust-1.csv", first), ("adjust-2.csv", second)] {
        std::fs::write(ledger.path().join(file), head.clone() + &rows).unwrap();
        ledger.ok(&["adjust", "import", file]);
    }
    let again = ledger.ok(&["adjust", "import", "adjust-1.csv"]).json();
    assert_eq!((again["added"].as_u64(), again["repeated"].as_u64()), (Some(0), Some(6_000)), "{again}");
}

/// Splits the history where its ingest time passes [`CUT`]; the journal says when each line is sent.
fn split(folder: &Path) {
    let cut = shared::time::Timestamp::parse(CUT).unwrap().0;
    let journal = BufReader::new(File::open(folder.join("history.journal.csv")).unwrap());
    let before = journal.lines().skip(1).filter(|l| sent_at(l.as_ref().unwrap()) < cut).count();
    let mut lines = BufReader::new(File::open(folder.join("history.ndjson")).unwrap()).split(b'\n');
    for (name, count) in [("before.ndjson", before), ("after.ndjson", usize::MAX)] {
        let mut out = BufWriter::new(File::create(folder.join(name)).unwrap());
        for line in lines.by_ref().take(count) {
            out.write_all(&line.unwrap()).unwrap();
            out.write_all(b"\n").unwrap();
        }
        out.flush().unwrap();
    }
}

fn sent_at(journal_line: &str) -> i64 {
    journal_line.split(',').nth(2).unwrap().parse().unwrap()
}

#[test]
fn batch_agrees_with_duckdb_on_every_cell_line_and_verdict() {
    let history = history();
    agrees(&history.ledger, Settings::default().log.partitions, &history.ledger.data());
}

/// The same on Kafka, ClickHouse and S3, of a tenth of the events.
#[cfg(all(feature = "clickhouse", feature = "kafka", feature = "redis", feature = "s3"))]
#[test]
fn on_every_real_part_batch_agrees_with_duckdb_on_every_cell_line_and_verdict() {
    let mut ledger = Ledger::new();
    let outside = crate::outside::Outside::everything(&mut ledger);
    let ledger = make(ledger, "200000").ledger;
    let parts = ledger.parts();
    // What the bucket's server has on its disk, as the oracle wants it.
    let copy = ledger.path().join("copy");
    let object_store = &parts.settings().object_store;
    for (url, from, to) in
        [(&object_store.lake_url, "", "lake"), (&object_store.published_url, "settlement", "settlement")]
    {
        let kept = ledger.path().join("s3").join(url.trim_start_matches("s3://")).join(from);
        crate::rerun::copy_folder(&kept, &copy.join(to));
    }
    agrees(&ledger, parts.settings().kafka.partitions, &copy);
    drop(outside);
}

/// The oracle recounts the lines that were imported and compares with lake and settlements in `data`.
fn agrees(ledger: &Ledger, partitions: u32, data: &Path) {
    let folder = ledger.path();
    let settings = Settings::default();
    let rules = json!({
        "counting": settings.counting,
        "partitions": partitions,
        "region": settings.region,
        "max_validity_seconds": settings.gateway.dedup.window.0.as_secs(),
    });
    std::fs::write(folder.join("rules.json"), rules.to_string()).unwrap();
    let keys = ledger.data().join("keys/signing_keys.json");
    let out = folder.join("oracle");
    let recount = [
        "--rules".into(),
        "rules.json".into(),
        "--keys".into(),
        keys,
        "--prices".into(),
        "history.prices.csv".into(),
        "--out".into(),
        out.clone(),
        "before.ndjson".into(),
        "after.ndjson".into(),
    ];
    run_python(folder, "recount.py", &recount);
    run_python(folder, "compare.py", &[data.join("lake"), out.clone()]);
    let adjustments = ["adjust-1.csv".into(), "adjust-2.csv".into()];
    run_python(folder, "settled.py", &[[data.to_owned(), out].as_slice(), &adjustments].concat());
}

fn run_python(folder: &Path, script: &str, args: &[PathBuf]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(script);
    let done = Command::new(python()).arg(&script).args(args).current_dir(folder).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}\n{out}\n{err}", script.display());
    println!("{}: {}", script.display(), out.lines().last().unwrap_or_default());
}

#[test]
fn late_events_after_close_make_a_new_version_that_supersedes_the_first() {
    let history = history();
    assert_eq!(history.first["outcome"], "settled", "{}", history.first);
    assert_eq!(history.first["settlement"]["version"], 1);
    assert_eq!(history.second["version"], 2, "{}", history.second);
    assert_eq!(history.second["supersedes"], 1);
    assert!(history.second["reason"].as_str().is_some_and(|r| !r.is_empty()));
    for version in ["1", "2"] {
        let folder = format!("data/settlement/day={FIRST}/v={version}");
        let verified = history.ledger.ok(&["settlement", "verify", &folder]).json();
        assert_eq!(verified["sound"], true);
    }
}

#[test]
fn sequence_numbers_of_settlements_have_no_gap() {
    let listed = history().ledger.ok(&["settlement", "list", "--output", "json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let sequence: BTreeMap<u64, &Value> =
        listed.as_array().unwrap().iter().map(|s| (s["sequence"].as_u64().unwrap(), s)).collect();
    let expected: Vec<u64> = (1..=sequence.len() as u64).collect();
    assert_eq!(sequence.keys().copied().collect::<Vec<_>>(), expected);
    assert!(expected.len() >= 4);
}

//! Disputes (AT20): a partner's file that differs from our settlement by known differences of method, and the causes
//! that `settlement diff` names. The partner counts here, naively, from the traffic itself; what it does not count
//! because it is forged or no event, the simulator's journal tells it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::OnceLock;

use clickledger::settings::Settings;
use serde_json::Value;
use shared::partition::partition_of;
use shared::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};

use crate::rerun::copy_folder;
use crate::support::{Ledger, python};

/// The disputed day, on the partner's wall clock.
pub(crate) const DAY_OF_THEIRS: &str = "2026-01-06";

/// One event as the partner saw it.
#[derive(Debug, Clone)]
struct Seen {
    id: String,
    kind: String,
    campaign: String,
    impression: Option<String>,
    is_bot: bool,
    at: i64,
    ingest: i64,
    /// Where it lies in our log: what decides among events of one instant.
    partition: u32,
}

/// How a partner counts.
#[derive(Debug, Clone, Copy)]
struct Method {
    /// Their wall clock ahead of UTC, microseconds.
    ahead: i64,
    /// Clicks on one impression closer than this are one, microseconds.
    window: i64,
    counts_bots: bool,
    counts_again: bool,
    /// What arrives later than this is not counted.
    patience: i64,
}

/// Our own way.
const OURS: Method = Method { ahead: 0, window: DAY, counts_bots: false, counts_again: false, patience: i64::MAX };

pub(crate) struct World {
    pub(crate) ledger: Ledger,
    seen: Vec<Seen>,
}

pub(crate) fn world() -> &'static World {
    static MADE: OnceLock<World> = OnceLock::new();
    MADE.get_or_init(|| {
        let ledger = Ledger::new();
        ledger.ok(&["keys", "create", "signing"]);
        let history = ["simulate", "--events", "60000", "--days", "4", "--from", "2026-01-04", "--seed", "11"];
        ledger.ok(&[&history[..], &["--bots", "30", "--duplicates", "30", "--to", "history.ndjson"]].concat());
        ledger.ok(&["prices", "import", "history.prices.csv"]);
        ledger.ok(&["import", "history.ndjson"]);
        let seen = seen(ledger.path());
        ledger.ok(&["import", "more.ndjson"]);
        ledger.ok(&["lake", "--drain"]);
        let days = ["--from", "2026-01-03", "--to", "2026-01-08"];
        ledger.ok(&[&["batch", "run"][..], &days].concat());
        ledger.ok(&["reconcile", "run", "--force", "--date", DAY_OF_THEIRS]);
        World { ledger, seen }
    })
}

fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Number(millis) => Some(millis.as_i64()? * 1_000),
        Value::String(text) => text.parse::<i64>().ok().map(|m| m * 1_000).or(Timestamp::parse(text).map(|t| t.0)),
        _ => None,
    }
}

/// The traffic, without what is forged or no event.
fn seen(folder: &Path) -> Vec<Seen> {
    let open = |name: &str| BufReader::new(std::fs::File::open(folder.join(name)).unwrap());
    let labels = open("history.journal.csv").lines().skip(1).map(|l| l.unwrap().split(',').nth(1).unwrap().to_owned());
    let (mut all, mut more): (Vec<Seen>, Vec<_>) = (Vec::new(), Vec::new());
    for (label, line) in labels.zip(open("history.ndjson").split(b'\n')) {
        let is_event = label != "poison" && label != "forged";
        let Ok(Value::Object(row)) = serde_json::from_slice(&line.unwrap()) else { continue };
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(ingest) = row.get("ingestTime").and_then(time).filter(|_| is_event) else { continue };
        let event = row.get("timestamp").and_then(time).unwrap();
        let is_in_bounds = (-5 * MINUTE..=7 * DAY).contains(&(ingest - event));
        let agent = text("userAgent").unwrap_or_default().to_lowercase();
        all.push(Seen {
            id: text("eventId").or(text("clickId")).unwrap(),
            kind: text("eventType").unwrap(),
            campaign: text("campaignId").unwrap(),
            impression: text("impressionId"),
            is_bot: ["bot", "crawler", "spider", "headless", "curl/", "python-requests"]
                .iter()
                .any(|b| agent.contains(b)),
            at: if is_in_bounds { event } else { ingest },
            ingest,
            partition: partition_of(&text("adId").unwrap(), Settings::default().log.partitions),
        });
        if all.len() % 7 == 0 {
            more.extend(again(all.last().unwrap(), &row, all.len()));
        }
    }
    let mut out = std::fs::File::create(folder.join("more.ndjson")).unwrap();
    for (event, line) in more {
        writeln!(out, "{line}").unwrap();
        all.push(event);
    }
    all.sort_by_key(|e| (e.ingest, e.partition)); // stable: file order decides among equals
    all
}

/// The simulator repeats clicks within seconds or after a day; people also do after minutes and hours.
fn again(click: &Seen, row: &serde_json::Map<String, Value>, n: usize) -> Option<(Seen, Value)> {
    let gaps = [5 * SECOND, 40 * SECOND, 5 * MINUTE, 20 * MINUTE, 45 * MINUTE, 3 * HOUR, 10 * HOUR];
    if click.kind != "click" || click.impression.is_none() || click.is_bot {
        return None;
    }
    let at = click.ingest + gaps[n / 7 % gaps.len()];
    let id = format!("again-{n}");
    let time = Timestamp(at).to_string();
    let line = serde_json::json!({
        "eventId": id, "eventType": "click", "adId": row["adId"], "campaignId": row["campaignId"],
        "impressionId": row["impressionId"], "timestamp": time, "ingestTime": time,
    });
    Some((Seen { id, at, ingest: at, ..click.clone() }, line))
}

/// What a partner with this method counts.
fn count(seen: &[Seen], method: Method) -> Vec<Seen> {
    let (mut ids, mut clicks) = (HashSet::new(), HashMap::new());
    let mut counted = Vec::new();
    for event in seen {
        let is_first = ids.insert(&event.id);
        if !is_first && !method.counts_again {
            continue;
        }
        if event.is_bot && !method.counts_bots {
            continue;
        }
        let mut repeats = false;
        if let (true, false, "click", Some(impression)) =
            (is_first, event.is_bot, event.kind.as_str(), &event.impression)
        {
            let before = clicks.insert(impression, event.ingest);
            repeats = before.is_some_and(|b: i64| event.ingest - b < method.window);
        }
        if !repeats && event.ingest - event.at <= method.patience {
            counted.push(event.clone());
        }
    }
    counted
}

fn local_day(at: i64) -> String {
    Timestamp(at).day().to_string()
}

/// Writes their report by campaign and day (or hour).
fn report(file: &Path, counted: &[Seen], method: Method, by_hour: bool) {
    let mut rows: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
    for event in counted {
        let local = event.at + method.ahead;
        if local_day(local) != DAY_OF_THEIRS {
            continue;
        }
        let hour = local.rem_euclid(DAY) / HOUR;
        let period = if by_hour { format!("{DAY_OF_THEIRS} {hour:02}:00") } else { DAY_OF_THEIRS.to_owned() };
        let row = rows.entry((event.campaign.clone(), period)).or_default();
        row[["impression", "click", "conversion"].iter().position(|k| *k == event.kind).unwrap()] += 1;
    }
    let mut out = std::fs::File::create(file).unwrap();
    let when = if by_hour { "Time" } else { "Date" };
    writeln!(out, "Campaign ID,{when},Views,Clicks,Conversions").unwrap();
    for ((campaign, period), [views, clicks, conversions]) in rows {
        writeln!(out, "{campaign},{period},{views},{clicks},{conversions}").unwrap();
    }
}

/// Disputes their file; answers the JSON line.
fn diff(file: &str, more: &[&str]) -> Value {
    diff_in(&world().ledger, file, more)
}

fn diff_in(ledger: &Ledger, file: &str, more: &[&str]) -> Value {
    let args = ["settlement", "diff", "--output", "json", "--date", DAY_OF_THEIRS, "--theirs", file];
    let answer = ledger.run(&[&args[..], more].concat());
    assert!([0, 11].contains(&answer.code), "{}", answer.stderr);
    answer.json()
}

fn dispute(name: &str, method: Method, by_hour: bool) -> Value {
    let world = world();
    report(&world.ledger.path().join(name), &count(&world.seen, method), method, by_hour);
    diff(name, &[])
}

fn causes(dispute: &Value) -> Vec<Value> {
    dispute["verdict"]["causes"].as_array().unwrap_or(&Vec::new()).clone()
}

fn zone(minutes: i32) -> Value {
    serde_json::json!({ "kind": "timeZone", "offsetMinutes": minutes })
}

fn window(seconds: i64) -> Value {
    serde_json::json!({ "kind": "repeatWindow", "seconds": seconds })
}

#[test]
fn a_time_zone_and_another_window_are_both_named() {
    let method = Method { ahead: 2 * HOUR, window: HOUR, ..OURS };
    for (name, by_hour) in [("days.csv", false), ("hours.csv", true)] {
        let found = dispute(name, method, by_hour);
        let named = causes(&found);
        assert!(named.len() == 2 && named.contains(&zone(120)) && named.contains(&window(3_600)), "{name}: {found:#}");
        assert!(found["verdict"]["explainedPpm"].as_i64().unwrap() > 990_000, "{}", found["verdict"]);
        assert!(found["verdict"]["eventsBefore"].as_u64() > found["verdict"]["eventsAfter"].as_u64());
    }
}

#[test]
fn each_difference_of_method_is_told_from_the_others() {
    for (name, method, cause) in [
        ("zone.csv", Method { ahead: -(3 * HOUR + 30 * MINUTE), ..OURS }, zone(-210)),
        ("every.csv", Method { window: 0, ..OURS }, window(0)),
        (
            "bots.csv",
            Method { counts_bots: true, ..OURS },
            serde_json::json!({ "kind": "invalidCounted", "code": "known_bot" }),
        ),
        (
            "late.csv",
            Method { patience: 3_600 * SECOND, ..OURS },
            serde_json::json!({ "kind": "lateNotCounted", "seconds": 3_600 }),
        ),
    ] {
        let found = dispute(name, method, false);
        assert_eq!(causes(&found), [cause], "{name}: {:#}", found["hypotheses"]);
        assert!(found["verdict"]["explainedPpm"].as_i64().unwrap() > 950_000, "{}", found["verdict"]);
    }
}

#[test]
fn what_came_after_our_settlement_is_named_where_they_count_it() {
    let world = world();
    let ledger = Ledger::new();
    copy_folder(&world.ledger.data(), &ledger.data());
    // A tenth of what they saw of the day comes to us again as other clicks, two days after it.
    let mut seen = world.seen.clone();
    let of_day = world.seen.iter().filter(|e| e.kind == "impression" && local_day(e.at) == DAY_OF_THEIRS);
    let mut out = std::fs::File::create(ledger.path().join("late.ndjson")).unwrap();
    for (n, event) in of_day.step_by(10).enumerate() {
        let late = Seen { id: format!("late-{n}"), is_bot: false, ingest: event.at + 2 * DAY, ..event.clone() };
        let line = serde_json::json!({
            "eventId": late.id, "eventType": "impression", "adId": "ad-late", "campaignId": late.campaign,
            "timestamp": Timestamp(late.at).to_string(), "ingestTime": Timestamp(late.ingest).to_string(),
        });
        writeln!(out, "{line}").unwrap();
        seen.push(late);
    }
    ledger.ok(&["import", "late.ndjson"]);
    ledger.ok(&["lake", "--drain"]);
    assert_eq!(ledger.ok(&["batch", "run", "--date", DAY_OF_THEIRS]).json()["outcome"], "restated");
    report(&ledger.path().join("theirs.csv"), &count(&seen, OURS), OURS, false);
    let found = diff_in(&ledger, "theirs.csv", &[]);
    assert_eq!(causes(&found), [serde_json::json!({ "kind": "lateCounted" })], "{:#}", found["hypotheses"]);
    assert!(found["verdict"]["explainedPpm"].as_i64().unwrap() > 990_000, "{}", found["verdict"]);
}

#[test]
fn their_file_may_be_parquet() {
    let world = world();
    let method = Method { window: HOUR, ..OURS };
    let csv = world.ledger.path().join("as.csv");
    report(&csv, &count(&world.seen, method), method, false);
    let copy = format!("import duckdb; duckdb.sql(\"COPY (FROM '{0}') TO '{0}.parquet'\")", csv.display());
    assert!(std::process::Command::new(python()).args(["-c", &copy]).status().unwrap().success());
    let (text, parquet) = (diff("as.csv", &[]), diff("as.csv.parquet", &[]));
    assert_eq!(causes(&parquet), [window(3_600)], "{:#}", parquet["hypotheses"]);
    assert_eq!((&parquet["summary"], &parquet["verdict"]), (&text["summary"], &text["verdict"]));
}

#[test]
fn a_partner_who_counts_as_we_do_matches_in_every_line() {
    let found = dispute("same.csv", OURS, false);
    assert_eq!(found["summary"]["equal"].as_u64(), found["theirRows"].as_u64(), "{}", found["lines"]);
    assert_eq!((&found["verdict"], &found["isWithinTolerance"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!(found["totals"][1]["differencePpm"], 0);
}

#[test]
fn single_clicks_are_matched_by_id() {
    let world = world();
    let method = Method { window: HOUR, ..OURS };
    let file = world.ledger.path().join("clicks.csv");
    let mut out = std::fs::File::create(&file).unwrap();
    writeln!(out, "click_id,time").unwrap();
    let clicks: Vec<Seen> = count(&world.seen, method).into_iter().filter(|e| e.kind == "click").collect();
    let clicks = clicks.iter().filter(|e| local_day(e.at) == DAY_OF_THEIRS);
    let mut sent = 0;
    for click in clicks.skip(5) {
        writeln!(out, "{},{}", click.id, Timestamp(click.at)).unwrap();
        sent += 1;
    }
    drop(out);
    let found = diff("clicks.csv", &[]);
    assert_eq!((&found["grain"], found["theirRows"].as_u64()), (&Value::from("click"), Some(sent)));
    assert_eq!(causes(&found), [window(3_600)], "{:#}", found["hypotheses"]);
    // The five that they leave out are what is left.
    assert_eq!(found["verdict"]["eventsAfter"], 5, "{}", found["verdict"]);
    assert_eq!(found["verdict"]["after"]["oursOnly"], 5);
}

#[test]
fn amounts_in_another_currency_or_rounded_are_named_and_the_page_stands_alone() {
    let world = world();
    // Their amounts are ours by campaign and currency, from the published lines.
    let folder = world.ledger.data().join(format!("settlement/day={DAY_OF_THEIRS}/v=1"));
    let lines = std::process::Command::new("gzip").arg("-dc").arg(folder.join("lines-0000.csv.gz")).output().unwrap();
    let text = String::from_utf8(lines.stdout).unwrap();
    let mut rows = text.lines().map(|l| l.split(',').map(str::to_owned).collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let at = |name: &str| head.iter().position(|h| h == name).unwrap();
    let (campaign, currency, nanos) = (at("campaign_id"), at("currency"), at("cost_nanos"));
    let mut sums: BTreeMap<(String, String), i128> = BTreeMap::new();
    for row in rows {
        *sums.entry((row[campaign].clone(), row[currency].clone())).or_default() += row[nanos].parse::<i128>().unwrap();
    }
    sums.retain(|_, nanos| *nanos > 0);
    assert!(sums.len() > 3);
    let write = |name: &str, amount: &dyn Fn(i128) -> String| {
        let mut out = std::fs::File::create(world.ledger.path().join(name)).unwrap();
        writeln!(out, "campaign,spend,currency").unwrap();
        for ((campaign, currency), nanos) in &sums {
            writeln!(out, "{campaign},{},{currency}", amount(*nanos)).unwrap();
        }
    };
    write("cents.csv", &|nanos| {
        let cents = (nanos + 5_000_000) / 10_000_000;
        format!("{}.{:02}", cents / 100, cents % 100)
    });
    let found = diff("cents.csv", &[]);
    assert_eq!(causes(&found), [serde_json::json!({ "kind": "rounded", "decimals": 2 })], "{:#}", found["hypotheses"]);

    write("taxed.csv", &|nanos| {
        format!("{}.{:09}", nanos * 119 / 100 / 1_000_000_000, nanos * 119 / 100 % 1_000_000_000)
    });
    let found = diff("taxed.csv", &["--html", "taxed.html"]);
    let cause = &causes(&found)[0];
    assert_eq!(cause["kind"], "factor", "{:#}", found["hypotheses"]);
    assert!((cause["ppm"].as_i64().unwrap() - 1_190_000).abs() <= 1, "{cause}");
    assert_eq!(found["isWithinTolerance"], false);
    let page = std::fs::read_to_string(world.ledger.path().join("taxed.html")).unwrap();
    assert!(page.contains("ours times 1.19"), "{page}");
    assert!(!page.contains("<script") && !page.contains("http"), "the page loads something");
}

#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let world = world();
    std::fs::write(world.ledger.path().join("bad.csv"), "Kampagne,Klicks\nc,1\n").unwrap();
    let run = |more: &[&str]| world.ledger.run(&[&["settlement", "diff", "--theirs", "bad.csv"][..], more].concat());
    let answer = run(&[]);
    assert!(answer.code == 2 && answer.stderr.contains("--map"), "{}", answer.stderr);
    let answer = run(&["--map", "campaign=Kampagne,clicks=Klicks"]);
    assert!(answer.code == 2 && answer.stderr.contains("--date"), "{}", answer.stderr);
    let answer = run(&["--map", "campaign=Kampagne,clicks=Klicks", "--date", "2025-06-01"]);
    assert!(answer.code == 2 && answer.stderr.contains("run batch"), "{}", answer.stderr);
}

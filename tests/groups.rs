//! Speed workers as a consumer group: one, two and four processes on eight partitions of a real Kafka, with their state in
//! S3 and their rows in ClickHouse. They join, leave, die and come back, and ClickHouse is away for longer than Kafka waits
//! for a member that hangs. In the end the rows are those of one worker that read everything alone.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::time::Duration;

use clickledger::wiring::Parts;
use shared::rollup::{Counts, RollupKey};
use shared::serving_store::WriterStatus;
use shared::time::Day;

use crate::outside::Outside;
use crate::support::Ledger;

const PARTITIONS: u32 = 8;
const DAY: &str = "2026-01-05";
/// The history comes in so many pieces, one after each change of the group.
const PIECES: usize = 9;
/// The least that a broker takes; also how long a member may hang.
const SESSION: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_millis(100);
/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Workers as processes, by name.
struct Group<'a> {
    ledger: &'a Ledger,
    parts: Parts,
    running: BTreeMap<&'static str, Child>,
    runtime: tokio::runtime::Runtime,
    pieces: Vec<Vec<u8>>,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            drop(child.kill());
        }
    }
}

impl<'a> Group<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        let history = std::fs::read(ledger.path().join("history.ndjson")).unwrap();
        // Some lines are no text.
        let lines: Vec<&[u8]> = history.split(|byte| *byte == b'\n').collect();
        Self::on(ledger, lines.chunks(lines.len().div_ceil(PIECES)).map(|lines| lines.join(&b'\n')).collect())
    }

    fn on(ledger: &'a Ledger, pieces: Vec<Vec<u8>>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { ledger, parts: ledger.parts(), running: BTreeMap::new(), runtime, pieces }
    }

    fn start(&mut self, name: &'static str) {
        let child = self.ledger.spawn_with(name, &["speed"], &[("CLICKLEDGER__SPEED__GROUP_MEMBER", name.to_owned())]);
        self.running.insert(name, child);
    }

    fn end(&mut self, name: &str, signal: &str) {
        let mut child = self.running.remove(name).unwrap();
        assert!(std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(signal == "-KILL" || status.success(), "{name} ended with {status}:\n{}", self.ledger.log(name));
    }

    fn writers(&self) -> BTreeMap<u32, WriterStatus> {
        self.runtime
            .block_on(async { self.parts.serving_store().await?.writers().await.map_err(Into::into) })
            .unwrap_or_else(|e: anyhow::Error| panic!("{e}"))
    }

    fn outcomes(&self) -> Vec<BTreeMap<String, u64>> {
        self.writers().into_values().map(|status| status.outcomes).collect()
    }

    /// The next piece of the history; waits until every position of it is shown.
    fn append_and_await(&mut self) {
        self.append();
        self.await_shown();
    }

    fn append(&mut self) {
        std::fs::write(self.ledger.path().join("piece.ndjson"), self.pieces.remove(0)).unwrap();
        self.ledger.ok(&["import", "piece.ndjson"]);
    }

    fn await_shown(&mut self) {
        let ends =
            self.runtime.block_on(async { self.parts.log_reader().await.unwrap().events.bounds().await.unwrap().end });
        self.until("every position is shown", |group| {
            let writers = group.writers();
            ends.0.iter().all(|(p, end)| writers.get(p).map_or(0, |status| status.next_position) == *end)
        });
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let watch = shared::time::stopwatch();
        while !is_so(self) {
            assert!(watch.elapsed() < PATIENCE, "not: {what}\n{}", self.logs());
            for (name, child) in &mut self.running {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "{name} ended by itself ({ended:?}):\n{}", self.ledger.log(name));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Who took each partition over, at which generation and position, in the order of generations.
    fn taken(&self) -> BTreeMap<u32, BTreeMap<u32, (&'static str, u64)>> {
        let mut taken = BTreeMap::<u32, BTreeMap<u32, _>>::new();
        for name in ["w1", "w2", "w3", "w4"] {
            let log = self.ledger.log(name);
            for line in log.lines().filter(|line| line.contains("partition assigned")) {
                let number = |field: &str| -> u64 {
                    let found = line.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
                    found.unwrap_or_else(|| panic!("no {field} in {line}")).parse().unwrap()
                };
                let [partition, generation] = ["partition", "generation"].map(|f| u32::try_from(number(f)).unwrap());
                taken.entry(partition).or_default().insert(generation, (name, number("position")));
            }
        }
        taken
    }

    /// Waits until the newest owners are exactly `names`, with equal shares.
    fn await_owners(&mut self, names: &[&'static str]) {
        let share = usize::try_from(PARTITIONS).unwrap() / names.len();
        self.until(&format!("{names:?} have the partitions"), |group| {
            let mut owners = BTreeMap::<&str, usize>::new();
            for by_generation in group.taken().values() {
                let (_, (name, _)) = by_generation.last_key_value().unwrap();
                *owners.entry(name).or_default() += 1;
            }
            owners == names.iter().map(|name| (*name, share)).collect()
        });
    }

    fn logs(&self) -> String {
        ["w1", "w2", "w3", "w4"].map(|name| format!("{name}:\n{}\n", self.ledger.log(name))).concat()
    }
}

type Rows = BTreeMap<RollupKey, (Counts, Option<u64>)>;

/// What a store shows of all days around the history's.
async fn rows(parts: &Parts) -> Rows {
    let store = parts.serving_store().await.unwrap();
    let day = Day::parse(DAY).unwrap();
    let mut rows = Rows::new();
    for hour in (-2..=3).flat_map(|n| day.plus(n).hours()) {
        for row in store.read_hour(hour).await.unwrap() {
            rows.insert(row.key, (row.counts, row.uniques.map(|users| users.estimate())));
        }
    }
    rows
}

#[test]
fn one_two_and_four_workers_show_the_rows_of_one_whoever_joins_leaves_or_dies() {
    let mut ledger = Ledger::new();
    let mut outside = Outside::kafka_of(&mut ledger, PARTITIONS);
    let kafka: Vec<(&str, String)> = vec![("KAFKA__BOOTSTRAP", ledger.settings().kafka.bootstrap.clone())];
    outside.add_clickhouse(&mut ledger);
    outside.add_s3(&mut ledger);
    ledger.set("KAFKA__SESSION_TIMEOUT", format!("{}s", SESSION.as_secs()));
    ledger.set("KAFKA__MAX_POLL_INTERVAL", format!("{}s", SESSION.as_secs()));
    ledger.set("SPEED__STATE_URL", ledger.settings().object_store.lake_url.replace("/lake", "/speed"));
    ledger.set("SPEED__FLUSH_INTERVAL", "300ms");
    ledger.set("SPEED__CHECKPOINT_INTERVAL", "500ms");
    ledger.set("SPEED__MAX_UNFLUSHED_RECORDS", 1_000);
    ledger.ok(&["keys", "create", "signing"]);
    ledger.ok(&[
        "simulate",
        "--events",
        "18000",
        "--days",
        "1",
        "--from",
        DAY,
        "--seed",
        "5",
        "--to",
        "history.ndjson",
    ]);
    ledger.ok(&["prices", "import", "history.prices.csv"]);
    ledger.ok(&["ads", "import", "history.ads.csv"]);

    let mut group = Group::new(&ledger);
    group.start("w1");
    group.append_and_await();
    group.await_owners(&["w1"]);
    group.start("w2");
    group.append();
    group.await_owners(&["w1", "w2"]);
    group.await_shown();
    group.start("w3");
    group.start("w4");
    group.append();
    group.await_owners(&["w1", "w2", "w3", "w4"]);
    group.await_shown();
    // Killed in the middle of work, and back at once: its own partitions, and nobody else's change.
    let before = group.taken();
    group.append();
    group.end("w2", "-KILL");
    group.start("w2");
    group.append_and_await();
    for (partition, owners) in group.taken() {
        let (old, new) = (before[&partition].len(), owners.len());
        let (_, (name, _)) = owners.last_key_value().unwrap();
        assert_eq!(new, old + usize::from(*name == "w2"), "partition {partition} of {name}\n{}", group.logs());
    }
    // ClickHouse is away for longer than a member may hang, and there is more to do than fits.
    let away = outside.crash("clickhouse");
    group.append();
    std::thread::sleep(SESSION * 3);
    away.restart();
    group.await_shown();
    assert_eq!(group.taken().values().map(BTreeMap::len).sum::<usize>(), 8 + 4 + 4 + 2, "{}", group.logs());
    assert!(!group.logs().contains("partitions are lost"), "{}", group.logs());
    // One dies for good and one ends in order; the others take theirs over.
    group.append();
    group.end("w3", "-KILL");
    group.append_and_await();
    group.end("w4", "-TERM");
    group.append();
    group.await_owners(&["w1", "w2"]);
    group.await_shown();
    assert!(group.pieces.is_empty());
    for name in ["w1", "w2"] {
        group.end(name, "-TERM");
    }
    for (partition, owners) in group.taken() {
        let positions: Vec<u64> = owners.values().map(|(_, position)| *position).collect();
        assert!(positions.is_sorted(), "partition {partition} went back: {positions:?}");
        assert!(
            positions[1..].iter().all(|position| *position > 0),
            "partition {partition} was replayed: {positions:?}"
        );
    }

    // The same log, read by one worker alone into a store of its own.
    let mut alone = Ledger::new();
    kafka.into_iter().for_each(|(name, value)| alone.set(name, value));
    alone.set("KAFKA__PARTITIONS", PARTITIONS);
    crate::rerun::copy_folder(&ledger.data(), &alone.data());
    let mut one = Group::on(&alone, Vec::new());
    one.running.insert("alone", alone.spawn("alone", &["speed"]));
    one.await_shown();
    one.end("alone", "-TERM");
    let (outcomes, outcomes_of_one) = (group.outcomes(), one.outcomes());
    assert_eq!(outcomes, outcomes_of_one);
    let (of_group, of_one) = (group.runtime.block_on(rows(&group.parts)), one.runtime.block_on(rows(&one.parts)));
    assert!(of_one.len() > 1_000, "{} rows", of_one.len());
    let differ: BTreeSet<_> =
        of_group.keys().chain(of_one.keys()).filter(|k| of_group.get(k) != of_one.get(k)).collect();
    assert!(differ.is_empty(), "{} of {} rows differ, such as {:?}", differ.len(), of_one.len(), differ.first());
}

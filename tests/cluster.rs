//! `--engine ballista`: a scheduler and two executors as processes of this build, the lake on a real S3. What they make
//! is, byte for byte, what one process makes, also when one of them is killed in the middle.

use std::net::SocketAddr;
use std::process::Child;
use std::time::Duration;

use lake::run_record::RunRecord;
use shared::testing::s3::S3;

use crate::object_store::keep_in;
use crate::rerun::{copy_folder, settlement_bytes};
use crate::support::Ledger;

const DAY: &str = "2026-01-05";
const RUN: [&str; 4] = ["batch", "run", "--date", DAY];
const ON_CLUSTER: [&str; 6] = ["batch", "run", "--date", DAY, "--engine", "ballista"];

/// Scheduler and executors; they are killed with it.
struct Cluster {
    address: SocketAddr,
    children: Vec<(String, Child)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Cluster {
    /// A scheduler, and the settings that name it.
    fn start(ledger: &mut Ledger) -> Self {
        let mut cluster = Self { address: free_address(), children: Vec::new() };
        ledger.set("BATCH__BALLISTA__SCHEDULER_URL", format!("http://{}", cluster.address));
        cluster.scheduler(ledger);
        cluster
    }

    fn scheduler(&mut self, ledger: &Ledger) {
        let bind = self.address.to_string();
        self.spawn(ledger, "scheduler", &["batch", "scheduler", "--bind", &bind, "--executor-timeout", "10s"]);
    }

    fn executor(&mut self, ledger: &Ledger, name: &str) {
        let bind = free_address().to_string();
        self.spawn(ledger, name, &["batch", "executor", "--bind", &bind, "--threads", "1"]);
    }

    fn spawn(&mut self, ledger: &Ledger, name: &str, args: &[&str]) {
        self.children.push((name.to_owned(), ledger.spawn(name, args)));
    }

    /// Kills one as a power cut does.
    fn kill(&mut self, name: &str) {
        let (_, child) = self.children.iter_mut().find(|(n, _)| n == name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A ledger whose day falls into about twenty buckets.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.set("BATCH__SILVER_FILE_ROWS", 1_000);
    ledger.set("BATCH__MEMORY_LIMIT", "64MiB");
    ledger.set("BATCH__BALLISTA__PATIENCE", "60s");
    ledger
}

/// One ledger that keeps its lake in its folder and has computed the day in one process, and one with the same log that
/// keeps its lake on S3 and has computed nothing.
fn twins(s3: &S3) -> (Ledger, Ledger) {
    let (here, mut there) = (ledger(), ledger());
    here.ok(&["keys", "create", "signing"]);
    here.ok(&["keys", "create", "settlement"]);
    here.ok(&["simulate", "--events", "20000", "--days", "1", "--from", DAY, "--seed", "5", "--to", "h.ndjson"]);
    here.ok(&["prices", "import", "h.prices.csv"]);
    here.ok(&["ads", "import", "h.ads.csv"]);
    here.ok(&["import", "h.ndjson"]);
    copy_folder(&here.data(), &there.data());
    keep_in(&mut there, s3);
    there.set("OBJECT_STORE__PUBLISHED_URL", "");
    for ledger in [&here, &there] {
        ledger.ok(&["lake", "--drain"]);
    }
    here.ok(&RUN);
    (here, there)
}

/// What the runs of the day said, bytes by their hashes, sums and the Merkle root.
async fn records(ledger: &Ledger) -> Vec<RunRecord> {
    let day = shared::time::Day::parse(DAY).unwrap();
    batch::runs_of(&ledger.parts().lake_root().unwrap(), day).await.unwrap()
}

/// Objects that runs left for their clusters.
async fn scratch(ledger: &Ledger) -> usize {
    let root = ledger.parts().lake_root().unwrap();
    root.store().list_with_delimiter(Some(&root.path("_batch"))).await.unwrap().common_prefixes.len()
}

/// Waits until the log of `name` shows a bucket after its first `from` bytes.
async fn at_work(ledger: &Ledger, name: &str, from: usize) {
    for _ in 0..1_200 {
        if ledger.log(name).get(from..).is_some_and(|log| log.contains("began a bucket")) {
            return;
        }
        shared::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} got no bucket:\n{}\n{}", ledger.log(name), ledger.log("run"));
}

/// Waits until `name` has ended every task it began.
async fn idle(ledger: &Ledger, name: &str) {
    let log = || ledger.log(name);
    while log().matches("began a bucket").count() != log().matches("ended a bucket").count() {
        shared::time::sleep(Duration::from_millis(25)).await;
    }
}

async fn exit_code(mut run: Child) -> Option<i32> {
    tokio::task::spawn_blocking(move || run.wait().unwrap().code()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_makes_the_bytes_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::given_or_start(&folder.path().join("objects"));
    let (here, mut there) = twins(&s3);
    let mut cluster = Cluster::start(&mut there);
    there.set("BATCH__BALLISTA__PATIENCE", "1s");
    let alone = there.run(&ON_CLUSTER);
    assert!(alone.code == 75 && alone.stderr.contains("are executors running?"), "{alone:?}");
    there.set("BATCH__BALLISTA__PATIENCE", "60s");
    for name in ["one", "two"] {
        cluster.executor(&there, name);
    }
    there.ok(&ON_CLUSTER);
    for name in ["one", "two"] {
        assert!(there.log(name).contains("began a bucket"), "{name} had nothing to do:\n{}", there.log(name));
    }
    let (ours, theirs) = (records(&here).await, records(&there).await);
    assert!(ours[0].outputs["silver/events"].files.len() > 10, "{ours:?}");
    assert_eq!(ours, theirs);
    assert_eq!(scratch(&there).await, 0, "the scratch goes with the run");
    assert_eq!(there.run(&[&RUN[..], &["--force"]].concat()).code, 99, "one process finds what the cluster found");
    for ledger in [&here, &there] {
        ledger.ok(&["reconcile", "run", "--force", "--date", DAY]);
    }
    let settled = |ledger: &Ledger| -> Vec<Vec<u8>> {
        settlement_bytes(&ledger.data().join("settlement")).into_values().collect()
    };
    assert_eq!(settled(&here), settled(&there));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_scheduler_ends_a_run_and_a_killed_executor_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::given_or_start(&folder.path().join("objects"));
    let (here, mut there) = twins(&s3);
    let mut cluster = Cluster::start(&mut there);
    for name in ["one", "two"] {
        cluster.executor(&there, name);
    }
    let run = there.spawn("run", &ON_CLUSTER);
    at_work(&there, "two", 0).await;
    cluster.kill("scheduler");
    assert_eq!(exit_code(run).await, Some(75), "{}", there.log("run"));
    assert_eq!(records(&there).await, [], "nothing of it is to be seen");

    for name in ["one", "two"] {
        idle(&there, name).await; // what tasks stored after the run had ended, the next one sweeps
    }
    there.set("BATCH__BALLISTA__SCRATCH_AGE", "0s");
    let from = there.log("one").len();
    cluster.scheduler(&there);
    let run = there.spawn("run", &ON_CLUSTER);
    at_work(&there, "one", from).await;
    cluster.kill("one");
    assert_eq!(exit_code(run).await, Some(0), "{}", there.log("run"));
    assert_eq!(records(&here).await, records(&there).await);
    assert_eq!(scratch(&there).await, 0);
}

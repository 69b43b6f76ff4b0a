//! Tests of the embedded log at its public edge.

mod damage;
mod faults;
mod model;
mod readers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::config::{ByteSize, Span};
use crate::event_log::Record;
use crate::testing::conformance::event_log::{self as conformance, Harness, PARTITIONS, read_all};

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options for tests: everything waits as little as it can.
fn options(segment_bytes: u64) -> Options {
    Options {
        partitions: PARTITIONS,
        segment_bytes: ByteSize(segment_bytes),
        commit_interval: Span::millis(1),
        ..Options::default()
    }
}

/// A folder where syncing is free if there is one: what is tested there is not the disk.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The files of a folder, by name.
#[derive(Clone, PartialEq, Eq)]
struct Image(BTreeMap<PathBuf, Vec<u8>>);

impl Image {
    fn of(dir: &Path) -> Self {
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        Self(files.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect())
    }

    fn restore(&self) -> TempDir {
        let dir = scratch();
        self.0.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
        dir
    }

    fn file(&mut self, path: &Path) -> &mut Vec<u8> {
        self.0.get_mut(Path::new(path.file_name().unwrap())).unwrap()
    }

    fn remove(&mut self, path: &Path) {
        assert!(self.0.remove(Path::new(path.file_name().unwrap())).is_some());
    }
}

type Contents = BTreeMap<u32, Vec<Record>>;

/// Everything in the log.
async fn contents(log: &EmbeddedLog) -> Contents {
    read_all(log, &log.bounds().await.unwrap().start).await
}

/// Everything in the log, or the error that reading met; without looking at what was read before it.
async fn try_contents(log: &EmbeddedLog) -> Result<Contents, LogError> {
    let bounds = log.bounds().await?;
    let mut consumer = log.consumer("reader", &bounds.start).await?;
    let mut all = Contents::new();
    while !consumer.positions().covers(&bounds.end) {
        let polled = consumer.poll(1_000, PATIENCE).await?;
        assert!(!polled.is_empty(), "neither a record nor an error at {:?}", consumer.positions());
        polled.into_iter().for_each(|r| all.entry(r.partition).or_default().push(r));
    }
    Ok(all)
}

/// Embedded logs with segments of a given size.
struct Embedded {
    segment_bytes: u64,
    dirs: Vec<TempDir>,
    /// Whether a log is really closed and opened where the suite says so.
    reopens: bool,
}

impl Embedded {
    fn open(&self) -> Arc<dyn EventLog> {
        Arc::new(EmbeddedLog::open(self.dirs.last().unwrap().path(), options(self.segment_bytes)).unwrap())
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn fresh(&mut self) -> Arc<dyn EventLog> {
        self.dirs.push(tempfile::tempdir().unwrap());
        self.open()
    }

    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        if !self.reopens {
            return log;
        }
        assert_eq!(Arc::strong_count(&log), 1, "somebody else keeps the log open");
        drop(log);
        self.open()
    }
}

#[tokio::test]
async fn it_is_an_event_log_in_one_large_segment() {
    conformance::run(&mut Embedded { segment_bytes: 1 << 30, dirs: Vec::new(), reopens: false }).await;
}

#[tokio::test]
async fn it_is_an_event_log_in_many_small_segments() {
    conformance::run(&mut Embedded { segment_bytes: 6_000, dirs: Vec::new(), reopens: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_an_event_log_that_is_closed_and_opened_between_write_and_read() {
    conformance::run(&mut Embedded { segment_bytes: 6_000, dirs: Vec::new(), reopens: true }).await;
    conformance::run(&mut Embedded { segment_bytes: 200_000, dirs: Vec::new(), reopens: true }).await;
}

#[tokio::test]
async fn a_log_is_opened_only_with_the_partitions_it_was_made_with() {
    let dir = scratch();
    drop(EmbeddedLog::open(dir.path(), options(1_000)).unwrap());
    let other = EmbeddedLog::open(dir.path(), Options { partitions: 9, ..options(1_000) });
    let Err(LogError::Invalid(why)) = other else { panic!("opened with another number of partitions") };
    assert!(why.contains("4 partitions") && why.contains("with 9"), "{why}");
    assert!(EmbeddedLog::open(dir.path(), options(2_000)).is_ok(), "everything else may change");
    let useless = EmbeddedLog::open(scratch().path(), Options { partitions: 0, ..options(1_000) });
    assert!(matches!(useless, Err(LogError::Invalid(_))));
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_and_one_at_the_limit_is_taken() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), Options { max_record_bytes: ByteSize(100), ..options(1_000) }).unwrap();
    let of_size = |bytes| vec![NewRecord { payload: vec![7; bytes].into(), ..conformance::record(0, 0) }];
    assert!(matches!(log.append(of_size(101)).await, Err(LogError::Invalid(_))));
    assert_eq!(log.append(of_size(100)).await.unwrap().len(), 1);
    assert_eq!(contents(&log).await[&0].len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_makes_appends_wait_and_a_call_larger_than_the_queue_gets_through() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), Options { queue_records: 4, ..options(100_000) }).unwrap();
    let log = Arc::new(log);
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let log = Arc::clone(&log);
            let records = conformance::records(1 + task % 10);
            tokio::spawn(async move { log.append(records).await.unwrap().len() })
        })
        .collect();
    let mut acknowledged = 0;
    for task in tasks {
        acknowledged += task.await.unwrap();
    }
    let stored: usize = contents(&log).await.values().map(Vec::len).sum();
    assert_eq!((acknowledged, stored), (275, 275));
}

#[test]
fn appends_are_answered_when_the_runtime_that_appended_first_has_ended() {
    let dir = scratch();
    let log = Arc::new(EmbeddedLog::open(dir.path(), options(100_000)).unwrap());
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let append = |count: u64| {
        let log = Arc::clone(&log);
        async move {
            let appends = (0..count).map(|n| {
                let log = Arc::clone(&log);
                tokio::spawn(async move { log.append(vec![conformance::record(0, n)]).await.unwrap().len() })
            });
            let mut acknowledged = 0;
            for append in appends.collect::<Vec<_>>() {
                acknowledged += tokio::time::timeout(PATIENCE, append).await.unwrap().unwrap();
            }
            acknowledged
        }
    };
    assert_eq!(runtime().block_on(append(1)), 1);
    assert_eq!(runtime().block_on(append(100)), 100);
}

#[tokio::test]
async fn an_append_that_is_no_longer_waited_for_does_not_disturb_the_next() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(1_000)).unwrap();
    for n in 0..20 {
        tokio::select! {
            biased;
            _ = log.append(vec![conformance::record(0, n)]) => {}
            () = std::future::ready(()) => {}
        }
    }
    let last = log.append(vec![conformance::record(0, 99)]).await.unwrap();
    let stored = contents(&log).await;
    assert_eq!(stored[&0].last().unwrap().position, last[0].position);
    assert_eq!(stored[&0].last().unwrap().payload, conformance::record(0, 99).payload);
}

#[tokio::test]
async fn a_position_deep_in_a_large_segment_is_found_by_its_index() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(300_000)).unwrap();
    let appended: Vec<NewRecord> = (0..4_000)
        .map(|n| NewRecord { payload: vec![5; 300].into(), ..conformance::record(n % 4, n.into()) })
        .collect();
    assert_eq!(log.append(appended.clone()).await.unwrap().len(), 4_000);
    for start in 0..1_000 {
        let from = Positions([(1, start), (3, start)].into());
        let mut consumer = log.consumer("deep", &from).await.unwrap();
        let first = consumer.poll(2, PATIENCE).await.unwrap();
        assert_eq!(first.iter().map(|r| (r.partition, r.position)).collect::<Vec<_>>(), [(1, start), (3, start)]);
    }
    for start in (0..1_000).step_by(37) {
        let time = conformance::record(2, start * 4 + 2).append_time;
        let found = log.positions_at(time).await.unwrap();
        assert_eq!(found, Positions([(0, start + 1), (1, start + 1), (2, start), (3, start)].into()));
    }
}

#[tokio::test]
async fn the_first_of_many_records_of_one_moment_is_found() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(300_000)).unwrap();
    let moment = Timestamp(7);
    let record =
        |n: u32| NewRecord { append_time: moment, payload: vec![5; 300].into(), ..conformance::record(n % 4, 0) };
    assert_eq!(log.append((0..4_000).map(record).collect()).await.unwrap().len(), 4_000);
    assert_eq!(log.positions_at(moment).await.unwrap(), conformance::zero());
    assert_eq!(log.positions_at(moment.plus(1)).await.unwrap(), log.bounds().await.unwrap().end);
}

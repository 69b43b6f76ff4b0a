//! The forwarder between two memory logs, one of which goes away, stops half way, and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use gateway::forward::{ForwardError, Forwarder, GROUP};
use shared::event::{Admission, Submission};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Record, Retention};
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::tally::SET_ASIDE;
use shared::testing::conformance::event_log::{PARTITIONS, expected, read_all, records, zero};
use shared::time::Timestamp;
use shared::wire::{BadRecord, encode_event};

use crate::support::{NOW, id as id_of};

/// A log that fails its next appends: before anything is kept, or after a part of it was. It takes no record larger than
/// `largest`, and says so after it took what came before it, as a broker does.
#[derive(Clone)]
struct Flaky {
    log: MemoryLog,
    failures: Arc<AtomicU32>,
    largest: usize,
}

impl Flaky {
    fn new(failures: u32) -> Self {
        Self { log: MemoryLog::new(PARTITIONS), failures: Arc::new(AtomicU32::new(failures)), largest: usize::MAX }
    }
}

#[async_trait]
impl EventLog for Flaky {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        let left = self.failures.load(Ordering::SeqCst);
        if let Some(n) = records.iter().position(|r| r.payload.len() > self.largest) {
            assert_eq!(self.log.append(records[..n].to_vec()).await?.len(), n);
            return Err(LogError::TooLarge("testing".to_owned()));
        }
        if left == 0 {
            return self.log.append(records).await;
        }
        self.failures.store(left - 1, Ordering::SeqCst);
        if left.is_multiple_of(2) {
            let half = records[..records.len() / 2].to_vec();
            assert_eq!(self.log.append(half.clone()).await?.len(), half.len());
        }
        Err(LogError::Unavailable { doing: "testing".to_owned(), source: std::io::Error::other("away") })
    }
    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        self.log.consumer(group, from).await
    }
    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.log.bounds().await
    }
    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        self.log.positions_at(time).await
    }
    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        self.log.group_positions().await
    }
    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        self.log.enforce(retention, now).await
    }
}

/// Runs a forwarder until the spool has arrived, then stops it.
async fn forward(spool: &MemoryLog, log: &Flaky, place: &std::path::Path) {
    let shutdown = Shutdown::new();
    let forwarder = Forwarder::new(Arc::new(spool.clone()), Arc::new(log.clone()), place.to_owned());
    let running = tokio::spawn(forwarder.run(shutdown.clone()));
    let end = spool.bounds().await.unwrap().end;
    while !spool.group_positions().await.unwrap().get(GROUP).is_some_and(|at| at.covers(&end)) {
        assert!(!running.is_finished(), "the forwarder ended by itself");
        shared::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    shutdown.request();
    running.await.unwrap().unwrap();
}

/// Each record's first arrival, by partition.
fn firsts(arrived: BTreeMap<u32, Vec<Record>>) -> BTreeMap<u32, Vec<bytes::Bytes>> {
    let mut seen = std::collections::BTreeSet::new();
    let mut firsts: BTreeMap<u32, Vec<bytes::Bytes>> = BTreeMap::new();
    for record in arrived.into_values().flatten() {
        if seen.insert((record.partition, record.payload.clone())) {
            firsts.entry(record.partition).or_default().push(record.payload);
        }
    }
    firsts
}

#[tokio::test]
async fn everything_arrives_in_order_though_the_log_goes_away_half_way() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("forward.json");
    let (spool, log) = (MemoryLog::new(PARTITIONS), Flaky::new(4));
    let all = records(6_000);
    for part in all.chunks(2_000) {
        assert_eq!(spool.append(part.to_vec()).await.unwrap().len(), part.len());
        forward(&spool, &log, &place).await;
    }
    assert_eq!(log.failures.load(Ordering::SeqCst), 0, "the log was away");
    let arrived = read_all(&log.log, &zero()).await;
    assert!(arrived.values().map(Vec::len).sum::<usize>() > all.len(), "a half-kept batch came again");
    assert_eq!(firsts(arrived), firsts(expected(&all)));
}

#[tokio::test]
async fn a_restart_goes_on_where_the_last_one_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("forward.json");
    let spool = MemoryLog::new(PARTITIONS);
    let log = Flaky::new(0);
    let all = records(500);
    for part in all.chunks(100) {
        assert_eq!(spool.append(part.to_vec()).await.unwrap().len(), part.len());
        forward(&spool, &log, &place).await;
    }
    assert_eq!(read_all(&log.log, &zero()).await, expected(&all), "each once");
}

#[tokio::test]
async fn a_record_that_is_too_large_is_set_aside_until_the_log_takes_it_and_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("forward.json");
    let (spool, log) = (MemoryLog::new(PARTITIONS), Flaky { largest: 1_000, ..Flaky::new(0) });
    let mut all = records(500);
    let mut fits = all.clone();
    for n in [0, 77, 78, 499] {
        let large = bytes::Bytes::from(vec![u8::try_from(n % 256).unwrap(); 1_001]);
        all[n].payload = large;
        fits[n].payload = bytes::Bytes::new();
    }
    fits.retain(|r| !r.payload.is_empty());
    assert_eq!(spool.append(all.clone()).await.unwrap().len(), 500);
    forward(&spool, &log, &place).await;
    // By position what arrived differs from the spool: compare the payloads alone.
    let arrived = firsts(read_all(&log.log, &zero()).await);
    assert_eq!(arrived, firsts(expected(&fits)));
    let aside = || std::fs::read_dir(folder.path().join("forward.aside")).unwrap().count();
    assert_eq!(aside(), 4);
    // A restart tries again: still too large; then the log takes them.
    forward(&spool, &log, &place).await;
    assert_eq!(aside(), 4);
    let log = Flaky { largest: usize::MAX, ..log };
    forward(&spool, &log, &place).await;
    assert_eq!(aside(), 0);
    let arrived = read_all(&log.log, &zero()).await;
    let kept: Vec<NewRecord> = arrived
        .into_values()
        .flatten()
        .filter(|r| r.payload.len() > 1_000)
        .map(|r| NewRecord { partition: r.partition, append_time: r.append_time, payload: r.payload })
        .collect();
    let mut large: Vec<NewRecord> = all.into_iter().filter(|r| r.payload.len() > 1_000).collect();
    large.sort_by_key(|r| (r.partition, r.append_time));
    assert_eq!(kept, large, "whole, each once");
}

#[tokio::test]
async fn an_event_that_is_set_aside_is_named_in_the_dead_letter_log_before_anything_after_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("forward.json");
    let (spool, log, notes) = (MemoryLog::new(PARTITIONS), MemoryLog::new(PARTITIONS), MemoryLog::new(1));
    let log = Flaky { largest: 1_000, log, failures: Arc::default() };
    let event = |id: &str, padding: usize| {
        let json = format!(
            r#"{{"eventId":"{id}","eventType":"click","timestamp":{},"adId":"a","more":"{}"}}"#,
            NOW.as_millis(),
            "x".repeat(padding)
        );
        let event = Submission::from_json(json.as_bytes()).unwrap().admit(Admission {
            ingest_time: NOW.plus(7),
            region: id_of("here"),
            campaign_id: id_of("c"),
            advertiser_id: None,
            invalid: None,
            traceparent: None,
        });
        NewRecord { partition: 0, append_time: NOW, payload: encode_event(&event).into() }
    };
    let all = vec![event("small", 1), event("large", 2_000), event("last", 1)];
    assert_eq!(spool.append(all).await.unwrap().len(), 3);
    let shutdown = Shutdown::new();
    let forwarder = Forwarder::new(Arc::new(spool.clone()), Arc::new(log.clone()), place);
    let forwarder = forwarder.with_notes(Arc::new(notes.clone()), id_of("here"));
    let running = tokio::spawn(forwarder.run(shutdown.clone()));
    let mut arrived = log.log.consumer("test", &Positions([(0, 0)].into())).await.unwrap();
    while arrived.positions().next(0) < 2 {
        assert!(!running.is_finished(), "the forwarder ended by itself");
        arrived.poll(1, std::time::Duration::from_millis(50)).await.unwrap();
    }
    let noted = read_all(&notes, &Positions([(0, 0)].into())).await;
    let noted: Vec<BadRecord> = noted[&0].iter().map(|r| BadRecord::decode(&r.payload).unwrap()).collect();
    let seen: Vec<_> = noted.iter().map(|n| (n.reason.as_str(), n.detail.as_str(), n.count, n.ingest_time)).collect();
    assert_eq!(seen, [(SET_ASIDE, "large", 0, NOW.plus(7).0)]);
    shutdown.request();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn logs_that_are_cut_differently_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, log) = (MemoryLog::new(2), MemoryLog::new(PARTITIONS));
    let forwarder = Forwarder::new(Arc::new(spool), Arc::new(log), folder.path().join("forward.json"));
    let ended = forwarder.run(Shutdown::new()).await;
    assert!(matches!(ended, Err(ForwardError::Partitions { spool: 2, log: 4 })), "{ended:?}");
}

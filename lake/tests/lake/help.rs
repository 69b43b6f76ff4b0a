//! What the lake's tests share: events, logs, stores that fail, and a plain model of what bronze must hold.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use lake::archiver::{Archiver, Deps, Settings};
use lake::convert::{Archived, BadRow, bad_from_batch, events_from_batch};
use lake::tables::{BRONZE_BAD, BRONZE_EVENTS};
use lake::{LakeRoot, Table};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use shared::config::Span;
use shared::event::{Admission, Event, RejectReason, Submission};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Record, Retention};
use shared::id::{CampaignId, RefId};
use shared::progress::Positions;
use shared::time::{DAY, HOUR, ManualClock, SECOND, Timestamp};
use shared::verdict::{Counting, InvalidCode};
use shared::wire::{BadRecord, decode_event, encode_event};
use tokio::sync::Notify;
use url::Url;

pub(crate) const PARTITIONS: u32 = 3;

pub(crate) fn start() -> Timestamp {
    Timestamp::parse("2026-01-05T00:00:00Z").unwrap()
}

/// Event number `n`: a day with every optional field for some, none for others, some late, some forged.
pub(crate) fn event(n: i64) -> Event {
    let ingest_time = start().plus(n * 10 * SECOND);
    let age = match n % 7 {
        0 => 2 * DAY,
        1 => 9 * DAY,
        2 => -HOUR,
        _ => 1_234_567,
    };
    let time = ingest_time.plus(-age);
    let rest = match n % 4 {
        0 => String::new(),
        1 => format!(r#","impressionId":"imp-{n}","userPseudoId":"u{}","country":"DE","deviceType":"mobile""#, n % 5),
        2 => {
            format!(r#","costMicros":{n},"currency":"EUR","url":"https://ä.example/?q=\"{n}\"","userAgent":"Mozilla""#)
        }
        _ => format!(
            r#","extra1":{{"a":[{n},null]}},"sessionId":"s","bidRequestId":"b","creativeId":"c","publisherId":"p","ipHash":"h""#
        ),
    };
    let json = format!(
        r#"{{"eventId":"event-{n}","eventType":"click","timestamp":"{time}","adId":"ad-{}","campaignId":"c1","advertiserId":"a1"{rest}}}"#,
        n % 11
    );
    let submission = Submission::from_json(json.as_bytes()).unwrap();
    submission.admit(Admission {
        ingest_time,
        region: RefId::new("eu").unwrap(),
        campaign_id: CampaignId::new("c1").unwrap(),
        advertiser_id: None,
        invalid: (n % 5 == 0).then_some(InvalidCode::BadSignature),
        traceparent: (n % 3 == 0).then(|| "00-aa-bb-01".to_owned()),
    })
}

/// The payload of record number `n` of the events log: an event, or now and then poison.
pub(crate) fn payload(n: i64) -> Bytes {
    match n % 13 {
        5 => Bytes::from_static(b"\x01 not an event \xff"),
        9 => Bytes::new(),
        _ => encode_event(&event(n)).into(),
    }
}

pub(crate) fn dead_letter(n: i64) -> Bytes {
    let record = BadRecord {
        reason: RejectReason::Malformed.as_str().to_owned(),
        detail: format!("number {n}"),
        stage: "gateway".to_owned(),
        raw: vec![0xFE, n as u8],
        count: 1 + n as u64,
        ingest_time: if n % 6 == 5 { -4 } else { start().plus(n * HOUR).0 },
        region: "eu".to_owned(),
    };
    if n % 5 == 4 { Bytes::from_static(b"garbage") } else { record.encode().into() }
}

pub(crate) async fn append(log: &dyn EventLog, payloads: impl Iterator<Item = (i64, Bytes)>) {
    let record = |(n, payload): (i64, Bytes)| NewRecord {
        partition: (n % i64::from(log.partitions())) as u32,
        append_time: start().plus(n),
        payload,
    };
    for delivered in log.append(payloads.map(record).collect()).await.unwrap() {
        assert!(delivered.partition < log.partitions());
    }
}

/// Two logs, a clock and what an archiver needs of them.
pub(crate) struct World {
    pub(crate) events: Arc<dyn EventLog>,
    pub(crate) dead_letters: Arc<dyn EventLog>,
    pub(crate) clock: ManualClock,
}

impl World {
    pub(crate) async fn with(events: std::ops::Range<i64>, dead_letters: std::ops::Range<i64>) -> Self {
        let world = Self {
            events: Arc::new(MemoryLog::new(PARTITIONS)),
            dead_letters: Arc::new(MemoryLog::new(1)),
            clock: ManualClock::at(start()),
        };
        append(world.events.as_ref(), events.map(|n| (n, payload(n)))).await;
        append(world.dead_letters.as_ref(), dead_letters.map(|n| (n, dead_letter(n)))).await;
        world
    }

    pub(crate) fn archiver(&self, root: &LakeRoot, settings: Settings) -> Archiver {
        self.clock.advance(1);
        let deps = Deps {
            events: Arc::clone(&self.events),
            dead_letters: Arc::clone(&self.dead_letters),
            root: root.clone().with_clock(Arc::new(self.clock.clone())),
            clock: Arc::new(self.clock.clone()),
            region: RefId::new("eu").unwrap(),
            counting: Counting::default(),
        };
        Archiver::new(settings, deps)
    }

    /// What the logs hold, as bronze rows.
    pub(crate) async fn model(&self) -> (Vec<Archived>, Vec<BadRow>) {
        let (mut events, mut bad) = (Vec::new(), Vec::new());
        for (topic, log) in [("events", &self.events), ("dead_letters", &self.dead_letters)] {
            for record in read_all(log.as_ref()).await {
                let (partition, position) = (record.partition, record.position);
                let refused = |why: String| BadRecord {
                    reason: "undecodable".to_owned(),
                    detail: why,
                    stage: "lake".to_owned(),
                    raw: record.payload.to_vec(),
                    count: 1,
                    ingest_time: record.append_time.0,
                    region: "eu".to_owned(),
                };
                let row = |record| BadRow { topic: topic.to_owned(), partition, position, record };
                match (topic, decode_event(&record.payload), BadRecord::decode(&record.payload)) {
                    ("events", Ok(event), _) => {
                        let billing_time = Counting::default().billing_time(event.event_time, event.ingest_time).at;
                        events.push(Archived { event, partition, position, billing_time });
                    }
                    ("events", Err(e), _) | (_, _, Err(e)) => bad.push(row(refused(e.to_string()))),
                    (_, _, Ok(mut decoded)) => {
                        if decoded.ingest_time < 0 {
                            decoded.ingest_time = record.append_time.0;
                        }
                        bad.push(row(decoded));
                    }
                }
            }
        }
        (events, bad)
    }

    /// Every record is in bronze once, as it was sent; and the positions say so.
    pub(crate) async fn assert_archived(&self, root: &LakeRoot) {
        let (mut events, mut bad) = self.model().await;
        let (stored_events, stored_bad) = bronze(root).await;
        events.sort_by_key(|r| (r.partition, r.position));
        bad.sort_by_key(|r| (r.topic.clone(), r.partition, r.position));
        assert_eq!(stored_events.len(), events.len());
        assert_eq!(stored_events, events);
        assert_eq!(stored_bad, bad);
        let tables = (Table::open(root, &BRONZE_EVENTS).await.unwrap(), Table::open(root, &BRONZE_BAD).await.unwrap());
        let committed = lake::positions::committed(&tables.0, PARTITIONS, &tables.1, 1).await.unwrap();
        assert!(committed.events.covers(&self.events.bounds().await.unwrap().end));
        assert!(self.events.bounds().await.unwrap().end.covers(&committed.events));
        assert!(committed.dead_letters.covers(&self.dead_letters.bounds().await.unwrap().end));
    }
}

pub(crate) async fn read_all(log: &dyn EventLog) -> Vec<Record> {
    let from = Positions((0..log.partitions()).map(|p| (p, 0)).collect());
    let mut consumer = log.consumer("model", &from).await.unwrap();
    let mut all = Vec::new();
    loop {
        let records = consumer.poll(1_000, Duration::ZERO).await.unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records);
    }
}

/// All rows of both bronze tables in log order.
pub(crate) async fn bronze(root: &LakeRoot) -> (Vec<Archived>, Vec<BadRow>) {
    let (mut events, mut bad) = (Vec::new(), Vec::new());
    let table = Table::open(root, &BRONZE_EVENTS).await.unwrap();
    for file in table.files().unwrap() {
        let before = events.len();
        for batch in table.read(&file, None).await.unwrap() {
            events.extend(events_from_batch(&batch.unwrap()).unwrap());
        }
        let new = &events[before..];
        assert_eq!(new.len() as u64, file.rows);
        assert!(new.iter().all(|r: &Archived| r.billing_time.day() == file.day));
        let hashes: Vec<_> = new.iter().map(|r| lake::convert::id_hash(r.event.event_id.as_str())).collect();
        assert!(hashes.is_sorted(), "files are sorted by the hash of the id");
        let ingest: Vec<_> = new.iter().map(|r| r.event.ingest_time).collect();
        assert_eq!(file.ingest_time(), Some((*ingest.iter().min().unwrap(), *ingest.iter().max().unwrap())));
    }
    let table = Table::open(root, &BRONZE_BAD).await.unwrap();
    for file in table.files().unwrap() {
        for batch in table.read(&file, None).await.unwrap() {
            bad.extend(bad_from_batch(&batch.unwrap()).unwrap());
        }
    }
    events.sort_by_key(|r| (r.partition, r.position));
    bad.sort_by_key(|r| (r.topic.clone(), r.partition, r.position));
    (events, bad)
}

/// Settings that commit often and never wait long.
pub(crate) fn eager(flush_rows: usize) -> Settings {
    Settings {
        flush_rows,
        poll_records: 16,
        poll_wait: Span::millis(1),
        retry_min: Span::millis(1),
        retry_max: Span::millis(5),
        ..Settings::default()
    }
}

/// What a store does with one put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies before the object is stored.
    CrashBefore,
    /// The process dies after the object is stored and before it knows.
    CrashAfter,
    /// The put fails and stores nothing.
    Fail,
    /// The put stores the object and says it failed.
    LoseAnswer,
    /// The put replaces an object that must only be created.
    #[cfg(feature = "s3")]
    ReplaceExisting,
}

/// A store that does something to its `n`-th put.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: Fault,
    left: AtomicI64,
    /// How many puts in a row have the fault.
    times: i64,
    pub(crate) crashed: Notify,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, fault: Fault, nth_put: i64, times: i64) -> Arc<Self> {
        Arc::new(Self { inner, fault, left: AtomicI64::new(nth_put), times, crashed: Notify::new() })
    }

    /// Whether the fault has come.
    pub(crate) fn has_struck(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    async fn crash(&self) -> ! {
        self.crashed.notify_one();
        std::future::pending().await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: std::io::Error::other("no space left").into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> StoreResult<PutResult> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        let now = (-self.times < left) && left <= 0;
        match self.fault {
            Fault::CrashBefore if now => self.crash().await,
            Fault::Fail if now => Err(broken()),
            Fault::CrashAfter if now => {
                self.inner.put_opts(location, payload, opts).await?;
                self.crash().await
            }
            Fault::LoseAnswer if now => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(broken())
            }
            #[cfg(feature = "s3")]
            Fault::ReplaceExisting if now => self.inner.put_opts(location, payload, PutOptions::default()).await,
            _ => self.inner.put_opts(location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(&self, at: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, at: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A lake in memory, by way of `store`.
pub(crate) fn memory_lake(store: Arc<dyn ObjectStore>) -> LakeRoot {
    LakeRoot::with_store(store, Url::parse("memory:///lake").unwrap()).unwrap()
}

/// A log that says when a reader has come to its end.
pub(crate) struct Watched {
    inner: Arc<dyn EventLog>,
    pub(crate) read: Arc<Notify>,
    opened: AtomicI64,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn EventLog>) -> Self {
        Self { inner, read: Arc::new(Notify::new()), opened: AtomicI64::new(0) }
    }

    /// How many readers it has had.
    pub(crate) fn opened(&self) -> i64 {
        self.opened.load(Ordering::SeqCst)
    }
}

struct WatchedConsumer {
    inner: Box<dyn Consumer>,
    read: Arc<Notify>,
}

#[async_trait]
impl Consumer for WatchedConsumer {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        let records = self.inner.poll(max_records, wait).await?;
        if records.is_empty() {
            self.read.notify_one();
        }
        Ok(records)
    }

    fn positions(&self) -> Positions {
        self.inner.positions()
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        self.inner.report(positions).await
    }
}

#[async_trait]
impl EventLog for Watched {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        self.inner.append(records).await
    }

    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        let inner = self.inner.consumer(group, from).await?;
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(WatchedConsumer { inner, read: Arc::clone(&self.read) }))
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.inner.bounds().await
    }

    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        self.inner.positions_at(time).await
    }

    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        self.inner.group_positions().await
    }

    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        self.inner.enforce(retention, now).await
    }
}

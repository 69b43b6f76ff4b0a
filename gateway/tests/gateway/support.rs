//! A running gateway and a plain HTTP client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gateway::dedup::{DedupStore, MemoryDedup};
use gateway::ip_hash::{Chance, Salts};
use gateway::keys::{KeyRing, SigningKeys};
use gateway::signature::{EventClaims, LinkClaims};
use gateway::{Deps, Gateway, Issuer, Settings};
use serde_json::{Value, json};
use shared::directory::{AdRow, AdStatus, Directory, DirectoryHandle};
use shared::event::{Event, Submission};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Retention};
use shared::id::RefId;
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::tally::{TALLY, Tally};
use shared::testing::conformance::event_log::{read_all, zero};
use shared::time::{HOUR, ManualClock, Timestamp};
use shared::wire::{BadRecord, decode_event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Far longer than anything under test takes.
pub(crate) const GUARD: Duration = Duration::from_secs(60);
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
pub(crate) const PARTITIONS: u32 = 4;

/// A memory log that fails or hangs when told to.
pub(crate) struct SwitchLog {
    pub(crate) inner: MemoryLog,
    pub(crate) failing: AtomicBool,
    pub(crate) closed: AtomicBool,
    pub(crate) gate: Semaphore,
    pub(crate) at_gate: Semaphore,
    pub(crate) appends: AtomicUsize,
}

impl SwitchLog {
    fn new() -> Self {
        Self {
            inner: MemoryLog::new(PARTITIONS),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            gate: Semaphore::new(0),
            at_gate: Semaphore::new(0),
            appends: AtomicUsize::new(0),
        }
    }

    pub(crate) fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// From now on each append waits for [`SwitchLog::open_one`].
    pub(crate) fn close_gate(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open_one(&self) {
        self.gate.add_permits(1);
    }

    /// Waits until one more append stands at the gate.
    pub(crate) async fn wait_for_append(&self) {
        tokio::time::timeout(GUARD, self.at_gate.acquire()).await.expect("no append came").unwrap().forget();
    }
}

#[async_trait]
impl EventLog for SwitchLog {
    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        if self.closed.load(Ordering::SeqCst) {
            self.at_gate.add_permits(1);
            self.gate.acquire().await.unwrap().forget();
        }
        if self.failing.load(Ordering::SeqCst) {
            let source = std::io::Error::other("switched off");
            return Err(LogError::Unavailable { doing: "appending".to_owned(), source });
        }
        self.appends.fetch_add(1, Ordering::SeqCst);
        self.inner.append(records).await
    }

    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        self.inner.consumer(group, from).await
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.inner.bounds().await
    }

    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        self.inner.positions_at(time).await
    }

    async fn group_positions(&self) -> Result<std::collections::BTreeMap<String, Positions>, LogError> {
        self.inner.group_positions().await
    }

    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        self.inner.enforce(retention, now).await
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) events: Arc<SwitchLog>,
    pub(crate) dead_letters: Arc<SwitchLog>,
    pub(crate) directory: Arc<DirectoryHandle>,
    pub(crate) keys: SigningKeys,
    pub(crate) clock: ManualClock,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), gateway::Error>>,
}

pub(crate) fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

pub(crate) fn ads() -> Directory {
    let row = |ad: &str, campaign: &str, status: AdStatus| AdRow {
        ad_id: id(ad),
        campaign_id: id(campaign),
        advertiser_id: id("adv-1"),
        url: format!("https://shop.example/{ad}?a=1&b=2"),
        status,
    };
    Directory::of([
        row("ad-1", "cam-1", AdStatus::Active),
        row("ad-2", "cam-1", AdStatus::Active),
        row("ad-paused", "cam-2", AdStatus::Paused),
        row("ad-ended", "cam-2", AdStatus::Ended),
    ])
    .unwrap()
}

pub(crate) fn signing_keys() -> SigningKeys {
    let mut keys = SigningKeys::default();
    keys.create(id("k-old"), [7; 32], NOW).unwrap();
    keys.create(id("k-new"), [8; 32], NOW).unwrap();
    keys
}

pub(crate) async fn start(settings: Settings) -> Running {
    let dedup = Arc::new(MemoryDedup::new(&settings.dedup));
    start_with(settings, dedup).await
}

pub(crate) async fn start_with(settings: Settings, dedup: Arc<dyn DedupStore>) -> Running {
    assert_eq!(settings.problems(), vec![]);
    let (events, dead_letters) = (Arc::new(SwitchLog::new()), Arc::new(SwitchLog::new()));
    let (clock, keys, shutdown) = (ManualClock::at(NOW), signing_keys(), Shutdown::new());
    let directory = Arc::new(DirectoryHandle::fixed(ads()));
    let salts = Salts::open(None, settings.ip_hash.clone(), counter()).unwrap();
    let deps = Deps {
        salts: Arc::new(salts),
        issuers: Arc::new(|key| match key {
            "operator" => Some(Issuer::Operator),
            "other" => Some(Issuer::Advertiser(id("adv-2"))),
            _ => None,
        }),
        chance: counter(),
        events: Arc::clone(&events) as Arc<dyn EventLog>,
        dead_letters: Arc::clone(&dead_letters) as Arc<dyn EventLog>,
        directory: Arc::clone(&directory),
        keys: Arc::new(KeyRing::fixed(keys.clone())),
        dedup,
        clock: Arc::new(clock.clone()),
        region: RefId::new("here").unwrap(),
        metrics_text: Arc::new(|| "a_metric 1\n".to_owned()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(Gateway::new(settings, deps).run(listener, shutdown.clone()));
    Running { address, events, dead_letters, directory, keys, clock, shutdown, task }
}

/// Bytes that never repeat, which is all that tests need of chance.
pub(crate) fn counter() -> Chance {
    let next = AtomicUsize::new(1);
    Arc::new(move |bytes| {
        let number = next.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        bytes.iter_mut().zip(number.iter().cycle()).for_each(|(to, from)| *to = *from);
        Ok(())
    })
}

/// Settings under which tests do not meet the rate limit by accident.
pub(crate) fn roomy() -> Settings {
    let mut settings = Settings::default();
    settings.rate_limit.per_second = 1_000_000;
    settings.rate_limit.burst = 1_000_000;
    settings
}

impl Running {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes()).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        raw(self.address, &[head.as_bytes(), body].concat()).await
    }

    /// A click link's path, signed and valid for an hour.
    pub(crate) fn click(&self, ad: &str, impression: &str) -> String {
        self.keys.sign_click_url("", &link(ad, impression)).unwrap()
    }

    pub(crate) fn pixel(&self, ad: &str, impression: &str) -> String {
        self.keys.sign_pixel_url("", &link(ad, impression)).unwrap()
    }

    /// `event` with a signature that holds.
    pub(crate) fn signed(&self, mut event: Value) -> Value {
        event["expiresAt"] = (NOW.plus(HOUR).0 / 1_000).into();
        event["nonce"] = "n-1".into();
        event["signature"] = "x".into();
        let submission = Submission::from_json(event.to_string().as_bytes()).unwrap();
        let signed = self.keys.sign_event(&EventClaims::of(&submission)).unwrap();
        event["signature"] = signed.signature.into();
        event["keyId"] = signed.key_id.into();
        event
    }

    /// A signed click event.
    pub(crate) fn event(&self, event_id: &str) -> Value {
        self.signed(plain_event(event_id))
    }

    /// Every event in the log, by partition and position.
    pub(crate) async fn captured(&self) -> Vec<Event> {
        let records = read_all(&self.events.inner, &start_of(&self.events.inner).await).await;
        records.into_values().flatten().map(|r| decode_event(&r.payload).unwrap()).collect()
    }

    /// Stops the gateway and returns what it refused.
    pub(crate) async fn stop(self) -> Vec<BadRecord> {
        self.stop_with_tallies().await.0
    }

    /// Stops the gateway and returns what it refused and its tallies.
    pub(crate) async fn stop_with_tallies(self) -> (Vec<BadRecord>, Vec<Tally>) {
        self.shutdown.request();
        tokio::time::timeout(GUARD, self.task).await.expect("the gateway does not stop").unwrap().unwrap();
        let records = read_all(&self.dead_letters.inner, &start_of(&self.dead_letters.inner).await).await;
        let all = records.into_values().flatten().map(|r| BadRecord::decode(&r.payload).unwrap());
        let (tallies, refused): (Vec<_>, Vec<_>) = all.partition(|r| r.reason == TALLY);
        (refused, tallies.iter().map(|r| Tally::from_json(&r.detail).unwrap()).collect())
    }
}

pub(crate) async fn start_of(log: &MemoryLog) -> Positions {
    let bounds = log.bounds().await.unwrap();
    assert!(bounds.end.0.len() == PARTITIONS as usize && zero().0.len() <= bounds.start.0.len());
    bounds.start
}

/// How many refusals of each reason there were.
pub(crate) fn counts(bad: &[BadRecord]) -> std::collections::BTreeMap<String, u64> {
    let mut counts = std::collections::BTreeMap::new();
    for record in bad {
        *counts.entry(record.reason.clone()).or_default() += record.count;
    }
    counts
}

pub(crate) fn link<'a>(ad: &'a str, impression: &'a str) -> LinkClaims<'a> {
    LinkClaims { ad_id: ad, impression_id: impression, expires_at: Some(NOW.plus(HOUR)) }
}

pub(crate) fn plain_event(event_id: &str) -> Value {
    json!({
        "eventId": event_id, "eventType": "click", "timestamp": NOW.as_millis(), "adId": "ad-1",
        "userPseudoId": "user-77", "country": "DE", "deviceType": "mobile",
    })
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Sends bytes on a connection of their own and reads the answer to its end.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read everything.
    let sent = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(GUARD, stream.read_to_end(&mut bytes)).await.expect("no answer");
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer but {bytes:?} ({sent:?}, {read:?})"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    assert!(!chunked, "{head}");
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

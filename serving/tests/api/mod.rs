//! The API over real sockets: a server per test, two advertisers with a campaign and an ad each.

mod access;
mod files;
mod pages;
mod reports;
mod stream;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use serving::{ApiKeyFile, Deps, Error, KEY_RANDOM_BYTES, Scope, Serving, Settings, Tenant, Tenants};
use shared::explain::{Explainer, Occurrence, Place, Step, Unexplained, Waterfall};
use shared::id::{AdId, AdvertiserId, CampaignId, EventId};
use shared::serving_store::{ServingStore, WriterStatus};
use shared::shutdown::Shutdown;
use shared::testing::MemoryServingStore;
use shared::testing::conformance::serving_store as laws;
use shared::time::{Clock, Day, ManualClock, SECOND, Timestamp};
use tokio::net::{TcpListener, TcpStream};

/// `adv-1` owns campaign `c1` and ad `a1`, `adv-2` owns `c2` and `a2`.
struct Two;

impl Tenants for Two {
    fn of_campaign(&self, campaign: &CampaignId) -> Option<AdvertiserId> {
        let owner = match campaign.as_str() {
            "c1" => "adv-1",
            "c2" => "adv-2",
            _ => return None,
        };
        Some(AdvertiserId::new(owner).unwrap())
    }

    fn of_ad(&self, ad: &AdId) -> Option<AdvertiserId> {
        let owner = match ad.as_str() {
            "a1" => "adv-1",
            "a2" => "adv-2",
            _ => return None,
        };
        Some(AdvertiserId::new(owner).unwrap())
    }

    fn campaigns(&self, advertiser: &AdvertiserId) -> Vec<CampaignId> {
        let ids = ["c1", "c2"].iter().map(|c| CampaignId::new(c).unwrap());
        ids.filter(|c| self.of_campaign(c).as_ref() == Some(advertiser)).collect()
    }
}

/// Knows one event, `e1`, once in `c1` and once in `c2`, and what `c1` did on one day.
struct OfC1;

#[async_trait::async_trait]
impl Explainer for OfC1 {
    async fn event(&self, id: &EventId) -> Result<Vec<Occurrence>, Unexplained> {
        let occurrence = |campaign: &str| Occurrence {
            day: Day(1),
            event_type: "click".to_owned(),
            ad_id: "a1".to_owned(),
            campaign_id: campaign.to_owned(),
            event_time: Timestamp(1),
            place: Place { ingest_time: Timestamp(2), region: "eu".to_owned(), partition: 0, position: 7 },
            invalid_at_capture: None,
            fingerprint: "00".to_owned(),
            first: None,
            judged: None,
        };
        let campaigns: &[&str] = match id.as_str() {
            "e1" => &["c1"],
            "both" => &["c1", "c2"],
            _ => &[],
        };
        Ok(campaigns.iter().map(|c| occurrence(c)).collect())
    }

    async fn campaign(&self, id: &CampaignId, day: Day) -> Result<Option<Waterfall>, Unexplained> {
        let step = Step { what: "archived".to_owned(), events: 3, is_sum: true, why: "accepted".to_owned() };
        Ok((day == Day::parse("2026-01-04").unwrap()).then(|| Waterfall {
            campaign_id: id.clone(),
            day,
            run: 1,
            events: vec![step],
            amounts: Vec::new(),
            drift: None,
            notes: Vec::new(),
        }))
    }
}

/// A running server and all that it reads.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) store: MemoryServingStore,
    pub(crate) objects: Arc<InMemory>,
    pub(crate) clock: ManualClock,
    pub(crate) keys: ApiKeyFile,
    pub(crate) shutdown: Shutdown,
    pub(crate) running: tokio::task::JoinHandle<Result<(), Error>>,
    /// All scopes, all tenants.
    pub(crate) operator: String,
    /// All scopes, `adv-1`.
    pub(crate) tenant: String,
    _folder: tempfile::TempDir,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.bytes))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// Five minutes into the laws' hour.
pub(crate) fn start_time() -> Timestamp {
    laws::hour().plus(300 * SECOND)
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(|objects| objects, change).await
    }

    /// A server that sees the objects through a store of the caller's.
    pub(crate) async fn start_on(
        through: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = ApiKeyFile::new(folder.path().join("api_keys.json"));
        let mut settings = Settings::default();
        change(&mut settings);
        let (store, objects) = (MemoryServingStore::new(), Arc::new(InMemory::new()));
        let clock = ManualClock::at(start_time());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let operator = make_key(&keys, 1, Tenant::Operator, &Scope::ALL);
        let tenant = make_key(&keys, 2, "adv-1".parse().unwrap(), &Scope::ALL);
        let deps = Deps {
            store: Arc::new(store.clone()),
            objects: through(Arc::clone(&objects) as Arc<dyn ObjectStore>),
            explainer: Arc::new(OfC1),
            tenants: Arc::new(Two),
            keys: keys.clone(),
            clock: Arc::new(clock.clone()),
            metrics_text: Arc::new(|| "clickledger_test_total 1\n".to_owned()),
        };
        let running = tokio::spawn(Serving::new(settings, deps).run(listener, shutdown.clone()));
        Self { address, store, objects, clock, keys, shutdown, running, operator, tenant, _folder: folder }
    }

    /// A key with these scopes; `n` makes it different from the others.
    pub(crate) async fn key(&self, n: u8, tenant: Tenant, scopes: &[Scope]) -> String {
        let text = make_key(&self.keys, n, tenant, scopes);
        // The server reads the file on its own timer.
        while self.get("/v1/sla", &text).await.status == StatusCode::UNAUTHORIZED {
            tokio::task::yield_now().await;
        }
        text
    }

    /// What a speed worker said when it flushed at the server's time, with no lag.
    pub(crate) fn caught_up(&self) -> WriterStatus {
        let now = self.clock.now();
        WriterStatus { flushed_at: now, as_of: now.plus(-SECOND), ..WriterStatus::default() }
    }

    /// One flush of rows by writer 0.
    pub(crate) async fn flush(&self, sequence: u64, rows: Vec<shared::rollup::RollupRow>) {
        let flush = shared::serving_store::Flush { status: self.caught_up(), ..laws::flush(0, sequence, rows) };
        self.store.upsert_approximate(flush).await.unwrap();
    }

    pub(crate) async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.objects.put(&Path::from(path), bytes.into().into()).await.unwrap();
    }

    /// A request with a key. The clock moves on first, so that no answer is an old one.
    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.clock.advance(2 * SECOND);
        self.send(Method::GET, path, &[("authorization", &format!("Bearer {key}"))], "").await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let response = self.begin(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, bytes }
    }

    pub(crate) async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        sender.send_request(request).await.unwrap()
    }
}

pub(crate) fn make_key(keys: &ApiKeyFile, n: u8, tenant: Tenant, scopes: &[Scope]) -> String {
    let scopes: BTreeSet<Scope> = scopes.iter().copied().collect();
    keys.edit(|keys| Ok(keys.create([n; KEY_RANDOM_BYTES], tenant, scopes, Timestamp(1)).text)).unwrap()
}

/// A problem is complete: its media type, a sentence that helps, and the request's name in body and header.
pub(crate) fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let body = answer.json();
    assert_eq!(body["status"], status);
    assert!(!body["fix"].as_str().unwrap().is_empty(), "{body}");
    assert_eq!(body["requestId"], answer.header("x-request-id"));
}

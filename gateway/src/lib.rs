//! Click → log: the first step of both walks.
//!
//! ```text
//! request ─ limit ─ body ─ items ─ intake (signature, directory) ─ capture (claim → append → confirm) ─ answer
//!                             └────────────── refusals (dead letters, counts) ──────────────┘
//! ```
//! Guarantees: no answer before the event is durable; one id counts once whoever sends it how often; no redirect but
//! to the ad directory's URL; every request ends in exactly one outcome, which is a metric and, where it is no event,
//! a durable record. Bounded: connections, bodies, items, waiting requests (`max_in_flight`), clients, remembered ids.
//! On crash: what was acknowledged is in the log; what was not is the client's to send again under the same id.
//! Never: trusts a header about who is asking, stores an address, or a byte of somebody who opted out.

mod answer;
mod body;
mod capture;
mod click;
pub mod dedup;
mod error;
mod events;
pub mod forward;
mod front;
pub mod hot;
mod impressions;
pub mod intake;
pub mod ip_hash;
mod items;
pub mod keys;
mod link;
pub mod rate_limit;
mod refusals;
mod routes;
mod settings;
pub mod signature;
mod state;
mod to_its_end;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use shared::directory::DirectoryHandle;
use shared::event_log::EventLog;
use shared::id::RefId;
use shared::shutdown::Shutdown;
use shared::telemetry::metric_names::{GATEWAY_DEDUP_ENTRIES, GATEWAY_DEDUP_FORGOTTEN};
use shared::time::{Clock, sleep};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use error::Error;
pub use impressions::{Issuer, Issuers};
pub use link::link_event_id;
pub use settings::{OnBadSignature, Settings};

use capture::Capture;
use dedup::DedupStore;
use ip_hash::{Chance, Salts};
use keys::KeyRing;
use refusals::Refusals;
use state::State;

/// How often counts are flushed and what grows is trimmed.
const TICK: Duration = Duration::from_secs(1);
/// How often the tally of what was taken in is written: a kill leaves at most this much in no tally.
const TALLY_EVERY: Duration = Duration::from_secs(60);

/// What the gateway works with.
#[derive(Clone)]
pub struct Deps {
    /// Where events go.
    pub events: Arc<dyn EventLog>,
    /// Where refusals go.
    pub dead_letters: Arc<dyn EventLog>,
    /// The ads.
    pub directory: Arc<DirectoryHandle>,
    /// The signing keys.
    pub keys: Arc<KeyRing>,
    /// The memory of event ids.
    pub dedup: Arc<dyn DedupStore>,
    /// What addresses are hashed with.
    pub salts: Arc<Salts>,
    /// Who may ask for signed links.
    pub issuers: Issuers,
    /// Random bytes.
    pub chance: Chance,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where this gateway stands.
    pub region: RefId,
    /// Renders `/metrics`.
    pub metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The gateway.
pub struct Gateway {
    state: Arc<State>,
    dedup: Arc<dyn DedupStore>,
    running: TaskTracker,
}

impl Gateway {
    /// A gateway that is not running yet.
    #[must_use]
    pub fn new(settings: Settings, deps: Deps) -> Self {
        let settings = Arc::new(settings);
        let running = TaskTracker::new();
        let kept_bytes = settings.max_refused_per_second.0;
        let refusals = Refusals::new(deps.dead_letters, Arc::clone(&deps.clock), deps.region.clone(), kept_bytes);
        let refusals = Arc::new(refusals);
        let hot = hot::HotAds::new(settings.hot_ads.clone(), deps.events.partitions(), deps.clock.now());
        let capture = Arc::new(Capture {
            events: deps.events,
            hot,
            dedup: Arc::clone(&deps.dedup),
            refusals: Arc::clone(&refusals),
            clock: Arc::clone(&deps.clock),
            settings: Arc::clone(&settings),
            slots: Arc::new(Semaphore::new(usize::try_from(settings.max_in_flight).unwrap_or(1))),
            running: running.clone(),
        });
        let state = Arc::new(State {
            limit: rate_limit::RateLimit::new(&settings.rate_limit, Arc::clone(&deps.clock)),
            budget: body::Budget::new(&settings),
            settings,
            capture,
            refusals,
            directory: deps.directory,
            keys: deps.keys,
            salts: deps.salts,
            issuers: deps.issuers,
            chance: deps.chance,
            clock: deps.clock,
            region: deps.region,
            metrics_text: deps.metrics_text,
            failed_at: AtomicI64::new(i64::MIN),
        });
        Self { state, dedup: deps.dedup, running }
    }

    /// Serves until `shutdown` is asked for; then finishes what was begun and writes the last counts.
    ///
    /// # Errors
    /// [`Error::Listener`] when the listener cannot be used, [`Error::Counts`] when the last counts are lost.
    pub async fn run(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
        let front = front::Front::new(Arc::clone(&self.state), routes::router(Arc::clone(&self.state)));
        let limits = self.state.settings.http.clone();
        // Housekeeping is stopped, never cut: it may be in the middle of an append.
        let served = Shutdown::new();
        let serving = async {
            let result = shared::http::serve(listener, front, limits, shutdown).await;
            served.request();
            result
        };
        let (result, ()) = tokio::join!(serving, self.housekeeping(&served));
        result?;
        self.running.close();
        self.running.wait().await;
        self.state.refusals.flush().await.map_err(Error::Counts)?;
        self.state.refusals.flush_tallies().await.map_err(Error::Counts)
    }

    /// Once a second: counts to the log, idle clients forgotten, hot ads, keys and directory looked at; until `stop`.
    async fn housekeeping(&self, stop: &Shutdown) {
        let (mut since_reload, mut since_tally) = (Duration::ZERO, Duration::ZERO);
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = sleep(TICK) => {}
            }
            if let Err(error) = self.state.refusals.flush().await {
                tracing::warn!(%error, "cannot append the counts of refused events: they are kept for the next time");
            }
            since_tally += TICK;
            if since_tally >= TALLY_EVERY {
                since_tally = Duration::ZERO;
                if let Err(error) = self.state.refusals.flush_tallies().await {
                    tracing::warn!(%error, "cannot append the tally: it is kept for the next time");
                }
            }
            self.state.limit.forget_idle();
            self.state.capture.hot.tick(self.state.clock.now());
            let (entries, forgotten) = self.dedup.size();
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!(GATEWAY_DEDUP_ENTRIES).set(entries as f64);
            metrics::counter!(GATEWAY_DEDUP_FORGOTTEN).absolute(forgotten);
            since_reload += TICK;
            if since_reload >= self.state.settings.reload_interval.0 {
                since_reload = Duration::ZERO;
                self.reload().await;
            }
        }
    }

    async fn reload(&self) {
        let (keys, directory) = (Arc::clone(&self.state.keys), Arc::clone(&self.state.directory));
        let (salts, now) = (Arc::clone(&self.state.salts), self.state.clock.now());
        let reloaded = tokio::task::spawn_blocking(move || {
            match keys.refresh() {
                Ok(true) => tracing::info!("signing keys changed"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the new signing keys cannot be used: the old ones stay"),
            }
            match directory.refresh() {
                Ok(true) => tracing::info!(ads = directory.current().len(), "ad directory changed"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the new ad directory cannot be used: the old one stays"),
            }
            if let Err(error) = salts.destroy_old(now) {
                tracing::error!(%error, "salts past their time are still there: destroyed at the next try");
            }
        });
        if let Err(error) = reloaded.await {
            tracing::error!(%error, "looking for new keys and ads failed");
        }
    }
}

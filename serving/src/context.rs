//! What every handler needs, once: the ports, the keys in use, the shared answers.

use std::sync::{Arc, PoisonError, RwLock};

use object_store::ObjectStore;
use shared::explain::Explainer;
use shared::serving_store::ServingStore;
use shared::shutdown::Shutdown;
use shared::time::{Clock, Timestamp};
use tokio::sync::Semaphore;

use crate::api_keys::{ApiKey, ApiKeyFile, ApiKeys};
use crate::bounds::{Judge, KnownBounds};
use crate::drift::DriftCards;
use crate::error::KeysError;
use crate::settings::Settings;
use crate::tenants::Tenants;
use crate::tiles::Tiles;

/// Renders the metrics of this process for Prometheus.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What serving is made of.
#[derive(Clone)]
pub struct Deps {
    /// The serving store.
    pub store: Arc<dyn ServingStore>,
    /// The data root: `reports/drift/` and `settlement/` are read from it. Its paths start there; where they do
    /// not, [`crate::rooted`] makes them.
    pub objects: Arc<dyn ObjectStore>,
    /// Where numbers come from.
    pub explainer: Arc<dyn Explainer>,
    /// Who owns what.
    pub tenants: Arc<dyn Tenants>,
    /// Where the API keys are.
    pub keys: ApiKeyFile,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// The metrics of this process.
    pub metrics_text: MetricsText,
}

/// The state of the router.
pub(crate) struct Context {
    pub(crate) store: Arc<dyn ServingStore>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) explainer: Arc<dyn Explainer>,
    pub(crate) tenants: Arc<dyn Tenants>,
    pub(crate) keys: KeyRing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics_text: MetricsText,
    pub(crate) settings: Settings,
    pub(crate) tiles: Tiles,
    pub(crate) drift_cards: DriftCards,
    known_bounds: KnownBounds,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) shutdown: Shutdown,
    /// Whether the listener is reached from this machine only: the cookie is then sent without TLS.
    pub(crate) is_loopback: bool,
}

impl Context {
    pub(crate) fn new(
        settings: Settings,
        deps: Deps,
        shutdown: Shutdown,
        is_loopback: bool,
    ) -> Result<Self, KeysError> {
        Ok(Self {
            store: deps.store,
            objects: deps.objects,
            explainer: deps.explainer,
            tenants: deps.tenants,
            keys: KeyRing::open(deps.keys)?,
            clock: deps.clock,
            metrics_text: deps.metrics_text,
            tiles: Tiles::new(settings.tile_ttl),
            drift_cards: DriftCards::default(),
            known_bounds: KnownBounds::default(),
            streams: Arc::new(Semaphore::new(usize::try_from(settings.max_streams).unwrap_or(1))),
            settings,
            shutdown,
            is_loopback,
        })
    }

    /// What puts error bounds beside numbers as of `as_of`.
    pub(crate) async fn judge(&self, as_of: Option<Timestamp>) -> Judge {
        Judge::new(self.known_bounds.current(&*self.objects, self.now()).await, as_of)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The keys in use: the file's, read again on a timer.
pub(crate) struct KeyRing {
    file: ApiKeyFile,
    keys: RwLock<Arc<ApiKeys>>,
}

impl KeyRing {
    fn open(file: ApiKeyFile) -> Result<Self, KeysError> {
        let keys = RwLock::new(Arc::new(file.load()?));
        Ok(Self { file, keys })
    }

    fn current(&self) -> Arc<ApiKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn verify(&self, text: &str) -> Option<ApiKey> {
        self.current().verify(text).cloned()
    }

    pub(crate) fn is_active(&self, id: &str) -> bool {
        self.current().is_active(id)
    }

    /// Reads the file again, so that a revoked key stops working. A file that does not read keeps the last keys.
    pub(crate) fn refresh(&self) {
        match self.file.load() {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys),
            Err(error) => {
                tracing::error!(%error, "the API keys in use stay as they were: revocations do not take hold")
            }
        }
    }
}

//! The composition root: turns settings into adapters and adapters into layers. The only file that names every
//! crate, and the only one that knows which implementation stands behind a port.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use anyhow::Context;
use gateway::keys::{KeyRing, KeyStatus};
use gateway::signature::EventClaims;
use shared::directory::DirectoryHandle;
use shared::explain::Explainer;
use shared::id::RefId;
use shared::money::Currency;
use shared::price::PriceBook;
use shared::shutdown::Shutdown;
use shared::time::{Clock, SystemClock};
use shared::verdict::Counting;

use crate::exit::Usage;
use crate::explain::Explaining;
use crate::folder::Folder;
use crate::logs::Logs;
use crate::price_store::PriceStore;
use crate::settings::Settings;
use crate::settlement_keys;
use crate::simulate::{Draft, Proof, Signer};

/// How often a long-running role looks for new prices, ads and keys.
const REFRESH: Duration = Duration::from_secs(2);

/// Settings, clock and folder: everything adapters are made from.
#[derive(Clone)]
pub struct Parts {
    settings: Settings,
    clock: Arc<dyn Clock>,
    folder: Folder,
}

impl Parts {
    /// Parts on the machine's clock.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, Arc::new(SystemClock::default()))
    }

    /// Parts on another clock (the demo's, a test's).
    #[must_use]
    pub fn with_clock(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let folder = Folder::new(&settings.data);
        Self { settings, clock, folder }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where this process stands.
    ///
    /// # Errors
    /// When the setting is not an id.
    pub fn region(&self) -> anyhow::Result<RefId> {
        RefId::new(&self.settings.region).context("setting region")
    }

    /// The lake.
    ///
    /// # Errors
    /// When its folder cannot be made, or its store not be opened.
    pub fn lake_root(&self) -> anyhow::Result<lake::LakeRoot> {
        let stores = &self.settings.object_store;
        Ok(stores.root(&stores.lake_url, &self.folder.lake())?.with_clock(self.clock()))
    }

    /// The root that holds `settlement/` and `reports/`.
    ///
    /// # Errors
    /// When its folder cannot be made, or its store not be opened.
    pub fn data_root(&self) -> anyhow::Result<lake::LakeRoot> {
        let stores = &self.settings.object_store;
        Ok(stores.root(&stores.published_url, self.folder.root())?.with_clock(self.clock()))
    }

    /// Where something published lies, as `settlement verify` takes it: a folder, or a URL.
    ///
    /// # Errors
    /// As [`Parts::data_root`].
    pub fn published(&self, relative: &str) -> anyhow::Result<PathBuf> {
        if self.settings.object_store.published_url.is_empty() {
            return Ok(self.folder.root().join(relative));
        }
        Ok(format!("{}{relative}", self.data_root()?.url()).into())
    }

    /// Where price books are kept.
    #[must_use]
    pub fn price_store(&self) -> PriceStore {
        PriceStore::new(&self.folder.prices())
    }

    /// The archiver on these logs.
    ///
    /// # Errors
    /// When the lake cannot be opened.
    pub fn archiver(&self, logs: Logs) -> anyhow::Result<lake::archiver::Archiver> {
        let deps = lake::archiver::Deps {
            events: logs.events,
            dead_letters: logs.dead_letters,
            root: self.lake_root()?,
            clock: self.clock(),
            region: self.region()?,
            counting: self.settings.counting.clone(),
        };
        Ok(lake::archiver::Archiver::new(self.settings.lake.clone(), deps))
    }

    /// The speed layer on this log, and the task that keeps its prices fresh.
    ///
    /// # Errors
    /// When the serving store or the price book cannot be opened.
    pub async fn speed(&self, logs: Logs, shutdown: &Shutdown) -> anyhow::Result<speed::Speed> {
        let settings = self.speed_settings();
        let (stores, url) = (&self.settings.object_store, &settings.state_url);
        let state = if url.is_empty() { None } else { Some(stores.root(url, &settings.state_dir)?) };
        let deps = speed::Deps {
            events: logs.events,
            store: self.serving_store().await?,
            prices: self.prices(shutdown)?,
            state: state.map(|root| serving::rooted(root.store(), root.path(""))),
            clock: self.clock(),
        };
        Ok(speed::Speed::new(settings, deps))
    }

    fn speed_settings(&self) -> speed::Settings {
        speed::Settings {
            state_dir: self.folder.speed_state(),
            counting: self.settings.counting.clone(),
            ..self.settings.speed.clone()
        }
    }

    /// What a replay of these logs into the store at `place` works with: the newest prices, no checkpoints.
    ///
    /// # Errors
    /// When store or prices cannot be opened.
    pub(crate) async fn replay(&self, logs: Logs, place: &str) -> anyhow::Result<(speed::Settings, speed::Deps)> {
        let book = Arc::new(self.price_store().newest()?);
        let deps = speed::Deps {
            events: logs.events,
            store: self.new_serving_store_at(place).await?,
            prices: Arc::new(move || Arc::clone(&book)),
            state: None,
            clock: self.clock(),
        };
        Ok((self.speed_settings(), deps))
    }

    /// A price book that is read again whenever a newer version appears, until `shutdown`.
    fn prices(&self, shutdown: &Shutdown) -> anyhow::Result<speed::Prices> {
        let store = self.price_store();
        let current = Arc::new(RwLock::new(Arc::new(store.newest()?)));
        let read = current.clone();
        self.refresh("prices", shutdown, move || {
            let version = store.newest_version()?;
            if version != latest(&current).version {
                let book = Arc::new(store.load(version)?);
                *current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = book;
                tracing::info!(version, "new price book");
            }
            Ok(())
        });
        Ok(Arc::new(move || latest(&read)))
    }

    /// The ad directory, read again whenever it changes, until `shutdown`.
    fn directory(&self, shutdown: &Shutdown) -> anyhow::Result<Arc<DirectoryHandle>> {
        let handle = self.directory_handle(shutdown)?;
        let fresh = handle.clone();
        self.refresh("ad directory", shutdown, move || Ok(fresh.refresh().map(|_| ())?));
        Ok(handle)
    }

    /// The signing keys, read again by whoever uses them for long.
    ///
    /// # Errors
    /// When the file is no key file.
    pub fn signing_keys(&self) -> anyhow::Result<Arc<KeyRing>> {
        Ok(Arc::new(KeyRing::open(self.folder.signing_keys())?))
    }

    /// Signs simulated events with the newest signing key.
    ///
    /// # Errors
    /// When there is no active key to sign with.
    pub fn event_signer(&self) -> anyhow::Result<Signer> {
        let keys = self.signing_keys()?.current();
        if !keys.keys().iter().any(|k| k.status == KeyStatus::Active) {
            return Err(Usage("there is no signing key: make one with `clickledger keys create signing`".into()).into());
        }
        Ok(Box::new(move |draft: &Draft, expires_at| {
            let claims = EventClaims {
                event_id: &draft.event_id,
                kind: draft.kind,
                event_time: draft.event_time,
                ad_id: &draft.ad_id,
                campaign_id: Some(&draft.campaign_id),
                impression_id: draft.impression_id.as_deref(),
                cost_micros: draft.cost_micros,
                currency: draft.currency.and_then(Currency::parse),
                expires_at: Some(expires_at),
                nonce: draft.nonce.as_deref(),
            };
            let signed = keys.sign_event(&claims);
            let (key_id, signature) = signed.map_or((None, String::new()), |s| (Some(s.key_id), s.signature));
            Proof { key_id, signature }
        }))
    }

    /// Who may ask the gateway for signed links: the API keys of the scope `sign`, read again until `shutdown`.
    fn issuers(&self, shutdown: &Shutdown) -> anyhow::Result<gateway::Issuers> {
        let file = serving::ApiKeyFile::new(self.folder.api_keys());
        let keys = Arc::new(RwLock::new(file.load()?));
        let read = keys.clone();
        self.refresh("API keys", shutdown, move || {
            *keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = file.load()?;
            Ok(())
        });
        Ok(Arc::new(move |text| {
            let keys = read.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let key = keys.verify(text).filter(|key| key.scopes.contains(&serving::Scope::Sign))?;
            Some(match &key.tenant {
                serving::Tenant::Operator => gateway::Issuer::Operator,
                serving::Tenant::Advertiser(id) => gateway::Issuer::Advertiser(id.clone()),
            })
        }))
    }

    /// The gateway on these logs; the API keys it knows stay fresh until `shutdown`.
    ///
    /// # Errors
    /// When directory, keys or salts cannot be read.
    pub fn gateway(&self, logs: Logs, shutdown: &Shutdown) -> anyhow::Result<gateway::Gateway> {
        let settings = self.settings.gateway.clone();
        let chance: gateway::ip_hash::Chance = Arc::new(|bytes| getrandom::fill(bytes).map_err(Into::into));
        let salts = self.folder.ip_salts();
        let deps = gateway::Deps {
            events: logs.events,
            dead_letters: logs.dead_letters,
            directory: self.directory_handle(shutdown)?,
            keys: self.signing_keys()?,
            dedup: self.dedup(&chance)?,
            salts: Arc::new(gateway::ip_hash::Salts::open(Some(salts), settings.ip_hash.clone(), chance.clone())?),
            issuers: self.issuers(shutdown)?,
            chance,
            clock: self.clock(),
            region: self.region()?,
            metrics_text: metrics_text(),
        };
        Ok(gateway::Gateway::new(settings, deps))
    }

    /// The query API and dashboard; its ad directory stays fresh until `shutdown`.
    ///
    /// # Errors
    /// When the store, the directory or the data folder cannot be opened.
    pub async fn serving(&self, shutdown: &Shutdown) -> anyhow::Result<serving::Serving> {
        let root = self.data_root()?;
        let deps = serving::Deps {
            store: self.serving_store().await?,
            objects: serving::rooted(root.store(), root.path("")),
            explainer: self.explainer()?,
            tenants: self.directory(shutdown)?,
            keys: serving::ApiKeyFile::new(self.folder.api_keys()),
            clock: self.clock(),
            metrics_text: metrics_text(),
        };
        Ok(serving::Serving::new(self.settings.serving.clone(), deps))
    }

    /// Whoever explains numbers.
    ///
    /// # Errors
    /// When lake or data folder cannot be opened.
    pub fn explainer(&self) -> anyhow::Result<Arc<dyn Explainer>> {
        let (lake, data) = (self.lake_root()?, self.data_root()?);
        Ok(Arc::new(Explaining { lake, data, prices: self.price_store() }))
    }

    /// What batch works on; `rules` and `prices` instead of the standing ones for a what-if.
    ///
    /// # Errors
    /// When there is no log yet, or lake or prices cannot be read.
    pub async fn batch_deps(&self, rules: Option<Counting>, prices: Option<PriceBook>) -> anyhow::Result<batch::Deps> {
        let logs = self.log_reader().await?;
        Ok(batch::Deps {
            root: self.lake_root()?,
            events: logs.events,
            dead_letters: logs.dead_letters,
            clock: self.clock(),
            prices: Arc::new(prices.map_or_else(|| self.price_store().newest(), Ok)?),
            counting: Arc::new(rules.unwrap_or_else(|| self.settings.counting.clone())),
        })
    }

    /// Batch's settings; it spills within the data folder unless told otherwise.
    #[must_use]
    pub fn batch_settings(&self) -> batch::Settings {
        let mut settings = self.settings.batch.clone();
        if settings.spill_dir.as_os_str().is_empty() {
            settings.spill_dir = self.folder.spill();
        }
        settings
    }

    /// What reconcile works on.
    ///
    /// # Errors
    /// When lake, serving store or settlement keys cannot be opened.
    pub async fn reconcile_deps(&self) -> anyhow::Result<reconcile::Deps> {
        Ok(reconcile::Deps {
            signer: settlement_keys::signer(self).await?,
            lake: self.lake_root()?,
            data: self.data_root()?,
            store: self.serving_store().await?,
            clock: self.clock(),
        })
    }

    /// Reconcile's settings; what speed drops as late is speed's to say.
    #[must_use]
    pub fn reconcile_settings(&self) -> reconcile::Settings {
        reconcile::Settings { late_after: self.settings.speed.allowed_lateness, ..self.settings.reconcile.clone() }
    }

    /// Table versions that vacuum must keep readable: those that published settlements were made from, and those that
    /// hold the gold of each day's newest run.
    ///
    /// # Errors
    /// When settlements cannot be listed.
    pub async fn pinned_versions(&self) -> anyhow::Result<Vec<lake::maintenance::Pin>> {
        let mut pins = Vec::new();
        for listed in reconcile::settlements::Settlements::new(self.data_root()?).list().await? {
            let inputs = listed.manifest.inputs.into_iter();
            pins.extend(inputs.map(|i| lake::maintenance::Pin { table: i.table, version: i.version }));
        }
        for run in reconcile::runs::newest_of_all_days(&self.lake_root()?).await? {
            let outputs = run.outputs.into_iter();
            pins.extend(outputs.map(|(table, o)| lake::maintenance::Pin { table, version: o.version }));
        }
        pins.sort();
        pins.dedup();
        Ok(pins)
    }

    /// Runs `work` every [`REFRESH`] until shutdown; a failure is logged and what is there stays in use.
    fn refresh(
        &self,
        what: &'static str,
        shutdown: &Shutdown,
        work: impl Fn() -> anyhow::Result<()> + Send + Sync + 'static,
    ) {
        let shutdown = shutdown.clone();
        let work = Arc::new(work);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = shared::time::sleep(REFRESH) => {}
                }
                let work = work.clone();
                match tokio::task::spawn_blocking(move || work()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(what, error = format!("{error:#}"), "cannot refresh; the old one stays in use")
                    }
                    Err(error) => tracing::error!(what, %error, "refresh failed"),
                }
            }
        });
    }
}

fn latest(book: &RwLock<Arc<PriceBook>>) -> Arc<PriceBook> {
    book.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// Renders `/metrics`: one recorder for the whole process.
fn metrics_text() -> Arc<dyn Fn() -> String + Send + Sync> {
    static HANDLE: OnceLock<Option<shared::telemetry::PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(shared::telemetry::start_metrics).clone();
    Arc::new(move || handle.as_ref().map(shared::telemetry::PrometheusHandle::render).unwrap_or_default())
}

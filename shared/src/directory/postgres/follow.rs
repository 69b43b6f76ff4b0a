//! From the database into the snapshot: once ([`fetch`]), or for as long as a process runs ([`Follower`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::sync::mpsc::{Sender, channel};
use tokio_postgres::Row;

use super::session::Session;
use super::{PostgresError, Settings};
use crate::directory::import::replace;
use crate::directory::{AdRow, AdStatus, BadAd, DirectoryError, DirectoryHandle};
use crate::id::{AdId, AdvertiserId, CampaignId};
use crate::shutdown::Shutdown;
use crate::telemetry::metric_names::DIRECTORY_STALE;
use crate::time::{Clock, SECOND, sleep};

const READ_ADS: &str = include_str!("../../../../sql/postgres/10_read_ads.sql");
/// Rows handed on at once; that many hands may be full.
const CHUNK: usize = 1_024;
const CHUNKS: usize = 8;
/// The pause after a failure; it doubles up to the polling interval.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The pause between two loads, however fast changes come.
const BETWEEN_LOADS: Duration = Duration::from_millis(200);

const READING: &str = "reading the ad directory";

/// Loads the directory into the snapshot at `path`; whether that is another one now.
///
/// # Errors
/// The snapshot is as it was.
pub async fn fetch(settings: &Settings, path: &Path) -> Result<bool, PostgresError> {
    let mut session = Session::open(settings).await?;
    load(&mut session, path).await.map(|(_, changed)| changed)
}

/// Keeps the snapshot of a handle as the database is.
pub struct Follower {
    settings: Settings,
    path: PathBuf,
    handle: Arc<DirectoryHandle>,
    clock: Arc<dyn Clock>,
}

impl Follower {
    /// A follower that keeps its snapshot in the file `path`, which `handle` reads.
    #[must_use]
    pub fn new(settings: Settings, path: PathBuf, handle: Arc<DirectoryHandle>, clock: Arc<dyn Clock>) -> Self {
        Self { settings, path, handle, clock }
    }

    /// Follows until shutdown. Until the database has answered first, the snapshot counts as stale.
    pub async fn run(self, shutdown: Shutdown) {
        let (mut pause, mut said) = (FIRST_PAUSE, String::new());
        self.stale();
        loop {
            let ended = tokio::select! {
                () = shutdown.requested() => return,
                ended = self.follow(&mut pause, &mut said) => ended,
            };
            self.stale();
            let why = ended.err().map(|e| e.to_string()).unwrap_or_default();
            if said != why {
                tracing::error!(error = why, "the ad directory cannot be followed: the last snapshot is served");
                said = why;
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = sleep(pause) => pause = (pause * 2).min(self.settings.poll_interval.0),
            }
        }
    }

    fn stale(&self) {
        let now = self.clock.now();
        let since = self.handle.mark_stale(now);
        let seconds = u32::try_from(now.since(since) / SECOND).unwrap_or(u32::MAX);
        metrics::gauge!(DIRECTORY_STALE).set(seconds);
    }

    /// One connection's life: it ends with an error.
    async fn follow(&self, pause: &mut Duration, said: &mut String) -> Result<(), PostgresError> {
        let mut session = Session::open(&self.settings).await?;
        session.ask("listening", session.client.batch_execute("LISTEN clickledger_directory")).await?;
        let mut loaded = None;
        loop {
            if loaded != Some(version(&session).await?) {
                let (version, changed) = load(&mut session, &self.path).await?;
                loaded = Some(version);
                let handle = Arc::clone(&self.handle);
                let refreshed = tokio::task::spawn_blocking(move || handle.refresh()).await;
                refreshed.map_err(died)??;
                tracing::info!(version, changed, ads = self.handle.current().len(), "ad directory loaded");
                sleep(BETWEEN_LOADS).await;
            }
            self.handle.mark_fresh();
            metrics::gauge!(DIRECTORY_STALE).set(0.0);
            *pause = FIRST_PAUSE;
            said.clear();
            session.told(self.settings.poll_interval.0).await;
        }
    }
}

fn died(error: tokio::task::JoinError) -> PostgresError {
    PostgresError::Away { doing: READING, why: error.to_string() }
}

async fn version(session: &Session) -> Result<i64, PostgresError> {
    let asked = session.client.query_one("SELECT version FROM clickledger.directory_version", &[]);
    let row = session.ask(READING, asked).await?;
    row.try_get(0).map_err(|e| PostgresError::of(READING, &e))
}

/// Loads everything as of one moment into the snapshot at `path`; that moment's version, and whether the snapshot is
/// another one now.
async fn load(session: &mut Session, path: &Path) -> Result<(i64, bool), PostgresError> {
    session.ask(READING, session.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).await?;
    let version = version(session).await?;
    let (rows, taken) = channel(CHUNKS);
    let path = path.to_owned();
    let replacing = tokio::task::spawn_blocking(move || replace(&path, taken));
    // When reading fails the replacing hears no end, and so changes nothing; when that fails, it says why.
    read_ads(session, rows).await?;
    let changed = replacing.await.map_err(died)??;
    session.ask(READING, session.client.batch_execute("COMMIT")).await?;
    Ok((version, changed))
}

/// Hands all rows on, and then the end; stops early when nobody takes them.
async fn read_ads(session: &Session, to: Sender<Option<Vec<AdRow>>>) -> Result<(), PostgresError> {
    let failed = |e: tokio_postgres::Error| PostgresError::of(READING, &e);
    let none: [&str; 0] = [];
    let rows = session.ask(READING, session.client.query_raw(READ_ADS, none)).await?;
    let mut rows = std::pin::pin!(rows);
    let (mut chunk, mut number) = (Vec::with_capacity(CHUNK), 0);
    while let Some(row) = session.ask(READING, rows.try_next()).await? {
        number += 1;
        chunk.push(ad(&row).map_err(failed)?.map_err(|why| DirectoryError::Row(BadAd { row: number, why }))?);
        if chunk.len() == CHUNK
            && to.send(Some(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)))).await.is_err()
        {
            return Ok(());
        }
    }
    for last in [Some(chunk), None] {
        if to.send(last).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn ad(row: &Row) -> Result<Result<AdRow, String>, tokio_postgres::Error> {
    let text = |n: usize| row.try_get::<_, &str>(n);
    let (ad_id, campaign_id, advertiser_id) =
        (AdId::new(text(0)?), CampaignId::new(text(1)?), AdvertiserId::new(text(2)?));
    let (url, status) = (text(3)?.to_owned(), text(4)?);
    let read = || {
        let known = AdStatus::ALL.into_iter().find(|s| s.as_str() == status);
        Ok(AdRow {
            ad_id: ad_id.map_err(|e| e.to_string())?,
            campaign_id: campaign_id.map_err(|e| e.to_string())?,
            advertiser_id: advertiser_id.map_err(|e| e.to_string())?,
            url,
            status: known.ok_or_else(|| format!("{status:?} is no status of an ad"))?,
        })
    };
    Ok(read())
}

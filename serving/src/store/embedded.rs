//! Opens the database, migrates it, and runs each call in one transaction on a thread that may block.
//! Guarantee: `synchronous=FULL`, so a call that returned survives power loss. Speed forgets closed windows once
//! they are flushed and its checkpoint is synced; a flush that power loss could take back would leave a hole until
//! reconcile. It costs one sync per flush and writer, once in ten seconds.
//! On crash: the next open restores the last finished call. Several processes may have the file open at once:
//! readers never wait, writers wait for each other up to [`BUSY_TIMEOUT`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use shared::id::{AdId, CampaignId};
use shared::rollup::{RowVersion, TimeRange};
use shared::serving_store::{
    CampaignHourPoint, Correction, Flush, HourRows, SeriesPoint, ServingStore, StoreError, TopBy, TopCampaign,
    Upserted, WriterStatus,
};
use shared::time::{Day, Timestamp};
use tokio::sync::Semaphore;

use super::encode::Failure;
use super::{read, write};

/// How long a call waits for another process's write before it is unavailable.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Read connections, and so reads at once; more wait their turn.
const MAX_READERS: usize = 4;
/// Pages of the write-ahead log (4 KiB each) after which it is moved into the database.
const WAL_PAGES: i64 = 4_000;
/// The write-ahead log file is cut back to this many bytes.
const WAL_BYTES: i64 = 64 << 20;
/// Page cache of the writer, in KiB (readers have SQLite's default).
const WRITER_CACHE_KIB: i64 = 32 * 1024;
/// Prepared statements kept per connection.
const STATEMENTS: usize = 64;

/// Every migration in order; the database's `user_version` says how many were applied.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../../sql/serving/001_create_tables.sql"),
    include_str!("../../../sql/serving/002_create_campaign_sum.sql"),
];

/// A serving store in one SQLite file. Clones share the connections.
#[derive(Clone)]
pub struct EmbeddedStore(Arc<Inner>);

struct Inner {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    reading: Semaphore,
}

impl EmbeddedStore {
    /// Opens or creates the store at `path` (its folder is made) and brings it to the newest schema. Blocks.
    ///
    /// # Errors
    /// Unavailable when the file cannot be opened, corrupt when it is something else or from a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let doing = format!("opening {}", path.display());
        if let Some(folder) = path.parent() {
            let away = |e: std::io::Error| StoreError::Unavailable { doing: doing.clone(), why: e.to_string() };
            std::fs::create_dir_all(folder).map_err(away)?;
        }
        let writer = open_writer(&path).map_err(|e| e.while_doing(&doing))?;
        Ok(Self(Arc::new(Inner {
            path,
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            reading: Semaphore::new(MAX_READERS),
        })))
    }

    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        blocking(doing, move || {
            let mut writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = call(&tx)?;
            tx.commit()?;
            Ok(done)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let closed = |_| StoreError::Unavailable { doing: doing.to_owned(), why: "the store is closed".to_owned() };
        let _turn = self.0.reading.acquire().await.map_err(closed)?;
        blocking(doing, move || {
            let idle = inner.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => open_reader(&inner.path)?,
            };
            let tx = reader.transaction()?;
            let done = call(&tx)?;
            tx.finish()?;
            inner.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            Ok(done)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    doing: &str,
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(done) => done.map_err(|e| e.while_doing(doing)),
        Err(panic) => Err(StoreError::Unavailable { doing: doing.to_owned(), why: panic.to_string() }),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, Failure> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

fn open_writer(path: &Path) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(path, flags)?;
    use_wal(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    migrate(&mut connection)?;
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, Failure> {
    // Not READ_ONLY: the first reader after a crash must be able to restore the write-ahead log.
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Switches to the write-ahead log. SQLite does not wait for other processes while it switches, so that two that
/// open a new file at once would fail without the retry.
fn use_wal(connection: &Connection) -> Result<(), Failure> {
    let mut left = 100;
    loop {
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(Failure::Corrupt(format!("the journal mode is {mode:?} and not WAL"))),
            Err(e) if left > 0 && e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                left -= 1;
                std::thread::sleep(BUSY_TIMEOUT / 100);
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn migrate(connection: &mut Connection) -> Result<(), Failure> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let applied: usize = tx.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let Some(missing) = MIGRATIONS.get(applied..) else {
        let newest = MIGRATIONS.len();
        return Err(Failure::Corrupt(format!(
            "schema {applied} was made by a newer version than this, which knows {newest}"
        )));
    };
    for migration in missing {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "user_version", MIGRATIONS.len())?;
    tx.commit()?;
    Ok(())
}

#[async_trait]
impl ServingStore for EmbeddedStore {
    async fn upsert_approximate(&self, mut flush: Flush) -> Result<Upserted, StoreError> {
        self.write("upserting a flush", move |tx| write::upsert(tx, &mut flush)).await
    }

    async fn next_generation(&self, writer: u32) -> Result<u32, StoreError> {
        self.write("taking a generation", move |tx| write::next_generation(tx, writer)).await
    }

    async fn read_hour(&self, hour: Timestamp) -> Result<HourRows, StoreError> {
        self.read("reading an hour", move |tx| read::hour(tx, hour)).await
    }

    async fn overwrite_exact(
        &self,
        hour: Timestamp,
        correction: Correction,
        version: RowVersion,
    ) -> Result<u64, StoreError> {
        correction.check(hour)?;
        self.write("overwriting an hour", move |tx| write::overwrite(tx, hour, &correction, version)).await
    }

    async fn owned_hours(&self, range: TimeRange) -> Result<BTreeMap<Timestamp, RowVersion>, StoreError> {
        self.read("reading owned hours", move |tx| read::owned_hours(tx, &range)).await
    }

    async fn mark_settled(&self, day: Day, version: u32) -> Result<(), StoreError> {
        self.write("marking a day", move |tx| write::settle(tx, day, version)).await
    }

    async fn ad_series(&self, ad: &AdId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        let ad = ad.clone();
        self.read("reading an ad", move |tx| read::ad_series(tx, &ad, &range)).await
    }

    async fn campaign_series(&self, campaign: &CampaignId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        let campaign = campaign.clone();
        self.read("reading a campaign", move |tx| read::campaign_series(tx, &campaign, &range)).await
    }

    async fn campaign_hours(
        &self,
        campaign: &CampaignId,
        range: TimeRange,
    ) -> Result<Vec<CampaignHourPoint>, StoreError> {
        let campaign = campaign.clone();
        self.read("reading a campaign's hours", move |tx| read::campaign_hours(tx, &campaign, &range)).await
    }

    async fn top(
        &self,
        range: TimeRange,
        by: TopBy,
        n: usize,
        among: Option<&[CampaignId]>,
    ) -> Result<Vec<TopCampaign>, StoreError> {
        let among: Option<BTreeSet<CampaignId>> = among.map(|ids| ids.iter().cloned().collect());
        self.read("reading the top campaigns", move |tx| read::top(tx, &range, by, n, among.as_ref())).await
    }

    async fn forget(&self, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Result<u64, StoreError> {
        self.write("forgetting old rows", move |tx| write::forget(tx, minutes, hours, at_most)).await
    }

    async fn writers(&self) -> Result<BTreeMap<u32, WriterStatus>, StoreError> {
        self.read("reading the writers", read::writers).await
    }
}

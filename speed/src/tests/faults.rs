//! A serving store that can refuse, or write and then say it did not; an object store that a crash cuts off.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as Stored,
};
use shared::id::{AdId, CampaignId};
use shared::rollup::{Counts, RollupKey, RowVersion, TimeRange};
use shared::serving_store::{
    CampaignHourPoint, Correction, Flush, HourRows, SeriesPoint, ServingStore, StoreError, TopBy, TopCampaign,
    Upserted, WriterStatus,
};
use shared::time::{Day, Timestamp};
use tokio::sync::watch;

/// Objects in a folder; after so many writes and removals nothing goes through any more, until it is mended.
#[derive(Debug)]
pub(crate) struct Cut {
    inner: Arc<LocalFileSystem>,
    left: Arc<Mutex<u64>>,
}

impl Cut {
    pub(crate) fn on(folder: &std::path::Path) -> Self {
        let inner = LocalFileSystem::new_with_prefix(folder).unwrap();
        Self { inner: Arc::new(inner), left: Arc::new(Mutex::new(u64::MAX)) }
    }

    pub(crate) fn after(&self, changes: u64) {
        *self.left.lock().unwrap() = changes;
    }

    pub(crate) fn mend(&self) {
        self.after(u64::MAX);
    }
}

fn take_one(left: &Mutex<u64>) -> Stored<()> {
    let mut left = left.lock().unwrap();
    let cut = || object_store::Error::Generic { store: "Cut", source: "the store is away".into() };
    *left = left.checked_sub(1).ok_or_else(cut)?;
    Ok(())
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Cut {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Stored<PutResult> {
        take_one(&self.left)?;
        self.inner.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Stored<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotImplemented { operation: "multipart".into(), implementer: "Cut".into() })
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Stored<GetResult> {
        self.inner.get_opts(location, options).await
    }
    fn delete_stream(&self, locations: BoxStream<'static, Stored<Path>>) -> BoxStream<'static, Stored<Path>> {
        let left = Arc::clone(&self.left);
        let allowed = locations.and_then(move |path| {
            let taken = take_one(&left);
            async move { taken.map(|()| path) }
        });
        self.inner.delete_stream(allowed.boxed())
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Stored<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Stored<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Stored<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// How the store behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Fine,
    /// Writes nothing and says so.
    Refuses,
    /// Writes and says it did not: the answer was lost.
    Forgets,
}

/// Each writer's rows: version, counts, estimate of users.
pub(crate) type Rows = BTreeMap<(u32, RollupKey), (RowVersion, Counts, Option<u64>)>;

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    rows: Rows,
    generations: BTreeMap<u32, u32>,
    /// How far each writer was at its last flush, refused or not.
    reached: BTreeMap<u32, u64>,
    writers: BTreeMap<u32, (RowVersion, WriterStatus)>,
}

/// The store. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct MoodyStore {
    state: Arc<Mutex<State>>,
    /// How many flushes were tried.
    pub(crate) tried: watch::Sender<u64>,
    /// How many generations were given out: one for each partition of a pipeline that starts.
    pub(crate) started: watch::Sender<u64>,
}

impl MoodyStore {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), tried: watch::Sender::new(0), started: watch::Sender::new(0) }
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    pub(crate) fn rows(&self) -> Rows {
        self.state.lock().unwrap().rows.clone()
    }

    /// Everything shown is gone, as after a power loss of a store that had not synced.
    pub(crate) fn lose_rows(&self) {
        self.state.lock().unwrap().rows.clear();
    }

    /// How far `writer` was at its last flush, refused or not.
    pub(crate) fn reached(&self, writer: u32) -> u64 {
        self.state.lock().unwrap().reached.get(&writer).copied().unwrap_or(0)
    }

    pub(crate) fn status(&self, writer: u32) -> WriterStatus {
        self.state.lock().unwrap().writers.get(&writer).map(|(_, status)| status.clone()).unwrap_or_default()
    }
}

fn not_here<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("the speed layer does not ask this".to_owned()))
}

#[async_trait]
impl ServingStore for MoodyStore {
    async fn upsert_approximate(&self, flush: Flush) -> Result<Upserted, StoreError> {
        let away = StoreError::Unavailable { doing: "upserting".to_owned(), why: "mood".to_owned() };
        let result = {
            let mut state = self.state.lock().unwrap();
            let mood = state.mood;
            state.reached.insert(flush.writer, flush.status.next_position);
            if mood != Mood::Refuses {
                state.take(flush);
            }
            if mood == Mood::Fine { Ok(Upserted::default()) } else { Err(away) }
        };
        self.tried.send_modify(|n| *n += 1);
        result
    }

    async fn next_generation(&self, writer: u32) -> Result<u32, StoreError> {
        let mut state = self.state.lock().unwrap();
        let generation = state.generations.entry(writer).or_default();
        *generation += 1;
        self.started.send_modify(|n| *n += 1);
        Ok(*generation)
    }

    async fn read_hour(&self, _: Timestamp) -> Result<HourRows, StoreError> {
        not_here()
    }
    async fn overwrite_exact(&self, _: Timestamp, _: Correction, _: RowVersion) -> Result<u64, StoreError> {
        not_here()
    }
    async fn owned_hours(&self, _: TimeRange) -> Result<BTreeMap<Timestamp, RowVersion>, StoreError> {
        not_here()
    }
    async fn mark_settled(&self, _: Day, _: u32) -> Result<(), StoreError> {
        not_here()
    }
    async fn ad_series(&self, _: &AdId, _: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        not_here()
    }
    async fn campaign_series(&self, _: &CampaignId, _: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        not_here()
    }
    async fn campaign_hours(&self, _: &CampaignId, _: TimeRange) -> Result<Vec<CampaignHourPoint>, StoreError> {
        not_here()
    }
    async fn top(
        &self,
        _: TimeRange,
        _: TopBy,
        _: usize,
        _: Option<&[CampaignId]>,
    ) -> Result<Vec<TopCampaign>, StoreError> {
        not_here()
    }
    async fn forget(&self, _: Timestamp, _: Timestamp, _: u64) -> Result<u64, StoreError> {
        not_here()
    }
    async fn writers(&self) -> Result<BTreeMap<u32, WriterStatus>, StoreError> {
        not_here()
    }
}

impl State {
    fn take(&mut self, flush: Flush) {
        let Flush { writer, version, rows, status } = flush;
        for row in rows {
            let is_hour = matches!(row.key, RollupKey::CampaignHour { .. });
            assert_eq!(row.uniques.is_some(), is_hour, "only campaign hours have users");
            let new = (version, row.counts, row.uniques.map(|users| users.estimate()));
            let old = self.rows.entry((writer, row.key)).or_insert(new);
            if version > old.0 {
                *old = new;
            }
        }
        let old = self.writers.entry(writer).or_insert_with(|| (version, status.clone()));
        if version > old.0 {
            *old = (version, status);
        }
    }
}

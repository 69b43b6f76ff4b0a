//! Dying at every call: readers see old or new, and the rerun completes the same work.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use lake::LakeRoot;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use reconcile::Outcome;
use reconcile::report::Report;
use reconcile::settlements::Settlements;
use reconcile::verify::verify;
use shared::id::{AdId, CampaignId};
use shared::rollup::{RowVersion, TimeRange};
use shared::serving_store::{
    CampaignHourPoint, Correction, Flush, HourRows, SeriesPoint, ServingStore, StoreError, TopBy, TopCampaign,
    Upserted, WriterStatus,
};
use shared::testing::MemoryServingStore;
use shared::time::{Day, Timestamp};

use crate::publish::{clicks, files};
use crate::world::{DAY, Fact, World, printed, recount};

/// Fails one call, and every call after it as a dead process would; the call itself may or may not have happened.
#[derive(Debug)]
struct Fuse {
    calls: AtomicUsize,
    burns_at: usize,
    after: bool,
}

#[derive(PartialEq)]
enum Blow {
    No,
    Before,
    After,
}

impl Fuse {
    fn new(burns_at: usize, after: bool) -> Arc<Self> {
        Arc::new(Self { calls: AtomicUsize::new(0), burns_at, after })
    }

    fn next(&self) -> Blow {
        match self.calls.fetch_add(1, Ordering::SeqCst) {
            n if n < self.burns_at => Blow::No,
            n if n == self.burns_at && self.after => Blow::After,
            _ => Blow::Before,
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

struct FusedStore {
    inner: MemoryServingStore,
    fuse: Arc<Fuse>,
}

impl FusedStore {
    fn lost() -> StoreError {
        StoreError::Unavailable { doing: "anything".to_owned(), why: "the process died".to_owned() }
    }
}

macro_rules! fused {
    ($self:ident, $call:expr) => {{
        let blow = $self.fuse.next();
        if blow == Blow::Before {
            return Err(FusedStore::lost());
        }
        let answer = $call.await?;
        if blow == Blow::After { Err(FusedStore::lost()) } else { Ok(answer) }
    }};
}

#[async_trait]
impl ServingStore for FusedStore {
    async fn upsert_approximate(&self, flush: Flush) -> Result<Upserted, StoreError> {
        self.inner.upsert_approximate(flush).await
    }
    async fn next_generation(&self, writer: u32) -> Result<u32, StoreError> {
        self.inner.next_generation(writer).await
    }
    async fn read_hour(&self, hour: Timestamp) -> Result<HourRows, StoreError> {
        fused!(self, self.inner.read_hour(hour))
    }
    async fn overwrite_exact(&self, hour: Timestamp, c: Correction, v: RowVersion) -> Result<u64, StoreError> {
        fused!(self, self.inner.overwrite_exact(hour, c, v))
    }
    async fn owned_hours(
        &self,
        range: TimeRange,
    ) -> Result<std::collections::BTreeMap<Timestamp, RowVersion>, StoreError> {
        fused!(self, self.inner.owned_hours(range))
    }
    async fn mark_settled(&self, day: Day, version: u32) -> Result<(), StoreError> {
        fused!(self, self.inner.mark_settled(day, version))
    }
    async fn ad_series(&self, ad: &AdId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        self.inner.ad_series(ad, range).await
    }
    async fn campaign_series(&self, campaign: &CampaignId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        self.inner.campaign_series(campaign, range).await
    }
    async fn campaign_hours(
        &self,
        campaign: &CampaignId,
        range: TimeRange,
    ) -> Result<Vec<CampaignHourPoint>, StoreError> {
        self.inner.campaign_hours(campaign, range).await
    }
    async fn top(
        &self,
        range: TimeRange,
        by: TopBy,
        n: usize,
        among: Option<&[CampaignId]>,
    ) -> Result<Vec<TopCampaign>, StoreError> {
        self.inner.top(range, by, n, among).await
    }
    async fn forget(&self, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Result<u64, StoreError> {
        self.inner.forget(minutes, hours, at_most).await
    }
    async fn writers(&self) -> Result<std::collections::BTreeMap<u32, WriterStatus>, StoreError> {
        self.inner.writers().await
    }
}

#[tokio::test]
async fn a_kill_at_any_call_of_the_serving_store_is_completed_by_the_rerun() {
    let world = World::new();
    let facts = clicks(60);
    world.batch(DAY, 1, &facts).await;
    let seen: Vec<Fact> = facts.iter().skip(7).cloned().collect();

    // How an undisturbed run counts its calls and what it reports.
    world.flush(0, 1, recount(DAY, &seen)).await;
    let counter = Fuse::new(usize::MAX, false);
    let store = Arc::new(FusedStore { inner: world.store.clone(), fuse: Arc::clone(&counter) });
    world.run_with(&world.deps_with(store, world.data.clone()), DAY, true).await.unwrap();
    let undisturbed = Report::load(&world.data, DAY).await.unwrap().unwrap();
    let calls = counter.calls();
    assert!(calls > 24 * 4, "{calls}");

    for burns_at in (0..calls).step_by(5) {
        let mut world = World::sharing_lake(&world);
        world.store = MemoryServingStore::new();
        world.flush(0, 1, recount(DAY, &seen)).await;
        let store = Arc::new(FusedStore { inner: world.store.clone(), fuse: Fuse::new(burns_at, burns_at % 2 == 0) });
        let died = world.run_with(&world.deps_with(store, world.data.clone()), DAY, true).await;
        assert!(died.is_err(), "call {burns_at}: {died:?}");

        world.run(DAY).await.unwrap();
        assert_eq!(world.shown(DAY).await, printed(&recount(DAY, &facts)), "call {burns_at}");
        let report = Report::load(&world.data, DAY).await.unwrap().unwrap();
        assert_eq!(report, undisturbed, "call {burns_at}: the drift before must not be forgotten");
        assert!(verify(&world.settlement(DAY, 1)).unwrap().is_sound());
        assert!(!world.settlement(DAY, 2).exists());
    }
}

/// An object store whose writes, deletes and reads can be cut off.
#[derive(Debug)]
struct FusedObjects {
    inner: Arc<dyn ObjectStore>,
    fuse: Arc<Fuse>,
}

impl fmt::Display for FusedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fused {}", self.inner)
    }
}

fn dead() -> object_store::Error {
    object_store::Error::Generic { store: "fused", source: "the process died".into() }
}

#[async_trait]
impl ObjectStore for FusedObjects {
    async fn put_opts(&self, at: &Path, payload: PutPayload, o: PutOptions) -> object_store::Result<PutResult> {
        let blow = self.fuse.next();
        if blow == Blow::Before {
            return Err(dead());
        }
        let answer = self.inner.put_opts(at, payload, o).await?;
        if blow == Blow::After { Err(dead()) } else { Ok(answer) }
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        o: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, o).await
    }
    async fn get_opts(&self, at: &Path, o: GetOptions) -> object_store::Result<GetResult> {
        if self.fuse.next() == Blow::No { self.inner.get_opts(at, o).await } else { Err(dead()) }
    }
    fn delete_stream(
        &self,
        at: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        match self.fuse.next() {
            Blow::Before => futures::stream::once(async { Err(dead()) }).boxed(),
            Blow::After => self.inner.delete_stream(at).then(|_| async { Err(dead()) }).boxed(),
            Blow::No => self.inner.delete_stream(at),
        }
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        if self.fuse.next() == Blow::No {
            self.inner.list(prefix)
        } else {
            futures::stream::once(async { Err(dead()) }).boxed()
        }
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        if self.fuse.next() == Blow::No { self.inner.list_with_delimiter(prefix).await } else { Err(dead()) }
    }
    async fn copy_opts(&self, from: &Path, to: &Path, o: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, o).await
    }
}

fn fused(world: &World, fuse: &Arc<Fuse>) -> LakeRoot {
    let objects = FusedObjects { inner: world.data.store(), fuse: Arc::clone(fuse) };
    LakeRoot::with_store(Arc::new(objects), world.data.url().clone()).unwrap()
}

/// What a reader may see: whole settlements, numbered without a gap.
async fn readers_see_whole_settlements(world: &World, context: &str) -> Vec<(Day, u32, u64)> {
    let listed = Settlements::new(world.data.clone()).list().await.unwrap();
    let mut numbers: Vec<u64> = listed.iter().map(|l| l.manifest.sequence).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{context}: {numbers:?}");
    for one in &listed {
        let folder: PathBuf = world.folder.path().join(&one.folder);
        let verified = verify(&folder).unwrap();
        assert!(verified.is_sound(), "{context}: {:#?}", verified.findings);
    }
    listed.iter().map(|l| (l.manifest.day, l.manifest.version, l.manifest.sequence)).collect()
}

#[tokio::test]
async fn a_kill_at_any_call_of_the_object_store_leaves_old_or_new_and_never_a_gap() {
    let source = World::new();
    let next = DAY.plus(1);
    source.batch(DAY, 1, &clicks(3)).await;
    source.batch(next, 1, &clicks(4)).await;
    let counter = Fuse::new(usize::MAX, false);
    let deps = source.deps_with(Arc::new(source.store.clone()), fused(&source, &counter));
    source.run_with(&deps, DAY, true).await.unwrap();
    let undisturbed = files(&source.settlement(DAY, 1));

    for burns_at in 0..counter.calls() {
        for (after, other_day_first) in [(false, false), (true, false), (true, true)] {
            let context = format!("call {burns_at}, after {after}, other day first {other_day_first}");
            let world = World::sharing_lake(&source);
            let deps = world.deps_with(Arc::new(world.store.clone()), fused(&world, &Fuse::new(burns_at, after)));
            let died = world.run_with(&deps, DAY, true).await;
            assert!(died.is_err(), "{context}: {died:?}");
            readers_see_whole_settlements(&world, &context).await;

            if other_day_first {
                world.run(next).await.unwrap();
                readers_see_whole_settlements(&world, &context).await;
            }
            let rerun = world.run(DAY).await.unwrap();
            assert!(matches!(rerun, Outcome::Settled(_) | Outcome::AlreadySettled(_)), "{context}: {rerun:?}");
            let seen = readers_see_whole_settlements(&world, &context).await;
            let days: Vec<(Day, u32)> = seen.iter().map(|(day, version, _)| (*day, *version)).collect();
            let expected: &[(Day, u32)] = if other_day_first { &[(DAY, 1), (next, 1)] } else { &[(DAY, 1)] };
            assert_eq!(days, expected, "{context}");
            if !other_day_first {
                assert_eq!(files(&world.settlement(DAY, 1)), undisturbed, "{context}");
            }
        }
    }
}

#[tokio::test]
async fn a_restatement_that_dies_leaves_the_old_version_to_readers() {
    let source = World::new();
    source.batch(DAY, 1, &clicks(3)).await;
    source.run(DAY).await.unwrap();
    let first = files(&source.settlement(DAY, 1));
    source.batch(DAY, 2, &clicks(5)).await;
    for burns_at in 0..40 {
        let world = World::sharing_lake(&source);
        copy(&source.folder.path().join("settlement"), &world.folder.path().join("settlement"));
        let fuse = Fuse::new(burns_at, burns_at % 2 == 1);
        let deps = world.deps_with(Arc::new(world.store.clone()), fused(&world, &fuse));
        let died = world.run_with(&deps, DAY, true).await.is_err();
        let seen = readers_see_whole_settlements(&world, &format!("call {burns_at}")).await;
        assert!(seen == [(DAY, 1, 1)] || seen == [(DAY, 1, 1), (DAY, 2, 2)], "{seen:?}");
        assert_eq!(files(&world.settlement(DAY, 1)), first);
        world.run(DAY).await.unwrap();
        let seen = readers_see_whole_settlements(&world, &format!("call {burns_at} again")).await;
        assert_eq!(seen, [(DAY, 1, 1), (DAY, 2, 2)]);
        if !died {
            return; // every call of the run was tried
        }
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

//! The embedded store at its public edge: the port's laws, several handles at once, kills, foreign files.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serving::EmbeddedStore;
use shared::error::ErrorKind;
use shared::rollup::RowVersion;
use shared::serving_store::{Correction, ServingStore};
use shared::testing::conformance::serving_store as laws;
use shared::time::HOUR;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[tokio::test]
async fn the_embedded_store_keeps_every_law() {
    let folder = tempfile::tempdir().unwrap();
    let next = std::sync::atomic::AtomicU32::new(0);
    laws::all(async || {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Arc::new(EmbeddedStore::open(folder.path().join(format!("sub/{n}.sqlite"))).unwrap()) as Arc<dyn ServingStore>
    })
    .await;
}

#[test]
fn any_history_looks_the_same_as_in_the_model() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let next = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let outcome = runner.run(&laws::calls(), |calls| {
        next.set(next.get() + 1);
        let store = EmbeddedStore::open(folder.path().join(format!("{}.sqlite", next.get()))).unwrap();
        runtime.block_on(laws::same(&store, calls));
        Ok(())
    });
    outcome.unwrap();
}

proptest! {
    #![proptest_config(Config::with_cases(10))]
    #[test]
    fn reopening_between_any_two_calls_changes_nothing(calls in laws::calls()) {
        let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
        let path = folder.path().join("serving.sqlite");
        runtime.block_on(laws::same(&Reopening(path), calls));
    }
}

/// A store that is opened anew for every call, as by as many processes.
struct Reopening(std::path::PathBuf);

impl Reopening {
    fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&self.0).unwrap()
    }
}

mod reopening {
    //! The port by a fresh handle per call.
    use std::collections::BTreeMap;

    use shared::id::{AdId, CampaignId};
    use shared::rollup::TimeRange;
    use shared::serving_store::*;
    use shared::time::{Day, Timestamp};

    use super::{Reopening, RowVersion};

    type Answer<T> = Result<T, StoreError>;

    #[async_trait::async_trait]
    impl ServingStore for Reopening {
        async fn upsert_approximate(&self, flush: Flush) -> Answer<Upserted> {
            self.open().upsert_approximate(flush).await
        }
        async fn next_generation(&self, writer: u32) -> Answer<u32> {
            self.open().next_generation(writer).await
        }
        async fn read_hour(&self, hour: Timestamp) -> Answer<HourRows> {
            self.open().read_hour(hour).await
        }
        async fn overwrite_exact(&self, hour: Timestamp, c: Correction, version: RowVersion) -> Answer<u64> {
            self.open().overwrite_exact(hour, c, version).await
        }
        async fn owned_hours(&self, range: TimeRange) -> Answer<BTreeMap<Timestamp, RowVersion>> {
            self.open().owned_hours(range).await
        }
        async fn mark_settled(&self, day: Day, version: u32) -> Answer<()> {
            self.open().mark_settled(day, version).await
        }
        async fn ad_series(&self, ad: &AdId, range: TimeRange) -> Answer<Vec<SeriesPoint>> {
            self.open().ad_series(ad, range).await
        }
        async fn campaign_series(&self, campaign: &CampaignId, range: TimeRange) -> Answer<Vec<SeriesPoint>> {
            self.open().campaign_series(campaign, range).await
        }
        async fn campaign_hours(&self, campaign: &CampaignId, range: TimeRange) -> Answer<Vec<CampaignHourPoint>> {
            self.open().campaign_hours(campaign, range).await
        }
        async fn top(
            &self,
            range: TimeRange,
            by: TopBy,
            n: usize,
            among: Option<&[CampaignId]>,
        ) -> Answer<Vec<TopCampaign>> {
            self.open().top(range, by, n, among).await
        }
        async fn forget(&self, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Answer<u64> {
            self.open().forget(minutes, hours, at_most).await
        }
        async fn writers(&self) -> Answer<BTreeMap<u32, WriterStatus>> {
            self.open().writers().await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handles_that_open_and_write_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serving.sqlite");
    let mut writers = Vec::new();
    for writer in 0..4_u32 {
        let path = path.clone();
        writers.push(tokio::spawn(async move {
            let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(path).unwrap()).await.unwrap();
            for sequence in 1..=25_u64 {
                let rows = (0..20).map(|m| laws::ad_minute("a", m, sequence, 1)).collect();
                let done = store.upsert_approximate(laws::flush(writer, sequence, rows)).await.unwrap();
                assert_eq!(done.written, 20);
                let hour = store.read_hour(laws::hour()).await.unwrap();
                assert_eq!(hour.len(), 20, "a reader sees whole flushes only");
                let of_one_flush = hour.iter().all(|r| r.counts.clicks == hour[0].counts.clicks);
                assert!(of_one_flush, "{hour:?}");
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let hour = EmbeddedStore::open(&path).unwrap().read_hour(laws::hour()).await.unwrap();
    assert!(hour.iter().all(|r| r.counts.clicks == 4 * 25 && r.counts.cost_nanos == 4));
}

#[tokio::test]
async fn what_a_call_returned_is_there_after_the_process_vanished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serving.sqlite");
    let copy = folder.path().join("after/serving.sqlite");
    let store = EmbeddedStore::open(&path).unwrap();
    store.upsert_approximate(laws::flush(0, 1, vec![laws::ad_minute("a", 0, 5, 7)])).await.unwrap();
    let generation = store.next_generation(0).await.unwrap();
    let next_hour = laws::hour().plus(HOUR);
    store.overwrite_exact(next_hour, Correction::default(), RowVersion::reconciled(1)).await.unwrap();
    // What a kill leaves: the files as they are, with the write-ahead log not yet moved into the database.
    std::fs::create_dir(copy.parent().unwrap()).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    let after = EmbeddedStore::open(&copy).unwrap();
    assert_eq!(after.read_hour(laws::hour()).await.unwrap().len(), 1);
    assert!(after.next_generation(0).await.unwrap() > generation);
    assert!(after.owned_hours(next_hour..next_hour.plus(1)).await.unwrap().contains_key(&next_hour));
}

#[tokio::test]
async fn a_torn_tail_of_the_write_ahead_log_costs_only_the_unfinished_call() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serving.sqlite");
    let store = EmbeddedStore::open(&path).unwrap();
    store.upsert_approximate(laws::flush(0, 1, vec![laws::ad_minute("a", 0, 1, 0)])).await.unwrap();
    let finished = std::fs::metadata(format!("{}-wal", path.display())).unwrap().len();
    store.upsert_approximate(laws::flush(0, 2, vec![laws::ad_minute("a", 0, 2, 0)])).await.unwrap();
    let wal = std::fs::read(format!("{}-wal", path.display())).unwrap();
    let database = std::fs::read(&path).unwrap();
    for cut in [finished, finished + 1, (finished + wal.len() as u64) / 2, wal.len() as u64 - 1, wal.len() as u64] {
        let copy = folder.path().join(format!("{cut}.sqlite"));
        std::fs::write(&copy, &database).unwrap();
        std::fs::write(format!("{}-wal", copy.display()), &wal[..usize::try_from(cut).unwrap()]).unwrap();
        let shown = EmbeddedStore::open(&copy).unwrap().read_hour(laws::hour()).await.unwrap();
        let expected = if cut == wal.len() as u64 { 2 } else { 1 };
        assert_eq!(shown[0].counts.clicks, expected, "cut at {cut} of {}", wal.len());
    }
}

#[test]
fn a_file_that_is_something_else_is_corrupt_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serving.sqlite");
    std::fs::write(&path, "this is not a database, it only stands where one should be. ".repeat(100)).unwrap();
    let error = EmbeddedStore::open(&path).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is not"));
    let missing = EmbeddedStore::open("/proc/nowhere/serving.sqlite").err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::Unavailable, "{missing}");
}

#[test]
fn a_store_of_a_newer_version_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("serving.sqlite");
    drop(EmbeddedStore::open(&path).unwrap());
    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 999).unwrap();
    drop(raw);
    let error = EmbeddedStore::open(&path).err().unwrap();
    assert!(error.to_string().contains("newer version"), "{error}");
}

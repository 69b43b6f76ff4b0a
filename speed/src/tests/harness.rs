//! A log, a store, a clock and a state folder that outlive the pipelines of a test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::config::Span;
use shared::event_log::memory::MemoryLog;
use shared::event_log::{EventLog, NewRecord, Record};
use shared::progress::Positions;
use shared::time::ManualClock;
use shared::verdict::Counting;

use super::events::{START, prices};
use super::faults::{Cut, MoodyStore};
use super::recount::recount;
use crate::pipeline::Pipeline;
use crate::{Deps, Outcome, Settings};

/// The test log's partitions.
pub(crate) const PARTITIONS: u32 = 3;

/// What survives a crash.
pub(crate) struct World {
    pub(crate) log: MemoryLog,
    pub(crate) store: MoodyStore,
    pub(crate) clock: ManualClock,
    pub(crate) settings: Settings,
    /// The same folder as an object store, if state is kept in one.
    pub(crate) objects: Option<Arc<Cut>>,
    folder: tempfile::TempDir,
}

/// Runs a future to its end on one thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            state_dir: folder.path().to_owned(),
            // Quiet hours are longer than a day in all, and the recount forgets nothing.
            dedup_window: Span::secs(7 * 86_400),
            allowed_lateness: Span::secs(1_200),
            poll_wait: Span::millis(1),
            counting: Counting { repeat_click_seconds: 900, ..Counting::default() },
            ..Settings::default()
        };
        let (log, store, clock) = (MemoryLog::new(PARTITIONS), MoodyStore::new(), ManualClock::at(START));
        Self { log, store, clock, settings, objects: None, folder }
    }

    /// With its state in an object store.
    pub(crate) fn on_objects() -> Self {
        let mut world = Self::new();
        world.objects = Some(Arc::new(Cut::on(world.folder.path())));
        world
    }

    pub(crate) fn deps(&self) -> Deps {
        let book = Arc::new(prices());
        Deps {
            events: Arc::new(self.log.clone()),
            store: Arc::new(self.store.clone()),
            prices: Arc::new(move || Arc::clone(&book)),
            state: self.objects.clone().map(|objects| objects as _),
            clock: Arc::new(self.clock.clone()),
        }
    }

    pub(crate) async fn append(&self, records: Vec<NewRecord>) {
        let count = records.len();
        assert_eq!(self.log.append(records).await.unwrap().len(), count);
    }

    /// A pipeline as a process start makes it.
    pub(crate) async fn start(&self) -> Pipeline {
        Pipeline::start(self.settings.clone(), self.deps()).await.unwrap()
    }

    /// Reads everything that is left and makes it visible.
    pub(crate) async fn drain(&self, pipeline: &mut Pipeline) {
        let end = self.log.bounds().await.unwrap().end;
        while !pipeline.positions().covers(&end) {
            pipeline.read(1_000).await.unwrap();
        }
        pipeline.flush_and_save(true).await.unwrap();
    }

    /// Every record, by partition.
    pub(crate) async fn everything(&self) -> BTreeMap<u32, Vec<Record>> {
        let mut parts: BTreeMap<u32, Vec<Record>> = (0..PARTITIONS).map(|p| (p, Vec::new())).collect();
        let from = Positions(parts.keys().map(|p| (*p, 0)).collect());
        let mut consumer = self.log.consumer("test", &from).await.unwrap();
        loop {
            let records = consumer.poll(1_000, Duration::from_millis(1)).await.unwrap();
            if records.is_empty() {
                return parts;
            }
            records.into_iter().for_each(|r| parts.get_mut(&r.partition).unwrap().push(r));
        }
    }

    /// The store shows exactly what a naive recount of the whole log comes to.
    pub(crate) async fn assert_counted(&self) {
        let shown = self.store.rows();
        let mut expected = BTreeMap::new();
        for (partition, records) in self.everything().await {
            let recount = recount(&records, &self.settings, &prices());
            let status = self.store.status(partition);
            assert_eq!(status.outcomes, recount.tally.by_word(), "outcomes of partition {partition}");
            assert_eq!(recount.tally.total(), records.len() as u64);
            assert_eq!(status.next_position, records.len() as u64);
            assert_eq!(status.late_by_hour, recount.late_by_hour);
            assert_eq!(status.late_by_hour.values().sum::<u64>(), recount.tally.of(Outcome::Late));
            expected.extend(recount.rows.into_iter().map(|(key, row)| ((partition, key), row)));
        }
        let keys = |keys: Vec<&(u32, shared::rollup::RollupKey)>| format!("{keys:#?}");
        assert_eq!(keys(shown.keys().collect()), keys(expected.keys().collect()));
        for (key, (counts, users)) in expected {
            let (_, shown_counts, estimate) = &shown[&key];
            assert_eq!(*shown_counts, counts, "{key:?}");
            assert_eq!(estimate.unwrap_or(0), users.len() as u64, "{key:?}");
        }
    }

    /// The state folder of `partition`.
    pub(crate) fn folder(&self, partition: u32) -> PathBuf {
        self.folder.path().join(format!("partition-{partition:04}"))
    }

    /// How many objects (or files) the state of `partition` is.
    pub(crate) fn pieces(&self, partition: u32) -> usize {
        std::fs::read_dir(self.folder(partition)).map_or(0, Iterator::count)
    }

    /// The newest checkpoint of `partition`, if it has one.
    pub(crate) fn newest_checkpoint(&self, partition: u32) -> Option<PathBuf> {
        let files = std::fs::read_dir(self.folder(partition)).ok()?.map(|entry| entry.unwrap().path());
        files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-")).max()
    }
}

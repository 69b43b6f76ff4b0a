//! The partitions that this process holds: applying records to them, flushing their rows, saving their state.
//!
//! Order is what makes it safe: rows are flushed before the state that contains them is saved, so the store never
//! misses a row of a checkpoint; a crash in between repeats the flush with the same values.
//! A store that is away is waited for: records gather in the workers up to `max_unflushed_records`, then this is full.
//! Workers share nothing, so one poll's records are applied by one task per partition.
//! Never: saves what was not flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::error::ErrorKind;
use shared::event_log::Record;
use shared::price::PriceBook;
use shared::progress::Positions;
use shared::time::Timestamp;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::assigned::Assigned;
use crate::outcome::Tally;
use crate::settings::Settings;
use crate::watermark::Combined;
use crate::{Deps, Error, metrics};

/// How soon a store or log that was away is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// It is also full at this many times `max_unflushed_records` since the last checkpoint.
const UNSAVED_FACTOR: u64 = 4;
/// So many records are taken in without a break: well under a millisecond.
const BREATH: usize = 256;

/// Partitions at work.
pub(crate) struct Held {
    settings: Settings,
    deps: Deps,
    assigned: BTreeMap<u32, Assigned>,
    combined: Combined,
    /// As last seen; the log may be away.
    ends: Positions,
    last_flush: Timestamp,
    last_save: Timestamp,
    /// Set while the store is away.
    retry_at: Option<Timestamp>,
    unflushed: u64,
    unsaved: u64,
}

impl Held {
    /// None yet.
    pub(crate) fn new(settings: Settings, deps: Deps) -> Self {
        let now = deps.clock.now();
        Self {
            settings,
            deps,
            assigned: BTreeMap::new(),
            combined: Combined::default(),
            ends: Positions::default(),
            last_flush: now,
            last_save: now,
            retry_at: None,
            unflushed: 0,
            unsaved: 0,
        }
    }

    /// Takes restored partitions in. The process's limits are divided among all it holds.
    pub(crate) fn take(&mut self, restored: Vec<Assigned>) {
        self.assigned.extend(restored.into_iter().map(|assigned| (assigned.worker.partition(), assigned)));
        self.divide_limits();
    }

    /// Drops partitions as they are.
    pub(crate) fn let_go(&mut self, partitions: &BTreeSet<u32>) {
        self.assigned.retain(|partition, _| !partitions.contains(partition));
        self.divide_limits();
    }

    fn divide_limits(&mut self) {
        let share = self.settings.share_of(self.assigned.len());
        self.assigned.values_mut().for_each(|assigned| assigned.worker.limit(&share));
    }

    /// Where every partition stands.
    pub(crate) fn positions(&self) -> Positions {
        Positions(self.assigned.iter().map(|(partition, a)| (*partition, a.worker.next_position())).collect())
    }

    /// How many records the store does not show yet.
    pub(crate) fn unflushed(&self) -> u64 {
        self.unflushed
    }

    /// Takes records in, one task per partition.
    pub(crate) async fn apply(&mut self, records: Vec<Record>) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len() as u64;
        let (prices, now) = ((self.deps.prices)(), self.deps.clock.now());
        let mut tasks = JoinSet::new();
        for (partition, records) in by_partition(records) {
            // What was dropped meanwhile is nobody's.
            let Some(mut assigned) = self.assigned.remove(&partition) else { continue };
            let prices = Arc::clone(&prices);
            if assigned.worker.may_wait_for_disk() {
                tasks.spawn_blocking(move || {
                    let applied = assigned.apply(&records, prices, now);
                    (assigned, applied)
                });
                continue;
            }
            tasks.spawn(async move {
                let applied = apply_gently(&mut assigned, &records, &prices, now).await;
                (assigned, applied)
            });
        }
        let mut batch = Tally::default();
        while let Some(task) = tasks.join_next().await {
            let (assigned, applied) = task?;
            self.assigned.insert(assigned.worker.partition(), assigned);
            batch = batch.plus(&applied?);
        }
        self.unflushed += count;
        self.unsaved += count;
        metrics::events(&batch);
        Ok(())
    }

    /// Whether rows are to be flushed at `now`.
    pub(crate) fn is_flush_due(&self, now: Timestamp) -> bool {
        if let Some(retry_at) = self.retry_at {
            return now >= retry_at || now < self.last_flush || self.is_full();
        }
        let elapsed = now.since(self.last_flush);
        elapsed < 0 || elapsed >= self.settings.flush_interval.as_micros() || self.is_full()
    }

    /// Whether no more records may be taken before a flush (or save) succeeds.
    pub(crate) fn is_full(&self) -> bool {
        let most = self.settings.max_unflushed_records;
        self.unflushed >= most || self.unsaved >= most.saturating_mul(UNSAVED_FACTOR)
    }

    /// Flushes every partition and, when that worked and it is time (or `save_now`), saves every partition.
    /// A store or disk that is away is only told about; the next call tries again. Answers whether all is saved.
    pub(crate) async fn flush_and_save(&mut self, save_now: bool) -> Result<bool, Error> {
        let now = self.deps.clock.now();
        let flushed = self.flush(now).await?;
        let elapsed = now.since(self.last_save);
        let is_due = elapsed < 0 || elapsed >= self.settings.checkpoint_interval.as_micros();
        if flushed && (save_now || is_due || self.unsaved >= self.settings.max_unflushed_records) {
            return self.save(now).await;
        }
        Ok(false)
    }

    /// Sends every partition's changed rows; `false` when the store is away.
    pub(crate) async fn flush(&mut self, now: Timestamp) -> Result<bool, Error> {
        self.look_at_ends().await?;
        self.last_flush = now;
        let shown = self.shown(now);
        let lag = shown.values().map(|(_, lag)| lag).sum();
        let flushes = self
            .each(move |assigned| {
                let partition = assigned.worker.partition();
                let (watermark, lag) = shown.get(&partition).copied().unwrap_or_default();
                assigned.flush(now, watermark, lag)
            })
            .await?;
        self.assigned.values_mut().for_each(Assigned::tell_reads);
        metrics::ids(self.assigned.values().map(|assigned| &assigned.worker));
        metrics::behind(lag, flushes.iter().map(|flush| flush.status.ingest_p95_ms).max().unwrap_or(0));
        for flush in flushes {
            let partition = flush.writer;
            match self.deps.store.upsert_approximate(flush).await {
                Ok(upserted) => metrics::rows(upserted),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    warn!(%error, unflushed = self.unflushed, "serving store is away, trying again");
                    self.retry_at = Some(now.plus(i64::try_from(RETRY.as_micros()).unwrap_or(i64::MAX)));
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(assigned) = self.assigned.get_mut(&partition) {
                assigned.worker.mark_flushed(self.deps.clock.now());
            }
        }
        self.retry_at = None;
        self.unflushed = 0;
        Ok(true)
    }

    /// Does `work` for every partition, where it may block; results by partition.
    async fn each<T: Send + 'static>(
        &mut self,
        work: impl Fn(&mut Assigned) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let mut tasks = JoinSet::new();
        for (partition, mut assigned) in std::mem::take(&mut self.assigned) {
            let work = work.clone();
            tasks.spawn_blocking(move || {
                let result = work(&mut assigned);
                (partition, assigned, result)
            });
        }
        let mut results = BTreeMap::new();
        while let Some(task) = tasks.join_next().await {
            let (partition, assigned, result) = task?;
            self.assigned.insert(partition, assigned);
            results.insert(partition, result);
        }
        Ok(results.into_values().collect())
    }

    async fn look_at_ends(&mut self) -> Result<(), Error> {
        match self.deps.events.bounds().await {
            Ok(bounds) => self.ends = bounds.end,
            Err(error) if error.kind() == ErrorKind::Unavailable => warn!(%error, "event log is away, lag is unknown"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The watermark to show for each partition, and its lag in records. An idle one stands where the others do.
    fn shown(&mut self, now: Timestamp) -> BTreeMap<u32, (Timestamp, u64)> {
        let mut states = Vec::with_capacity(self.assigned.len());
        for (partition, assigned) in &self.assigned {
            let lag = self.ends.next(*partition).saturating_sub(assigned.worker.next_position());
            states.push((*partition, assigned.worker.watermark(), self.is_idle(assigned, lag, now), lag));
        }
        let combined = self.combined.advance(states.iter().map(|(_, watermark, idle, _)| (*watermark, *idle)));
        let show = |(partition, own, idle, lag): (u32, Timestamp, bool, u64)| {
            (partition, (if idle { own.max(combined) } else { own }, lag))
        };
        states.into_iter().map(show).collect()
    }

    /// Whether a partition has had nothing for a while (or ever), and nothing waits for it.
    fn is_idle(&self, assigned: &Assigned, lag: u64, now: Timestamp) -> bool {
        let is_quiet = now.since(assigned.heard_at) >= self.settings.idle_after.as_micros();
        lag == 0 && (is_quiet || assigned.worker.watermark() == Timestamp::MIN)
    }

    /// Saves every partition. Call only when everything applied was flushed.
    async fn save(&mut self, now: Timestamp) -> Result<bool, Error> {
        let results = self.each(Assigned::save).await?;
        self.last_save = now;
        let (away, failed): (Vec<_>, Vec<_>) =
            results.into_iter().filter_map(Result::err).partition(|e| e.kind() == ErrorKind::Unavailable);
        if let Some(error) = failed.into_iter().next() {
            return Err(error);
        }
        if let Some(error) = away.into_iter().next() {
            error!(%error, "checkpoint failed: a restart would read more of the log again");
            return Ok(false);
        }
        self.unsaved = 0;
        Ok(true)
    }
}

/// Takes records in, letting other tasks of the process in between.
async fn apply_gently(
    assigned: &mut Assigned,
    records: &[Record],
    prices: &Arc<PriceBook>,
    now: Timestamp,
) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    for some in records.chunks(BREATH) {
        tally = tally.plus(&assigned.apply(some, Arc::clone(prices), now)?);
        tokio::task::yield_now().await;
    }
    Ok(tally)
}

fn by_partition(records: Vec<Record>) -> BTreeMap<u32, Vec<Record>> {
    let mut parts = BTreeMap::<u32, Vec<Record>>::new();
    for record in records {
        parts.entry(record.partition).or_default().push(record);
    }
    parts
}

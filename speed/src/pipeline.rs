//! The run loop, the only one of the layer: poll → apply → (every 10 s) flush → checkpoint.
//!
//! Order is what makes it safe: rows are flushed before the state that contains them is saved, so the store never
//! misses a row of a checkpoint; a crash in between repeats the flush with the same values.
//! A store or log that is away is waited for: records gather in the workers up to `max_unflushed_records`, then
//! polling stops and the log keeps the rest. Nothing is lost, and memory has a bound.
//! Workers share nothing, so one poll's records are applied by one task per partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::config::Problem;
use shared::error::ErrorKind;
use shared::event_log::{Bounds, Consumer, Record};
use shared::price::PriceBook;
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::time::{Timestamp, sleep};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::assigned::Assigned;
use crate::outcome::Tally;
use crate::settings::Settings;
use crate::watermark::Combined;
use crate::{Deps, Error, Speed, metrics};

/// How soon a store or log that was away is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Polling also stops at this many times `max_unflushed_records` since the last checkpoint.
const UNSAVED_FACTOR: u64 = 4;

/// How often, and how long apart, a partition that another owns is tried again at the start.
const PREDECESSOR_TRIES: u32 = 20;
const PREDECESSOR_WAIT: Duration = Duration::from_millis(50);
/// So many records are taken in without a break: well under a millisecond.
const BREATH: usize = 256;

/// Works until `shutdown` (see [`Speed::run`]).
pub(crate) async fn run(settings: Settings, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let mut pipeline = Pipeline::start(settings, deps).await?;
    while !shutdown.is_requested() {
        pipeline.step(&shutdown).await?;
    }
    pipeline.stop().await
}

/// The layer at work.
pub(crate) struct Pipeline {
    settings: Settings,
    deps: Deps,
    consumer: Box<dyn Consumer>,
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

impl Pipeline {
    /// Restores every partition and opens the log where they stand.
    pub(crate) async fn start(settings: Settings, deps: Deps) -> Result<Self, Error> {
        let partitions = owned_partitions(&settings, deps.events.partitions())?;
        let share = share_of(&settings, partitions.len() as u64);
        let Bounds { start, end } = deps.events.bounds().await?;
        let now = deps.clock.now();
        let mut restoring = JoinSet::new();
        for partition in partitions {
            let generation = deps.store.next_generation(partition).await?;
            let (share, log_start) = (share.clone(), start.next(partition));
            let restore = move || Assigned::restore(partition, &share, log_start, generation, now);
            restoring.spawn(patiently(restore));
        }
        let mut assigned = BTreeMap::new();
        while let Some(restored) = restoring.join_next().await {
            let restored = restored??;
            assigned.insert(restored.worker.partition(), restored);
        }
        let consumer = deps.events.consumer(Speed::GROUP, &positions(&assigned)).await?;
        info!(partitions = assigned.len(), "speed layer started");
        Ok(Self {
            settings,
            deps,
            consumer,
            assigned,
            combined: Combined::default(),
            ends: end,
            last_flush: now,
            last_save: now,
            retry_at: None,
            unflushed: 0,
            unsaved: 0,
        })
    }

    /// Flushes if it is time, then takes what the log has. Only waiting is cut short by `shutdown`.
    async fn step(&mut self, shutdown: &Shutdown) -> Result<(), Error> {
        let now = self.deps.clock.now();
        if self.is_flush_due(now) {
            self.flush_and_save(false).await?;
        }
        if self.is_full() {
            pause(shutdown).await;
            return Ok(());
        }
        let polled = tokio::select! {
            polled = self.consumer.poll(self.settings.poll_records, self.settings.poll_wait.0) => polled,
            () = shutdown.requested() => return Ok(()),
        };
        match polled {
            Ok(records) => self.apply(records).await?,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                warn!(%error, "event log is away, trying again");
                pause(shutdown).await;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
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
            // The log only hands out what was asked for.
            let Some(mut assigned) = self.assigned.remove(&partition) else { continue };
            let prices = Arc::clone(&prices);
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

    fn is_flush_due(&self, now: Timestamp) -> bool {
        if let Some(retry_at) = self.retry_at {
            return now >= retry_at || now < self.last_flush || self.is_full();
        }
        let elapsed = now.since(self.last_flush);
        elapsed < 0 || elapsed >= self.settings.flush_interval.as_micros() || self.is_full()
    }

    /// Whether no more records may be taken before a flush (or save) succeeds.
    fn is_full(&self) -> bool {
        let most = self.settings.max_unflushed_records;
        self.unflushed >= most || self.unsaved >= most.saturating_mul(UNSAVED_FACTOR)
    }

    /// Flushes every partition and, when that worked and it is time (or `save_now`), saves every partition.
    /// A store or disk that is away is only told about; the next call tries again.
    pub(crate) async fn flush_and_save(&mut self, save_now: bool) -> Result<(), Error> {
        let now = self.deps.clock.now();
        let flushed = self.flush(now).await?;
        let elapsed = now.since(self.last_save);
        let is_due = elapsed < 0 || elapsed >= self.settings.checkpoint_interval.as_micros();
        if flushed && (save_now || is_due || self.unsaved >= self.settings.max_unflushed_records) {
            self.save(now).await?;
        }
        Ok(())
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
    async fn save(&mut self, now: Timestamp) -> Result<(), Error> {
        let results = self.each(Assigned::save).await?;
        self.last_save = now;
        let (away, failed): (Vec<_>, Vec<_>) =
            results.into_iter().filter_map(Result::err).partition(|e| e.kind() == ErrorKind::Unavailable);
        if let Some(error) = failed.into_iter().next() {
            return Err(error);
        }
        if let Some(error) = away.into_iter().next() {
            error!(%error, "checkpoint failed: a restart would read more of the log again");
            return Ok(());
        }
        self.unsaved = 0;
        if let Err(error) = self.consumer.report(&positions(&self.assigned)).await {
            warn!(%error, "cannot report positions, lag displays are behind");
        }
        Ok(())
    }

    /// The last flush and checkpoint.
    async fn stop(mut self) -> Result<(), Error> {
        self.flush_and_save(true).await?;
        info!(unflushed = self.unflushed, "speed layer stopped");
        Ok(())
    }
}

/// Restores a partition. A predecessor that was cut off may still be finishing a save: that is worth a moment.
async fn patiently(restore: impl Fn() -> Result<Assigned, Error> + Clone + Send + 'static) -> Result<Assigned, Error> {
    for _ in 0..PREDECESSOR_TRIES {
        match tokio::task::spawn_blocking(restore.clone()).await? {
            Err(Error::Owned(_)) => sleep(PREDECESSOR_WAIT).await,
            restored => return restored,
        }
    }
    tokio::task::spawn_blocking(restore).await?
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

/// What tests do step by step.
#[cfg(test)]
impl Pipeline {
    /// Where every partition stands.
    pub(crate) fn positions(&self) -> Positions {
        positions(&self.assigned)
    }

    /// Polls once, at most `most` records, and applies what came.
    pub(crate) async fn read(&mut self, most: usize) -> Result<(), Error> {
        let records = self.consumer.poll(most, self.settings.poll_wait.0).await?;
        self.apply(records).await
    }
}

/// Waits before something that was away is tried again.
async fn pause(shutdown: &Shutdown) {
    tokio::select! {
        () = sleep(RETRY) => {}
        () = shutdown.requested() => {}
    }
}

fn positions(assigned: &BTreeMap<u32, Assigned>) -> Positions {
    Positions(assigned.iter().map(|(partition, a)| (*partition, a.worker.next_position())).collect())
}

fn by_partition(records: Vec<Record>) -> BTreeMap<u32, Vec<Record>> {
    let mut parts = BTreeMap::<u32, Vec<Record>>::new();
    for record in records {
        parts.entry(record.partition).or_default().push(record);
    }
    parts
}

fn owned_partitions(settings: &Settings, of_log: u32) -> Result<Vec<u32>, Error> {
    let mut problems = settings.problems();
    if settings.state_dir.as_os_str().is_empty() {
        problems.push(Problem::new("speed.state_dir", "is not set"));
    }
    if let Some(unknown) = settings.partitions.iter().find(|p| **p >= of_log) {
        let why = format!("names partition {unknown}, but the log has {of_log}, numbered from 0");
        problems.push(Problem::new("speed.partitions", why));
    }
    if !problems.is_empty() {
        return Err(Error::Settings(problems));
    }
    let all = settings.partitions.is_empty();
    Ok(if all { (0..of_log).collect() } else { settings.partitions.clone() })
}

/// The settings of one of `workers` workers: the process's limits are divided among them.
pub(crate) fn share_of(settings: &Settings, workers: u64) -> Settings {
    let workers = workers.max(1);
    Settings {
        max_dedup_ids: settings.max_dedup_ids / workers,
        max_open_rows: settings.max_open_rows / workers,
        ..settings.clone()
    }
}

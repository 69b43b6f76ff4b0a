//! Log → bronze: the loop of this layer. Reads both logs, commits rows and positions together.
//! Positions are read from the tables at the start and after every failure, so a crash, a lost race or a lost answer all
//! mean the same: begin again where the tables stand. Two archivers on one lake are safe; one of them wins each race.
//! On crash: the rows since the last commit are read again; nothing is lost, nothing is there twice.
//! Never: skips a record, or goes on when a log no longer has what was not archived yet (that stops it, loudly).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::gauge;
use serde::{Deserialize, Serialize};
use shared::config::{ByteSize, Problem, Span};
use shared::error::ErrorKind;
use shared::event_log::{Consumer, EventLog};
use shared::id::RefId;
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::telemetry::metric_names::LAKE_LAG;
use shared::time::Clock;
use shared::verdict::Counting;

use crate::buffer::{Buffer, Rules};
use crate::commit::Bronze;
use crate::error::Error;
use crate::maintenance;
use crate::positions::{DEAD_LETTERS, EVENTS, Progress};
use crate::root::LakeRoot;

/// The consumer group, for lag displays.
const GROUP: &str = "lake";

/// When to commit, and how to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The partitions of the events log to archive; empty means all. Give each archiver of a lake its own, and one of them
    /// partition 0: it takes the dead letters too.
    pub partitions: Vec<u32>,
    /// Commit when so many rows wait.
    pub flush_rows: usize,
    /// Commit when rows of so many payload bytes wait.
    pub flush_bytes: ByteSize,
    /// Commit when the oldest waiting row was read so long ago.
    pub flush_age: Span,
    /// Read at most so many records at once.
    pub poll_records: usize,
    /// Wait at most so long for a record; also how fast a shutdown is noticed.
    pub poll_wait: Span,
    /// Wait so long after a failure, twice as long after the next, …
    pub retry_min: Span,
    /// … but never longer.
    pub retry_max: Span,
    /// How `lake optimize` and `lake vacuum` work.
    pub maintenance: maintenance::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: Vec::new(),
            flush_rows: 256 * 1024,
            flush_bytes: ByteSize::mib(64),
            flush_age: Span::secs(10),
            poll_records: 8 * 1024,
            poll_wait: Span::millis(100),
            retry_min: Span::millis(200),
            retry_max: Span::secs(30),
            maintenance: maintenance::Settings::default(),
        }
    }
}

impl Settings {
    /// Everything wrong with these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut must = |good: bool, field: &str, why: &str| {
            if !good {
                problems.push(Problem::new(format!("lake.{field}"), why));
            }
        };
        let mut partitions = self.partitions.clone();
        partitions.sort_unstable();
        let is_twice = partitions.windows(2).any(|pair| pair.first() == pair.last());
        must(!is_twice, "partitions", "names a partition twice");
        must((1..=4 << 20).contains(&self.flush_rows), "flush_rows", "use 1 to 4194304 rows");
        must((1..=1 << 30).contains(&self.flush_bytes.0), "flush_bytes", "use 1B to 1GiB");
        must((1..=1 << 20).contains(&self.poll_records), "poll_records", "use 1 to 1048576 records");
        must(self.poll_wait.0 <= Duration::from_secs(10), "poll_wait", "use at most 10s, or a shutdown waits");
        must(self.retry_min <= self.retry_max, "retry_min", "must not be longer than lake.retry_max");
        problems.extend(self.maintenance.problems());
        problems
    }
}

/// What an archiver works on.
#[derive(Clone)]
pub struct Deps {
    /// The events log.
    pub events: Arc<dyn EventLog>,
    /// The dead-letter log.
    pub dead_letters: Arc<dyn EventLog>,
    /// The lake.
    pub root: LakeRoot,
    /// The clock that decides when waiting rows are old.
    pub clock: Arc<dyn Clock>,
    /// The region of undecodable records, which name none.
    pub region: RefId,
    /// The rules that give the billing time, and so the day of a row.
    pub counting: Counting,
}

/// The lake's writer: one per process, any number per lake.
pub struct Archiver {
    settings: Settings,
    deps: Deps,
    rules: Rules,
    /// Files are named by the moment this archiver was made and a count of its commits: a retry of the same rows is
    /// the same file, and nothing else is.
    name: i64,
    commits: AtomicU64,
}

/// When to stop.
enum Goal<'a> {
    Shutdown(&'a Shutdown),
    Reached(&'a Progress),
}

impl Archiver {
    /// An archiver that has not started.
    #[must_use]
    pub fn new(settings: Settings, deps: Deps) -> Self {
        let rules = Rules { counting: deps.counting.clone(), region: deps.region.clone() };
        let name = deps.clock.now().0;
        Self { settings, deps, rules, name, commits: AtomicU64::new(0) }
    }

    /// Archives until shutdown, then commits what waits. Storage that is away is waited for.
    ///
    /// # Errors
    /// `Corrupt` when a log no longer has what was not archived (or is another log), or the lake contradicts itself;
    /// any error when it comes after the shutdown was requested: nothing is lost, the next start reads it again.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        tracing::info!(root = ?self.deps.root, "the lake archives");
        self.until(&Goal::Shutdown(&shutdown)).await?;
        tracing::info!("the lake has stopped");
        Ok(())
    }

    /// Archives until the lake holds everything before `ends`.
    ///
    /// # Errors
    /// As [`Archiver::run`].
    pub async fn archive_until(&self, ends: &Progress) -> Result<(), Error> {
        self.until(&Goal::Reached(ends)).await
    }

    /// Archives everything that is in both logs now, as far as it is this archiver's, and says how far that is.
    ///
    /// # Errors
    /// As [`Archiver::run`].
    pub async fn drain(&self) -> Result<Progress, Error> {
        let ends = self.ends().await?;
        self.archive_until(&ends).await?;
        Ok(ends)
    }

    /// Where both logs end, of the partitions that are this archiver's.
    async fn ends(&self) -> Result<Progress, Error> {
        let (mut events, mut dead_letters) =
            (self.deps.events.bounds().await?.end, self.deps.dead_letters.bounds().await?.end);
        events.0.retain(|p, _| self.is_ours(*p));
        dead_letters.0.retain(|_, _| self.is_ours(0));
        Ok(Progress { events, dead_letters })
    }

    fn is_ours(&self, partition: u32) -> bool {
        self.settings.partitions.is_empty() || self.settings.partitions.contains(&partition)
    }

    async fn until(&self, goal: &Goal<'_>) -> Result<(), Error> {
        let mut wait = self.settings.retry_min;
        loop {
            let before = self.commits.load(Ordering::Relaxed);
            let Err(error) = self.session(goal).await else { return Ok(()) };
            if goal.is_shutting_down() && error.kind() == ErrorKind::Conflict {
                return Ok(()); // another archiver is at work and takes the rest
            }
            if !error.kind().is_retryable() || goal.is_shutting_down() {
                return Err(error);
            }
            if self.commits.load(Ordering::Relaxed) > before {
                wait = self.settings.retry_min;
            }
            tracing::warn!(%error, retry_in = %wait, "archiving stopped and begins again from the last commit");
            goal.pause(wait).await;
            wait = Span((wait.0 * 2).min(self.settings.retry_max.0));
        }
    }

    /// Readers that start where the tables stand, or at the oldest record where a partition was never archived.
    async fn open_logs(&self, at: &Progress) -> Result<Logs, Error> {
        let (events, dead_letters) = (self.deps.events.as_ref(), self.deps.dead_letters.as_ref());
        let events_ours: Vec<u32> = (0..events.partitions()).filter(|p| self.is_ours(*p)).collect();
        let letters_ours: Vec<u32> = (0..dead_letters.partitions()).filter(|_| self.is_ours(0)).collect();
        Ok(Logs {
            events: consumer(events, &at.events, &events_ours, EVENTS).await?,
            dead_letters: consumer(dead_letters, &at.dead_letters, &letters_ours, DEAD_LETTERS).await?,
        })
    }

    /// One life: from what the tables say to the goal, or to the first failure.
    async fn session(&self, goal: &Goal<'_>) -> Result<(), Error> {
        let mut bronze = Bronze::open(&self.deps.root).await?;
        bronze.reload(self.deps.events.partitions(), self.deps.dead_letters.partitions()).await?;
        let mut logs = self.open_logs(&bronze.at).await?;
        let mut buffer = Buffer::new(logs.positions(), bronze.undecodable.clone());
        loop {
            let stopping = goal.is_reached(&buffer.next);
            if !buffer.is_empty() && (stopping || self.is_due(&buffer)) {
                let mut next = Buffer::new(buffer.next.clone(), buffer.undecodable.clone());
                self.publish(&mut bronze, buffer, &mut logs, &mut next, goal).await?;
                self.report(&mut logs, &bronze.at).await?;
                buffer = next;
            } else if stopping {
                return Ok(());
            } else {
                self.poll(&mut logs, &mut buffer).await?;
            }
        }
    }

    /// Commits one buffer while the next one fills, so that reading and encoding each keep a core busy.
    async fn publish(
        &self,
        bronze: &mut Bronze,
        full: Buffer,
        logs: &mut Logs,
        next: &mut Buffer,
        goal: &Goal<'_>,
    ) -> Result<(), Error> {
        let stem = self.stem();
        let published = AtomicBool::new(false);
        let publish = async {
            let outcome = bronze.publish(full, &stem).await;
            published.store(true, Ordering::Relaxed);
            outcome
        };
        let fill = async {
            while !published.load(Ordering::Relaxed) && !self.is_full(next) && !goal.is_reached(&next.next) {
                self.poll(logs, next).await?;
            }
            Ok(())
        };
        let (publish, fill) = tokio::join!(publish, fill);
        publish?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        fill
    }

    async fn poll(&self, logs: &mut Logs, buffer: &mut Buffer) -> Result<(), Error> {
        let room = self.settings.flush_rows.saturating_sub(buffer.rows).clamp(1, self.settings.poll_records);
        let events = logs.events.poll(room, self.settings.poll_wait.0).await?;
        buffer.take_events(events, &self.rules, self.deps.clock.now())?;
        let dead_letters = logs.dead_letters.poll(room, Duration::ZERO).await?;
        buffer.take_dead_letters(dead_letters, &self.rules, self.deps.clock.now())
    }

    fn is_due(&self, buffer: &Buffer) -> bool {
        let age = buffer.since.map_or(0, |since| self.deps.clock.now().since(since));
        self.is_full(buffer) || !(0..self.settings.flush_age.as_micros()).contains(&age) // a clock set back must not hold rows back
    }

    fn is_full(&self, buffer: &Buffer) -> bool {
        buffer.rows >= self.settings.flush_rows || buffer.bytes >= self.settings.flush_bytes.as_usize()
    }

    fn stem(&self) -> String {
        format!("{}-{:06}", self.name, self.commits.load(Ordering::Relaxed))
    }

    async fn report(&self, logs: &mut Logs, at: &Progress) -> Result<(), Error> {
        logs.events.report(&at.events).await?;
        logs.dead_letters.report(&at.dead_letters).await?;
        let ends = self.ends().await?;
        let lag = at.events.lag(&ends.events) + at.dead_letters.lag(&ends.dead_letters);
        #[allow(clippy::cast_precision_loss)] // a gauge
        gauge!(LAKE_LAG).set(lag as f64);
        Ok(())
    }
}

impl Goal<'_> {
    fn is_reached(&self, at: &Progress) -> bool {
        match self {
            Self::Shutdown(shutdown) => shutdown.is_requested(),
            Self::Reached(ends) => at.covers(ends),
        }
    }

    fn is_shutting_down(&self) -> bool {
        matches!(self, Self::Shutdown(shutdown) if shutdown.is_requested())
    }

    async fn pause(&self, wait: Span) {
        match self {
            Self::Shutdown(shutdown) => {
                tokio::select! {
                    () = shared::time::sleep(wait.0) => {}
                    () = shutdown.requested() => {}
                }
            }
            Self::Reached(_) => shared::time::sleep(wait.0).await,
        }
    }
}

/// A reader of each log.
struct Logs {
    events: Box<dyn Consumer>,
    dead_letters: Box<dyn Consumer>,
}

impl Logs {
    fn positions(&self) -> Progress {
        Progress { events: self.events.positions(), dead_letters: self.dead_letters.positions() }
    }
}

async fn consumer(
    log: &dyn EventLog,
    at: &Positions,
    partitions: &[u32],
    topic: &str,
) -> Result<Box<dyn Consumer>, Error> {
    let start = log.bounds().await?.start;
    let from = partitions.iter().map(|&p| (p, at.0.get(&p).copied().unwrap_or_else(|| start.next(p))));
    let consumer = log.consumer(GROUP, &Positions(from.collect())).await;
    Ok(consumer.inspect_err(|e| tracing::error!(topic, error = %e, "the lake cannot go on where it stopped"))?)
}

//! The run loop, the only one of the layer: poll → apply → (every 10 s) flush → checkpoint.
//!
//! Which partitions are this process's is settled by its settings, or by a group and changing: a partition that comes is
//! restored while the others go on; one that goes is flushed and saved first, if the stores are there; one that was lost
//! is dropped, since another process may have it already (whose newer generation wins, in the stores and at the next save
//! here).
//! A store or log that is away is waited for: what is held gets full, then records stop and the log keeps the rest; the
//! log goes on being asked for changes. Nothing is lost, and memory has a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shared::config::Problem;
use shared::error::ErrorKind;
use shared::event_log::Bounds;
use shared::event_log::group::{self, Member, Sole, Turn};
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::time::sleep;
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{info, warn};

use crate::assigned::{Assigned, Taking};
use crate::held::{Held, RETRY};
use crate::settings::Settings;
use crate::{Deps, Error, Speed};

/// How often, and how long apart, a partition that another owns is tried again at the start.
const PREDECESSOR_TRIES: u32 = 20;
const PREDECESSOR_WAIT: Duration = Duration::from_millis(50);

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
    member: Box<dyn Member>,
    held: Held,
    restoring: JoinSet<Result<Assigned, Error>>,
    /// Partitions that are this process's, by the task that restores (or restored) each.
    ours: BTreeMap<u32, AbortHandle>,
}

type Restored = Result<(Id, Result<Assigned, Error>), JoinError>;

impl Pipeline {
    /// Joins the group; or restores the partitions given and opens the log where they stand.
    pub(crate) async fn start(settings: Settings, deps: Deps) -> Result<Self, Error> {
        let given = given_partitions(&settings, &deps)?;
        let member: Box<dyn Member> = match &given {
            Some(given) => Box::new(Sole::new(Arc::clone(&deps.events), Speed::GROUP, given.clone())),
            None => group::join(&deps.events, Speed::GROUP, &settings.group_member).await?,
        };
        let held = Held::new(settings.clone(), deps.clone());
        let (restoring, ours) = (JoinSet::new(), BTreeMap::new());
        let mut pipeline = Self { settings, deps, member, held, restoring, ours };
        if given.is_some()
            && let Turn::Assigned(given) = pipeline.member.poll(0, Duration::ZERO).await?
        {
            pipeline.restore(given);
            let mut all = Vec::new();
            while let Some(restored) = pipeline.restoring.join_next_with_id().await {
                all.extend(pipeline.restored(restored)?);
            }
            pipeline.begin(all).await?;
        }
        info!(partitions = pipeline.ours.len(), is_given = given.is_some(), "speed layer started");
        Ok(pipeline)
    }

    /// Flushes if it is time, then takes what the log has. Only waiting is cut short by `shutdown`.
    pub(crate) async fn step(&mut self, shutdown: &Shutdown) -> Result<(), Error> {
        if self.held.is_flush_due(self.deps.clock.now()) {
            self.flush_and_save(false).await?;
        }
        let is_full = self.held.is_full();
        self.member.pause(is_full)?;
        let wait = if is_full { RETRY } else { self.settings.poll_wait.0 };
        let turn = tokio::select! {
            turn = self.member.poll(self.settings.poll_records, wait) => turn,
            Some(restored) = self.restoring.join_next_with_id() => {
                let mut all: Vec<Assigned> = self.restored(restored)?.into_iter().collect();
                while let Some(restored) = self.restoring.try_join_next_with_id() {
                    all.extend(self.restored(restored)?);
                }
                return self.begin_or_again(all, shutdown).await;
            }
            () = shutdown.requested() => return Ok(()),
        };
        match turn {
            Ok(turn) => self.take(turn).await?,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                warn!(%error, "event log is away, trying again");
                pause(shutdown).await;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn take(&mut self, turn: Turn) -> Result<(), Error> {
        match turn {
            Turn::Records(records) => self.held.apply(records).await?,
            Turn::Assigned(partitions) => self.restore(partitions),
            Turn::Revoked(partitions) => {
                info!(?partitions, "partitions move to another worker");
                // If a store is away, what is not saved is read again by whoever comes next.
                self.flush_and_save(true).await?;
                self.forget(&partitions);
                self.member.give_up(&partitions).await?;
            }
            Turn::Lost(partitions) => {
                warn!(?partitions, "partitions are lost: this worker was not heard for too long");
                self.forget(&partitions);
            }
        }
        Ok(())
    }

    /// Begins to restore partitions, beside everything else.
    fn restore(&mut self, partitions: BTreeSet<u32>) {
        let settings = self.settings.share_of(self.ours.len() + partitions.len());
        let bounds = Arc::new(OnceCell::new());
        let is_patient = !self.settings.group_member.is_empty();
        for partition in partitions {
            let task = take_on(partition, settings.clone(), self.deps.clone(), Arc::clone(&bounds), is_patient);
            self.ours.insert(partition, self.restoring.spawn(task));
        }
    }

    /// What a task restored, if it is still wanted.
    fn restored(&self, restored: Restored) -> Result<Option<Assigned>, Error> {
        let (id, assigned) = match restored {
            Err(error) if error.is_cancelled() => return Ok(None),
            restored => restored?,
        };
        let is_wanted = |partition| self.ours.get(&partition).is_some_and(|task| task.id() == id);
        Ok(Some(assigned?).filter(|assigned| is_wanted(assigned.worker.partition())))
    }

    /// Goes on with restored partitions where they stand.
    async fn begin(&mut self, restored: Vec<Assigned>) -> Result<(), Error> {
        if restored.is_empty() {
            return Ok(());
        }
        let positions = restored.iter().map(|a| (a.worker.partition(), a.worker.next_position()));
        self.member.start(&Positions(positions.collect())).await?;
        self.held.take(restored);
        Ok(())
    }

    /// As [`Pipeline::begin`]; when the log is away the partitions are restored once more.
    async fn begin_or_again(&mut self, restored: Vec<Assigned>, shutdown: &Shutdown) -> Result<(), Error> {
        let partitions = restored.iter().map(|assigned| assigned.worker.partition()).collect();
        match self.begin(restored).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                warn!(%error, ?partitions, "event log is away, trying again");
                pause(shutdown).await;
                self.restore(partitions);
                Ok(())
            }
            begun => begun,
        }
    }

    fn forget(&mut self, partitions: &BTreeSet<u32>) {
        partitions.iter().filter_map(|partition| self.ours.remove(partition)).for_each(|task| task.abort());
        self.held.let_go(partitions);
    }

    /// As [`Held::flush_and_save`], however long that takes: the log sees that this process lives.
    pub(crate) async fn flush_and_save(&mut self, save_now: bool) -> Result<(), Error> {
        let is_saved = tokio::select! {
            is_saved = self.held.flush_and_save(save_now) => is_saved?,
            error = self.member.keep() => return Err(error.into()),
        };
        if is_saved && let Err(error) = self.member.report(&self.held.positions()).await {
            warn!(%error, "cannot report positions, lag displays are behind");
        }
        Ok(())
    }

    /// The last flush and checkpoint.
    async fn stop(mut self) -> Result<(), Error> {
        self.flush_and_save(true).await?;
        info!(unflushed = self.held.unflushed(), "speed layer stopped");
        self.member.leave().await;
        Ok(())
    }
}

/// Makes a partition this process's: a new generation, then its state. In a group a store that is away is waited for.
async fn take_on(
    partition: u32,
    settings: Settings,
    deps: Deps,
    bounds: Arc<OnceCell<Bounds>>,
    is_patient: bool,
) -> Result<Assigned, Error> {
    loop {
        let taken = async {
            let generation = deps.store.next_generation(partition).await?;
            let log_start = bounds.get_or_try_init(|| deps.events.bounds()).await?.start.next(partition);
            let (now, state) = (deps.clock.now(), deps.state.clone());
            patiently(Taking { partition, generation, log_start, now, settings: settings.clone(), state }).await
        };
        match taken.await {
            Err(error) if is_patient && error.kind() == ErrorKind::Unavailable => {
                warn!(%error, partition, "cannot restore the partition, trying again");
                sleep(RETRY).await;
            }
            taken => return taken,
        }
    }
}

/// Restores a partition. A predecessor that was cut off may still be finishing a save: that is worth a moment.
async fn patiently(taking: Taking) -> Result<Assigned, Error> {
    let mut tries = 1..=PREDECESSOR_TRIES;
    loop {
        let taking = taking.clone();
        match tokio::task::spawn_blocking(move || Assigned::restore(&taking)).await? {
            Err(Error::Owned(_)) if tries.next().is_some() => sleep(PREDECESSOR_WAIT).await,
            restored => return restored,
        }
    }
}

/// Waits before something that was away is tried again.
async fn pause(shutdown: &Shutdown) {
    tokio::select! {
        () = sleep(RETRY) => {}
        () = shutdown.requested() => {}
    }
}

/// The partitions that the settings give; `None` where a group does.
fn given_partitions(settings: &Settings, deps: &Deps) -> Result<Option<BTreeSet<u32>>, Error> {
    let (mut problems, of_log) = (settings.problems(), deps.events.partitions());
    if deps.state.is_none() && settings.state_dir.as_os_str().is_empty() {
        problems.push(Problem::new("speed.state_dir", "is not set"));
    }
    if let Some(unknown) = settings.partitions.iter().find(|p| **p >= of_log) {
        let why = format!("names partition {unknown}, but the log has {of_log}, numbered from 0");
        problems.push(Problem::new("speed.partitions", why));
    }
    if !problems.is_empty() {
        return Err(Error::Settings(problems));
    }
    if !settings.group_member.is_empty() {
        return Ok(None);
    }
    let all = settings.partitions.is_empty();
    Ok(Some(if all { (0..of_log).collect() } else { settings.partitions.iter().copied().collect() }))
}

/// What tests do step by step.
#[cfg(test)]
impl Pipeline {
    /// Where every partition stands.
    pub(crate) fn positions(&self) -> Positions {
        self.held.positions()
    }

    /// Polls once, at most `most` records, and applies what came.
    pub(crate) async fn read(&mut self, most: usize) -> Result<(), Error> {
        let turn = self.member.poll(most, self.settings.poll_wait.0).await?;
        self.take(turn).await
    }

    /// Flushes without saving.
    pub(crate) async fn flush(&mut self, now: shared::time::Timestamp) -> Result<bool, Error> {
        self.held.flush(now).await
    }
}

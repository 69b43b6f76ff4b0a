//! The gateway's spool on its way: what is durable on this machine goes, in order, to the log that everyone reads
//! (decisions.md D-7). While that log is away events wait here, and no click waits for it.
//!
//! Guarantees: every spooled record arrives, in the order of its partition, at least once; the spool forgets nothing
//! that has not arrived (its group [`GROUP`] says how far). On crash: what arrived after the last saved place is sent
//! once more, and dedup downstream takes it for the duplicate it is. A record that the log refuses for its size is set aside
//! in a file (`aside`) and tried again at each start; what comes after it goes on. A note in the dead-letter log names it, and
//! batch publishes nothing without it.
//! Never: gives up, reorders what the log takes, or lets more than one batch be under way.

mod aside;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::error::ErrorKind;
use shared::event_log::{EventLog, LogError, NewRecord, Record};
use shared::id::RefId;
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::telemetry::metric_names::{FORWARD_LAG, FORWARD_RECORDS, FORWARD_SET_ASIDE};
use shared::time::sleep;

use aside::{Aside, Notes};

/// The spool's consumer group, for its retention and for lag displays.
pub const GROUP: &str = "forward";

/// Records sent at once.
const BATCH_RECORDS: usize = 4_096;
/// How long to wait for more to send.
const WAIT: Duration = Duration::from_millis(100);
/// The pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two attempts while the log is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Forwarding cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The spool cannot be read, or the log refuses what no retry changes.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The place cannot be read or saved.
    #[error("cannot keep the forwarder's place in {path}: {source}")]
    Place {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record that was set aside cannot be kept or read.
    #[error("cannot keep what the log refused in {folder}: {source}")]
    Aside {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The two logs are cut differently.
    #[error("the spool has {spool} partitions and the log {log}: set log.partitions to {log}")]
    Partitions {
        /// The spool's.
        spool: u32,
        /// The log's.
        log: u32,
    },
}

/// Where the forwarder stands: the first position of each partition that has not arrived.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    next: Positions,
}

/// Forwards one spool to one log.
pub struct Forwarder {
    spool: Arc<dyn EventLog>,
    log: Arc<dyn EventLog>,
    place: PathBuf,
    aside: Aside,
    notes: Option<Notes>,
}

impl Forwarder {
    /// A forwarder that keeps its place in the file `place`, and what is set aside in the folder beside it that ends in
    /// `.aside`.
    #[must_use]
    pub fn new(spool: Arc<dyn EventLog>, log: Arc<dyn EventLog>, place: PathBuf) -> Self {
        let aside = Aside::new(place.with_extension("aside"));
        Self { spool, log, place, aside, notes: None }
    }

    /// As it was, with a note for each event that is set aside, in the dead-letter log of the gateway that stands in `region`.
    #[must_use]
    pub fn with_notes(self, dead_letters: Arc<dyn EventLog>, region: RefId) -> Self {
        Self { notes: Some(Notes::new(dead_letters, region)), ..self }
    }

    /// Forwards until shutdown, and then what is in the spool by then if the log takes it at once.
    ///
    /// # Errors
    /// What no waiting mends: a damaged spool, a full disk.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), ForwardError> {
        let (spool, log) = (self.spool.partitions(), self.log.partitions());
        if spool != log {
            return Err(ForwardError::Partitions { spool, log });
        }
        self.try_again().await?;
        let mut next = self.start().await?;
        let mut consumer = self.spool.consumer(GROUP, &next).await?;
        loop {
            let records = consumer.poll(BATCH_RECORDS, WAIT).await?;
            if records.is_empty() {
                if shutdown.is_requested() {
                    return Ok(());
                }
                metrics::gauge!(FORWARD_LAG).set(0.0);
                continue;
            }
            let count = records.len() as u64;
            if !self.send(records, &shutdown).await? {
                return Ok(()); // the spool keeps them for the next start
            }
            next = consumer.positions();
            save(&self.place, &Place { next: next.clone() })?;
            consumer.report(&next).await?;
            metrics::counter!(FORWARD_RECORDS).increment(count);
            let end = self.spool.bounds().await?.end;
            let lag = end.0.iter().map(|(p, end)| end.saturating_sub(next.next(*p))).sum::<u64>();
            metrics::gauge!(FORWARD_LAG).set(u32::try_from(lag).unwrap_or(u32::MAX));
        }
    }

    /// Where to go on: the saved place, or the beginning of the spool.
    async fn start(&self) -> Result<Positions, ForwardError> {
        let failed = |source| ForwardError::Place { path: self.place.clone(), source };
        let saved: Place = match std::fs::read(&self.place) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| failed(e.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Place::default(),
            Err(error) => return Err(failed(error)),
        };
        let mut next = self.spool.bounds().await?.start;
        next.0.extend(saved.next.0);
        Ok(next)
    }

    /// Sends a batch however long it takes; whether it arrived before the shutdown. One with a record that is too large is
    /// halved until that one is alone.
    async fn send(&self, records: Vec<Record>, shutdown: &Shutdown) -> Result<bool, ForwardError> {
        let mut parts = vec![records];
        while let Some(mut part) = parts.pop() {
            match self.send_part(&part, shutdown).await {
                Ok(true) => {}
                Err(ForwardError::Log(LogError::TooLarge(why))) => match part.as_slice() {
                    [alone] => {
                        self.aside.keep(alone).map_err(|e| self.aside_failed(e))?;
                        if let Some(notes) = &self.notes {
                            notes.write(alone).await?;
                        }
                        let (partition, position) = (alone.partition, alone.position);
                        tracing::error!(why, partition, position, folder = %self.aside.folder().display(), "set aside");
                        self.count_aside()?;
                    }
                    _ => {
                        let second = part.split_off(part.len() / 2);
                        parts.extend([second, part]);
                    }
                },
                ended => return ended,
            }
        }
        Ok(true)
    }

    fn aside_failed(&self, source: io::Error) -> ForwardError {
        ForwardError::Aside { folder: self.aside.folder().to_owned(), source }
    }

    fn count_aside(&self) -> Result<(), ForwardError> {
        let files = self.aside.files().map_err(|e| self.aside_failed(e))?;
        metrics::gauge!(FORWARD_SET_ASIDE).set(u32::try_from(files.len()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Sends what was set aside, as far as the log takes it now.
    async fn try_again(&self) -> Result<(), ForwardError> {
        for file in self.aside.files().map_err(|e| self.aside_failed(e))? {
            let record = Aside::read(&file).map_err(|e| self.aside_failed(e))?;
            match self.log.append(vec![record]).await {
                Ok(_) => self.aside.remove(&file).map_err(|e| self.aside_failed(e))?,
                Err(error) => {
                    tracing::error!(%error, file = %file.display(), "the log still does not take this record")
                }
            }
        }
        self.count_aside()
    }

    async fn send_part(&self, records: &[Record], shutdown: &Shutdown) -> Result<bool, ForwardError> {
        let new =
            |r: &Record| NewRecord { partition: r.partition, append_time: r.append_time, payload: r.payload.clone() };
        let records: Vec<NewRecord> = records.iter().map(new).collect();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.log.append(records.clone()).await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error.into()),
                Err(error) => tracing::warn!(%error, ?pause, "the log is away; events wait in the spool"),
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(false),
                () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }
}

/// Saves the place: whole or not at all.
fn save(path: &Path, place: &Place) -> Result<(), ForwardError> {
    let write = || {
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(place)?)?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    };
    write().map_err(|source: io::Error| ForwardError::Place { path: path.to_owned(), source })
}

//! One partition as this process owns it: its worker, the place of its state, its generation.
//! Guarantee: state and position are saved and restored together; a checkpoint that cannot be read gives way to
//! the one before, and none at all to the log's beginning. On crash: the next start restores.
//! Never: goes on from a position whose state is unknown.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::event_log::Record;
use shared::price::PriceBook;
use shared::rollup::RowVersion;
use shared::serving_store::Flush;
use shared::time::Timestamp;
use tracing::{info, warn};

use crate::checkpoint::{StateMessage, decode, encode};
use crate::dedup::Memory;
use crate::folder::Folder;
use crate::objects::Objects;
use crate::outcome::Tally;
use crate::place::Place;
use crate::settings::Settings;
use crate::worker::{CLICKS, IDS, Worker};
use crate::{Error, metrics};
use object_store::ObjectStore;

/// A partition at work.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) worker: Worker,
    place: Box<dyn Place>,
    /// What the newest checkpoint holds.
    saved: Saved,
    generation: u32,
    sequence: u64,
    /// How many ids went early when that was last told.
    told_forgotten: u64,
    /// How many reads of the disk for an id when that was last told.
    told_reads: u64,
    /// When the last record came, by the process's clock.
    pub(crate) heard_at: Timestamp,
}

/// A checkpoint's position and dedup files.
#[derive(Debug, Default)]
struct Saved {
    position: Option<u64>,
    files: BTreeSet<String>,
}

impl Saved {
    fn of(message: &StateMessage) -> Self {
        let mut files = BTreeSet::new();
        files.extend(message.ids.iter().flat_map(|m| Memory::<0>::files(IDS, m)));
        files.extend(message.clicks.iter().flat_map(|m| Memory::<8>::files(CLICKS, m)));
        Self { position: Some(message.next_position), files }
    }
}

/// How a partition is taken on.
#[derive(Clone)]
pub(crate) struct Taking {
    pub(crate) partition: u32,
    /// Newer than any before.
    pub(crate) generation: u32,
    /// Where it begins if it never was saved.
    pub(crate) log_start: u64,
    /// Only the beginning of idleness.
    pub(crate) now: Timestamp,
    /// The limits are this partition's own.
    pub(crate) settings: Settings,
    /// Where state is kept; else in the settings' folder.
    pub(crate) state: Option<Arc<dyn ObjectStore>>,
}

impl Taking {
    fn place(&self) -> Result<Box<dyn Place>, Error> {
        Ok(match &self.state {
            Some(store) => Box::new(Objects::open(Arc::clone(store), self.partition, self.generation)?),
            None => Box::new(Folder::open(self.settings.state_dir.join(format!("partition-{:04}", self.partition)))?),
        })
    }

    /// The state of `checkpoint`, if it is whole.
    fn read(&self, place: &mut dyn Place, checkpoint: &str) -> Result<Option<(Worker, Saved)>, Error> {
        let message = place.read_checkpoint(checkpoint)?.and_then(|bytes| decode(&bytes));
        let Some(message) = message.filter(|m| m.partition == self.partition) else { return Ok(None) };
        let mut failed = None;
        let worker = Worker::restore(&message, &self.settings, self.settings.shelf(), |file, length| {
            place.read_file(file, length).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let Some(worker) = worker else { return Ok(None) };
        worker.check()?;
        Ok(Some((worker, Saved::of(&message))))
    }
}

impl Assigned {
    /// Takes a partition on: from its newest readable checkpoint, or from the log's start where there never was one.
    /// Blocks.
    pub(crate) fn restore(taking: &Taking) -> Result<Self, Error> {
        let Taking { partition, generation, log_start, now, .. } = *taking;
        let mut place = taking.place()?;
        let mut restored = None;
        for checkpoint in place.checkpoints()? {
            restored = taking.read(place.as_mut(), &checkpoint)?;
            if restored.is_some() {
                break;
            }
            warn!(partition, checkpoint, "checkpoint is damaged, using an older one");
            place.discard(&checkpoint)?;
        }
        let (worker, saved) = match restored {
            Some(restored) => restored,
            None if log_start > 0 && place.has_damaged() => {
                return Err(Error::Damaged { place: place.name(), log_start });
            }
            None => {
                let settings = &taking.settings;
                (Worker::with_shelf(partition, log_start, settings, settings.shelf()), Saved::default())
            }
        };
        info!(partition, generation, position = worker.next_position(), "partition assigned");
        let told_forgotten = worker.forgotten_ids();
        let mut taken =
            Self { worker, place, saved, generation, sequence: 0, told_forgotten, told_reads: 0, heard_at: now };
        if taken.place.is_shared() {
            taken.write()?;
        }
        Ok(taken)
    }

    /// Takes the records of one poll in; how many had which outcome.
    pub(crate) fn apply(&mut self, records: &[Record], prices: Arc<PriceBook>, now: Timestamp) -> Result<Tally, Error> {
        self.heard_at = now;
        self.worker.set_prices(prices);
        let before = self.worker.tally();
        let mut expected = self.worker.next_position();
        for record in records {
            let (partition, got) = (record.partition, record.position);
            if got < expected {
                return Err(Error::Overlap { partition, expected, got });
            }
            expected = got + 1;
        }
        self.worker.apply_all(records);
        self.worker.check()?;
        Ok(self.worker.tally().since(&before))
    }

    /// The next flush: every row that changed since the last one that succeeded.
    pub(crate) fn flush(&mut self, now: Timestamp, watermark: Timestamp, lag: u64) -> Flush {
        self.sequence += 1;
        Flush {
            writer: self.worker.partition(),
            version: RowVersion::speed(self.generation, self.sequence),
            rows: self.worker.changed_rows(),
            status: self.worker.status(now, watermark, lag),
        }
    }

    /// Tells how often the disk was read for an id since that was last told.
    pub(crate) fn tell_reads(&mut self) {
        let reads = self.worker.ids_on_disk().reads;
        metrics::disk_reads(reads.saturating_sub(self.told_reads));
        self.told_reads = reads;
    }

    /// Saves state and position, if there is something new. Blocks.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        if self.saved.position == Some(self.worker.next_position()) {
            return Ok(());
        }
        let forgotten = self.worker.forgotten_ids();
        if forgotten > self.told_forgotten {
            let (partition, ids) = (self.worker.partition(), forgotten - self.told_forgotten);
            warn!(partition, ids, "dedup limits reached: older repeats are counted here until reconcile");
            metrics::forgotten(ids);
            self.told_forgotten = forgotten;
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), Error> {
        self.worker.check()?;
        let (message, appends) = self.worker.stage();
        let next = Saved::of(&message);
        self.place.save(encode(&message), &appends, &next.files, &self.saved.files)?;
        self.worker.mark_stored(&message);
        self.saved = next;
        Ok(())
    }
}

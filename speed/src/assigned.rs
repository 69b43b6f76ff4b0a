//! One partition as this process owns it: its worker, its state folder, its generation.
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

use crate::Error;
use crate::checkpoint::{StateMessage, decode, encode};
use crate::dedup::Memory;
use crate::folder::Folder;
use crate::outcome::Tally;
use crate::settings::Settings;
use crate::worker::{CLICKS, IDS, Worker};

/// A partition at work.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) worker: Worker,
    folder: Folder,
    /// The newest checkpoint: its number, position and dedup files.
    saved: Saved,
    generation: u32,
    sequence: u64,
    /// How many ids went early when that was last told.
    told_forgotten: u64,
    /// When the last record came, by the process's clock.
    pub(crate) heard_at: Timestamp,
}

#[derive(Debug, Default)]
struct Saved {
    number: u64,
    position: Option<u64>,
    files: BTreeSet<String>,
}

impl Saved {
    fn of(number: u64, message: &StateMessage) -> Self {
        let mut files = BTreeSet::new();
        files.extend(message.ids.iter().flat_map(|m| Memory::<0>::files(IDS, m)));
        files.extend(message.clicks.iter().flat_map(|m| Memory::<8>::files(CLICKS, m)));
        Self { number, position: Some(message.next_position), files }
    }
}

impl Assigned {
    /// Takes `partition` on: from its newest readable checkpoint, or from `log_start` where there never was one.
    /// `generation` must be new; `now` is only the beginning of idleness.
    pub(crate) fn restore(
        partition: u32,
        settings: &Settings,
        log_start: u64,
        generation: u32,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let folder = Folder::open(settings.state_dir.join(format!("partition-{partition:04}")))?;
        let mut restored = None;
        for number in folder.checkpoints()? {
            let message = folder.read_checkpoint(number)?.and_then(|bytes| decode(&bytes));
            let whole = message.filter(|m| m.partition == partition).and_then(|message| {
                let worker = Worker::restore(&message, settings, |file, length| folder.read_file(file, length))?;
                Some((worker, Saved::of(number, &message)))
            });
            if whole.is_some() {
                restored = whole;
                break;
            }
            warn!(partition, number, "checkpoint is damaged, using an older one");
            folder.discard(number)?;
        }
        let (worker, saved) = match restored {
            Some(restored) => restored,
            None if log_start > 0 && folder.has_damaged() => {
                return Err(Error::Damaged { folder: folder.path().to_owned(), log_start });
            }
            None => (Worker::new(partition, log_start, settings), Saved::default()),
        };
        info!(partition, generation, position = worker.next_position(), "partition assigned");
        let told_forgotten = worker.forgotten_ids();
        Ok(Self { worker, folder, saved, generation, sequence: 0, told_forgotten, heard_at: now })
    }

    /// Takes the records of one poll in; how many had which outcome.
    pub(crate) fn apply(&mut self, records: &[Record], prices: Arc<PriceBook>, now: Timestamp) -> Result<Tally, Error> {
        self.heard_at = now;
        self.worker.set_prices(prices);
        let before = self.worker.tally();
        for record in records {
            let (partition, expected, got) = (record.partition, self.worker.next_position(), record.position);
            if got < expected {
                return Err(Error::Overlap { partition, expected, got });
            }
            self.worker.apply(record);
        }
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

    /// Saves state and position, if there is something new. Blocks on the disk.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        if self.saved.position == Some(self.worker.next_position()) {
            return Ok(());
        }
        let forgotten = self.worker.forgotten_ids();
        if forgotten > self.told_forgotten {
            let (partition, ids) = (self.worker.partition(), forgotten - self.told_forgotten);
            warn!(partition, ids, "dedup limit reached: older repeats are counted here until reconcile");
            self.told_forgotten = forgotten;
        }
        let (message, appends) = self.worker.stage();
        let next = Saved::of(self.saved.number + 1, &message);
        let keep = self.saved.files.union(&next.files).cloned().collect();
        self.folder.save(next.number, &encode(&message), &appends, &keep)?;
        self.worker.mark_stored(&message);
        self.saved = next;
        Ok(())
    }
}

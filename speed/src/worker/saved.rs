//! A worker as a checkpoint holds it, and back.
//! Guarantee: a restored worker does what the one that was staged would have done, but for latency samples.
//! On crash: the checkpoint before is whole. Never: restores a part.

use shared::time::Timestamp;

use super::Worker;
use crate::checkpoint::{FORMAT, StateMessage, restore_windows, windows};
use crate::dedup::shelf::Shelf;
use crate::outcome::Outcome;
use crate::place::Append;
use crate::settings::Settings;
use crate::watermark::Watermark;

impl Worker {
    /// The state as a checkpoint holds it, true once the appends are on disk.
    pub(crate) fn stage(&self) -> (StateMessage, Vec<Append>) {
        let (minutes, hours) = windows(&self.windows);
        let (ids, mut appends) = self.ids.stage();
        let (clicks, more) = self.clicks.stage();
        appends.extend(more);
        let message = StateMessage {
            format: FORMAT,
            partition: self.partition,
            next_position: self.next_position,
            newest: self.watermark.newest().0,
            horizon: self.horizon.0,
            heard: self.heard.0,
            max_event_time: self.max_event_time.0,
            as_of: self.as_of.0,
            outcomes: self.tally.by_word(),
            late_by_hour: self.late_by_hour.iter().map(|(hour, n)| (hour.0, *n)).collect(),
            minutes: Some(minutes),
            hours,
            old_ads: Vec::new(),
            ids: Some(ids),
            clicks: Some(clicks),
        };
        (message, appends)
    }

    /// Takes note that what [`Worker::stage`] returned is on disk.
    pub(crate) fn mark_stored(&mut self, message: &StateMessage) {
        if let Some(ids) = &message.ids {
            self.ids.mark_stored(ids);
        }
        if let Some(clicks) = &message.clicks {
            self.clicks.mark_stored(clicks);
        }
    }

    /// The worker a checkpoint describes, every open row marked as changed; `None` when it is not whole.
    pub(crate) fn restore(
        message: &StateMessage,
        settings: &Settings,
        shelf: Option<Box<dyn Shelf>>,
        mut read: impl FnMut(&str, u64) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let mut worker = Self::with_shelf(message.partition, message.next_position, settings, shelf);
        worker.ids.restore(message.ids.as_ref()?, &mut read).ok()?;
        worker.clicks.restore(message.clicks.as_ref()?, &mut read).ok()?;
        worker.windows = restore_windows(message)?;
        worker.watermark = Watermark::new(Timestamp(message.newest), settings.out_of_orderness.as_micros());
        worker.horizon = Timestamp(message.horizon);
        worker.heard = Timestamp(message.heard);
        worker.max_event_time = Timestamp(message.max_event_time);
        worker.as_of = Timestamp(message.as_of);
        worker.late_by_hour = message.late_by_hour.iter().map(|(hour, n)| (Timestamp(*hour), *n)).collect();
        for outcome in Outcome::ALL {
            worker.tally.add_many(outcome, message.outcomes.get(outcome.as_str()).copied().unwrap_or(0));
        }
        Some(worker)
    }
}

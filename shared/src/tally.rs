//! Tallies: what a process says it took in, by hour of ingest, as records of the dead-letter log.
//! The archive is held against them: events that somebody was told were taken, and that the lake does not have, are a
//! loss that no log position shows (a log that lost its end is gap-free).
//! Guarantee: a tally says nothing that was not durable before; written twice (an append whose answer was lost), it
//! counts once, by process and number. On crash: what was taken since the last tally is in the archive and in no
//! tally, so the archive may have more, never less. Never: counts by another time than the record's own ingest time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::event_log::Delivered;
use crate::progress::Positions;
use crate::time::{HOUR, Timestamp};

/// The reason code of a tally among the records of the dead-letter log: it is no refusal, and its count is 0.
pub const TALLY: &str = "tally";

/// The reason code of a note that an event, whose id is the detail, was set aside: acknowledged, and too large for the log
/// that everybody reads. The archive is incomplete until it has the event. No refusal either, and its count is 0.
pub const SET_ASIDE: &str = "set_aside";

/// Whether a record of the dead-letter log with this reason is a note and no refusal.
#[must_use]
pub fn is_note(reason: &str) -> bool {
    [TALLY, SET_ASIDE].contains(&reason)
}

/// What a process took in during one hour since its last tally.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tally {
    /// When the process began: with the region and stage of the record, which process it is.
    pub epoch: Timestamp,
    /// 1, 2, 3, … for the tallies of one process.
    pub number: u64,
    /// The hour.
    pub hour: Timestamp,
    /// Events made durable, by their ingest time.
    pub accepted: u64,
    /// Refusals made durable (counts and bytes), by the time they were written.
    pub refused: u64,
    /// Up to where the events log was written by then, by this process: an archive that has less cannot be judged yet.
    pub through: Positions,
}

/// The tallies of one process.
#[derive(Debug)]
pub struct Tallies {
    epoch: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    hours: BTreeMap<Timestamp, (u64, u64)>,
    through: Positions,
    /// Taken and perhaps not written: these very records again.
    unsettled: Vec<Tally>,
}

impl Tallies {
    /// None yet, of a process that began at `epoch`.
    #[must_use]
    pub fn new(epoch: Timestamp) -> Self {
        Self { epoch, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events with these ingest times are durable, where the log says.
    pub fn accepted(&self, ingest_times: &[Timestamp], delivered: &[Delivered]) {
        let mut state = self.state();
        // Events of one request mostly have one time.
        for same in ingest_times.chunk_by(|one, next| one == next) {
            if let Some(time) = same.first() {
                state.hours.entry(time.floor(HOUR)).or_default().0 += same.len() as u64;
            }
        }
        for d in delivered {
            let next = state.through.0.entry(d.partition).or_default();
            *next = (*next).max(d.position + 1);
        }
    }

    /// So many refusals are durable under this time.
    pub fn refused(&self, at: Timestamp, number: u64) {
        self.state().hours.entry(at.floor(HOUR)).or_default().1 += number;
    }

    /// The tallies to write now: those of the last time that were not settled, then what came since.
    #[must_use]
    pub fn take(&self) -> Vec<Tally> {
        let mut state = self.state();
        for (hour, (accepted, refused)) in std::mem::take(&mut state.hours) {
            state.last += 1;
            let (number, through) = (state.last, state.through.clone());
            let tally = Tally { epoch: self.epoch, number, hour, accepted, refused, through };
            state.unsettled.push(tally);
        }
        state.unsettled.clone()
    }

    /// What was taken is durable.
    pub fn settle(&self) {
        self.state().unsettled.clear();
    }
}

impl Tally {
    /// The record's detail.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From the record's detail; `None` when it is no tally.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_settled_comes_again_as_it_was() {
        let tallies = Tallies::new(Timestamp(7));
        let at = |partition, position| Delivered { partition, position };
        tallies.accepted(&[Timestamp(HOUR + 1), Timestamp(2 * HOUR - 1)], &[at(0, 7), at(3, 1)]);
        tallies.refused(Timestamp(2 * HOUR), 3);
        let first = tallies.take();
        let sums: Vec<_> = first.iter().map(|t| (t.number, t.hour.0 / HOUR, t.accepted, t.refused)).collect();
        assert_eq!(sums, [(1, 1, 2, 0), (2, 2, 0, 3)]);
        assert_eq!(first[1].through.0, [(0, 8), (3, 2)].into());
        tallies.accepted(&[Timestamp(HOUR)], &[at(0, 3)]);
        let again = tallies.take();
        assert_eq!((&again[..2], again[2].number), (&first[..], 3));
        tallies.settle();
        assert_eq!(tallies.take(), []);
        assert_eq!(Tally::from_json(&first[0].to_json()), Some(first[0].clone()));
    }
}

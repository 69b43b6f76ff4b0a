//! Watermarks: before which instant a partition's events are assumed to have been seen.
//! Pure, driven by records only, so that a replay judges lateness the same. A watermark never goes back and
//! never runs ahead of what the partition has heard: an event from the future moves it no further than the
//! moment we received it.

use shared::time::Timestamp;

/// One partition's watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermark {
    newest: Timestamp,
    bound: i64,
}

impl Watermark {
    /// A watermark `bound` microseconds behind the newest event, which so far was at `newest`.
    pub(crate) fn new(newest: Timestamp, bound: i64) -> Self {
        Self { newest, bound }
    }

    /// Takes an event that bills at `at` and was received at `heard` into account.
    pub(crate) fn observe(&mut self, at: Timestamp, heard: Timestamp) {
        self.newest = self.newest.max(at.min(heard));
    }

    /// The newest instant taken into account.
    pub(crate) fn newest(self) -> Timestamp {
        self.newest
    }

    /// The watermark; 1970 before the first event.
    pub(crate) fn at(self) -> Timestamp {
        self.newest.plus(-self.bound).max(Timestamp::MIN)
    }
}

/// The watermark of all partitions together: the least of those that are not idle (I9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Combined(Timestamp);

impl Combined {
    /// Takes each partition's watermark and whether it is idle. Where all are idle, the furthest stands for all.
    pub(crate) fn advance(&mut self, partitions: impl Iterator<Item = (Timestamp, bool)> + Clone) -> Timestamp {
        let active = partitions.clone().filter(|(_, idle)| !idle).map(|(at, _)| at).min();
        let reached = active.or_else(|| partitions.map(|(at, _)| at).max());
        self.0 = reached.map_or(self.0, |at| self.0.max(at));
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_watermark_never_goes_back_and_never_passes_what_was_heard(
            events in prop::collection::vec((0..1_000_000_i64, 0..1_000_000_i64), 1..100),
            bound in 0..1_000_i64,
        ) {
            let mut watermark = Watermark::new(Timestamp::MIN, bound);
            let (mut before, mut heard_last) = (Timestamp::MIN, Timestamp::MIN);
            for (at, heard) in events {
                heard_last = heard_last.max(Timestamp(heard));
                watermark.observe(Timestamp(at), Timestamp(heard));
                prop_assert!(watermark.at() >= before);
                prop_assert!(watermark.at() <= heard_last);
                before = watermark.at();
            }
        }
    }

    #[test]
    fn an_idle_partition_does_not_hold_the_others_back() {
        let mut combined = Combined::default();
        let mut at = |a: (i64, bool), b: (i64, bool)| {
            combined.advance([a, b].into_iter().map(|(t, idle)| (Timestamp(t), idle))).0
        };
        assert_eq!(at((10, false), (3, false)), 3);
        assert_eq!(at((20, false), (3, true)), 20);
        // Back at work and behind: what was said stays said.
        assert_eq!(at((21, false), (4, false)), 20);
        assert_eq!(at((25, true), (30, true)), 30);
    }
}

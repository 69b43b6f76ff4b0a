//! Tumbling event-time windows: to which minute and hour an event belongs, and when those are closed. Pure.
//!
//! The horizon is the one line between open and closed: everything before it is late. It never goes back (not
//! even when a setting changes between two starts), so a window that was dropped from memory is never begun
//! again with a part of its events.

use shared::time::{HOUR, MINUTE, Timestamp};

/// Where an event belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Assigned {
    /// Both windows are open.
    Open {
        /// Start of the minute.
        minute: Timestamp,
        /// Start of the hour.
        hour: Timestamp,
    },
    /// It came after the horizon had passed it.
    Late {
        /// Start of the hour it would have belonged to.
        hour: Timestamp,
    },
}

/// Assigns an event that bills at `at`.
pub(crate) fn assign(at: Timestamp, horizon: Timestamp) -> Assigned {
    let hour = at.floor(HOUR);
    if at < horizon { Assigned::Late { hour } } else { Assigned::Open { minute: at.floor(MINUTE), hour } }
}

/// Whether no event can come any more for a window of `length` microseconds.
pub(crate) fn is_closed(start: Timestamp, length: i64, horizon: Timestamp) -> bool {
    start.plus(length) <= horizon
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_closed_window_takes_no_event_and_an_open_event_has_open_windows(
            at in 0..10 * HOUR, horizon in 0..10 * HOUR,
        ) {
            let (at, horizon) = (Timestamp(at), Timestamp(horizon));
            match assign(at, horizon) {
                Assigned::Open { minute, hour } => {
                    prop_assert!(minute <= at && at < minute.plus(MINUTE));
                    prop_assert!(hour <= minute && minute.plus(MINUTE) <= hour.plus(HOUR));
                    prop_assert!(!is_closed(minute, MINUTE, horizon));
                    prop_assert!(!is_closed(hour, HOUR, horizon));
                }
                Assigned::Late { hour } => prop_assert!(at < horizon && hour == at.floor(HOUR)),
            }
        }
    }
}

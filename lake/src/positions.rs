//! How far the lake has taken each log: read from the transaction numbers that stand in the Delta commits.
//! `bronze/events/<partition>` and `bronze/bad/<topic>/<partition>` hold the next position to read. Never: a file,
//! a consumer group, or anything else that could move without the rows.

use shared::progress::Positions;

use crate::error::Error;
use crate::table::{Table, Txn};

/// The name of the events log in tables and transaction names.
pub const EVENTS: &str = "events";
/// The name of the dead-letter log in tables and transaction names.
pub const DEAD_LETTERS: &str = "dead_letters";

/// How far each of the two logs has been taken: the next position to read in each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of the events log.
    pub events: Positions,
    /// Of the dead-letter log.
    pub dead_letters: Positions,
}

impl Progress {
    /// Whether both logs stand at or beyond `other`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.events.covers(&other.events) && self.dead_letters.covers(&other.dead_letters)
    }
}

/// The transaction name of one partition of the events log in `bronze/events`.
#[must_use]
pub fn events_app_id(partition: u32) -> String {
    format!("bronze/{EVENTS}/{partition}")
}

/// The transaction name of one partition of a log in `bronze/bad`. For [`EVENTS`] it says up to where undecodable
/// records are in the table already, for [`DEAD_LETTERS`] up to where the log is.
#[must_use]
pub fn bad_app_id(topic: &str, partition: u32) -> String {
    format!("bronze/bad/{topic}/{partition}")
}

/// What the lake holds at the versions that `events` (`bronze/events`) and `bad` (`bronze/bad`) stand at.
/// A partition that was never archived is absent.
///
/// # Errors
/// `Unavailable` or `Corrupt`.
pub async fn committed(
    events: &Table,
    event_partitions: u32,
    bad: &Table,
    dead_letter_partitions: u32,
) -> Result<Progress, Error> {
    Ok(Progress {
        events: numbers(events, event_partitions, events_app_id).await?,
        dead_letters: numbers(bad, dead_letter_partitions, |p| bad_app_id(DEAD_LETTERS, p)).await?,
    })
}

/// The next position of each partition in a log, as the transaction numbers of a table have it; one that was never taken
/// is absent.
///
/// # Errors
/// `Unavailable` or `Corrupt`.
pub async fn numbers(table: &Table, partitions: u32, app_id: impl Fn(u32) -> String) -> Result<Positions, Error> {
    let mut positions = Positions::default();
    for partition in 0..partitions {
        if let Some(version) = table.transaction_version(&app_id(partition)).await? {
            let next = u64::try_from(version)
                .map_err(|_| Error::Corrupt(format!("{} stands at {version}", app_id(partition))))?;
            positions.0.insert(partition, next);
        }
    }
    Ok(positions)
}

/// The moves from one state of a log to another, for the partitions that moved.
///
/// # Errors
/// `Invalid` when a position is past what a transaction number can say.
pub fn moves(from: &Positions, to: &Positions, app_id: impl Fn(u32) -> String) -> Result<Vec<Txn>, Error> {
    let number = |n: u64| i64::try_from(n).map_err(|e| Error::Invalid(format!("log position {n}: {e}")));
    let moved = to.0.iter().filter(|(partition, next)| from.next(**partition) != **next);
    moved.map(|(p, next)| Ok(Txn::advance(app_id(*p), number(from.next(*p))?, number(*next)?))).collect()
}

//! The event log port: partitions, durable appends, consumers that start where they are told.
//! Positions of truth live with whoever consumes (a checkpoint, a Delta commit); the group positions kept
//! here only show lag. Implementations: [`memory`] (tests), [`embedded`] (default), `kafka` (by configuration).
//! Every implementation passes `crate::testing::conformance::event_log`.

pub mod embedded;
pub mod group;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::ErrorKind;
use crate::progress::Positions;
use crate::time::Timestamp;

/// What to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Which partition (see [`crate::partition::partition_of`]).
    pub partition: u32,
    /// When it is appended: the time index and retention go by it, never by event time (decisions.md D-8).
    pub append_time: Timestamp,
    /// The payload.
    pub payload: Bytes,
}

/// Proof that a record is durable, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Delivered {
    /// Its partition.
    pub partition: u32,
    /// Its position: 0, 1, 2, … without gaps in each partition.
    pub position: u64,
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: u32,
    /// Its position.
    pub position: u64,
    /// When it was appended.
    pub append_time: Timestamp,
    /// The payload.
    pub payload: Bytes,
}

/// Where a log begins and ends, for each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest position still kept.
    pub start: Positions,
    /// One past the newest durable position.
    pub end: Positions,
}

/// What a log may forget: whatever is older *or* beyond the size, whole segments only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Keep at least this long.
    pub max_age: Duration,
    /// Keep at most about this many bytes.
    pub max_bytes: u64,
}

/// A log operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The record is larger than the log takes, or its partition does not exist.
    #[error("cannot append: {0}")]
    Invalid(String),
    /// One of the records is larger than the broker takes; others may have been appended.
    #[error("cannot append: {0}")]
    TooLarge(String),
    /// The log no longer has what was asked for: records were lost to retention before they were read.
    #[error(
        "partition {partition} starts at {start}, after position {wanted}: retention removed records that were not read"
    )]
    Truncated {
        /// The partition.
        partition: u32,
        /// The oldest position kept.
        start: u64,
        /// The position asked for.
        wanted: u64,
    },
    /// The log ends before the position asked for: it is not the log this position came from.
    #[error(
        "partition {partition} ends at {end}, before position {wanted}: this is not the log the position belongs to"
    )]
    AheadOfLog {
        /// The partition.
        partition: u32,
        /// One past its newest position.
        end: u64,
        /// The position asked for.
        wanted: u64,
    },
    /// Another process writes this log.
    #[error("another process is writing {0}: stop it first, or send the events to its HTTP API")]
    Locked(String),
    /// The broker has put this process out: another one took its name, say.
    #[error("the broker refuses this process: {0}")]
    Refused(String),
    /// Stored bytes contradict themselves.
    #[error("log is corrupt: {0}")]
    Corrupt(String),
    /// The disk or broker is away or full; nothing was acknowledged.
    #[error("log is unavailable while {doing}: {source}")]
    Unavailable {
        /// What was attempted.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl LogError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::TooLarge(_) => ErrorKind::Invalid,
            Self::Truncated { .. } | Self::AheadOfLog { .. } | Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Locked(_) | Self::Refused(_) => ErrorKind::Conflict,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
        }
    }
}

/// A partitioned, append-only, durable sequence of records.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// How many partitions; they are numbered from 0.
    fn partitions(&self) -> u32;

    /// Appends all records and returns, in order, where each is, once every one of them is durable.
    /// On an error nothing is acknowledged; some records may still be in the log (the caller's retry is then
    /// a duplicate, which every consumer handles).
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError>;

    /// A consumer for the partitions named in `from`, starting there. Groups are independent of each other.
    ///
    /// # Errors
    /// [`LogError::Truncated`] or [`LogError::AheadOfLog`] when a start is outside the log.
    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError>;

    /// Joins `group` as `name`; two processes never share a name. `None` where the log knows no groups: see
    /// [`group::join`].
    async fn join(&self, _group: &str, _name: &str) -> Result<Option<Box<dyn group::Member>>, LogError> {
        Ok(None)
    }

    /// Where the log begins and ends, for every partition.
    async fn bounds(&self) -> Result<Bounds, LogError>;

    /// For every partition the first position appended at or after `time` (the end where there is none).
    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError>;

    /// What each group last reported by [`Consumer::report`]: for lag displays only.
    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError>;

    /// Forgets what is past `retention` at `now`, whole segments at a time; answers how many bytes that freed (records
    /// where a broker does not say bytes), 0 when nothing was forgotten.
    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError>;
}

/// One reader of some partitions. Dropping it is always safe.
#[async_trait]
pub trait Consumer: Send {
    /// Up to `max_records` durable records in position order within each partition; waits up to `wait` for the
    /// first and answers with none when nothing came.
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError>;

    /// The next position of each assigned partition.
    fn positions(&self) -> Positions;

    /// Reports progress for lag displays; never used to resume.
    async fn report(&mut self, positions: &Positions) -> Result<(), LogError>;
}

/// Whether a consumer may start at `from` in a log of `partitions` partitions that reaches over `bounds`.
fn check_start(from: &Positions, bounds: &Bounds, partitions: u32) -> Result<(), LogError> {
    for (&partition, &wanted) in &from.0 {
        let (start, end) = (bounds.start.next(partition), bounds.end.next(partition));
        if partition >= partitions {
            return Err(no_partition(partition, partitions));
        }
        if wanted < start {
            return Err(LogError::Truncated { partition, start, wanted });
        }
        if wanted > end {
            return Err(LogError::AheadOfLog { partition, end, wanted });
        }
    }
    Ok(())
}

fn no_partition(partition: u32, partitions: u32) -> LogError {
    LogError::Invalid(format!("there is no partition {partition}: the log has {partitions}, numbered from 0"))
}

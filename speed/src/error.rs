//! What can stop the speed layer. A bad event never does; contradictions and wrong settings do.

use std::path::PathBuf;

use shared::config::Problem;
use shared::error::{ErrorKind, io_kind};
use shared::event_log::LogError;
use shared::serving_store::StoreError;

/// The speed layer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<Problem>),
    /// The event log.
    #[error("speed layer and event log: {0}")]
    Log(#[from] LogError),
    /// The serving store.
    #[error("speed layer and serving store: {0}")]
    Store(#[from] StoreError),
    /// The state folder.
    #[error("cannot {doing} {}: {source}", path.display())]
    State {
        /// What was attempted.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The object store that keeps the state.
    #[error("cannot {doing} {object}: {source}")]
    Objects {
        /// What was attempted.
        doing: &'static str,
        /// On which object.
        object: String,
        /// Why it failed.
        source: object_store::Error,
    },
    /// State that was saved is not what it was: somebody changed or removed it.
    #[error("{place}: {file} is not as it was saved")]
    Lost {
        /// Where the partition's state is.
        place: String,
        /// The file.
        file: String,
    },
    /// Another worker has taken the partition over.
    #[error("{place}: generation {newest} has taken over from generation {generation}")]
    Superseded {
        /// Where the partition's state is.
        place: String,
        /// Ours.
        generation: u32,
        /// The newest one.
        newest: u32,
    },
    /// Another process works on the same partition.
    #[error("another process owns {}: stop it first, or give this one other partitions", .0.display())]
    Owned(PathBuf),
    /// No checkpoint can be read and the log no longer begins at its beginning.
    #[error(
        "no checkpoint in {place} can be read and the log begins at position {log_start}: rows of the missing records \
         cannot be rebuilt; remove what is there to go on from the log's start (reconcile makes those hours exact)"
    )]
    Damaged {
        /// Where the partition's state is.
        place: String,
        /// The oldest position the log still has.
        log_start: u64,
    },
    /// The log handed out a record that was read before.
    #[error("partition {partition} stands at {expected}, but the log delivered position {got} again")]
    Overlap {
        /// The partition.
        partition: u32,
        /// The next position.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// Our bug: a worker panicked.
    #[error("a worker failed: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl Error {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) => ErrorKind::Invalid,
            Self::Log(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::State { source, .. } => io_kind(source),
            Self::Objects { .. } => ErrorKind::Unavailable,
            Self::Owned(_) | Self::Superseded { .. } => ErrorKind::Conflict,
            Self::Damaged { .. } | Self::Lost { .. } | Self::Overlap { .. } => ErrorKind::Corrupt,
            Self::Worker(_) => ErrorKind::Internal,
        }
    }
}

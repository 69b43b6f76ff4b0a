//! What can go wrong in a batch run, and what the caller must do about it.
//! A day that is not complete yet is an error of its own (exit 10): the same command works later.

use std::fmt;

use shared::error::{ErrorKind, io_kind};
use shared::event_log::LogError;
use shared::money::Overflow;
use shared::time::Day;

/// The exit code of a day that is not ready (contract 3).
pub const EXIT_NOT_READY: u8 = 10;

/// A batch run failed; nothing it did is visible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The day is not closed, or the lake does not hold all of it yet: try again later.
    #[error("{day} is not ready: {why}")]
    NotReady {
        /// The day.
        day: Day,
        /// What is missing.
        why: String,
    },
    /// Another run of the same day came first.
    #[error("another run of {day} came first: {why}")]
    Conflict {
        /// The day.
        day: Day,
        /// What it did.
        why: String,
    },
    /// The books do not balance; nothing was committed.
    #[error("{day} does not balance, nothing was committed\n{differences}")]
    Conservation {
        /// The day.
        day: Day,
        /// Every line that differs.
        differences: Differences,
    },
    /// An amount does not fit its integer.
    #[error("{what}: {source}")]
    Overflow {
        /// Which amount.
        what: String,
        /// Why.
        source: Overflow,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Stored data contradicts itself.
    #[error("the lake is corrupt: {0}")]
    Corrupt(String),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] lake::error::Error),
    /// The event log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Spilling to disk failed.
    #[error("cannot spill to {folder}: {source}")]
    Spill {
        /// Where.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// The storage is away.
    #[error("the lake is unavailable while {doing}: {why}")]
    Unavailable {
        /// What was attempted.
        doing: String,
        /// Why it failed.
        why: String,
    },
    /// Our bug.
    #[error("internal error: {0}")]
    Internal(String),
}

/// One line of the books that does not balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: an hour, a log partition, a currency.
    pub place: String,
    /// What should be equal.
    pub what: String,
    /// One side.
    pub expected: i128,
    /// The other.
    pub found: i128,
}

/// Every line that does not balance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences(pub Vec<Difference>);

/// The most lines of a table that a message shows.
const SHOWN: usize = 40;

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} {:<52} {:>20} {:>20} {:>20}", "where", "what", "expected", "found", "difference")?;
        for d in self.0.iter().take(SHOWN) {
            let by = d.found - d.expected;
            writeln!(f, "{:<32} {:<52} {:>20} {:>20} {by:>+20}", d.place, d.what, d.expected, d.found)?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

impl Error {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotReady { .. } | Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Conservation { .. } | Self::Overflow { .. } | Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Lake(e) => e.kind(),
            Self::Log(e) => e.kind(),
            Self::Spill { source, .. } => io_kind(source),
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// The exit code of the command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotReady { .. } => EXIT_NOT_READY,
            other => other.kind().exit_code(),
        }
    }

    /// An amount that did not fit.
    pub(crate) fn overflow(what: impl Into<String>) -> impl FnOnce(Overflow) -> Self {
        move |source| Self::Overflow { what: what.into(), source }
    }

    /// A Parquet failure: what the storage caused heals, bad bytes do not.
    pub(crate) fn parquet(doing: &str, error: &parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::External(source) => {
                let missing = source.downcast_ref().is_some_and(|e| matches!(e, object_store::Error::NotFound { .. }));
                if missing {
                    Self::Corrupt(format!("{doing}: {error}"))
                } else {
                    Self::Unavailable { doing: doing.to_owned(), why: error.to_string() }
                }
            }
            other => Self::Corrupt(format!("{doing}: {other}")),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Internal(format!("a worker died: {error}"))
    }
}

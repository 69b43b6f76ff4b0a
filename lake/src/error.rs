//! What can go wrong in the lake, and what the receiver must do about it.
//! Storage that is away or full heals (`Unavailable`); a log, file or row that contradicts itself does not (`Corrupt`).

use deltalake::DeltaTableError;
use shared::error::ErrorKind;
use shared::event_log::LogError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A lake operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another writer moved the table first: reload it and plan again.
    #[error("another writer moved {table} first: {why}")]
    Conflict {
        /// The table.
        table: String,
        /// What moved.
        why: String,
    },
    /// The storage is away or full. What was asked for may or may not have happened; asking again is safe.
    #[error("the lake is unavailable while {doing}: {source}")]
    Unavailable {
        /// What was attempted.
        doing: String,
        /// Why it failed.
        source: Source,
    },
    /// Stored data contradicts itself.
    #[error("the lake is corrupt: {0}")]
    Corrupt(String),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The event log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Error {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Corrupt(_) => ErrorKind::Corrupt,
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::Log(e) => e.kind(),
        }
    }

    pub(crate) fn unavailable(doing: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unavailable { doing: doing.into(), source: source.into() }
    }

    pub(crate) fn conflict(table: &str, why: impl Into<String>) -> Self {
        Self::Conflict { table: table.to_owned(), why: why.into() }
    }

    /// An error of the storage: absent files are corruption (the log named them), the rest heals.
    pub(crate) fn storage(doing: impl Into<String>, source: object_store::Error) -> Self {
        match source {
            object_store::Error::NotFound { path, .. } => Self::Corrupt(format!("{path} is missing")),
            source => Self::unavailable(doing, source),
        }
    }

    /// An error of the Delta library: whatever the storage or the system caused heals, the rest does not.
    pub(crate) fn delta(doing: impl Into<String>, source: DeltaTableError) -> Self {
        if heals(&source) {
            Self::unavailable(doing, source)
        } else {
            Self::Corrupt(format!("{}: {source}", doing.into()))
        }
    }

    pub(crate) fn arrow(doing: &str, source: impl std::fmt::Display) -> Self {
        Self::Corrupt(format!("{doing}: {source}"))
    }
}

/// A task that died (it panicked, or the runtime is going down): the work was not done, doing it again is safe.
impl From<tokio::task::JoinError> for Error {
    fn from(source: tokio::task::JoinError) -> Self {
        Self::unavailable("writing in a background task", source)
    }
}

fn heals(error: &DeltaTableError) -> bool {
    use DeltaTableError as E;
    // Lost races, and the library's words for tasks that died and listings that failed.
    if matches!(error, E::Transaction { .. } | E::VersionAlreadyExists(_) | E::Generic(_) | E::GenericError { .. }) {
        return true;
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = next {
        if e.is::<object_store::Error>() || e.is::<std::io::Error>() {
            return true;
        }
        next = e.source();
    }
    false
}

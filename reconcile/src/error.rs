//! What can go wrong in reconcile, and what the receiver must do about it.
//! Expected ends of a run (input not ready, drift over tolerance, already settled) are values, see `worker::Outcome`.

use shared::error::ErrorKind;
use shared::event_log::LogError;
use shared::money::Overflow;
use shared::serving_store::StoreError;
use shared::time::{Day, Timestamp};

/// A reconcile operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The serving store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lake failed.
    #[error(transparent)]
    Lake(#[from] lake::Error),
    /// The log of adjustments failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The object store failed.
    #[error("object store failed while {doing}: {source}")]
    Objects {
        /// What was attempted.
        doing: String,
        /// Why it failed.
        source: object_store::Error,
    },
    /// A file does not hold what the run record or our own writer put there.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// The file or table.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// Numbers that must be equal are not: nothing is published (contract 2.7).
    #[error("the books of {day} do not balance:\n{}", findings.join("\n"))]
    Unbalanced {
        /// The day.
        day: Day,
        /// Each sum that does not balance.
        findings: Vec<String>,
    },
    /// A newer run of the day took over while this one was at work.
    #[error("run {run} of {day} is superseded by run {by}: another reconcile holds the day")]
    Superseded {
        /// The day.
        day: Day,
        /// Our run.
        run: u64,
        /// The newer one.
        by: u64,
    },
    /// An hour still differs after it was overwritten.
    #[error("hour {hour} still differs in {cells} cells after it was overwritten")]
    NotExact {
        /// The hour.
        hour: Timestamp,
        /// How many cells.
        cells: usize,
    },
    /// A sum does not fit.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Rows of an adjustment file cannot be taken; nothing was imported.
    #[error("{} problem(s), nothing was imported\n{}", .0.len(), crate::ledger::lines(.0))]
    BadRows(Vec<crate::ledger::BadRow>),
    /// There is no such settlement.
    #[error("there is no settlement of {day}{}", version.map(|v| format!(" with version {v}")).unwrap_or_default())]
    Unknown {
        /// The day asked for.
        day: Day,
        /// The version asked for.
        version: Option<u32>,
    },
}

impl Error {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Lake(e) => e.kind(),
            Self::Log(e) => e.kind(),
            Self::Objects { source: object_store::Error::NotFound { .. }, .. }
            | Self::Damaged { .. }
            | Self::Unbalanced { .. }
            | Self::NotExact { .. }
            | Self::Overflow(_) => ErrorKind::Corrupt,
            Self::Objects { .. } => ErrorKind::Unavailable,
            Self::Superseded { .. } => ErrorKind::Conflict,
            Self::Invalid(_) | Self::Unknown { .. } | Self::BadRows(_) => ErrorKind::Invalid,
        }
    }

    /// An object store failure while `doing` something.
    pub(crate) fn objects(doing: impl Into<String>) -> impl FnOnce(object_store::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Objects { doing, source }
    }

    /// Damage in `what`.
    pub(crate) fn damaged(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Damaged { what: what.into(), why: why.to_string() }
    }
}

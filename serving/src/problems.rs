//! What went wrong while a report was made, and the answer it becomes.

use http::StatusCode;
use shared::error::ErrorKind;
use shared::http::problem::Problem;
use shared::money::Overflow;
use shared::serving_store::StoreError;

/// Seconds after which a client may try again when the store is away.
const RETRY_SECONDS: u32 = 2;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files beside it.
    #[error("the data folder: {0}")]
    Objects(#[from] object_store::Error),
    /// A sum.
    #[error(transparent)]
    Overflow(#[from] Overflow),
    /// A form we wrote ourselves.
    #[error("a report does not render or read: {0}")]
    Json(#[from] serde_json::Error),
    /// An expected refusal.
    #[error("refused with {}", .0.status())]
    Refused(Box<Problem>),
}

impl ReportError {
    /// Whether it heals by itself, so that the last good answer may stand in.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Store(error) => error.kind() == ErrorKind::Unavailable,
            Self::Objects(_) => true,
            Self::Overflow(_) | Self::Json(_) | Self::Refused(_) => false,
        }
    }
}

impl From<Problem> for ReportError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        if let ReportError::Refused(problem) = error {
            return *problem;
        }
        if error.is_outage() {
            tracing::warn!(%error, "a report could not be made");
            let fix = "try again; the numbers are safe";
            return Self::of_kind(ErrorKind::Unavailable, "the reports are unavailable at the moment", fix)
                .retry_after(RETRY_SECONDS);
        }
        tracing::error!(%error, "a report could not be made");
        let fix = "report the requestId to the operator";
        Self::of_kind(ErrorKind::Internal, "the report could not be made", fix)
    }
}

/// A request that must be changed.
pub(crate) fn invalid(detail: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid", detail, fix)
}

/// Nothing there.
pub(crate) fn not_found(detail: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail, fix)
}

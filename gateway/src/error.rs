//! Why the gateway as a whole stopped. What goes wrong with one request is answered to its client instead.

use shared::error::{ErrorKind, io_kind};
use shared::event_log::LogError;

/// The gateway stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Listener(#[from] std::io::Error),
    /// The counts of refusals of the last second could not be written at shutdown.
    #[error("cannot append the last counts of refused events: {0}")]
    Counts(#[source] LogError),
}

impl Error {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listener(error) => io_kind(error),
            Self::Counts(error) => error.kind(),
        }
    }
}

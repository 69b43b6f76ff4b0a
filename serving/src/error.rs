//! What can stop serving, and what its key file can answer.

use std::path::PathBuf;

use shared::error::{ErrorKind, io_kind};
use shared::private_file::FileError;
use shared::serving_store::StoreError;

/// Serving cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Listener(#[from] std::io::Error),
    /// No keys are required, but others than this machine could connect.
    #[error("will not listen on {0} without API keys: set serving.require_keys = true, or listen on 127.0.0.1")]
    OpenDoor(std::net::SocketAddr),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The serving store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Listener(error) => io_kind(error),
            Self::OpenDoor(_) => ErrorKind::Invalid,
            Self::Keys(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// The file of API keys cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] FileError),
    /// The file is not a key file.
    #[error("the API keys in {path} do not read: {why}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is no such key.
    #[error("there is no API key {0}: `clickledger keys list` shows them")]
    Unknown(String),
}

impl KeysError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Unknown(_) => ErrorKind::Invalid,
        }
    }
}

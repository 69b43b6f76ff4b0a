//! Error kinds: what the receiver of an error must do, with its three mappings.
//! Every crate's error enum answers `kind()`; HTTP status, exit code and retry follow from it.

use std::fmt;

/// What to do about an error (SlateDB RFC 0007's idea, extended).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The caller must change the input.
    Invalid,
    /// A signature or key is wrong.
    Unauthorized,
    /// Another writer advanced first: reload and replay.
    Conflict,
    /// A dependency is away: try again with backoff.
    Unavailable,
    /// Stored data contradicts itself: stop and call a human.
    Corrupt,
    /// Our bug: crash and replay.
    Internal,
}

impl ErrorKind {
    /// The HTTP status a client sees.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthorized => 401,
            Self::Unavailable => 503,
            Self::Conflict | Self::Corrupt | Self::Internal => 500,
        }
    }

    /// The exit code of a job (contract 3).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid | Self::Unauthorized => 2,
            Self::Conflict => 12,
            Self::Unavailable => 75,
            Self::Corrupt => 13,
            Self::Internal => 70,
        }
    }

    /// Whether doing the same again later can help.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Conflict | Self::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::Unauthorized => "unauthorized",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        })
    }
}

/// The kind of an I/O error: full disks and missing rights heal, so they are `Unavailable`.
#[must_use]
pub fn io_kind(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::InvalidData | Io::UnexpectedEof => ErrorKind::Corrupt,
        Io::InvalidInput => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}

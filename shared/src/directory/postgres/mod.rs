//! The ad directory in PostgreSQL: the truth is there, and every reader works on its own snapshot of it.
//!
//! ```text
//! import, or SQL by hand ─ trigger: version + 1, NOTIFY ─ follower: load all ads ─ snapshot file ─ DirectoryHandle
//! ```
//! Guarantees: a snapshot is one moment of the database, whole; what cannot be a snapshot (an ad no import would take, a
//! campaign that changed its owner) leaves the one in use, as does a database that is away: it is served on, called
//! stale ([`super::DirectoryHandle::stale_since`]), and is there after a restart. A change arrives when it is told of
//! (LISTEN), and at the latest after `poll_interval`. On crash: of an import, nothing of it is there.
//! Never: asks the database for a click; needs more than to read (role `clickledger_reader`) where it only reads.

mod follow;
mod publish;
mod session;
mod settings;

use crate::error::ErrorKind;

pub use follow::{Follower, fetch};
pub use publish::publish;
pub use settings::Settings;

use super::DirectoryError;
use session::Session;

const SCHEMA: &str = include_str!("../../../../sql/postgres/001_create_directory.sql");

/// The directory could not be read from or written to the database.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The settings cannot be used.
    #[error("cannot use PostgreSQL: {0}")]
    Settings(String),
    /// The database does not answer.
    #[error("PostgreSQL is away while {doing}: {why}")]
    Away {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        why: String,
    },
    /// The database says no.
    #[error("PostgreSQL refuses {doing}: {why}")]
    Refused {
        /// What was attempted.
        doing: &'static str,
        /// Why.
        why: String,
    },
    /// What was read or is to be written is no directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl PostgresError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Settings(_) | Self::Refused { .. } => ErrorKind::Invalid,
            Self::Away { .. } => ErrorKind::Unavailable,
            Self::Directory(error) => error.kind(),
        }
    }

    fn of(doing: &'static str, error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            // 57: an administrator stops it; 53: it has no room; 08: the connection broke.
            Some(said) if !["57", "53", "08"].iter().any(|class| said.code().code().starts_with(class)) => {
                let hint = match said.code().code() {
                    "42P01" | "3F000" => ": make the tables with `clickledger postgres ensure`",
                    "42501" => ": grant it clickledger_reader to read, clickledger_writer to import",
                    _ => "",
                };
                Self::Refused { doing, why: format!("{}{hint}", said.message()) }
            }
            Some(said) => Self::Away { doing, why: said.message().to_owned() },
            None => {
                let source = std::error::Error::source(error).map(|s| format!(" ({s})")).unwrap_or_default();
                Self::Away { doing, why: format!("{error}{source}") }
            }
        }
    }
}

/// Makes schema, tables and roles where they are missing. The role of `settings` must own the database or be allowed to
/// create roles.
///
/// # Errors
/// When the database is away or refuses.
pub async fn ensure(settings: &Settings) -> Result<(), PostgresError> {
    let session = Session::open(settings).await?;
    session.ask("making the directory's tables", session.client.batch_execute(SCHEMA)).await
}

/// The database's version, and how many ads the directory has there: for `doctor`.
///
/// # Errors
/// When the database is away or refuses.
pub async fn check(settings: &Settings) -> Result<(String, u64), PostgresError> {
    let session = Session::open(settings).await?;
    let asked =
        session.client.query_one("SELECT current_setting('server_version'), count(*) FROM clickledger.ads", &[]);
    let row = session.ask("counting ads", asked).await?;
    let read = || Ok((row.try_get::<_, String>(0)?, row.try_get::<_, i64>(1)?));
    let (version, ads) = read().map_err(|e| PostgresError::of("counting ads", &e))?;
    Ok((version, u64::try_from(ads).unwrap_or(0)))
}

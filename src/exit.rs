//! From an error to what a person reads and a scheduler does next.

use std::process::ExitCode;

use shared::error::ErrorKind;

use crate::price_store::PriceStoreError;
use crate::settings::SettingsError;

/// Prints the error with its causes to stderr and answers the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(code(error))
}

/// Asks every error in the chain that knows: the outermost one decides.
fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(one).unwrap_or_else(|| ErrorKind::Internal.exit_code())
}

fn one(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    macro_rules! ask {
        ($($kind:ty),+ $(,)?) => {
            $(if let Some(e) = cause.downcast_ref::<$kind>() {
                return Some(e.kind().exit_code());
            })+
        };
    }
    if let Some(e) = cause.downcast_ref::<batch::Error>() {
        return Some(e.exit_code());
    }
    ask!(
        PriceStoreError,
        gateway::Error,
        gateway::dedup::DedupError,
        speed::Error,
        lake::Error,
        reconcile::Error,
        reconcile::keys::KeyError,
        serving::Error,
        shared::directory::DirectoryError,
        shared::explain::Unexplained,
        shared::event_log::LogError,
        shared::serving_store::StoreError,
    );
    #[cfg(feature = "postgres")]
    ask!(shared::directory::postgres::PostgresError);
    if cause.is::<SettingsError>() || cause.is::<Usage>() {
        return Some(ErrorKind::Invalid.exit_code());
    }
    cause.downcast_ref::<std::io::Error>().map(|e| shared::error::io_kind(e).exit_code())
}

/// The caller asked for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

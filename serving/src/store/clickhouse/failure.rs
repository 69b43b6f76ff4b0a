//! ClickHouse's errors as the port's.
//! Guarantee: what contradicts our schema is corrupt; everything else is unavailable, because waiting, more rights or more
//! room mend it and every call may be repeated.

use clickhouse::error::Error;
use shared::serving_store::StoreError;

/// Unknown or mismatching columns, types and functions, and statements that cannot be parsed.
const CONTRADICTIONS: [u32; 12] = [6, 16, 36, 42, 43, 46, 47, 53, 62, 70, 349, 386];
/// No such table or database: nobody has migrated yet.
const MISSING: [u32; 2] = [60, 81];
/// Too many parts: merges are behind the inserts.
const TOO_MANY_PARTS: u32 = 252;
/// Characters of a server's answer that are passed on.
const MAX_WHY: usize = 300;

/// The server's number for an error.
fn code(error: &Error) -> Option<u32> {
    let Error::BadResponse(text) = error else { return None };
    let digits = text.split_once("Code: ")?.1;
    digits.get(..digits.find(|c: char| !c.is_ascii_digit())?)?.parse().ok()
}

/// Whether there is no such table or database.
pub(super) fn is_missing(error: &Error) -> bool {
    code(error).is_some_and(|code| MISSING.contains(&code))
}

/// The port's error.
pub(super) fn while_doing(doing: &str, error: &Error) -> StoreError {
    let why: String = full(error).chars().take(MAX_WHY).collect();
    let contradicts = match error {
        Error::BadResponse(_) => code(error).is_some_and(|code| CONTRADICTIONS.contains(&code)),
        Error::Network(_) | Error::TimedOut | Error::Other(_) | Error::Decompression(_) => false,
        _ => true,
    };
    if contradicts {
        return StoreError::Corrupt(format!("{doing}: {why}"));
    }
    let why = match code(error) {
        Some(TOO_MANY_PARTS) => {
            format!(
                "too many parts: ClickHouse merges more slowly than we insert; flush less often, or give it faster disks ({why})"
            )
        }
        Some(code) if MISSING.contains(&code) => format!("no tables: clickledger serving migrate ({why})"),
        _ => why,
    };
    StoreError::Unavailable { doing: doing.to_owned(), why }
}

/// The error with its causes.
fn full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use shared::error::ErrorKind;

    use super::*;

    #[test]
    fn back_pressure_and_missing_rights_heal_and_a_foreign_schema_does_not() {
        let said = |text: &str| while_doing("upserting", &Error::BadResponse(text.to_owned()));
        let parts = said("Code: 252. DB::Exception: Too many parts (3000). (TOO_MANY_PARTS)");
        assert!(parts.kind() == ErrorKind::Unavailable && parts.to_string().contains("flush less often"), "{parts}");
        assert_eq!(said("Code: 497. DB::Exception: me: Not enough privileges.").kind(), ErrorKind::Unavailable);
        assert_eq!(said("502 Bad Gateway").kind(), ErrorKind::Unavailable);
        assert_eq!(said("Code: 47. DB::Exception: Unknown expression identifier `take`").kind(), ErrorKind::Corrupt);
        let schema = while_doing("upserting", &Error::SchemaMismatch("column".to_owned()));
        assert_eq!(schema.kind(), ErrorKind::Corrupt);
    }
}

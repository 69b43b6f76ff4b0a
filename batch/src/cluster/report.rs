//! What a task says of a bucket: what it made and where, or why the bucket cannot be judged.
//! A bucket that can never be judged is a value, not a failed task: the cluster must not try it again, and the run must
//! end with the same exit code as on one machine. Only a storage that is away fails a task, and is tried again.

use std::collections::BTreeMap;

use bytes::Bytes;
use lake::file::NewFile;
use lake::tables::SILVER_EVENTS;
use serde::{Deserialize, Serialize};
use shared::error::ErrorKind;
use shared::time::Day;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;

/// A task's word on a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Report {
    /// It has no rows.
    Empty,
    /// It is judged.
    Judged(Judged),
    /// It cannot be judged, whoever tries.
    Refused {
        /// The kind of the error.
        kind: Kind,
        /// The error.
        why: String,
    },
}

/// What an attempt made of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Judged {
    /// Which attempt: the folder of its objects.
    pub(crate) attempt: String,
    /// The silver file.
    pub(crate) silver: Silver,
    /// The check of the silver file's bytes.
    pub(crate) silver_check: Check,
    /// That of the leaves.
    pub(crate) leaves: Check,
    /// That of the facts.
    pub(crate) facts: Check,
}

/// A [`NewFile`] of silver, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Silver {
    path: String,
    size: u64,
    rows: u64,
    sha256: String,
    ranges: BTreeMap<String, (i64, i64)>,
}

/// Length and hash of an object, so that a damaged one is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    bytes: u64,
    xxh3: u64,
}

/// An error's kind, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// [`ErrorKind::Invalid`].
    Invalid,
    /// [`ErrorKind::Corrupt`].
    Corrupt,
    /// [`ErrorKind::Internal`].
    Internal,
}

impl Report {
    /// What a task reports of an error; an error that may heal fails the task instead.
    ///
    /// # Errors
    /// The error, when it may heal.
    pub(crate) fn refused(error: Error) -> Result<Self, Error> {
        let kind = match error.kind() {
            ErrorKind::Unavailable => return Err(error),
            ErrorKind::Invalid | ErrorKind::Unauthorized => Kind::Invalid,
            ErrorKind::Corrupt => Kind::Corrupt,
            ErrorKind::Internal | ErrorKind::Conflict => Kind::Internal,
        };
        Ok(Self::Refused { kind, why: error.to_string() })
    }

    /// As text.
    ///
    /// # Errors
    /// Never, unless it is our bug.
    pub(crate) fn to_text(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|e| Error::Internal(format!("writing a report: {e}")))
    }

    /// From text.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(text).map_err(|e| Error::Corrupt(format!("the report of a task: {e}")))
    }
}

impl Kind {
    /// The error that a task refused a bucket for.
    pub(crate) fn error(self, why: String) -> Error {
        match self {
            Self::Invalid => Error::Invalid(why),
            Self::Corrupt => Error::Corrupt(why),
            Self::Internal => Error::Internal(why),
        }
    }
}

impl Silver {
    /// The file as it travels.
    pub(crate) fn of(file: &NewFile) -> Self {
        let ranges = file.ranges.iter().map(|(name, range)| ((*name).to_owned(), *range)).collect();
        Self { path: file.path.clone(), size: file.size, rows: file.rows, sha256: file.sha256.clone(), ranges }
    }

    /// The file as the table takes it.
    pub(crate) fn into_file(self, day: Day) -> NewFile {
        let named = |name: &&'static str| Some((*name, *self.ranges.get(*name)?));
        let ranges = SILVER_EVENTS.stats.iter().filter_map(named).collect();
        NewFile { path: self.path, day, size: self.size, rows: self.rows, sha256: self.sha256, ranges }
    }
}

impl Check {
    /// Of an object.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, xxh3: xxh3_64(bytes) }
    }

    /// The object, if it is whole.
    ///
    /// # Errors
    /// `Corrupt` when it is not.
    pub(crate) fn whole(self, name: &str, bytes: Bytes) -> Result<Bytes, Error> {
        if Self::of(&bytes) == self { Ok(bytes) } else { Err(Error::Corrupt(format!("{name} is damaged"))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_heals_fails_the_task_and_what_does_not_keeps_its_exit_code() {
        let away = Error::Unavailable { doing: "reading".into(), why: "timeout".into() };
        assert!(Report::refused(away).is_err());
        for error in [Error::Corrupt("a".into()), Error::Invalid("b".into()), Error::Internal("c".into())] {
            let code = error.exit_code();
            let text = Report::refused(error).unwrap().to_text().unwrap();
            let Report::Refused { kind, why } = Report::parse(text.as_bytes()).unwrap() else { panic!("{text}") };
            assert_eq!(kind.error(why).exit_code(), code);
        }
    }

    #[test]
    fn a_cut_or_changed_object_is_damaged() {
        let check = Check::of(b"facts");
        assert!(check.whole("facts", Bytes::from_static(b"facts")).is_ok());
        assert!(check.whole("facts", Bytes::from_static(b"fact")).is_err());
        assert!(check.whole("facts", Bytes::from_static(b"fects")).is_err());
    }
}

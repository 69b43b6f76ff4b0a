//! The names inside a log's folder:
//! `log.json` (what never changes) · `N.segment` and `N.index` · `durable` (the end marker) · `groups/*.json` ·
//! `writer.lock` and `recovery.lock`.
//! Never: holds a file open.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::super::LogError;

/// The folder of one log.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

const SEGMENT: &str = "segment";
const INDEX: &str = "index";
/// What a file is called until it is whole; whatever still has it is left over from a crash.
const UNFINISHED: &str = "tmp";

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:020}.{SEGMENT}"))
    }

    pub(super) fn index(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:020}.{INDEX}"))
    }

    pub(super) fn metadata(&self) -> PathBuf {
        self.0.join("log.json")
    }

    pub(super) fn marker(&self) -> PathBuf {
        self.0.join("durable")
    }

    pub(super) fn groups(&self) -> PathBuf {
        self.0.join("groups")
    }

    pub(super) fn writer_lock(&self) -> PathBuf {
        self.0.join("writer.lock")
    }

    pub(super) fn recovery_lock(&self) -> PathBuf {
        self.0.join("recovery.lock")
    }

    /// The numbers of the segments, oldest first.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when one is missing in between: segments are only ever removed from the old end.
    pub(super) fn segments(&self) -> Result<Vec<u64>, LogError> {
        let numbers = self.numbers(SEGMENT)?;
        for (number, expected) in numbers.iter().zip(numbers.first().copied().unwrap_or(0)..) {
            if *number != expected {
                return Err(LogError::Corrupt(format!("{} is missing", self.segment(expected).display())));
            }
        }
        Ok(numbers)
    }

    fn numbers(&self, extension: &str) -> Result<Vec<u64>, LogError> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(doing(format!("listing {}", self.0.display())))? {
            let path = entry.map_err(doing(format!("listing {}", self.0.display())))?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            if let Some(number) = number
                && path.extension().is_some_and(|e| e == extension)
            {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Removes what a crash left over: unfinished files and the indexes of segments that are gone.
    pub(super) fn tidy(&self) -> Result<(), LogError> {
        let oldest = self.segments()?.first().copied().unwrap_or(u64::MAX);
        let orphans = self.numbers(INDEX)?.into_iter().filter(|n| *n < oldest).map(|n| self.index(n));
        let unfinished = self.numbers(UNFINISHED)?.into_iter().map(|n| self.index(n).with_extension(UNFINISHED));
        for path in orphans.chain(unfinished) {
            remove(&path).map_err(doing(format!("removing {}", path.display())))?;
        }
        Ok(())
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        let sync = || File::open(&self.0)?.sync_all();
        sync().map_err(doing(format!("syncing {}", self.0.display())))
    }
}

/// Removes a file; one that is not there is no error. Answers whether it was.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Replaces `path` in one step; a crash leaves the old file or the new one. Not synced.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}

/// Turns an I/O error into [`LogError::Unavailable`].
pub(super) fn doing(doing: String) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Unavailable { doing, source }
}

/// What is wrong with a file, and where.
pub(super) fn corrupt(path: &Path, offset: u64, why: &str) -> LogError {
    LogError::Corrupt(format!("{} at byte {offset}: {why}", path.display()))
}

//! Who may do what with a log's folder: one writer, any number of readers, and nobody reads the end of the log while
//! a writer is finding it.
//! The locks are advisory and belong to open files, so a crash releases them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::LogError;
use super::folder::{Folder, corrupt, doing};

const FORMAT: u32 = 1;

/// What never changes about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format: u32,
    partitions: u32,
}

/// Held while somebody writes the log.
pub(super) struct Ownership {
    _writer: File,
}

/// Held while the end of the log is being found. Writers hold it alone.
pub(super) struct Recovery {
    _recovery: File,
}

/// Takes the folder for writing; makes it when it is not there.
///
/// # Errors
/// [`LogError::Locked`] when somebody else writes it.
pub(super) fn own(folder: &Folder) -> Result<(Ownership, Recovery), LogError> {
    create(folder.path())?;
    let recovery = lock_file(&folder.recovery_lock())?;
    recovery.lock().map_err(doing(format!("locking {}", folder.recovery_lock().display())))?;
    let writer = lock_file(&folder.writer_lock())?;
    match writer.try_lock() {
        Ok(()) => Ok((Ownership { _writer: writer }, Recovery { _recovery: recovery })),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked(folder.path().display().to_string())),
        Err(TryLockError::Error(e)) => Err(doing(format!("locking {}", folder.writer_lock().display()))(e)),
    }
}

/// Waits until no writer is finding the end; then says whether a writer has the log.
pub(super) fn visit(folder: &Folder) -> Result<(Recovery, bool), LogError> {
    let recovery = lock_file(&folder.recovery_lock())?;
    recovery.lock_shared().map_err(doing(format!("locking {}", folder.recovery_lock().display())))?;
    let writer = lock_file(&folder.writer_lock())?;
    let is_written = match writer.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(e)) => return Err(doing(format!("locking {}", folder.writer_lock().display()))(e)),
    };
    Ok((Recovery { _recovery: recovery }, is_written))
}

/// Opens without writing where that is enough: readers may have a read-only folder.
fn lock_file(path: &Path) -> Result<File, LogError> {
    let open = || match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
        }
        other => other,
    };
    open().map_err(doing(format!("opening {}", path.display())))
}

/// Makes the folder and the folders above it, durably.
fn create(path: &Path) -> Result<(), LogError> {
    let missing = path.ancestors().take_while(|p| *p != Path::new("") && !p.exists()).count();
    fs::create_dir_all(path).map_err(doing(format!("creating {}", path.display())))?;
    // The folder above is synced even when nothing was made: whoever made it may have crashed before.
    let parents = path.ancestors().skip(1).take(missing.max(1));
    parents.map(|p| if p == Path::new("") { Path::new(".") } else { p }).try_for_each(|p| Folder::new(p).sync())
}

/// How many partitions the log has; `None` when it was never made.
///
/// # Errors
/// [`LogError::Corrupt`] when what is written there cannot be read.
pub(super) fn partitions(folder: &Folder) -> Result<Option<u32>, LogError> {
    let path = folder.metadata();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(doing(format!("reading {}", path.display()))(e)),
    };
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| corrupt(&path, 0, &e.to_string()))?;
    if metadata.format != FORMAT {
        let why = format!("the log has format {}, this program reads format {FORMAT}", metadata.format);
        return Err(corrupt(&path, 0, &why));
    }
    Ok(Some(metadata.partitions))
}

/// Writes down, durably and for ever, how many partitions the log has.
///
/// # Errors
/// [`LogError::Invalid`] when it has another number already.
pub(super) fn settle_partitions(folder: &Folder, wanted: u32) -> Result<(), LogError> {
    match partitions(folder)? {
        Some(stored) if stored == wanted => Ok(()),
        Some(stored) => Err(LogError::Invalid(format!(
            "the log in {} was made with {stored} partitions and cannot be opened with {wanted}: set partitions to \
             {stored}",
            folder.path().display()
        ))),
        None if folder.segments()?.is_empty() => write(folder, Metadata { format: FORMAT, partitions: wanted }),
        None => Err(corrupt(&folder.metadata(), 0, "the file is missing beside its segments")),
    }
}

fn write(folder: &Folder, metadata: Metadata) -> Result<(), LogError> {
    let path = folder.metadata();
    let unfinished = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&unfinished)?;
        file.write_all(&serde_json::to_vec(&metadata)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)
    };
    write().map_err(doing(format!("writing {}", path.display())))?;
    folder.sync()
}

//! Files of secrets (keys, salts): only their owner may read them, and they are replaced whole.
//! Guarantee: once [`replace`] answers, the new content and its name are on disk; editors that take the [`lock`] wait
//! for each other. On crash: the old file or the new one. Never: puts content into an error. Blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{ErrorKind, io_kind};

/// The disk said no.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}: {source}")]
pub struct FileError {
    /// What was attempted.
    pub doing: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl FileError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        io_kind(&self.source)
    }

    fn on(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { doing, path, source }
    }
}

/// The file's bytes; `None` while there is no file.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::on("read", path)(error)),
    }
}

/// Waits until no other editor holds the lock of `path` (a file beside it), and holds it until the answer is dropped.
///
/// # Errors
/// When the lock cannot be made.
pub fn lock(path: &Path) -> Result<File, FileError> {
    std::fs::create_dir_all(folder(path)).map_err(FileError::on("make the folder of", path))?;
    let beside = path.with_extension("lock");
    let locked = private().create(true).truncate(false).open(&beside).and_then(|file| file.lock().map(|()| file));
    locked.map_err(FileError::on("lock", path))
}

/// Writes `content` as JSON: beside `path`, synced, then renamed over it.
///
/// # Errors
/// The old file is then still there.
pub fn replace(path: &Path, content: &impl Serialize) -> Result<(), FileError> {
    let folder = folder(path);
    std::fs::create_dir_all(folder).map_err(FileError::on("make the folder of", path))?;
    let beside = path.with_extension("new");
    let written = serde_json::to_vec_pretty(content).map_err(io::Error::from).and_then(|text| {
        // A file left by a crash may have other rights: begin anew.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(FileError::on("write", &beside))?;
    let renamed = std::fs::rename(&beside, path).and_then(|()| File::open(folder)?.sync_all());
    renamed.map_err(FileError::on("replace", path))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens for writing, for the owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

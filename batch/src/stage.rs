//! Where a run's files wait until the books balance: a folder of its own beside the spill files.
//! Guarantee: nothing reaches the lake before [`Stage::publish`]; dropping the stage removes the folder.
//! On crash: the folder `batch-*` stays behind without an owner; the next run in the same spill folder removes it. A
//! run owns its folder by a lock that ends with its process, so nothing of a living run is ever removed.

use std::fs::File;
use std::path::{Path as FolderPath, PathBuf};
use std::sync::Arc;

use lake::file::{EncodedFile, NewFile};
use lake::table::Table;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use tempfile::TempDir;

use crate::error::Error;

/// How the folders of runs begin.
const PREFIX: &str = "batch-";
/// The lock in each of them.
const OWNER: &str = "owner";

/// The files of one run, not yet in the lake.
pub(crate) struct Stage {
    folder: TempDir,
    _owner: File,
    store: Arc<dyn ObjectStore>,
}

impl Stage {
    /// An empty stage in `folder`, which is made if need be and rid of what killed runs left in it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn new(folder: &FolderPath) -> Result<Self, Error> {
        let failed = |source| Error::Spill { folder: folder.display().to_string(), source };
        let (made, owner) = own_folder(folder).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(made.path())
            .map_err(|e| Error::Internal(format!("opening {}: {e}", made.path().display())))?;
        Ok(Self { folder: made, _owner: owner, store: Arc::new(store) })
    }

    /// Its folder; the run spills there too.
    pub(crate) fn folder(&self) -> &FolderPath {
        self.folder.path()
    }

    /// The store that [`Stage::path`] is in.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where a file of `table` waits.
    pub(crate) fn path(table: &str, file: &NewFile) -> Path {
        Path::from(format!("{}/{}", table.replace('/', "-"), file.path.replace('/', "-")))
    }

    /// Keeps a finished file.
    ///
    /// # Errors
    /// When the disk is full or away.
    pub(crate) fn keep(&self, table: &str, encoded: EncodedFile) -> Result<NewFile, Error> {
        let path = self.folder.path().join(Self::path(table, &encoded.file).as_ref());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| self.failed(e))?;
        }
        std::fs::write(path, &encoded.bytes).map_err(|e| self.failed(e))?;
        Ok(encoded.file)
    }

    /// Keeps the leaves of a bucket's billed events until the tree is built.
    ///
    /// # Errors
    /// When the disk is full or away.
    pub(crate) fn keep_leaves(&self, bucket: u32, leaves: &[u8]) -> Result<(), Error> {
        std::fs::write(self.leaves_path(bucket), leaves).map_err(|e| self.failed(e))
    }

    /// The leaves of a bucket.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn leaves(&self, bucket: u32) -> Result<Vec<u8>, Error> {
        std::fs::read(self.leaves_path(bucket)).map_err(|e| self.failed(e))
    }

    fn leaves_path(&self, bucket: u32) -> PathBuf {
        self.folder.path().join(format!("leaves-{bucket}"))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Spill { folder: self.folder.path().display().to_string(), source }
    }

    /// Moves the files to the lake; a commit makes them visible.
    ///
    /// # Errors
    /// When the lake or the stage cannot be reached.
    pub(crate) async fn publish(&self, table: &Table, files: &[NewFile]) -> Result<Vec<NewFile>, Error> {
        let mut stored = Vec::with_capacity(files.len());
        for file in files {
            let path = self.folder.path().join(Self::path(table.def().name, file).as_ref());
            stored.push(table.store_file(file.clone(), path).await?);
        }
        Ok(stored)
    }
}

/// A new folder with its lock held. One run at a time makes and removes folders, so that none is seen half made.
fn own_folder(parent: &FolderPath) -> std::io::Result<(TempDir, File)> {
    std::fs::create_dir_all(parent)?;
    let turn = File::create(parent.join("turn"))?;
    turn.lock()?;
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let path = entry.path();
        // Whatever else somebody keeps there is theirs.
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.file_type()?.is_dir();
        if is_ours && is_orphan(&path)? {
            match std::fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!(folder = %path.display(), "removed what a killed batch run left"),
                // Its run has just ended and takes it away itself.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
    let owner = File::create(made.path().join(OWNER))?;
    owner.lock()?;
    Ok((made, owner))
}

/// Whether the run that made the folder is gone.
fn is_orphan(folder: &FolderPath) -> std::io::Result<bool> {
    match File::open(folder.join(OWNER)) {
        Ok(owner) => match owner.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        },
        // It was killed before it could lock, or while it was being removed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_runs_folder_goes_with_the_next_run_and_a_living_ones_stays() {
        let spill = tempfile::tempdir().unwrap();
        let living = Stage::new(spill.path()).unwrap();
        let killed = spill.path().join("batch-killed");
        std::fs::create_dir_all(killed.join("silver-events")).unwrap();
        std::fs::write(killed.join(OWNER), "").unwrap();
        std::fs::write(spill.path().join("somebody-elses"), "").unwrap();
        std::fs::write(spill.path().join("batch-notes.txt"), "").unwrap();
        let next = Stage::new(spill.path()).unwrap();
        assert!(living.folder().exists() && next.folder().exists() && !killed.exists());
        assert!(spill.path().join("somebody-elses").exists());
        assert!(spill.path().join("batch-notes.txt").exists());
        let gone = next.folder().to_owned();
        drop(next);
        assert!(!gone.exists());
    }
}

//! Where a run's files wait until the books balance: a folder of its own beside the spill files.
//! Guarantee: nothing reaches the lake before [`Stage::publish`]; dropping the stage removes the folder.
//! On crash: the folder `clickledger-batch-*` stays behind in the spill folder; it is never read again.

use std::path::{Path as FolderPath, PathBuf};
use std::sync::Arc;

use lake::file::{EncodedFile, NewFile};
use lake::table::Table;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use tempfile::TempDir;

use crate::error::Error;

/// The files of one run, not yet in the lake.
pub(crate) struct Stage {
    folder: TempDir,
    store: Arc<dyn ObjectStore>,
}

impl Stage {
    /// An empty stage in `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn new(folder: &FolderPath) -> Result<Self, Error> {
        let failed = |source| Error::Spill { folder: folder.display().to_string(), source };
        let made = tempfile::Builder::new().prefix("clickledger-batch-").tempdir_in(folder).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(made.path())
            .map_err(|e| Error::Internal(format!("opening {}: {e}", made.path().display())))?;
        Ok(Self { folder: made, store: Arc::new(store) })
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

    /// Stores the files in the lake; a commit makes them visible.
    ///
    /// # Errors
    /// When the lake or the stage cannot be reached.
    pub(crate) async fn publish(&self, table: &Table, files: &[NewFile]) -> Result<Vec<NewFile>, Error> {
        let mut stored = Vec::with_capacity(files.len());
        for file in files {
            let path = self.folder.path().join(Self::path(table.def().name, file).as_ref());
            let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await?;
            let bytes = read.map_err(|e| self.failed(e))?.into();
            stored.push(table.store(EncodedFile { file: file.clone(), bytes }).await?);
        }
        Ok(stored)
    }
}

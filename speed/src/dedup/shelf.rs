//! Where ids go that memory has no room for: files of this machine without a name.
//!
//! They are a cache of the dedup files that the checkpoint names, and made anew from those at a restart. So they are never
//! synced, and since they have no name the system removes them when the process ends, however it ends. On crash: nothing
//! is left. Never: holds what is nowhere else, but for the ids that came since the last checkpoint, which are read again.

use std::fmt::Debug;
use std::fs::File;
use std::io::{Result, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Gives out files.
pub(crate) trait Shelf: Debug + Send + Sync {
    /// An empty file, which is gone when it is dropped.
    fn scratch(&self) -> Result<Box<dyn Scratch>>;

    /// Where it is, for messages.
    fn path(&self) -> &Path;
}

/// A file that grows and is read in any order.
pub(crate) trait Scratch: Debug + Send + Sync {
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// Fills `into` with the bytes that begin at `offset`.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()>;
}

/// Files in a folder, without names.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Shelf for Folder {
    fn scratch(&self) -> Result<Box<dyn Scratch>> {
        std::fs::create_dir_all(&self.0)?;
        Ok(Box::new(tempfile::tempfile_in(&self.0)?))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Scratch for File {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.read_exact_at(into, offset)
    }
}

//! A partition's state folder: numbered checkpoints and the dedup files they name.
//!
//! Guarantee: a checkpoint is there whole or not at all (temporary file, fsync, rename, fsync of the folder), its
//! files are durable before it is, and the one before it stays readable until the next. A lock keeps a second
//! process out. On crash: leftovers are overwritten or removed by the next save.
//! Never: changes a byte that one of the two newest checkpoints names.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Error;

const MAGIC: &[u8; 8] = b"CLSPEED1";
const PREFIX: &str = "checkpoint-";
const DAMAGED: &str = "damaged";

/// Bytes to put at `offset` of `file`; whatever lies beyond is cut off first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// One partition's folder, locked for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, making it if need be.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        std::fs::create_dir_all(&path).map_err(|e| failed("create", &path, e))?;
        if let Some(parent) = path.parent() {
            sync_folder(parent)?;
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|e| failed("open", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Owned(path)),
            Err(std::fs::TryLockError::Error(e)) => Err(failed("lock", &lock_path, e)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoints there are, newest first.
    pub(crate) fn checkpoints(&self) -> Result<Vec<u64>, Error> {
        let names = self.names()?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|n| n.strip_prefix(PREFIX)?.parse().ok()).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// The content of checkpoint `number`; `None` when it is not whole.
    pub(crate) fn read_checkpoint(&self, number: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.checkpoint(number);
        let bytes = std::fs::read(&path).map_err(|e| failed("read", &path, e))?;
        let content = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first_chunk::<4>());
        Ok(content.filter(|(sum, body)| u32::from_le_bytes(**sum) == crc32c::crc32c(body)).map(|(_, b)| b.to_vec()))
    }

    /// The first `length` bytes of `file`, if it has as many.
    pub(crate) fn read_file(&self, file: &str, length: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = File::open(self.path.join(file)).and_then(|f| f.take(length).read_to_end(&mut bytes));
        read.ok().filter(|n| *n as u64 == length).map(|_| bytes)
    }

    /// Puts an unreadable checkpoint out of the way, so that it is not the "one before" of the next save.
    pub(crate) fn discard(&self, number: u64) -> Result<(), Error> {
        let path = self.checkpoint(number);
        std::fs::rename(&path, self.path.join(DAMAGED)).map_err(|e| failed("rename", &path, e))?;
        sync_folder(&self.path)
    }

    /// Whether a checkpoint was ever discarded here.
    pub(crate) fn has_damaged(&self) -> bool {
        self.path.join(DAMAGED).exists()
    }

    /// Makes `appends` durable, then `body` as checkpoint `number`, then removes what neither it nor the one
    /// before needs (`keep` names the files of both).
    pub(crate) fn save(
        &self,
        number: u64,
        body: &[u8],
        appends: &[Append],
        keep: &BTreeSet<String>,
    ) -> Result<(), Error> {
        for append in appends {
            self.append(append)?;
        }
        let temporary = self.path.join("checkpoint.tmp");
        write_synced(&temporary, body).map_err(|e| failed("write", &temporary, e))?;
        // The files' names must be durable before the checkpoint that needs them.
        sync_folder(&self.path)?;
        let path = self.checkpoint(number);
        std::fs::rename(&temporary, &path).map_err(|e| failed("rename", &path, e))?;
        sync_folder(&self.path)?;
        self.clean(keep)
    }

    fn append(&self, append: &Append) -> Result<(), Error> {
        let path = self.path.join(&append.file);
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.set_len(append.offset)?;
            let mut file = file;
            io::Seek::seek(&mut file, io::SeekFrom::Start(append.offset))?;
            file.write_all(&append.bytes)?;
            file.sync_data()
        };
        write().map_err(|e| failed("append to", &path, e))
    }

    fn clean(&self, keep: &BTreeSet<String>) -> Result<(), Error> {
        let old: BTreeSet<String> = self.checkpoints()?.into_iter().skip(2).map(checkpoint_name).collect();
        for name in self.names()? {
            let is_checkpoint = name.starts_with(PREFIX);
            let is_ours = is_checkpoint || name == "lock" || name == DAMAGED || keep.contains(&name);
            if old.contains(&name) || !is_ours {
                let path = self.path.join(&name);
                std::fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let fail = |e| failed("list", &self.path, e);
        let entries = std::fs::read_dir(&self.path).map_err(fail)?;
        let names = entries.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<_, _>>().map_err(fail)
    }

    fn checkpoint(&self, number: u64) -> PathBuf {
        self.path.join(checkpoint_name(number))
    }
}

fn checkpoint_name(number: u64) -> String {
    format!("{PREFIX}{number:010}")
}

fn write_synced(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&crc32c::crc32c(body).to_le_bytes())?;
    file.write_all(body)?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| failed("sync", path, e))
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
    Error::State { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(file: &str, offset: u64, bytes: &[u8]) -> Append {
        Append { file: file.to_owned(), offset, bytes: bytes.to_vec() }
    }

    fn keep(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|f| (*f).to_owned()).collect()
    }

    #[test]
    fn the_two_newest_checkpoints_and_their_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().join("p")).unwrap();
        folder.save(1, b"one", &[append("ids-1", 0, b"aaaa")], &keep(&["ids-1"])).unwrap();
        folder
            .save(2, b"two", &[append("ids-1", 4, b"bb"), append("ids-2", 0, b"c")], &keep(&["ids-1", "ids-2"]))
            .unwrap();
        assert_eq!(folder.read_file("ids-1", 6).unwrap(), b"aaaabb");
        folder.save(3, b"three", &[], &keep(&["ids-2"])).unwrap();
        assert_eq!(folder.checkpoints().unwrap(), [3, 2]);
        assert_eq!(folder.read_checkpoint(3).unwrap().unwrap(), b"three");
        assert_eq!(folder.read_checkpoint(2).unwrap().unwrap(), b"two");
        assert_eq!(folder.read_file("ids-1", 1), None);
        assert_eq!(folder.read_file("ids-2", 2), None);
    }

    #[test]
    fn an_append_cuts_off_what_a_crash_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        folder.save(1, b"", &[append("f", 0, b"abcdef")], &keep(&["f"])).unwrap();
        folder.save(2, b"", &[append("f", 3, b"xy")], &keep(&["f"])).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"abcxy");
    }

    #[test]
    fn every_damage_to_a_checkpoint_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        folder.save(1, b"content", &[], &keep(&[])).unwrap();
        let path = folder.checkpoint(1);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(folder.read_checkpoint(1).unwrap(), None, "flipped byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(folder.read_checkpoint(1).unwrap(), None, "cut at {at}");
        }
        folder.discard(1).unwrap();
        assert!(folder.has_damaged());
        assert_eq!(folder.checkpoints().unwrap(), Vec::<u64>::new());
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open(dir.path().to_owned()).unwrap();
        assert!(matches!(Folder::open(dir.path().to_owned()), Err(Error::Owned(_))));
        drop(first);
        assert!(Folder::open(dir.path().to_owned()).is_ok());
    }
}

//! A partition's state in a folder of this machine: numbered checkpoints and dedup files that grow.
//!
//! Guarantee: what a place promises (temporary file, fsync, rename, fsync of the folder); a lock keeps a second process
//! out. On crash: leftovers are overwritten or removed by the next save.
//! Never: changes a byte that one of the two newest checkpoints names.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::place::{Append, Place, body_of, head};

const PREFIX: &str = "checkpoint-";
const DAMAGED: &str = "damaged";

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

    fn clean(&self, needs: impl Fn(&str) -> bool) -> Result<(), Error> {
        let old: BTreeSet<String> = self.checkpoints()?.into_iter().skip(2).collect();
        for name in self.names()? {
            let is_ours = name.starts_with(PREFIX) || name == "lock" || name == DAMAGED || needs(&name);
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
}

impl Place for Folder {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn checkpoints(&self) -> Result<Vec<String>, Error> {
        let mut names = self.names()?;
        names.retain(|name| number(name).is_some());
        names.sort_unstable_by_key(|name| std::cmp::Reverse(number(name)));
        Ok(names)
    }

    fn read_checkpoint(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        let bytes = std::fs::read(&path).map_err(|e| failed("read", &path, e))?;
        Ok(body_of(&bytes).map(<[u8]>::to_vec))
    }

    fn read_file(&self, file: &str, length: u64) -> Result<Option<Vec<u8>>, Error> {
        let mut bytes = Vec::new();
        let read = File::open(self.path.join(file)).and_then(|f| f.take(length).read_to_end(&mut bytes));
        Ok(read.ok().filter(|n| *n as u64 == length).map(|_| bytes))
    }

    fn discard(&mut self, name: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        std::fs::rename(&path, self.path.join(DAMAGED)).map_err(|e| failed("rename", &path, e))?;
        sync_folder(&self.path)
    }

    fn has_damaged(&self) -> bool {
        self.path.join(DAMAGED).exists()
    }

    fn save(
        &mut self,
        body: Vec<u8>,
        appends: &[Append],
        files: &BTreeSet<String>,
        before: &BTreeSet<String>,
    ) -> Result<(), Error> {
        for append in appends {
            self.append(append)?;
        }
        let temporary = self.path.join("checkpoint.tmp");
        write_synced(&temporary, &body).map_err(|e| failed("write", &temporary, e))?;
        // The files' names must be durable before the checkpoint that needs them.
        sync_folder(&self.path)?;
        let newest = self.checkpoints()?.first().and_then(|name| number(name)).unwrap_or(0);
        let path = self.path.join(format!("{PREFIX}{:010}", newest + 1));
        std::fs::rename(&temporary, &path).map_err(|e| failed("rename", &path, e))?;
        sync_folder(&self.path)?;
        self.clean(|name| files.contains(name) || before.contains(name))
    }
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

fn write_synced(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&head(body))?;
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

    fn files(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|f| (*f).to_owned()).collect()
    }

    #[test]
    fn the_two_newest_checkpoints_and_their_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path().join("p")).unwrap();
        let (one, both, two) = (files(&["ids-1"]), files(&["ids-1", "ids-2"]), files(&["ids-2"]));
        folder.save(b"one".to_vec(), &[append("ids-1", 0, b"aaaa")], &one, &files(&[])).unwrap();
        folder.save(b"two".to_vec(), &[append("ids-1", 4, b"bb"), append("ids-2", 0, b"c")], &both, &one).unwrap();
        assert_eq!(folder.read_file("ids-1", 6).unwrap().unwrap(), b"aaaabb");
        folder.save(b"three".to_vec(), &[], &two, &two).unwrap();
        let checkpoints = folder.checkpoints().unwrap();
        assert_eq!(checkpoints, ["checkpoint-0000000003", "checkpoint-0000000002"]);
        assert_eq!(folder.read_checkpoint(&checkpoints[0]).unwrap().unwrap(), b"three");
        assert_eq!(folder.read_checkpoint(&checkpoints[1]).unwrap().unwrap(), b"two");
        assert_eq!(folder.read_file("ids-1", 1).unwrap(), None);
        assert_eq!(folder.read_file("ids-2", 2).unwrap(), None);
    }

    #[test]
    fn an_append_cuts_off_what_a_crash_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path().to_owned()).unwrap();
        let f = files(&["f"]);
        folder.save(b"".to_vec(), &[append("f", 0, b"abcdef")], &f, &f).unwrap();
        folder.save(b"".to_vec(), &[append("f", 3, b"xy")], &f, &f).unwrap();
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"abcxy");
    }

    #[test]
    fn every_damage_to_a_checkpoint_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(dir.path().to_owned()).unwrap();
        folder.save(b"content".to_vec(), &[], &files(&[]), &files(&[])).unwrap();
        let name = folder.checkpoints().unwrap().remove(0);
        let path = dir.path().join(&name);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(folder.read_checkpoint(&name).unwrap(), None, "flipped byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(folder.read_checkpoint(&name).unwrap(), None, "cut at {at}");
        }
        folder.discard(&name).unwrap();
        assert!(folder.has_damaged());
        assert_eq!(folder.checkpoints().unwrap(), Vec::<String>::new());
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

//! What earlier runs found in the archive's files: which log positions each holds, as counts and sums. A file never
//! changes under its name, so a run reads the positions of the day's own files and of those that came since.
//! One object in the lake, `cache/batch_positions.json`, with a checksum; written whole, the last writer stands.
//! Guarantee: what is not there, does not read, or names a file of another size or number of rows is read anew from the
//! file. On crash: the old object or the new one. Never: names a file that the archive does not have any more.

use std::collections::BTreeMap;

use lake::LakeRoot;
use lake::table::DataFile;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::Error;

/// Where it lies within the lake.
const PATH: &str = "cache/batch_positions.json";

/// What is known of a set of log positions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// How many.
    pub(crate) count: u64,
    /// The sum of all, each mixed.
    pub(crate) mixed: u64,
}

/// The positions of one file, by log partition.
pub(crate) type FileTally = BTreeMap<i64, Tally>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    size: u64,
    rows: u64,
    tally: FileTally,
}

/// The files that are known, by their path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    files: BTreeMap<String, Entry>,
    is_new: bool,
}

impl Known {
    /// What the lake keeps; nothing where it does not read.
    pub(crate) async fn load(root: &LakeRoot) -> Self {
        let bytes = match root.store().get(&root.path(PATH)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match bytes {
            Ok(bytes) => Self { files: decode(&bytes).unwrap_or_default(), is_new: false },
            Err(object_store::Error::NotFound { .. }) => Self::default(),
            Err(error) => {
                tracing::info!(%error, "{PATH} cannot be read: the positions of the whole archive are");
                Self::default()
            }
        }
    }

    /// The positions of a file, if they are known.
    pub(crate) fn of(&self, file: &DataFile) -> Option<&FileTally> {
        let entry = self.files.get(file.object_path.as_ref())?;
        ((entry.size, entry.rows) == (file.size, file.rows)).then_some(&entry.tally)
    }

    /// Learns the positions of a file.
    pub(crate) fn learn(&mut self, file: &DataFile, tally: FileTally) {
        let entry = Entry { size: file.size, rows: file.rows, tally };
        let before = self.files.insert(file.object_path.to_string(), entry.clone());
        self.is_new |= before != Some(entry);
    }

    /// Keeps what is known of `files`, where that is not what the lake keeps already. A lake that takes no writes only
    /// costs the next run its time.
    pub(crate) async fn save(mut self, root: &LakeRoot, files: &[DataFile]) -> Result<(), Error> {
        if !self.is_new {
            return Ok(());
        }
        let there: std::collections::BTreeSet<&str> = files.iter().map(|f| f.object_path.as_ref()).collect();
        self.files.retain(|path, _| there.contains(path.as_str()));
        let bytes = encode(&self.files).map_err(|e| Error::Internal(e.to_string()))?;
        if let Err(error) = root.store().put(&root.path(PATH), bytes.into()).await {
            tracing::warn!(%error, "{PATH} cannot be written: the next run reads the positions of the archive again");
        }
        Ok(())
    }
}

/// The checksum of the rest, a line feed, and the files as JSON.
fn encode(files: &BTreeMap<String, Entry>) -> serde_json::Result<Vec<u8>> {
    let text = serde_json::to_vec(files)?;
    let mut bytes = checksum(&text).into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(&text);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<String, Entry>> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let (sum, text) = (bytes.get(..end)?, bytes.get(end + 1..)?);
    if checksum(text).as_bytes() != sum {
        tracing::info!("{PATH} is damaged: the positions of the whole archive are read");
        return None;
    }
    serde_json::from_slice(text).ok()
}

fn checksum(text: &[u8]) -> String {
    format!("{:016x}", xxh3_64(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_changed_byte_makes_it_unknown() {
        let tally: FileTally = [(0, Tally { count: 3, mixed: u64::MAX }), (7, Tally::default())].into();
        let files: BTreeMap<_, _> = [("day=1/a".to_owned(), Entry { size: 9, rows: 3, tally })].into();
        let bytes = encode(&files).unwrap();
        assert_eq!(decode(&bytes), Some(files));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
        assert_eq!(decode(b""), None);
    }
}

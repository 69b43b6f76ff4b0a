//! The end marker: how far the log is durable. Written after every sync, so that a reader, also in another process,
//! never sees a record that a power loss could still take back.
//! On crash: the marker may be older than the log, never newer. A writer that opens the log finds the true end first.
//! Never: names a byte that was not synced.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use bytes::{Buf, BufMut};
use tokio::sync::watch;

use super::super::LogError;
use super::folder::{Folder, doing};
use crate::progress::Positions;

const MAGIC: &[u8; 8] = b"CLKDUR01";
/// How often a marker that does not match its checksum is read again: it was being written.
const TRIES: usize = 4;

/// Where the durable records end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The segment that is being written.
    pub(super) segment: u64,
    /// The byte in it that the next record begins at.
    pub(super) offset: u64,
    /// The next position of each partition.
    pub(super) positions: Vec<u64>,
}

impl End {
    /// Whether this end is further on than `other`.
    pub(super) fn is_beyond(&self, other: &Self) -> bool {
        (self.segment, self.offset) > (other.segment, other.offset)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u64_le(self.segment);
        bytes.put_u64_le(self.offset);
        self.positions.iter().for_each(|p| bytes.put_u64_le(*p));
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes
    }

    fn decode(bytes: &[u8], partitions: u32) -> Option<Self> {
        let (body, mut checksum) = bytes.split_last_chunk::<4>().map(|(b, c)| (b, c.as_slice()))?;
        if checksum.try_get_u32_le() != Ok(crc32c::crc32c(body)) {
            return None;
        }
        let mut body = body.strip_prefix(MAGIC)?;
        let (segment, offset) = (body.try_get_u64_le().ok()?, body.try_get_u64_le().ok()?);
        let positions = (0..partitions).map(|_| body.try_get_u64_le()).collect::<Result<_, _>>().ok()?;
        body.is_empty().then_some(Self { segment, offset, positions })
    }
}

/// Positions by partition number.
pub(super) fn named(positions: &[u64]) -> Positions {
    Positions((0..).zip(positions.iter().copied()).collect())
}

/// The marker as it stands; `None` when there is none or it is damaged.
pub(super) fn read(folder: &Folder, partitions: u32) -> Option<End> {
    (0..TRIES).find_map(|_| End::decode(&fs::read(folder.marker()).ok()?, partitions))
}

/// Tells readers in this process and in others how far the log is durable.
pub(super) struct Publisher {
    marker: File,
    ends: watch::Sender<End>,
    is_behind: bool,
}

impl Publisher {
    /// Publishes the first end.
    pub(super) fn open(folder: &Folder, end: End) -> Result<Self, LogError> {
        let path = folder.marker();
        let open = || OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let marker = open().map_err(doing(format!("opening {}", path.display())))?;
        let length = u64::try_from(end.encode().len()).unwrap_or(u64::MAX);
        marker.set_len(length).map_err(doing(format!("sizing {}", path.display())))?;
        let mut publisher = Self { marker, ends: watch::Sender::new(end.clone()), is_behind: false };
        publisher.publish(end);
        Ok(publisher)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<End> {
        self.ends.subscribe()
    }

    /// Publishes `end`. A marker that cannot be written only delays other processes: the next one makes up for it.
    pub(super) fn publish(&mut self, end: End) {
        let written = self.marker.write_all_at(&end.encode(), 0);
        if let Err(error) = &written
            && !self.is_behind
        {
            tracing::warn!(%error, "the end marker of the log cannot be written: other processes fall behind");
        }
        self.is_behind = written.is_err();
        self.ends.send_replace(end);
    }

    /// Makes the marker itself durable: after a clean stop not even a power loss makes it old.
    pub(super) fn sync(&self) {
        if let Err(error) = self.marker.sync_data() {
            tracing::warn!(%error, "the end marker of the log could not be synced");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back_and_a_damaged_one_is_none() {
        let end = End { segment: 3, offset: 4_711, positions: vec![5, 0, 9] };
        let bytes = end.encode();
        assert_eq!(End::decode(&bytes, 3), Some(end));
        assert_eq!(End::decode(&bytes, 4), None);
        assert_eq!(End::decode(&bytes, 2), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(End::decode(&flipped, 3), None, "bit {bit}");
        }
    }
}

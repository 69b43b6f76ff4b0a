//! The index of a segment: where to begin reading for a position or a time without reading it all.
//! Kept beside each sealed segment as a checksum line and JSON; built again from the segment when absent or damaged,
//! so it is never synced and a crash costs nothing but the rebuild.
//! Never: is believed about a record. It only says where to begin; every record is checked when it is read.

use std::fs;

use serde::{Deserialize, Serialize};

use super::super::{LogError, Record};
use super::folder::{Folder, corrupt, replace};
use super::segment::{SegmentReader, Step};
use crate::time::Timestamp;

/// A new entry every so many bytes.
const EVERY_BYTES: u64 = 64 << 10;

/// Where records of one segment are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    segment: u64,
    /// The byte after the last record it knows.
    length: u64,
    entries: Vec<Entry>,
    /// The latest append time in each partition; nothing is later, and `None` has no record here.
    latest: Vec<Option<Timestamp>>,
}

/// A byte at which a record begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) offset: u64,
    /// The next position of every partition here.
    pub(super) positions: Vec<u64>,
    /// No record before this byte was appended later.
    latest: Option<Timestamp>,
}

impl Index {
    /// The index of a segment without records, which begins at `offset` with `positions`.
    pub(super) fn new(segment: u64, offset: u64, positions: Vec<u64>) -> Self {
        let latest = vec![None; positions.len()];
        Self { segment, length: offset, entries: vec![Entry { offset, positions, latest: None }], latest }
    }

    /// The byte after the last record it knows.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The latest append time in the segment.
    pub(super) fn latest(&self) -> Option<Timestamp> {
        self.latest.iter().copied().max().flatten()
    }

    /// Whether `partition` may have a record at or after `time` here.
    pub(super) fn reaches(&self, partition: u32, time: Timestamp) -> bool {
        let latest = usize::try_from(partition).ok().and_then(|p| self.latest.get(p));
        latest.is_some_and(|latest| *latest >= Some(time))
    }

    /// Takes note of a record that begins where the last one ended and is `bytes` long. `positions` are those after it.
    pub(super) fn add(&mut self, partition: u32, append_time: Timestamp, bytes: u64, positions: &[u64]) {
        self.length += bytes;
        if let Some(latest) = usize::try_from(partition).ok().and_then(|p| self.latest.get_mut(p)) {
            *latest = (*latest).max(Some(append_time));
        }
        if self.entries.last().is_none_or(|last| self.length - last.offset >= EVERY_BYTES) {
            let entry = Entry { offset: self.length, positions: positions.to_vec(), latest: self.latest() };
            self.entries.push(entry);
        }
    }

    /// Forgets what lies beyond `length`. The latest times may stay too late, which only makes reading begin earlier
    /// and retention wait longer.
    pub(super) fn cut(&mut self, length: u64) {
        self.length = length;
        self.entries.retain(|entry| entry.offset <= length);
    }

    /// The last place before every wanted position; `wanted` names a position or nothing for each partition.
    pub(super) fn before_positions(&self, wanted: &[Option<u64>]) -> Option<&Entry> {
        let is_before = |e: &Entry| e.positions.iter().zip(wanted).all(|(at, w)| w.is_none_or(|w| *at <= w));
        self.entries.iter().take_while(|e| is_before(e)).last()
    }

    /// The last place before every record appended at or after `time`.
    pub(super) fn before_time(&self, time: Timestamp) -> Option<&Entry> {
        self.entries.iter().take_while(|e| e.latest < Some(time)).last()
    }

    /// The index of a sealed segment, from its file or from the segment. `None` when the segment is gone.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when the index had to be built and the segment is damaged.
    pub(super) fn of_sealed(folder: &Folder, number: u64, partitions: u32) -> Result<Option<Self>, LogError> {
        let Some(following) = SegmentReader::open(folder, number + 1, partitions)? else { return Ok(None) };
        let length = following.header().previous_length;
        if let Some(index) = Self::load(folder, number, length, partitions) {
            return Ok(Some(index));
        }
        let Some(mut reader) = SegmentReader::open(folder, number, partitions)? else { return Ok(None) };
        let (index, stop) = Self::scan(&mut reader, length)?;
        if let Some(why) = stop {
            return Err(corrupt(reader.path(), reader.offset(), &why));
        }
        index.save(folder);
        Ok(Some(index))
    }

    /// Reads a segment up to byte `limit`, and says why where it had to stop before.
    pub(super) fn scan(reader: &mut SegmentReader, limit: u64) -> Result<(Self, Option<String>), LogError> {
        let mut index = Self::new(reader.header().number, reader.offset(), reader.positions().to_vec());
        loop {
            let before = reader.offset();
            match reader.next(limit)? {
                Step::Record(Record { partition, append_time, .. }) => {
                    index.add(partition, append_time, reader.offset() - before, reader.positions());
                }
                Step::End => return Ok((index, None)),
                Step::Bad(why) => return Ok((index, Some(why))),
            }
        }
    }

    fn load(folder: &Folder, number: u64, length: u64, partitions: u32) -> Option<Self> {
        let bytes = fs::read(folder.index(number)).ok()?;
        let split = bytes.iter().position(|b| *b == b'\n')?;
        let (checksum, body) = (bytes.get(..split)?, bytes.get(split + 1..)?);
        if checksum != checksum_line(body).as_bytes() {
            return None;
        }
        let index: Self = serde_json::from_slice(body).ok()?;
        let has_all = |n: usize| u32::try_from(n) == Ok(partitions);
        let fits = index.segment == number
            && index.length == length
            && has_all(index.latest.len())
            && index.entries.iter().all(|e| has_all(e.positions.len()));
        fits.then_some(index)
    }

    /// Keeps the index beside its segment. Without it the next reader builds it again.
    pub(super) fn save(&self, folder: &Folder) {
        let path = folder.index(self.segment);
        let saved = serde_json::to_vec(self).map_err(std::io::Error::other).and_then(|body| {
            let mut bytes = checksum_line(&body).into_bytes();
            bytes.push(b'\n');
            bytes.extend(body);
            replace(&path, &bytes)
        });
        if let Err(error) = saved {
            tracing::debug!(%error, path = %path.display(), "an index was not kept and will be built when it is needed");
        }
    }
}

fn checksum_line(body: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(body))
}

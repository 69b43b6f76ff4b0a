//! Segment files: a header, then frames. Reading one forward, with every byte checked.
//! The header says what was before: the positions of every partition and where the previous segment ended, so that
//! positions go on after everything older was forgotten and a sealed segment that was cut short is noticed.
//! Never: answers a record that was not written there, or skips one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes};

use super::super::{LogError, Record};
use super::folder::{Folder, corrupt, doing};
use super::frame::{self, Decoded};

const MAGIC: &[u8; 8] = b"CLKSEG01";
/// How much is read at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// The beginning of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// Where the segment before ended; bytes beyond belong to no record.
    pub(super) previous_length: u64,
    /// The next position of each partition when this segment began.
    pub(super) positions: Vec<u64>,
}

impl Header {
    /// How long the header of a log of so many partitions is.
    pub(super) fn length(partitions: u32) -> u64 {
        8 + 8 + 8 + 4 + 8 * u64::from(partitions) + 4
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_u64_le(self.number);
        bytes.put_u64_le(self.previous_length);
        bytes.put_u32_le(u32::try_from(self.positions.len()).unwrap_or(u32::MAX));
        self.positions.iter().for_each(|p| bytes.put_u64_le(*p));
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes
    }

    fn decode(bytes: &[u8], number: u64, partitions: u32) -> Result<Self, &'static str> {
        const CUT: &str = "the header is cut short";
        let (mut body, mut checksum) = bytes.split_last_chunk::<4>().map(|(b, c)| (b, c.as_slice())).ok_or(CUT)?;
        if checksum.try_get_u32_le() != Ok(crc32c::crc32c(body)) {
            return Err("the header's checksum does not match its bytes");
        }
        body = body.strip_prefix(MAGIC).ok_or("this is not a segment of this version")?;
        let stored = body.try_get_u64_le().map_err(|_| CUT)?;
        let previous_length = body.try_get_u64_le().map_err(|_| CUT)?;
        let count = body.try_get_u32_le().map_err(|_| CUT)?;
        if stored != number || count != partitions {
            return Err("the header belongs to another segment or another log");
        }
        let positions = (0..count).map(|_| body.try_get_u64_le()).collect::<Result<_, _>>().map_err(|_| CUT)?;
        Ok(Self { number, previous_length, positions })
    }
}

/// The next thing in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A record.
    Record(Record),
    /// The limit is reached.
    End,
    /// The bytes here are not the record that must follow.
    Bad(String),
}

/// Reads one segment forward. It keeps the file open, so what it has begun it can finish even when retention removes
/// the file.
#[derive(Debug)]
pub(super) struct SegmentReader {
    path: PathBuf,
    file: File,
    header: Header,
    offset: u64,
    positions: Vec<u64>,
    /// What has been read of the file from `offset` on.
    buffer: Bytes,
}

impl SegmentReader {
    /// Opens segment `number` at its first record; `None` when there is no such file.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when its header is damaged.
    pub(super) fn open(folder: &Folder, number: u64, partitions: u32) -> Result<Option<Self>, LogError> {
        let path = folder.segment(number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(doing(format!("opening {}", path.display()))(e)),
        };
        let length = Header::length(partitions);
        let bytes = read(&path, &file, 0, length)?;
        let header = Header::decode(&bytes, number, partitions).map_err(|why| corrupt(&path, 0, why))?;
        let positions = header.positions.clone();
        Ok(Some(Self { path, file, header, offset: length, positions, buffer: Bytes::new() }))
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The byte the next record begins at.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next position of every partition.
    pub(super) fn positions(&self) -> &[u64] {
        &self.positions
    }

    /// How long the file is now.
    pub(super) fn file_length(&self) -> Result<u64, LogError> {
        let metadata = self.file.metadata().map_err(doing(format!("looking at {}", self.path.display())))?;
        Ok(metadata.len())
    }

    /// Makes durable what the file holds.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(doing(format!("syncing {}", self.path.display())))
    }

    /// Goes to a byte where a record begins, knowing the positions there.
    pub(super) fn seek(&mut self, offset: u64, positions: &[u64]) {
        self.offset = offset;
        self.positions = positions.to_vec();
        self.buffer = Bytes::new();
    }

    /// The record here, if it ends by byte `limit`, where the log or the segment ends.
    pub(super) fn next(&mut self, limit: u64) -> Result<Step, LogError> {
        loop {
            let room = limit.saturating_sub(self.offset);
            if room == 0 {
                return Ok(Step::End);
            }
            match frame::decode(&self.buffer) {
                Decoded::Frame(record, bytes) => return Ok(self.accept(record, bytes)),
                Decoded::Bad(why) => return Ok(Step::Bad(why.to_owned())),
                Decoded::Short(needed) => {
                    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
                    if needed > room {
                        return Ok(Step::Bad(format!("a record of {needed} bytes where {room} are left")));
                    }
                    self.buffer = read(&self.path, &self.file, self.offset, room.min(needed.max(CHUNK_BYTES)))?;
                    if u64::try_from(self.buffer.len()).unwrap_or(u64::MAX) < needed {
                        return Ok(Step::Bad("the file ends here".to_owned()));
                    }
                }
            }
        }
    }

    /// Takes the record if it is the one that follows in its partition.
    fn accept(&mut self, record: Record, bytes: usize) -> Step {
        let (partition, position) = (record.partition, record.position);
        let next = usize::try_from(partition).ok().and_then(|p| self.positions.get_mut(p));
        match next {
            Some(next) if *next == position => {
                *next += 1;
                self.buffer.advance(bytes);
                self.offset += u64::try_from(bytes).unwrap_or(u64::MAX);
                Step::Record(record)
            }
            next => Step::Bad(format!("position {position} of partition {partition} where {next:?} follows")),
        }
    }
}

/// Up to `length` bytes of a file; fewer only at its end.
fn read(path: &Path, file: &File, offset: u64, length: u64) -> Result<Bytes, LogError> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..)
        && !rest.is_empty()
    {
        match file.read_at(rest, offset + u64::try_from(filled).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(doing(format!("reading {}", path.display()))(e)),
        }
    }
    bytes.truncate(filled);
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_flipped_bit_is_noticed() {
        let header = Header { number: 7, previous_length: 99, positions: vec![3, u64::MAX, 0] };
        let bytes = header.encode();
        assert_eq!(u64::try_from(bytes.len()).unwrap(), Header::length(3));
        assert_eq!(Header::decode(&bytes, 7, 3), Ok(header.clone()));
        assert!(Header::decode(&bytes, 8, 3).is_err());
        assert!(Header::decode(&bytes, 7, 2).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&flipped, 7, 3).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(Header::decode(&bytes[..cut], 7, 3).is_err());
        }
    }
}

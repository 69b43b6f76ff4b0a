//! The segment that is being written: records are encoded into memory, written, synced, and only then durable.
//! After a failed write the file is cut back to its durable end before anything follows. After a failed sync nothing
//! says which bytes reached the disk, so the segment is left behind its durable end and a new one begins.
//! Never: counts a position as used before its record is durable, writes behind bytes of unknown state.

use std::fs::File;
use std::sync::Arc;

use super::super::{Delivered, LogError, NewRecord};
use super::disk::Disk;
use super::durable::{End, Publisher};
use super::folder::{Folder, doing, remove};
use super::frame;
use super::index::Index;
use super::recovery;
use super::segment::Header;

/// Encoded bytes are written, not yet synced, beyond this.
const WRITE_BYTES: usize = 4 << 20;

/// What must happen before more is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    /// Nothing.
    Sound,
    /// A write failed: bytes may stand beyond the durable end.
    Overhanging,
    /// A sync failed: the next records go into a new segment.
    Distrusted,
}

/// A segment that became complete.
pub(super) struct Sealed {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// The newest segment, and everything that is not durable yet.
pub(super) struct Active {
    folder: Folder,
    disk: Arc<dyn Disk>,
    publisher: Publisher,
    segment_bytes: u64,
    file: File,
    durable: End,
    health: Health,
    /// How far the file is written.
    written: u64,
    /// Encoded and not yet written.
    buffer: Vec<u8>,
    /// The next positions when all of that is durable.
    positions: Vec<u64>,
    index: Index,
}

impl Active {
    /// Opens the newest segment for writing, or makes the first one.
    pub(super) fn open(
        folder: Folder,
        disk: Arc<dyn Disk>,
        partitions: u32,
        segment_bytes: u64,
    ) -> Result<Self, LogError> {
        let (file, durable, index) = match recovery::find_end(&folder, partitions)? {
            Some(found) => found.repair(&folder, disk.as_ref())?,
            None => {
                let positions = (0..partitions).map(|_| 0).collect();
                let (file, end) = create(&folder, disk.as_ref(), Header { number: 0, previous_length: 0, positions })?;
                let index = Index::new(end.segment, end.offset, end.positions.clone());
                (file, end, index)
            }
        };
        let publisher = Publisher::open(&folder, durable.clone())?;
        let (written, positions) = (durable.offset, durable.positions.clone());
        let health = Health::Sound;
        let buffer = Vec::new();
        Ok(Self { folder, disk, publisher, segment_bytes, file, durable, health, written, buffer, positions, index })
    }

    pub(super) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The segment's number.
    pub(super) fn number(&self) -> u64 {
        self.durable.segment
    }

    /// The bytes of the segment that are durable.
    pub(super) fn bytes(&self) -> u64 {
        self.durable.offset
    }

    /// What the segment holds.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Whether the segment has a record.
    pub(super) fn has_records(&self) -> bool {
        self.end() > Header::length(self.partitions())
    }

    fn partitions(&self) -> u32 {
        u32::try_from(self.positions.len()).unwrap_or(u32::MAX)
    }

    fn end(&self) -> u64 {
        self.written + u64::try_from(self.buffer.len()).unwrap_or(u64::MAX)
    }

    /// Whether the record belongs into this segment; an empty segment takes any.
    pub(super) fn has_room_for(&self, record: &NewRecord) -> bool {
        !self.has_records() || self.end() + frame::size(&record.payload) <= self.segment_bytes
    }

    /// Encodes a record. It counts once [`Active::sync`] has succeeded.
    pub(super) fn push(&mut self, record: &NewRecord) -> Result<Delivered, LogError> {
        let partition = record.partition;
        let Some(next) = usize::try_from(partition).ok().and_then(|p| self.positions.get_mut(p)) else {
            return Err(LogError::Invalid(format!("there is no partition {partition}")));
        };
        let position = *next;
        frame::encode(&mut self.buffer, record, position)?;
        *next += 1;
        self.index.add(partition, record.append_time, frame::size(&record.payload), &self.positions);
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(Delivered { partition, position })
    }

    fn write(&mut self) -> Result<(), LogError> {
        if let Err(error) = self.disk.write(&self.file, &self.buffer, self.written) {
            self.health = Health::Overhanging;
            return Err(doing(format!("writing {}", self.folder.segment(self.number()).display()))(error));
        }
        self.written = self.end();
        self.buffer.clear();
        Ok(())
    }

    /// Makes everything pushed durable and tells the readers.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if self.end() == self.durable.offset {
            return Ok(());
        }
        self.write()?;
        if let Err(error) = self.disk.sync(&self.file) {
            self.health = Health::Distrusted;
            return Err(doing(format!("syncing {}", self.folder.segment(self.number()).display()))(error));
        }
        self.durable.offset = self.written;
        self.durable.positions.clone_from(&self.positions);
        self.publisher.publish(self.durable.clone());
        Ok(())
    }

    /// Forgets everything that is not durable, after an error.
    pub(super) fn abandon(&mut self) {
        if self.written > self.durable.offset && self.health == Health::Sound {
            self.health = Health::Overhanging;
        }
        self.buffer.clear();
        self.written = self.durable.offset;
        self.positions.clone_from(&self.durable.positions);
        self.index.cut(self.durable.offset);
    }

    /// Repairs what an earlier error left, so that writing may go on. Answers the segment this sealed, if it did.
    pub(super) fn recover(&mut self) -> Result<Option<Sealed>, LogError> {
        let cut = match self.health {
            Health::Sound => return Ok(None),
            _ => self.disk.truncate(&self.file, self.durable.offset),
        };
        if self.health == Health::Distrusted {
            // Whether cut or not: the next header says where this segment ends.
            return self.roll().map(Some);
        }
        cut.map_err(doing(format!("cutting {}", self.folder.segment(self.number()).display())))?;
        self.health = Health::Sound;
        Ok(None)
    }

    /// Seals the segment, all of which is durable, and begins the next one.
    pub(super) fn roll(&mut self) -> Result<Sealed, LogError> {
        let End { segment, offset, positions } = self.durable.clone();
        let header = Header { number: segment + 1, previous_length: offset, positions };
        let (file, end) = create(&self.folder, self.disk.as_ref(), header)?;
        self.index.save(&self.folder);
        self.index = Index::new(end.segment, end.offset, end.positions.clone());
        self.file = file;
        self.written = end.offset;
        self.durable = end.clone();
        self.health = Health::Sound;
        self.publisher.publish(end);
        Ok(Sealed { number: segment, bytes: offset })
    }

    /// Leaves the log so that even a power loss finds its end at once.
    pub(super) fn close(&self) {
        self.publisher.sync();
    }
}

/// Makes a segment without records, durably.
fn create(folder: &Folder, disk: &dyn Disk, header: Header) -> Result<(File, End), LogError> {
    let path = folder.segment(header.number);
    let bytes = header.encode();
    let created = disk.create(&path).and_then(|file| {
        disk.write(&file, &bytes, 0)?;
        disk.sync(&file)?;
        Ok(file)
    });
    let synced = created.map_err(doing(format!("creating {}", path.display()))).and_then(|file| {
        folder.sync()?;
        Ok(file)
    });
    match synced {
        Ok(file) => {
            let offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            Ok((file, End { segment: header.number, offset, positions: header.positions }))
        }
        Err(error) => {
            if let Err(left) = remove(&path) {
                tracing::warn!(path = %path.display(), error = %left, "an unused segment could not be removed");
            }
            Err(error)
        }
    }
}

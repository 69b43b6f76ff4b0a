//! One pass over the segments for all partitions of a consumer: where it stands, and the next records.
//! Every record on the way is checked, also those of other partitions: a gap or damage is an error here, not a surprise
//! later.
//! Never: jumps over a record of an assigned partition, reads beyond the durable end.

use super::super::{Bounds, LogError, Record, check_start};
use super::durable::{End, named};
use super::folder::{Folder, corrupt};
use super::index::Index;
use super::segment::{SegmentReader, Step};
use super::tail::Tail;
use crate::progress::Positions;

/// How often a search begins again because retention removed what it had just found.
const TRIES: usize = 16;

/// A place in the log.
#[derive(Debug)]
pub(super) struct Cursor {
    folder: Folder,
    partitions: u32,
    /// The next position of each assigned partition.
    wanted: Vec<Option<u64>>,
    reader: SegmentReader,
    /// The segment after that one, once it was needed.
    following: Option<SegmentReader>,
}

/// Where the log begins and ends.
pub(super) fn bounds(folder: &Folder, partitions: u32, tail: &mut Tail) -> Result<Bounds, LogError> {
    let oldest = oldest(folder, partitions)?;
    // Looked at after the start: retention never moves the start beyond an end it has not told.
    let end = tail.end();
    Ok(Bounds { start: named(&oldest.header().positions), end: named(&end.positions) })
}

/// The numbers of the segments up to the end, oldest first.
pub(super) fn numbers(folder: &Folder, end: &End) -> Result<Vec<u64>, LogError> {
    let mut numbers = folder.segments()?;
    numbers.retain(|number| *number <= end.segment);
    Ok(numbers)
}

fn oldest(folder: &Folder, partitions: u32) -> Result<SegmentReader, LogError> {
    for _ in 0..TRIES {
        let Some(number) = folder.segments()?.first().copied() else {
            return Err(LogError::Corrupt(format!("all segments in {} are missing", folder.path().display())));
        };
        if let Some(reader) = SegmentReader::open(folder, number, partitions)? {
            return Ok(reader);
        }
    }
    Err(moving(folder))
}

fn moving(folder: &Folder) -> LogError {
    let source = std::io::Error::other("its segments are removed faster than they can be opened");
    LogError::Unavailable { doing: format!("opening {}", folder.path().display()), source }
}

impl Cursor {
    /// A cursor before the first record that `from` asks for.
    pub(super) fn open(folder: &Folder, partitions: u32, tail: &mut Tail, from: &Positions) -> Result<Self, LogError> {
        let wanted: Vec<Option<u64>> = (0..partitions).map(|p| from.0.get(&p).copied()).collect();
        for _ in 0..TRIES {
            check_start(from, &bounds(folder, partitions, tail)?, partitions)?;
            if let Some(reader) = locate(folder, partitions, &tail.end(), &wanted)? {
                return Ok(Self { folder: folder.clone(), partitions, wanted, reader, following: None });
            }
        }
        Err(moving(folder))
    }

    /// Whether there is nothing to read before `end`.
    pub(super) fn is_at(&self, end: &End) -> bool {
        (self.reader.header().number, self.reader.offset()) >= (end.segment, end.offset)
    }

    /// Up to `max_records` records before `end`. An error comes only when what is before it was handed over, and comes
    /// again at the next call.
    pub(super) fn read(&mut self, end: &End, max_records: usize) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        while records.len() < max_records {
            match self.next(end) {
                Ok(Some(record)) => records.push(record),
                Err(error) if records.is_empty() => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(records)
    }

    fn next(&mut self, end: &End) -> Result<Option<Record>, LogError> {
        while !self.is_at(end) {
            let is_last = self.reader.header().number == end.segment;
            let limit = if is_last { Some(end.offset) } else { self.sealed_length()? };
            let Some(limit) = limit else {
                self.catch_up()?;
                continue;
            };
            match self.reader.next(limit)? {
                Step::Record(record) if self.takes(&record) => return Ok(Some(record)),
                Step::Record(_) => {}
                Step::End => self.follow()?,
                Step::Bad(why) => return Err(corrupt(self.reader.path(), self.reader.offset(), &why)),
            }
        }
        Ok(None)
    }

    /// Whether the record is the next one of an assigned partition; if so, it counts as read.
    fn takes(&mut self, record: &Record) -> bool {
        let next = usize::try_from(record.partition).ok().and_then(|p| self.wanted.get_mut(p)).and_then(Option::as_mut);
        match next {
            Some(next) if *next == record.position => {
                *next += 1;
                true
            }
            _ => false,
        }
    }

    /// Where this sealed segment ends, which the next one's header says; `None` when both are gone.
    fn sealed_length(&mut self) -> Result<Option<u64>, LogError> {
        if self.following.is_none() {
            self.following = SegmentReader::open(&self.folder, self.reader.header().number + 1, self.partitions)?;
        }
        Ok(self.following.as_ref().map(|following| following.header().previous_length))
    }

    /// Goes on to the next segment.
    fn follow(&mut self) -> Result<(), LogError> {
        let Some(following) = self.following.take() else { return Ok(()) };
        if self.reader.positions() != following.header().positions {
            let why =
                format!("the segment ends at positions {:?}, the next one begins elsewhere", self.reader.positions());
            self.following = Some(following);
            return Err(corrupt(self.reader.path(), self.reader.offset(), &why));
        }
        self.reader = following;
        Ok(())
    }

    /// After retention removed the segments that follow: goes on at the oldest one if nothing wanted was lost.
    fn catch_up(&mut self) -> Result<(), LogError> {
        let oldest = oldest(&self.folder, self.partitions)?;
        let missing = self.reader.header().number + 1;
        if oldest.header().number <= missing {
            return Err(LogError::Corrupt(format!("{} is missing", self.folder.segment(missing).display())));
        }
        for ((partition, start), wanted) in (0..).zip(&oldest.header().positions).zip(&self.wanted) {
            if let Some(wanted) = *wanted
                && wanted < *start
            {
                return Err(LogError::Truncated { partition, start: *start, wanted });
            }
        }
        self.reader = oldest;
        Ok(())
    }
}

/// The newest place before all of `wanted`; `None` when retention removed it meanwhile.
fn locate(
    folder: &Folder,
    partitions: u32,
    end: &End,
    wanted: &[Option<u64>],
) -> Result<Option<SegmentReader>, LogError> {
    for number in numbers(folder, end)?.into_iter().rev() {
        let Some(mut reader) = SegmentReader::open(folder, number, partitions)? else { return Ok(None) };
        let begins_before = reader.positions().iter().zip(wanted).all(|(at, w)| w.is_none_or(|w| *at <= w));
        if !begins_before {
            continue;
        }
        if number < end.segment {
            let Some(index) = Index::of_sealed(folder, number, partitions)? else { return Ok(None) };
            if let Some(entry) = index.before_positions(wanted) {
                reader.seek(entry.offset, &entry.positions);
            }
        }
        return Ok(Some(reader));
    }
    Ok(None)
}

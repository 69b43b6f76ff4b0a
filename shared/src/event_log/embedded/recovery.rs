//! Finding the end of a log that was stopped, crashed or lost power.
//! Sealed segments were synced before the next one began, so only the newest one is read, every byte checked. Bytes
//! behind the end marker were acknowledged: damage there is an error. The first bad bytes beyond it are where the crash
//! interrupted a write; a writer cuts them off.
//! On crash here: nothing was changed but bytes that no one was ever told about.

use std::fs::{File, OpenOptions};

use super::super::LogError;
use super::disk::Disk;
use super::durable::{self, End};
use super::folder::{Folder, corrupt, doing};
use super::index::Index;
use super::segment::{Header, SegmentReader};

/// How much is written again at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// The end of a log.
pub(super) struct Found {
    pub(super) end: End,
    pub(super) index: Index,
    /// The byte of the last segment up to which the end marker vouches.
    marked: u64,
    reader: SegmentReader,
}

/// Finds the end; `None` when the log has no segment yet. Changes nothing.
///
/// # Errors
/// [`LogError::Corrupt`] when acknowledged records are damaged or missing.
pub(super) fn find_end(folder: &Folder, partitions: u32) -> Result<Option<Found>, LogError> {
    let marker = durable::read(folder, partitions);
    let Some(mut reader) = newest(folder, partitions, marker.as_ref())? else { return Ok(None) };
    let segment = reader.header().number;
    let marker = marker.filter(|marker| marker.segment == segment);
    let marked = marker.as_ref().map_or(reader.offset(), |marker| marker.offset);
    let length = reader.file_length()?;
    let (index, stop) = Index::scan(&mut reader, length)?;
    if reader.offset() < marked {
        let why = stop.unwrap_or_else(|| format!("the file ends here, acknowledged records reach to byte {marked}"));
        return Err(corrupt(reader.path(), reader.offset(), &why));
    }
    let end = End { segment, offset: reader.offset(), positions: reader.positions().to_vec() };
    if marker.is_some_and(|marker| marker.offset == end.offset && marker != end) {
        return Err(corrupt(reader.path(), end.offset, "the end marker names other positions: this is another log's"));
    }
    Ok(Some(Found { end, index, marked, reader }))
}

/// The newest segment that was ever used.
fn newest(folder: &Folder, partitions: u32, marker: Option<&End>) -> Result<Option<SegmentReader>, LogError> {
    let numbers = folder.segments()?;
    let marked = marker.map(|marker| marker.segment);
    if let Some(marked) = marked
        && numbers.last().is_none_or(|last| *last < marked)
    {
        return Err(LogError::Corrupt(format!("{} is missing", folder.segment(marked).display())));
    }
    let Some(last) = numbers.last().copied() else { return Ok(None) };
    match SegmentReader::open(folder, last, partitions) {
        // A header is synced before the first record follows it: a damaged one without records was being created.
        Err(LogError::Corrupt(_)) if marked.is_none_or(|m| m < last) && is_bare(folder, last, partitions)? => {
            match last.checked_sub(1).filter(|before| numbers.contains(before)) {
                Some(before) => SegmentReader::open(folder, before, partitions),
                None if last == 0 => Ok(None),
                None => Err(corrupt(&folder.segment(last), 0, "the only segment has no readable header")),
            }
        }
        other => other,
    }
}

/// Whether a segment has no byte beyond its header.
fn is_bare(folder: &Folder, number: u64, partitions: u32) -> Result<bool, LogError> {
    let path = folder.segment(number);
    let metadata = path.metadata().map_err(doing(format!("looking at {}", path.display())))?;
    Ok(metadata.len() <= Header::length(partitions))
}

impl Found {
    /// For a reader while nobody writes: makes what was found durable without changing it.
    pub(super) fn settle(self) -> Result<End, LogError> {
        if self.end.offset > self.marked {
            self.reader.sync()?;
        }
        Ok(self.end)
    }

    /// For the writer: cuts off what a crash left behind the last whole record and makes the rest durable.
    /// Bytes the marker does not vouch for are written once more, because the sync that should have kept them may
    /// have failed and a second sync would not say so.
    pub(super) fn repair(self, folder: &Folder, disk: &dyn Disk) -> Result<(File, End, Index), LogError> {
        let path = folder.segment(self.end.segment);
        let failed = || doing(format!("repairing {}", path.display()));
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        if length > self.end.offset {
            let bytes = length - self.end.offset;
            tracing::warn!(path = %path.display(), bytes, "cut off what a crash left unfinished at the end of the log");
            disk.truncate(&file, self.end.offset).map_err(failed())?;
        }
        rewrite(&file, disk, self.marked, self.end.offset).map_err(failed())?;
        disk.sync(&file).map_err(failed())?;
        Ok((file, self.end, self.index))
    }
}

fn rewrite(file: &File, disk: &dyn Disk, mut from: u64, to: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut chunk = vec![0; CHUNK_BYTES];
    while from < to {
        let bytes = usize::try_from(to - from).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let Some(part) = chunk.get_mut(..bytes) else { break };
        file.read_exact_at(part, from)?;
        disk.write(file, part, from)?;
        from += u64::try_from(bytes).unwrap_or(u64::MAX);
    }
    Ok(())
}

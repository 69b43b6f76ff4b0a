//! From a time to positions: in each partition the first record appended at or after it.
//! Times may go back a little between neighbours, so segments are chosen by the latest time in them and read from the
//! last place before which everything is earlier.

use std::collections::BTreeSet;

use super::super::LogError;
use super::cursor::numbers;
use super::durable::{End, named};
use super::folder::{Folder, corrupt};
use super::index::Index;
use super::segment::{SegmentReader, Step};
use crate::progress::Positions;
use crate::time::Timestamp;

/// The positions at `time`; the end for partitions without a record that late.
pub(super) fn positions_at(
    folder: &Folder,
    partitions: u32,
    end: &End,
    time: Timestamp,
) -> Result<Positions, LogError> {
    let mut found = named(&end.positions);
    let mut open: BTreeSet<u32> = (0..partitions).collect();
    for number in numbers(folder, end)? {
        // Retention may remove the oldest segments meanwhile; what they held is older than what follows.
        let Some((mut reader, limit, index)) = segment(folder, partitions, end, number)? else { continue };
        let mut here: BTreeSet<u32> = open.iter().copied().filter(|p| index.reaches(*p, time)).collect();
        if let Some(entry) = index.before_time(time) {
            reader.seek(entry.offset, &entry.positions);
        }
        while !here.is_empty() {
            match reader.next(limit)? {
                Step::Record(record) if record.append_time >= time && here.remove(&record.partition) => {
                    open.remove(&record.partition);
                    found.0.insert(record.partition, record.position);
                }
                Step::Record(_) => {}
                Step::End => break,
                Step::Bad(why) => return Err(corrupt(reader.path(), reader.offset(), &why)),
            }
        }
    }
    Ok(found)
}

/// A segment, where it ends, and its index.
fn segment(
    folder: &Folder,
    partitions: u32,
    end: &End,
    number: u64,
) -> Result<Option<(SegmentReader, u64, Index)>, LogError> {
    let Some(mut reader) = SegmentReader::open(folder, number, partitions)? else { return Ok(None) };
    if number < end.segment {
        let index = Index::of_sealed(folder, number, partitions)?;
        return Ok(index.map(|index| (reader, index.length(), index)));
    }
    let (index, stop) = Index::scan(&mut reader, end.offset)?;
    if let Some(why) = stop {
        return Err(corrupt(reader.path(), reader.offset(), &why));
    }
    Ok(Some((reader, end.offset, index)))
}

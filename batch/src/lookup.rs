//! Rows of a file by id, without reading the file: bronze through the least and greatest hash of each page, silver by
//! halving, since it is in the order of the ids' hashes.
//! Guarantee: reads one page per probe, whatever the file's size. A bronze file out of order is only slower.

use arrow::array::{Int64Array, RecordBatch, StringArray};
use lake::convert::id_hash;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use crate::error::Error;
use crate::source::{Rows, Source, column};

/// Below so many rows, halving stops and the rest is read: about a page.
const PAGE_ROWS: u64 = 16 * 1024;

/// The rows of a bronze file with this hash, ascending.
pub(crate) fn by_hash(file: &Source, hash: i64) -> Result<Vec<u32>, Error> {
    let mut found = Vec::new();
    for (from, to) in pages(file, hash)? {
        let mut row = from;
        for batch in file.read(&["id_hash"], Rows::Range(from, to))? {
            for value in column::<Int64Array>(&batch?, "id_hash")?.values() {
                if *value == hash {
                    found.push(u32::try_from(row).unwrap_or(u32::MAX));
                }
                row += 1;
            }
        }
    }
    Ok(found)
}

/// The row ranges whose statistics allow for the hash; everything where there are no statistics.
fn pages(file: &Source, hash: i64) -> Result<Vec<(u64, u64)>, Error> {
    let footer = file.with_page_index()?;
    let metadata = footer.metadata();
    let schema = metadata.file_metadata().schema_descr();
    let place = schema.columns().iter().position(|c| c.name() == "id_hash").unwrap_or(usize::MAX);
    let (mut ranges, mut first) = (Vec::new(), 0);
    for (n, group) in metadata.row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let index = metadata.column_index().and_then(|all| all.get(n)?.get(place));
        let offsets = metadata.offset_index().and_then(|all| all.get(n)?.get(place));
        if let (Some(ColumnIndexMetaData::INT64(index)), Some(offsets)) = (index, offsets) {
            let locations = offsets.page_locations();
            let starts = locations.iter().map(|l| u64::try_from(l.first_row_index).unwrap_or(0));
            let ends = starts.clone().skip(1).chain([rows]);
            let bounds = index.min_values().iter().zip(index.max_values());
            let may = starts.zip(ends).zip(bounds).filter(|(_, (low, high))| (**low..=**high).contains(&hash));
            ranges.extend(may.map(|((from, to), _)| (first + from, first + to)));
        } else {
            ranges.push((first, first + rows));
        }
        first += rows;
    }
    Ok(ranges)
}

/// The rows of a silver file with this id, ascending.
pub(crate) fn by_id(file: &Source, id: &str) -> Result<Vec<u32>, Error> {
    let wanted = id_hash(id);
    let (mut from, mut to) = (0, file.rows());
    // The first row whose hash is not less lies in from..=to.
    while to - from > PAGE_ROWS {
        let middle = from + (to - from) / 2;
        if hash_at(file, middle)? < wanted { from = middle } else { to = middle }
    }
    let (mut found, mut row) = (Vec::new(), from);
    'rows: for batch in file.read(&["event_id"], Rows::Range(from, file.rows().min(to + PAGE_ROWS)))? {
        let batch: RecordBatch = batch?;
        for value in column::<StringArray>(&batch, "event_id")?.iter().flatten() {
            if value == id {
                found.push(u32::try_from(row).unwrap_or(u32::MAX));
            } else if id_hash(value) > wanted {
                break 'rows;
            }
            row += 1;
        }
    }
    Ok(found)
}

/// Whether a silver file can hold the id: its first and its last row tell.
pub(crate) fn can_hold(file: &Source, id: &str) -> Result<bool, Error> {
    let wanted = id_hash(id);
    Ok(file.rows() > 0 && hash_at(file, 0)? <= wanted && wanted <= hash_at(file, file.rows() - 1)?)
}

fn hash_at(file: &Source, row: u64) -> Result<i64, Error> {
    let mut batches = file.read(&["event_id"], Rows::Range(row, row + 1))?;
    let gone = || Error::Corrupt(format!("a silver file has no row {row}"));
    let batch = batches.next().ok_or_else(gone)??;
    let ids: &StringArray = column(&batch, "event_id")?;
    ids.iter().flatten().next().map(id_hash).ok_or_else(gone)
}

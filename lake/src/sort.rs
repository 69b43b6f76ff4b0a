//! Rows in any order → one file in the table's order.
//! Memory: the rows, their sort columns once more, and one slice of output; nothing is copied whole.

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat, interleave_record_batch, lexsort_to_indices};
use shared::time::Day;

use crate::error::Error;
use crate::file::{EncodedFile, ParquetFile};
use crate::tables::TableDef;

/// Rows copied into order at a time.
pub(crate) const SLICE_ROWS: usize = 16 * 1024;

/// One Parquet file of `day` with the rows of all batches, in the table's order. The bytes depend only on the rows,
/// not on how they were divided into batches.
///
/// # Errors
/// `Invalid` when the rows are not the table's.
pub fn sorted_file(
    def: &'static TableDef,
    day: Day,
    stem: &str,
    batches: &[RecordBatch],
) -> Result<EncodedFile, Error> {
    let mut file = ParquetFile::new(def, day, stem)?;
    let sources: Vec<&RecordBatch> = batches.iter().collect();
    for slice in order(def, batches)?.chunks(SLICE_ROWS) {
        let rows = interleave_record_batch(&sources, slice).map_err(|e| Error::arrow("sorting rows", e))?;
        file.write(&rows)?;
    }
    file.finish()
}

/// Every row as (batch, row), in the table's order.
fn order(def: &TableDef, batches: &[RecordBatch]) -> Result<Vec<(usize, usize)>, Error> {
    let sizes = batches.iter().enumerate();
    let rows: Vec<(usize, usize)> =
        sizes.flat_map(|(batch, b)| (0..b.num_rows()).map(move |row| (batch, row))).collect();
    if rows.is_empty() {
        return Ok(rows);
    }
    let keys = def.sort.iter().map(|name| key(batches, name)).collect::<Result<Vec<_>, _>>()?;
    let sorted = lexsort_to_indices(&keys, None).map_err(|e| Error::arrow("sorting rows", e))?;
    Ok(sorted.values().iter().filter_map(|i| rows.get(*i as usize).copied()).collect())
}

fn key(batches: &[RecordBatch], name: &str) -> Result<SortColumn, Error> {
    let columns = batches.iter().map(|b| b.column_by_name(name)).collect::<Option<Vec<_>>>();
    let columns = columns.ok_or_else(|| Error::Invalid(format!("these rows have no column {name}")))?;
    let columns: Vec<_> = columns.into_iter().map(AsRef::as_ref).collect();
    let values = concat(&columns).map_err(|e| Error::arrow("sorting rows", e))?;
    Ok(SortColumn { values, options: None })
}

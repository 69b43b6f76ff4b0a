//! Small tables as plain CSV (RFC 4180: CRLF, a header): what lies beside the lines of a settlement.
//! As in the files of lines, text that a spreadsheet would take for a formula has an apostrophe in front, which a
//! reader strips; text of ours that begins with one gets a second.

use csv::{QuoteStyle, ReaderBuilder, Terminator, WriterBuilder};

use super::Cells;
use super::csv::is_formula;

/// The file's bytes; `text` names the columns of free text.
pub(crate) fn write(
    columns: &[&str],
    text: &[&str],
    rows: impl Iterator<Item = Result<Cells, String>>,
) -> Result<Vec<u8>, String> {
    let mut csv =
        WriterBuilder::new().terminator(Terminator::CRLF).quote_style(QuoteStyle::Necessary).from_writer(Vec::new());
    csv.write_record(columns).map_err(|e| e.to_string())?;
    for row in rows {
        let mut cells = row?;
        for (cell, _) in cells.iter_mut().zip(columns).filter(|(_, column)| text.contains(column)) {
            if is_formula(cell) {
                cell.insert(0, '\'');
            }
        }
        csv.write_record(&cells).map_err(|e| e.to_string())?;
    }
    csv.into_inner().map_err(|e| e.to_string())
}

/// Calls `each` with the number and cells of every row.
pub(crate) fn read(
    bytes: &[u8],
    columns: &[&str],
    text: &[&str],
    each: &mut dyn FnMut(u64, Cells),
) -> Result<(), String> {
    let mut csv = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut records = csv.records();
    let header = records.next().ok_or("it has no header")?.map_err(|e| e.to_string())?;
    if header.iter().ne(columns.iter().copied()) {
        return Err(format!("its header is not {}", columns.join(",")));
    }
    for (number, record) in (1..).zip(records) {
        let record = record.map_err(|e| e.to_string())?;
        if record.len() != columns.len() {
            return Err(format!("row {number} has {} cells, not {}", record.len(), columns.len()));
        }
        let cell = |(cell, column): (&str, &&str)| {
            let bare = if text.contains(column) { cell.strip_prefix('\'').unwrap_or(cell) } else { cell };
            bare.to_owned()
        };
        each(number, record.iter().zip(columns).map(cell).collect());
    }
    Ok(())
}

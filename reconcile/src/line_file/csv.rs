//! Lines as CSV: RFC 4180 (CRLF, a header), gzipped without a time stamp.
//! A text cell that a spreadsheet would take for a formula gets a leading apostrophe; no cell of ours can begin
//! with one, so a reader strips it without doubt. Numbers are numbers and stay as they are.

use std::io::{Read, Write};

use csv::{QuoteStyle, ReaderBuilder, Terminator, WriterBuilder};
use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use shared::time::Day;

use super::Cells;
use crate::lines::{COLUMNS, Line};

/// The most bytes a file may unpack to: more is not one of ours.
const MAX_UNPACKED_BYTES: u64 = 4 << 30;
/// Fixed, because another level gives other bytes.
const LEVEL: u32 = 6;
/// "Unknown" in the gzip header: the same bytes on every system.
const NO_SYSTEM: u8 = 255;
/// The columns of free text.
const TEXT: [&str; 2] = ["campaign_id", "ad_id"];

pub(super) fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\''])
}

pub(super) fn write(day: Day, version: u32, lines: &[Line]) -> Result<Vec<u8>, String> {
    let packed = GzBuilder::new().mtime(0).operating_system(NO_SYSTEM).write(Vec::new(), Compression::new(LEVEL));
    let mut csv =
        WriterBuilder::new().terminator(Terminator::CRLF).quote_style(QuoteStyle::Necessary).from_writer(packed);
    csv.write_record(COLUMNS).map_err(|e| e.to_string())?;
    for line in lines {
        let mut cells = line.cells(day, version).map_err(|e| e.to_string())?;
        for (cell, column) in cells.iter_mut().zip(COLUMNS) {
            if TEXT.contains(&column) && is_formula(cell) {
                cell.insert(0, '\'');
            }
        }
        csv.write_record(&cells).map_err(|e| e.to_string())?;
    }
    csv.flush().map_err(|e| e.to_string())?;
    let mut packed = csv.into_inner().map_err(|e| e.to_string())?;
    packed.flush().map_err(|e| e.to_string())?;
    packed.finish().map_err(|e| e.to_string())
}

pub(super) fn read(bytes: &[u8], each: &mut dyn FnMut(Cells)) -> Result<(), String> {
    let unpacked = GzDecoder::new(bytes).take(MAX_UNPACKED_BYTES);
    let mut csv = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(unpacked);
    let mut records = csv.records();
    let header = records.next().ok_or("it has no header")?.map_err(|e| e.to_string())?;
    if header.iter().ne(COLUMNS) {
        return Err(format!("its header is not {}", COLUMNS.join(",")));
    }
    for record in records {
        let record = record.map_err(|e| e.to_string())?;
        each(record.iter().map(|cell| cell.strip_prefix('\'').unwrap_or(cell).to_owned()).collect());
    }
    Ok(())
}

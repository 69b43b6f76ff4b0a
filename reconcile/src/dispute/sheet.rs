//! A partner's file as rows of text: CSV (also gzipped) or Parquet. Any column type is read as its text.

use std::io::Read;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use flate2::read::GzDecoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Error;

/// A table of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheet {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows; a cell that is absent is empty.
    pub rows: Vec<Vec<String>>,
}

impl Sheet {
    /// From a file's bytes; what it is follows from them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they are neither CSV nor Parquet.
    pub fn read(bytes: Vec<u8>) -> Result<Self, Error> {
        if bytes.starts_with(b"PAR1") {
            return parquet(bytes.into());
        }
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            return csv(&bytes);
        }
        let mut plain = Vec::new();
        let unzipped = GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain);
        unzipped.map_err(|e| Error::Invalid(format!("their file does not unzip: {e}")))?;
        csv(&plain)
    }
}

fn csv(bytes: &[u8]) -> Result<Sheet, Error> {
    let bad = |e: csv::Error| Error::Invalid(format!("their file is not CSV: {e}"));
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let columns = reader.headers().map_err(bad)?.iter().map(str::to_owned).collect();
    let row = |r: Result<csv::StringRecord, csv::Error>| r.map(|r| r.iter().map(str::to_owned).collect()).map_err(bad);
    Ok(Sheet { columns, rows: reader.records().map(row).collect::<Result<_, _>>()? })
}

fn parquet(bytes: Bytes) -> Result<Sheet, Error> {
    let bad = |e: String| Error::Invalid(format!("their file is not Parquet: {e}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| bad(e.to_string()))?;
    let columns = reader.schema().fields().iter().map(|f| f.name().clone()).collect();
    let mut rows = Vec::new();
    for batch in reader.build().map_err(|e| bad(e.to_string()))? {
        let batch = batch.map_err(|e| bad(e.to_string()))?;
        let texts = batch.columns().iter().map(|c| cast(c, &DataType::Utf8)).collect::<Result<Vec<_>, _>>();
        let texts = texts.map_err(|e| bad(e.to_string()))?;
        for row in 0..batch.num_rows() {
            let cell = |c: &arrow::array::ArrayRef| match c.as_string_opt::<i32>() {
                Some(text) if !text.is_null(row) => text.value(row).to_owned(),
                _ => String::new(),
            };
            rows.push(texts.iter().map(cell).collect());
        }
    }
    Ok(Sheet { columns, rows })
}

//! Rows → one Parquet file in memory, with the statistics that its Delta log entry states.
//! Guarantee: the same rows give the same bytes on every machine and at every time (fixed writer, no clock, no thread
//! count); the name carries the content's SHA-256, so a file that is written again is the same file.
//! Never: touches a store ([`crate::table::Table::store`] does).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use shared::time::{Day, Timestamp};

use crate::error::Error;
use crate::tables::{BRONZE_EVENTS, ColumnType, PARTITION_COLUMN, SILVER_EVENTS, TableDef};

/// Rows in a row group: what a reader skips or reads as one.
pub const ROW_GROUP_ROWS: usize = 128 * 1024;
/// How hard the archive is packed, and what is computed from it: that costs less than half and is hardly larger.
const ZSTD_LEVEL: i32 = 3;
const DERIVED_ZSTD_LEVEL: i32 = 1;
/// Text that hardly repeats: a dictionary of it is built in vain.
const UNIQUE: [&str; 5] = ["event_id", "impression_id", "bid_request_id", "traceparent", "repeat_of"];
/// A hash: nothing packs it.
const RANDOM: &str = "fingerprint";
const CREATED_BY: &str = "clickledger";

/// A Parquet file being built in memory: a day's rows in the table's order.
pub struct ParquetFile {
    def: &'static TableDef,
    day: Day,
    stem: String,
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    ranges: BTreeMap<&'static str, (i64, i64)>,
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParquetFile({}, {}, {} rows)", self.def.name, self.day, self.rows)
    }
}

/// A finished file that is not stored yet.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    /// What it will be in the table.
    pub file: NewFile,
    /// The bytes.
    pub bytes: Bytes,
}

/// A file as a commit adds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The path within the table's folder.
    pub path: String,
    /// The partition.
    pub day: Day,
    /// Its length in bytes.
    pub size: u64,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Least and greatest value of the columns in [`TableDef::stats`] (times in microseconds).
    pub ranges: BTreeMap<&'static str, (i64, i64)>,
}

impl ParquetFile {
    /// An empty file of `day`. `stem` starts its name and must be new for every write that is not the same work done
    /// again (letters, digits, `-`, `_`, `.`).
    ///
    /// # Errors
    /// `Invalid` when the stem is not a file name.
    pub fn new(def: &'static TableDef, day: Day, stem: &str) -> Result<Self, Error> {
        let clean = stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if stem.is_empty() || !clean {
            return Err(Error::Invalid(format!("{stem:?} is not a file name")));
        }
        let options = ArrowWriterOptions::new().with_properties(layout(def)?.build()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), def.file_schema(), options)
            .map_err(|e| Error::arrow("starting a Parquet file", e))?;
        Ok(Self { def, day, stem: stem.to_owned(), writer, rows: 0, ranges: BTreeMap::new() })
    }

    /// Adds rows, which must have [`TableDef::file_schema`], text perhaps as dictionaries, and be in the table's order.
    /// The bytes are those of the plain text.
    ///
    /// # Errors
    /// `Invalid` when the rows are not the table's.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        if !is_of(batch, self.def) {
            return Err(Error::Invalid(format!("these rows are not rows of {}", self.def.name)));
        }
        for name in self.def.stats {
            let column = self.def.column(name).zip(batch.column_by_name(name));
            if let Some((low, high)) = column.and_then(|(c, values)| range(c.kind, values)) {
                let seen = self.ranges.entry(name).or_insert((low, high));
                *seen = (seen.0.min(low), seen.1.max(high));
            }
        }
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|e| Error::arrow("writing Parquet", e))
    }

    /// About how many bytes the file has by now.
    #[must_use]
    pub fn size(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// The rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Finishes the file.
    ///
    /// # Errors
    /// `Corrupt` when the encoder fails.
    pub fn finish(self) -> Result<EncodedFile, Error> {
        let bytes = self.writer.into_inner().map_err(|e| Error::arrow("finishing a Parquet file", e))?;
        let sha256 = hex(&Sha256::digest(&bytes));
        let short = sha256.get(..16).unwrap_or(&sha256);
        let path = format!("{PARTITION_COLUMN}={}/{}-{short}.parquet", self.day, self.stem);
        let size = bytes.len() as u64;
        let file = NewFile { path, day: self.day, size, rows: self.rows, sha256, ranges: self.ranges };
        Ok(EncodedFile { file, bytes: bytes.into() })
    }
}

impl NewFile {
    /// The statistics of the Delta log entry.
    pub(crate) fn stats(&self, def: &TableDef) -> String {
        let (mut low, mut high, mut nulls) = (Map::new(), Map::new(), Map::new());
        for (name, (from, to)) in &self.ranges {
            let is_time = def.column(name).is_some_and(|c| c.kind == ColumnType::Time);
            let json = |v: i64| if is_time { Timestamp(v).to_string().into() } else { Value::from(v) };
            low.insert((*name).to_owned(), json(*from));
            high.insert((*name).to_owned(), json(*to));
            nulls.insert((*name).to_owned(), 0.into());
        }
        serde_json::json!({ "numRecords": self.rows, "minValues": low, "maxValues": high, "nullCount": nulls })
            .to_string()
    }
}

/// Reads back the ranges of [`NewFile::stats`]; what is absent or of another form is left out.
pub(crate) fn ranges_of(def: &TableDef, stats: &str) -> BTreeMap<&'static str, (i64, i64)> {
    let Ok(stats) = serde_json::from_str::<Value>(stats) else { return BTreeMap::new() };
    let bound = |which: &str, name: &str| match stats.get(which)?.get(name)? {
        Value::String(time) => Timestamp::parse(time).map(|t| t.0),
        value => value.as_i64(),
    };
    let range = |name: &'static str| Some((name, (bound("minValues", name)?, bound("maxValues", name)?)));
    def.stats.iter().filter_map(|name| range(name)).collect()
}

/// Whether the rows are the table's.
fn is_of(batch: &RecordBatch, def: &TableDef) -> bool {
    let is_same = |(given, wanted): (&Arc<Field>, &Arc<Field>)| {
        let kind = match given.data_type() {
            DataType::Dictionary(_, words) => words.as_ref(),
            plain => plain,
        };
        (given.name(), kind, given.is_nullable()) == (wanted.name(), wanted.data_type(), wanted.is_nullable())
    };
    let (given, wanted) = (batch.schema(), def.file_schema());
    given.fields().len() == wanted.fields().len() && given.fields().iter().zip(wanted.fields()).all(is_same)
}

/// How a table's columns are packed.
///
/// # Errors
/// None that can happen: the levels are there.
pub fn layout(def: &TableDef) -> Result<WriterPropertiesBuilder, Error> {
    let level = if def.append_only { ZSTD_LEVEL } else { DERIVED_ZSTD_LEVEL };
    let level = ZstdLevel::try_new(level).map_err(|e| Error::arrow("choosing a compression", e))?;
    let by_hash = [BRONZE_EVENTS.name, SILVER_EVENTS.name].contains(&def.name);
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    for column in def.columns.iter().filter(|c| c.name != PARTITION_COLUMN) {
        let path = || ColumnPath::from(column.name);
        if def.stats.contains(&column.name) {
            builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::Page);
        } else if def.sort.first() == Some(&column.name) {
            // Bounds of what the rows are ordered by; any other column has nearly everything in every chunk.
            builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::Chunk);
        }
        let is_stated = column.kind == ColumnType::Long && def.stats.contains(&column.name);
        if is_stated || column.kind == ColumnType::Time {
            // Hashes, times and positions hardly repeat: differences pack better than a dictionary, and no further.
            builder = builder
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
            if by_hash {
                builder = builder.set_column_compression(path(), Compression::UNCOMPRESSED);
            }
        } else if column.kind == ColumnType::Bytes || UNIQUE.contains(&column.name) {
            // The lengths apart: the packer has only the text itself to look at, mostly digits without a pattern.
            builder = builder
                .set_column_dictionary_enabled(path(), false)
                .set_column_encoding(path(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
        }
        if column.name == RANDOM {
            builder = builder.set_column_compression(path(), Compression::UNCOMPRESSED);
        }
    }
    Ok(builder)
}

fn range(kind: ColumnType, values: &ArrayRef) -> Option<(i64, i64)> {
    fn of<T: ArrowPrimitiveType>(values: Option<&PrimitiveArray<T>>) -> Option<(i64, i64)>
    where
        T::Native: Into<i64>,
    {
        let values = values?;
        Some((min(values)?.into(), max(values)?.into()))
    }
    match kind {
        ColumnType::Long => of::<Int64Type>(values.as_primitive_opt()),
        ColumnType::Int => of::<Int32Type>(values.as_primitive_opt()),
        ColumnType::Time => of::<TimestampMicrosecondType>(values.as_primitive_opt()),
        _ => None,
    }
    .filter(|_| values.null_count() == 0)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

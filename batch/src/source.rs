//! One Parquet file of the lake, read by columns and by rows: all of them, a range, or a list.
//! Guarantee: only the pages that hold the wanted rows are fetched. Runs on a thread that may block.
//! Never: knows what the columns mean.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};
use lake::run_record::OutputFile;
use lake::table::{DataFile, Table};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use tokio::runtime::Handle;

use crate::error::Error;

/// Bytes at the end of a file that are fetched at once: most footers are smaller.
const FOOTER_BYTES: usize = 64 * 1024;
/// Rows in a batch.
const BATCH_ROWS: usize = 16 * 1024;

/// Which rows of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// Every one.
    All,
    /// A range.
    Range(u64, u64),
    /// These, ascending.
    These(&'a [u32]),
}

/// A file, with its footer where it is read often.
#[derive(Clone)]
pub(crate) struct Source {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    rows: u64,
    footer: Option<ArrowReaderMetadata>,
    handle: Handle,
}

/// Where a file is and what its table states of it.
#[cfg(feature = "ballista")]
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    path: String,
    size: u64,
    rows: u64,
}

impl Source {
    /// A file as its table states it. Reads nothing yet.
    pub(crate) fn new(store: &Arc<dyn ObjectStore>, file: &DataFile) -> Self {
        let (path, handle) = (file.object_path.clone(), Handle::current());
        Self { store: store.clone(), path, size: file.size, rows: file.rows, footer: None, handle }
    }

    /// A file at a place that another process told. Reads nothing yet.
    ///
    /// # Errors
    /// When the path is none.
    #[cfg(feature = "ballista")]
    pub(crate) fn at(store: &Arc<dyn ObjectStore>, Place { path, size, rows }: Place) -> Result<Self, Error> {
        let path = Path::parse(&path).map_err(|e| Error::Corrupt(format!("the path of a file: {e}")))?;
        Ok(Self { store: store.clone(), path, size, rows, footer: None, handle: Handle::current() })
    }

    /// Where it is, for another process.
    #[cfg(feature = "ballista")]
    pub(crate) fn place(&self) -> Place {
        Place { path: self.path.to_string(), size: self.size, rows: self.rows }
    }

    /// A file of `table` as a run record names it. Reads nothing yet.
    pub(crate) fn named(store: &Arc<dyn ObjectStore>, table: &Table, file: &OutputFile) -> Self {
        let path = table.root().path(&format!("{}/{}", table.def().name, file.path));
        Self { store: store.clone(), path, size: file.bytes, rows: file.rows, footer: None, handle: Handle::current() }
    }

    /// The same file with its footer kept in memory.
    pub(crate) fn opened(self) -> Result<Self, Error> {
        let footer = self.footer()?;
        Ok(Self { footer: Some(footer), ..self })
    }

    /// How many rows it has.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn footer(&self) -> Result<ArrowReaderMetadata, Error> {
        match &self.footer {
            Some(footer) => Ok(footer.clone()),
            None => self.load(PageIndexPolicy::Skip),
        }
    }

    /// The footer with the least and greatest values of every page that states them.
    pub(crate) fn with_page_index(&self) -> Result<ArrowReaderMetadata, Error> {
        self.load(PageIndexPolicy::Optional)
    }

    fn load(&self, column_index: PageIndexPolicy) -> Result<ArrowReaderMetadata, Error> {
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(column_index)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let mut reader = self.reader();
        let footer = self.handle.block_on(ArrowReaderMetadata::load_async(&mut reader, options));
        let footer = footer.map_err(|e| self.failed(&e))?;
        let held = u64::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
        if held == self.rows {
            return Ok(footer);
        }
        Err(Error::Corrupt(format!("{} holds {held} rows, the table states {}", self.path, self.rows)))
    }

    fn reader(&self) -> StoredFile {
        StoredFile { store: self.store.clone(), path: self.path.clone(), size: self.size }
    }

    /// The same file with text columns `names` read as dictionaries, so that equal values are judged once.
    pub(crate) fn with_dictionaries(&self, names: &[&str]) -> Result<Self, Error> {
        let as_dictionary = |field: &Arc<Field>| {
            if names.contains(&field.name().as_str()) {
                let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
                Arc::new(Field::new(field.name(), kind, field.is_nullable()))
            } else {
                field.clone()
            }
        };
        let footer = self.footer()?;
        let schema = Schema::new(footer.schema().fields().iter().map(as_dictionary).collect::<Vec<_>>());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
        let footer = ArrowReaderMetadata::try_new(footer.metadata().clone(), options).map_err(|e| self.failed(&e))?;
        Ok(Self { footer: Some(footer), ..self.clone() })
    }

    /// The wanted columns of the wanted rows, in row order.
    pub(crate) fn read(&self, columns: &[&str], rows: Rows<'_>) -> Result<Batches, Error> {
        let footer = self.footer()?;
        let mask = ProjectionMask::columns(footer.parquet_schema(), columns.iter().copied());
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(), footer.clone())
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS);
        let total = usize::try_from(self.rows()).unwrap_or(usize::MAX);
        let selection = match rows {
            Rows::All => None,
            Rows::Range(from, to) => Some(select(std::iter::once(index(from)..index(to)), total)),
            Rows::These(rows) => Some(select(runs(rows), total)),
        };
        if let Some(selection) = selection {
            let (groups, parts) = touched(footer.metadata(), selection);
            builder = builder.with_row_groups(groups).with_row_selection(parts);
        }
        let stream = builder.build().map_err(|e| self.failed(&e))?;
        Ok(Batches { source: self.clone(), stream })
    }

    fn failed(&self, error: &ParquetError) -> Error {
        Error::parquet(&format!("reading {}", self.path), error)
    }
}

/// The row groups that hold a selected row, and the selection counted over those only.
fn touched(file: &ParquetMetaData, mut selection: RowSelection) -> (Vec<usize>, RowSelection) {
    let (mut groups, mut selectors) = (Vec::new(), Vec::new());
    for (i, group) in file.row_groups().iter().enumerate() {
        let part = selection.split_off(usize::try_from(group.num_rows()).unwrap_or(0));
        if part.selects_any() {
            groups.push(i);
            selectors.extend(part.iter().copied());
        }
    }
    (groups, selectors.into())
}

/// The batches of one read.
pub(crate) struct Batches {
    source: Source,
    stream: ParquetRecordBatchStream<StoredFile>,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.source.handle.block_on(self.stream.next())?;
        Some(next.map_err(|e| self.source.failed(&e)))
    }
}

/// The bytes of a stored file, as the Parquet reader asks for them.
pub(crate) struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.store.get_range(&self.path, range).await }.map_err(ParquetError::from).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await }.map_err(ParquetError::from).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        let (reader, size) = (reader.with_prefetch_hint(Some(FOOTER_BYTES)), self.size);
        async move { reader.load_and_finish(self, size).await.map(Arc::new) }.boxed()
    }
}

fn index(row: u64) -> usize {
    usize::try_from(row).unwrap_or(usize::MAX)
}

fn select(ranges: impl Iterator<Item = Range<usize>>, total: usize) -> RowSelection {
    RowSelection::from_consecutive_ranges(ranges, total)
}

/// Ascending rows as ranges.
fn runs(rows: &[u32]) -> impl Iterator<Item = Range<usize>> + '_ {
    rows.chunk_by(|a, b| a.checked_add(1) == Some(*b)).filter_map(|run| {
        let (first, last) = (run.first()?, run.last()?);
        Some(*first as usize..*last as usize + 1)
    })
}

/// A column by name and type.
pub(crate) fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, Error> {
    batch
        .column_by_name(name)
        .and_then(|c| c.as_any().downcast_ref())
        .ok_or_else(|| Error::Corrupt(format!("column {name} is missing or has another type")))
}

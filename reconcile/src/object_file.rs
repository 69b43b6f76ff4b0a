//! A Parquet file in an object store, read in ranges.
//! Reads only the row groups and columns that are asked for. Writes: nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// One file of known size.
pub(crate) struct ObjectFile {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) size: u64,
}

/// The row groups that hold a row of `wanted`, and the selection of these rows counted over those groups.
pub(crate) fn select(file: &ParquetMetaData, wanted: Range<u64>) -> (Vec<usize>, RowSelection) {
    let (mut groups, mut ranges, mut first, mut counted) = (Vec::new(), Vec::new(), 0_u64, 0_usize);
    for (i, group) in file.row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let within = |row: u64| usize::try_from(row.clamp(first, first + rows) - first).unwrap_or(usize::MAX);
        let (from, to) = (within(wanted.start), within(wanted.end));
        if from < to {
            groups.push(i);
            ranges.push(counted + from..counted + to);
            counted += within(first + rows);
        }
        first += rows;
    }
    (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), counted))
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ObjectFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        reader.load_and_finish(self, size).map_ok(Arc::new).boxed()
    }
}

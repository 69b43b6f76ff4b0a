//! A table's file → its rows, some columns or all. Local files are read in place, others are fetched whole.
//! Never: decides which files to read ([`crate::table::Table::files`] says what there is).

use std::fs::File;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderBuilder, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use crate::error::Error;
use crate::table::{DataFile, Table};

/// Rows in a batch that is read.
pub const BATCH_ROWS: usize = 8 * 1024;

impl Table {
    /// A reader of one file's rows in file order, [`BATCH_ROWS`] at a time, of the columns named (in the table's order)
    /// or of all.
    ///
    /// # Errors
    /// `Corrupt` when the file is missing or not Parquet; `Unavailable`.
    pub async fn read(&self, file: &DataFile, columns: Option<&[&str]>) -> Result<Rows, Error> {
        let rows = match self.root().folder() {
            Some(folder) => {
                let path = folder.join(self.def().name).join(&file.path);
                match File::open(&path) {
                    Ok(opened) => rows(opened, columns),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                        return Err(Error::Corrupt(format!("{} is missing", path.display())));
                    }
                    Err(e) => return Err(Error::unavailable(format!("opening {}", path.display()), e)),
                }
            }
            None => rows(self.fetch(file).await?, columns),
        };
        let reader = rows.map_err(|e| Error::Corrupt(format!("{}/{}: {e}", self.def().name, file.path)))?;
        let schema = match columns {
            Some(columns) => wanted(&self.def().file_schema(), columns),
            None => self.def().file_schema(),
        };
        Ok(Rows { reader, schema, path: file.path.clone() })
    }

    async fn fetch(&self, file: &DataFile) -> Result<Bytes, Error> {
        let read = || format!("reading {}/{}", self.def().name, file.path);
        let got = self.root().store().get(&file.object_path).await.map_err(|e| Error::storage(read(), e))?;
        got.bytes().await.map_err(|e| Error::storage(read(), e))
    }
}

/// The rows of one file. Reading is blocking work.
pub struct Rows {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    path: String,
}

impl Iterator for Rows {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.reader.next()?;
        Some(batch.and_then(|b| widen(&b, &self.schema)).map_err(|e| Error::Corrupt(format!("{}: {e}", self.path))))
    }
}

fn wanted(schema: &SchemaRef, columns: &[&str]) -> SchemaRef {
    let fields = schema.fields().iter().filter(|f| columns.contains(&f.name().as_str())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

/// The batch with the columns that the table got after the file was written, as nulls.
fn widen(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |f: &FieldRef| match batch.column_by_name(f.name()) {
        Some(values) => Arc::clone(values),
        None => new_null_array(f.data_type(), batch.num_rows()),
    };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), schema.fields().iter().map(column).collect(), &options)
}

fn rows<T: ChunkReader + 'static>(
    source: T,
    columns: Option<&[&str]>,
) -> Result<ParquetRecordBatchReader, parquet::errors::ParquetError> {
    let builder: ArrowReaderBuilder<_> = ParquetRecordBatchReaderBuilder::try_new(source)?;
    let mask = match columns {
        Some(columns) => ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied()),
        None => ProjectionMask::all(),
    };
    builder.with_batch_size(BATCH_ROWS).with_projection(mask).build()
}

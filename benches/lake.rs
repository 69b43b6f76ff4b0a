//! What the layout of bronze is worth: the same rows of a real bronze table, written once in every layout, each with its
//! bytes and its CPU time per event. The first is what the lake writes; each other one changes one thing.
//! Prints JSON. Never: writes to the table.

#[allow(dead_code)] // it needs only a part of it
mod support;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use clap::Parser;
use lake::file::layout;
use lake::tables::BRONZE_EVENTS;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterPropertiesBuilder;
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};

use crate::support::cpu_seconds;

/// Rows handed to the writer at a time, as the lake does.
const SLICE_ROWS: usize = 16 * 1024;

#[derive(Debug, Parser)]
struct Args {
    /// A lake's folder.
    #[arg(long)]
    lake: PathBuf,
    /// At least so many rows (if there are so many), whole files.
    #[arg(long, default_value_t = 500_000)]
    rows: usize,
    /// `cargo bench` gives it.
    #[arg(long, hide = true)]
    bench: bool,
}

type Change = fn(WriterPropertiesBuilder) -> anyhow::Result<WriterPropertiesBuilder>;

/// Name, the columns that order the rows, and what is changed of the lake's writer.
const LAYOUTS: [(&str, &[&str], Change); 10] = [
    ("as the lake writes it", &["id_hash", "partition", "position"], Ok),
    ("in the order of the log", &["partition", "position"], Ok),
    ("by ad and time", &["ad_id", "event_time"], Ok),
    ("no dictionary", &["id_hash", "partition", "position"], |b| {
        Ok(columns(b, |b, c| b.set_column_dictionary_enabled(c, false)))
    }),
    ("times plain, zstd", &["id_hash", "partition", "position"], |b| Ok(times(b, Encoding::PLAIN))),
    ("times split by byte, zstd", &["id_hash", "partition", "position"], |b| Ok(times(b, Encoding::BYTE_STREAM_SPLIT))),
    ("ids plain", &["id_hash", "partition", "position"], |b| {
        let ids = ["event_id", "impression_id"].into_iter();
        Ok(ids.fold(b, |b, id| b.set_column_encoding(ColumnPath::from(id), Encoding::PLAIN)))
    }),
    ("zstd 1", &["id_hash", "partition", "position"], |b| zstd(b, 1)),
    ("zstd 9", &["id_hash", "partition", "position"], |b| zstd(b, 9)),
    ("zstd 19", &["id_hash", "partition", "position"], |b| zstd(b, 19)),
];

fn columns(
    builder: WriterPropertiesBuilder,
    change: impl Fn(WriterPropertiesBuilder, ColumnPath) -> WriterPropertiesBuilder,
) -> WriterPropertiesBuilder {
    BRONZE_EVENTS.columns.iter().fold(builder, |b, column| change(b, ColumnPath::from(column.name)))
}

fn times(builder: WriterPropertiesBuilder, encoding: Encoding) -> WriterPropertiesBuilder {
    let zstd = Compression::ZSTD(ZstdLevel::default());
    ["event_time", "ingest_time", "billing_time", "position"].into_iter().fold(builder, |b, time| {
        let column = || ColumnPath::from(time);
        b.set_column_encoding(column(), encoding).set_column_compression(column(), zstd)
    })
}

/// Another level where zstd is used at all.
fn zstd(builder: WriterPropertiesBuilder, level: i32) -> anyhow::Result<WriterPropertiesBuilder> {
    Ok(builder.set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?)))
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let rows = read(&args)?;
    let mut figures = Vec::new();
    for (name, order, change) in LAYOUTS {
        let sorted = sort(&rows, order)?;
        figures.push(write(name, &sorted, change)?);
    }
    println!("{}", json!({ "rows": rows.num_rows(), "layouts": figures }));
    Ok(())
}

fn read(args: &Args) -> anyhow::Result<RecordBatch> {
    let mut files = Vec::new();
    for day in std::fs::read_dir(args.lake.join(BRONZE_EVENTS.name))? {
        let day = day?.path();
        if day.is_dir() {
            files.extend(std::fs::read_dir(day)?.map(|f| f.map(|f| f.path())).collect::<Result<Vec<_>, _>>()?);
        }
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    let (mut batches, mut rows) = (Vec::new(), 0);
    for file in files {
        if rows < args.rows {
            let read = rows_of(&file).with_context(|| file.display().to_string())?;
            rows += read.iter().map(RecordBatch::num_rows).sum::<usize>();
            batches.extend(read);
        }
    }
    ensure!(rows > 0, "no rows in {}", args.lake.display());
    Ok(concat_batches(&BRONZE_EVENTS.file_schema(), &batches)?)
}

fn rows_of(file: &Path) -> anyhow::Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.build()?;
    let schema = BRONZE_EVENTS.file_schema();
    reader.map(|b| Ok(RecordBatch::try_new(Arc::clone(&schema), b?.columns().to_vec())?)).collect()
}

fn sort(rows: &RecordBatch, order: &[&str]) -> anyhow::Result<RecordBatch> {
    let key = |name: &&str| {
        let values: ArrayRef = Arc::clone(rows.column_by_name(name).context("no such column")?);
        Ok(SortColumn { values, options: None })
    };
    let keys = order.iter().map(key).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(take_record_batch(rows, &lexsort_to_indices(&keys, None)?)?)
}

fn write(name: &str, rows: &RecordBatch, change: Change) -> anyhow::Result<Value> {
    let properties = change(layout(&BRONZE_EVENTS)?)?.build();
    let cpu = cpu_seconds()?;
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    for at in (0..rows.num_rows()).step_by(SLICE_ROWS) {
        writer.write(&rows.slice(at, SLICE_ROWS.min(rows.num_rows() - at)))?;
    }
    let bytes = writer.into_inner()?;
    let (events, cpu) = (rows.num_rows() as f64, cpu_seconds()? - cpu);
    let (size, nanos) = (bytes.len() as f64 / events, cpu / events * 1e9);
    Ok(json!({ "name": name, "bytesPerEvent": size, "cpuNanosPerEvent": nanos }))
}

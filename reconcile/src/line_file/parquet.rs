//! Lines as Parquet: one fixed writer configuration, no metadata of ours, so the same lines are the same bytes.
//! The column `cost` is left out: a decimal is for people, and `cost_micros` says the same.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Field, Int32Type, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use shared::time::Day;

use super::Cells;
use crate::lines::{COLUMNS, EXCLUDED, Line, decimal};

/// Rows in a row group.
const GROUP_ROWS: usize = 128 * 1024;
/// Fixed, because another level gives other bytes.
const LEVEL: i32 = 3;
/// Where `cost` stands among the columns.
const COST: &str = "cost";

fn kind(column: &str) -> DataType {
    match column {
        "day" => DataType::Date32,
        "version" => DataType::Int32,
        "campaign_id" | "ad_id" | "currency" | "price_model" => DataType::Utf8,
        "cost_nanos" => DataType::Decimal128(38, 0),
        _ => DataType::Int64,
    }
}

fn columns() -> impl Iterator<Item = &'static str> {
    COLUMNS.into_iter().filter(|name| *name != COST)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(columns().map(|name| Field::new(name, kind(name), false)).collect::<Vec<_>>()))
}

fn properties() -> Result<WriterProperties, String> {
    let level = ZstdLevel::try_new(LEVEL).map_err(|e| e.to_string())?;
    Ok(WriterProperties::builder()
        .set_created_by("clickledger".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build())
}

pub(super) fn write(day: Day, version: u32, lines: &[Line]) -> Result<Vec<u8>, String> {
    let options = ArrowWriterOptions::new().with_properties(properties()?).with_skip_arrow_metadata(true);
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut file, schema(), options).map_err(|e| e.to_string())?;
    for chunk in lines.chunks(GROUP_ROWS) {
        let batch = batch(day, version, chunk)?;
        writer.write(&batch).map_err(|e| e.to_string())?;
    }
    writer.close().map_err(|e| e.to_string())?;
    Ok(file)
}

fn batch(day: Day, version: u32, lines: &[Line]) -> Result<RecordBatch, String> {
    let version = i32::try_from(version).map_err(|e| e.to_string())?;
    let text =
        |get: fn(&Line) -> &str| -> ArrayRef { Arc::new(lines.iter().map(|l| Some(get(l))).collect::<StringArray>()) };
    let count = |get: &dyn Fn(&Line) -> Option<u64>| -> Result<ArrayRef, String> {
        let values: Result<Vec<i64>, String> = lines
            .iter()
            .map(|l| get(l).and_then(|n| i64::try_from(n).ok()).ok_or_else(|| "a count overflows".to_owned()))
            .collect();
        Ok(Arc::new(Int64Array::from(values?)))
    };
    let nanos = Decimal128Array::from_iter_values(lines.iter().map(|l| l.counts.cost_nanos));
    let micros: Result<Vec<i64>, String> = lines.iter().map(|l| l.cost_micros().map_err(|e| e.to_string())).collect();
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Date32Array::from(vec![day.0; lines.len()])),
        Arc::new(Int32Array::from(vec![version; lines.len()])),
        text(|l| l.key.campaign_id.as_str()),
        text(|l| l.key.ad_id.as_str()),
        text(|l| l.key.currency.as_str()),
        text(|l| l.key.price_model),
        count(&|l| Some(l.key.price_version.into()))?,
        count(&|l| Some(l.counts.impressions))?,
        count(&|l| Some(l.counts.clicks))?,
        count(&|l| Some(l.counts.conversions))?,
        Arc::new(nanos.with_precision_and_scale(38, 0).map_err(|e| e.to_string())?),
        Arc::new(Int64Array::from(micros?)),
    ];
    for i in 0..EXCLUDED.len() {
        arrays.push(count(&|l| l.excluded.get(i).copied())?);
    }
    RecordBatch::try_new(schema(), arrays).map_err(|e| e.to_string())
}

/// Reads any bytes: the Parquet library panics on some that are not a file of its own, which here is an answer.
pub(super) fn read(bytes: Bytes, each: &mut dyn FnMut(Cells)) -> Result<(), String> {
    let decoding = AssertUnwindSafe(|| decode(bytes, each));
    std::panic::catch_unwind(decoding).unwrap_or_else(|_| Err("it is no Parquet file".to_owned()))
}

fn decode(bytes: Bytes, each: &mut dyn FnMut(Cells)) -> Result<(), String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let names: Vec<String> = reader.schema().fields().iter().map(|f| f.name().clone()).collect();
    if !names.iter().map(String::as_str).eq(columns()) {
        return Err(format!("its columns are not {}", columns().collect::<Vec<_>>().join(", ")));
    }
    for batch in reader.build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        if let Some(column) = batch.columns().iter().zip(&names).find(|(c, _)| c.null_count() > 0) {
            return Err(format!("column {} has nulls", column.1));
        }
        for row in 0..batch.num_rows() {
            each(cells(&batch, row)?);
        }
    }
    Ok(())
}

/// Calls `each` with the rows of one campaign and their numbers in the file, the first of which is 1. Only those are
/// made into text.
pub(crate) fn of_campaign(bytes: Bytes, campaign: &str, each: &mut dyn FnMut(u64, Cells)) -> Result<(), String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| e.to_string())?;
    let mut number = 0;
    for batch in reader.build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        let ids = batch.column_by_name("campaign_id").and_then(|c| c.as_string_opt::<i32>());
        let ids = ids.ok_or("it has no column campaign_id")?;
        for (row, id) in ids.iter().enumerate() {
            number += 1;
            if id == Some(campaign) {
                each(number, cells(&batch, row)?);
            }
        }
    }
    Ok(())
}

fn cells(batch: &RecordBatch, row: usize) -> Result<Cells, String> {
    let mut cells = Cells::with_capacity(COLUMNS.len());
    for (column, name) in batch.columns().iter().zip(columns()) {
        let cell = cell(column, row).ok_or_else(|| format!("column {name} has another type than {}", kind(name)))?;
        cells.push(cell);
        if name == "cost_micros" {
            let micros = column.as_primitive_opt::<Int64Type>().map(|c| c.value(row)).unwrap_or_default();
            cells.push(decimal(micros));
        }
    }
    Ok(cells)
}

fn cell(column: &ArrayRef, row: usize) -> Option<String> {
    Some(match column.data_type() {
        DataType::Date32 => Day(column.as_primitive_opt::<Date32Type>()?.value(row)).to_string(),
        DataType::Int32 => column.as_primitive_opt::<Int32Type>()?.value(row).to_string(),
        DataType::Int64 => column.as_primitive_opt::<Int64Type>()?.value(row).to_string(),
        DataType::Decimal128(38, 0) => column.as_primitive_opt::<Decimal128Type>()?.value(row).to_string(),
        DataType::Utf8 => column.as_string_opt::<i32>()?.value(row).to_owned(),
        _ => return None,
    })
}

//! Arrow batches → typed columns, by name. Whatever integer or text width a file uses is cast to the one we read.
//! Never: guesses; an absent column or a null where none is allowed is damage, with its name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use crate::error::Error;

/// The columns of one batch, with the name of the file for messages.
pub(crate) struct Columns<'a> {
    batch: &'a RecordBatch,
    what: &'a str,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, what: &'a str) -> Self {
        Self { batch, what }
    }

    fn column(&self, name: &str, wanted: &DataType) -> Result<ArrayRef, Error> {
        let column =
            self.batch.column_by_name(name).ok_or_else(|| Error::damaged(self.what, format!("no column {name}")))?;
        if column.null_count() > 0 {
            return Err(Error::damaged(self.what, format!("column {name} has nulls")));
        }
        if column.data_type() == wanted {
            return Ok(Arc::clone(column));
        }
        cast(column, wanted).map_err(|e| Error::damaged(self.what, format!("column {name}: {e}")))
    }

    fn primitive<T: ArrowPrimitiveType>(&self, name: &str, wanted: &DataType) -> Result<PrimitiveArray<T>, Error> {
        let column = self.column(name, wanted)?;
        column
            .as_primitive_opt::<T>()
            .cloned()
            .ok_or_else(|| Error::damaged(self.what, format!("column {name} is not {wanted}")))
    }

    pub(crate) fn text(&self, name: &str) -> Result<StringArray, Error> {
        let column = self.column(name, &DataType::Utf8)?;
        column
            .as_string_opt::<i32>()
            .cloned()
            .ok_or_else(|| Error::damaged(self.what, format!("column {name} is not text")))
    }

    /// A column of text that may be absent in a row.
    pub(crate) fn optional_text(&self, name: &str) -> Result<Vec<Option<String>>, Error> {
        let column =
            self.batch.column_by_name(name).ok_or_else(|| Error::damaged(self.what, format!("no column {name}")))?;
        let texts =
            cast(column, &DataType::Utf8).map_err(|e| Error::damaged(self.what, format!("column {name}: {e}")))?;
        let texts = texts.as_string_opt::<i32>().map(|t| t.iter().map(|t| t.map(str::to_owned)).collect());
        texts.ok_or_else(|| Error::damaged(self.what, format!("column {name} is not text")))
    }

    pub(crate) fn integers(&self, name: &str) -> Result<PrimitiveArray<Int64Type>, Error> {
        self.primitive(name, &DataType::Int64)
    }

    /// A column of counts: integers that are not negative.
    pub(crate) fn counts(&self, name: &str) -> Result<Vec<u64>, Error> {
        let column = self.integers(name)?;
        column
            .values()
            .iter()
            .map(|v| u64::try_from(*v))
            .collect::<Result<_, _>>()
            .map_err(|_| Error::damaged(self.what, format!("column {name} has a negative count")))
    }

    pub(crate) fn nanos(&self, name: &str) -> Result<PrimitiveArray<Decimal128Type>, Error> {
        self.primitive(name, &DataType::Decimal128(38, 0))
    }

    pub(crate) fn times(&self, name: &str) -> Result<PrimitiveArray<TimestampMicrosecondType>, Error> {
        let column =
            self.batch.column_by_name(name).ok_or_else(|| Error::damaged(self.what, format!("no column {name}")))?;
        let zone = match column.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        self.primitive(name, &DataType::Timestamp(TimeUnit::Microsecond, zone))
    }

    pub(crate) fn binary(&self, name: &str) -> Result<arrow::array::BinaryArray, Error> {
        let column = self.column(name, &DataType::Binary)?;
        column
            .as_binary_opt::<i32>()
            .cloned()
            .ok_or_else(|| Error::damaged(self.what, format!("column {name} is not binary")))
    }

    /// Parses one cell of text.
    pub(crate) fn parse<T>(&self, name: &str, text: &str, parsed: Option<T>) -> Result<T, Error> {
        parsed.ok_or_else(|| Error::damaged(self.what, format!("column {name} holds {text:?}")))
    }
}

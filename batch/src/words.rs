//! Text that repeats, as numbers: the columns of a bucket that hold few words many times are read as their Parquet
//! dictionaries, put under one numbering per bucket, and stay numbers until silver's own dictionary is written.
//! Guarantee: a row keeps its word; equal words of a bucket have equal numbers. Never: knows what a word means.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, StringDictionaryBuilder};
use arrow::datatypes::Int32Type;

use crate::error::Error;
use crate::source::column;

/// The columns of bronze read so.
pub(crate) const COLUMNS: [&str; 8] =
    ["event_type", "ad_id", "campaign_id", "country", "device_type", "currency", "region", "user_agent"];

/// A column of words.
pub(crate) type Coded = DictionaryArray<Int32Type>;

/// A column by number and by word.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a> {
    codes: &'a Int32Array,
    words: &'a StringArray,
}

impl<'a> Words<'a> {
    /// A column of `batch`.
    pub(crate) fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, Error> {
        let coded: &Coded = column(batch, name)?;
        let words = coded.values().as_any().downcast_ref();
        let words = words.ok_or_else(|| Error::Corrupt(format!("the words of {name} are not text")))?;
        Ok(Self { codes: coded.keys(), words })
    }

    /// The words, by number.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.words.iter().map(Option::unwrap_or_default)
    }

    /// The number of a row's word.
    pub(crate) fn code(&self, row: usize) -> Option<usize> {
        if self.codes.is_null(row) { None } else { usize::try_from(self.codes.value(row)).ok() }
    }

    /// A row's word; empty where there is none.
    pub(crate) fn get(&self, row: usize) -> &'a str {
        self.code(row).map_or("", |code| self.words.value(code))
    }
}

/// A column from its words and each row's number.
///
/// # Errors
/// When a number is none of a word.
pub(crate) fn coded<'a, N: Copy + TryInto<i32>>(
    codes: &[N],
    words: impl Iterator<Item = &'a str>,
) -> Result<ArrayRef, Error> {
    let codes: Int32Array = codes.iter().map(|code| (*code).try_into().unwrap_or(i32::MAX)).collect::<Vec<_>>().into();
    Ok(Arc::new(Coded::try_new(codes, Arc::new(StringArray::from_iter_values(words)))?))
}

/// Puts column `name` of all batches under one numbering.
///
/// # Errors
/// When it is no column of words, or has more than 2³¹ of them.
pub(crate) fn unite(batches: &mut [&mut RecordBatch], name: &str) -> Result<(), Error> {
    let mut numbers = StringDictionaryBuilder::<Int32Type>::new();
    let mut last: Option<(ArrayRef, Vec<i32>)> = None;
    let mut codes = Vec::with_capacity(batches.len());
    for batch in batches.iter() {
        let coded: &Coded = column(batch, name)?;
        // The batches of one row group share its dictionary.
        let known = last.take().filter(|(words, _)| words.to_data().ptr_eq(&coded.values().to_data()));
        let (words, table) = match known {
            Some(known) => known,
            None => {
                let words = Words::of(batch, name)?;
                (coded.values().clone(), words.all().map(|w| numbers.append(w)).collect::<Result<_, _>>()?)
            }
        };
        let number = |code: i32| usize::try_from(code).ok().and_then(|c| table.get(c)).copied().unwrap_or(0);
        codes.push(coded.keys().unary::<_, Int32Type>(number));
        last = Some((words, table));
    }
    let words = numbers.finish().values().clone();
    for (batch, codes) in batches.iter_mut().zip(codes) {
        let place = batch.schema_ref().index_of(name)?;
        let mut columns = batch.columns().to_vec();
        if let Some(old) = columns.get_mut(place) {
            *old = Arc::new(Coded::try_new(codes, words.clone())?);
        }
        **batch = RecordBatch::try_new(batch.schema(), columns)?;
    }
    Ok(())
}

/// The rows of a column at `places` (its part, the row there), where all parts share one numbering.
///
/// # Errors
/// When a part is no column of words.
pub(crate) fn gather(parts: &[&dyn Array], places: &[(usize, usize)]) -> Result<ArrayRef, Error> {
    let parts: Option<Vec<&Coded>> = parts.iter().map(|p| p.as_any().downcast_ref()).collect();
    let parts = parts.ok_or_else(|| Error::Internal("a column is one of words in parts".to_owned()))?;
    let words = parts.first().map(|p| p.values().clone());
    let words = words.ok_or_else(|| Error::Internal("no rows to gather from".to_owned()))?;
    let codes: Vec<&Int32Array> = parts.iter().map(|p| p.keys()).collect();
    let code = |(part, row): &(usize, usize)| codes.get(*part).map_or(0, |c| c.value(*row));
    let gathered: Int32Array = if codes.iter().all(|c| c.null_count() == 0) {
        places.iter().map(code).collect::<Vec<_>>().into()
    } else {
        let is_word = |(part, row): &(usize, usize)| codes.get(*part).is_some_and(|c| c.is_valid(*row));
        places.iter().map(|place| is_word(place).then(|| code(place))).collect()
    };
    Ok(Arc::new(Coded::try_new(gathered, words)?))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn batch(words: &[Option<u8>]) -> RecordBatch {
        let texts: Coded = words.iter().map(|w| w.map(|w| ["a", "b", "c", "d"][usize::from(w)])).collect();
        let schema = Schema::new(vec![Field::new("word", texts.data_type().clone(), true)]);
        assert!(matches!(texts.data_type(), DataType::Dictionary(_, _)));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(texts)]).unwrap()
    }

    proptest! {
        #[test]
        fn every_row_keeps_its_word_under_one_numbering(
            parts in proptest::collection::vec(proptest::collection::vec(proptest::option::of(0..4_u8), 1..9), 1..5),
        ) {
            let mut batches: Vec<RecordBatch> = parts.iter().map(|p| batch(p)).collect();
            unite(&mut batches.iter_mut().collect::<Vec<_>>(), "word").unwrap();
            let mut places: Vec<(usize, usize)> =
                parts.iter().enumerate().flat_map(|(p, rows)| (0..rows.len()).map(move |r| (p, r))).collect();
            places.reverse();
            let columns: Vec<&dyn Array> = batches.iter().map(|b| b.column(0).as_ref()).collect();
            let gathered = gather(&columns, &places).unwrap();
            let gathered = RecordBatch::try_new(batches[0].schema(), vec![gathered]).unwrap();
            let words = Words::of(&gathered, "word").unwrap();
            for (at, (part, row)) in places.iter().enumerate() {
                let wanted = parts[*part][*row].map(|w| ["a", "b", "c", "d"][usize::from(w)]);
                prop_assert_eq!(words.code(at).is_some(), wanted.is_some());
                prop_assert_eq!(words.get(at), wanted.unwrap_or(""));
            }
            let mut distinct: Vec<&str> = words.all().collect();
            distinct.sort_unstable();
            prop_assert!(distinct.windows(2).all(|w| w[0] < w[1]));
        }
    }
}

//! A bucket's rows → their verdicts and costs: silver rows, facts for the aggregates, leaves for the Merkle tree.
//! Guarantee: every row gets exactly one verdict by the one kernel (`shared::verdict`), the price in force at its
//! billing time, and a checked cost, which is 0 unless it is billable.
//! Never: trusts the archive's day or billing time; other bounds than the archive's are refused (ADR 1).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringBuilder};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema};
use lake::tables::SILVER_EVENTS;
use shared::event::EventKind;
use shared::price::PriceBook;
use shared::sketch::Sketch;
use shared::time::{Day, HOUR, MINUTE};
use shared::verdict::{Counting, IdStanding, InvalidCode, Verdict};

use crate::bucket::{Bucket, Key, Run};
use crate::columns::{Columns, Meanings};
use crate::error::Error;
use crate::facts::{Fact, Shard};
use crate::leaves::Leaves;
use crate::prices::PriceKey;
use crate::words;

/// Rows judged and written at once.
const CHUNK_ROWS: usize = 16 * 1024;
/// The columns of a run that only its claims on ids need.
const ONLY_CLAIMED: [&str; 3] = ["id_hash", "invalid", "fingerprint"];
/// Event types by their number in a [`Fact`].
pub(crate) const KINDS: [EventKind; 3] = [EventKind::Impression, EventKind::Click, EventKind::Conversion];

/// What judging needs besides the rows.
pub(crate) struct Rules {
    /// The day.
    pub(crate) day: Day,
    /// The counting rules.
    pub(crate) counting: Arc<Counting>,
    /// The prices.
    pub(crate) prices: Arc<PriceBook>,
}

/// Judges a bucket's rows.
pub(crate) struct Judge<'a> {
    /// By these rules.
    pub(crate) rules: &'a Rules,
    /// Gets the facts.
    pub(crate) shard: &'a mut Shard,
    /// Get the billed events.
    pub(crate) leaves: &'a mut Leaves,
}

impl Judge<'_> {
    /// Judges a bucket and hands its silver rows, in order, to `write`.
    ///
    /// # Errors
    /// When a row contradicts the archive, an amount does not fit, spilling or writing fails.
    pub(crate) fn bucket(
        &mut self,
        bucket: &Bucket,
        mut write: impl FnMut(&RecordBatch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(first) = bucket.runs.first() else { return Ok(()) };
        let mut meanings = Meanings::of(&first.batch)?;
        for (keys, standings) in bucket.keys.chunks(CHUNK_ROWS).zip(bucket.standings.chunks(CHUNK_ROWS)) {
            let places: Vec<(usize, usize)> = keys.iter().map(|k| (k.run as usize, k.row as usize)).collect();
            let rows = gather(&bucket.runs, &places)?;
            let mut judged = Judged::with_capacity(keys.len());
            let columns = Columns::of(&rows)?;
            for (row, (key, standing)) in keys.iter().zip(standings).enumerate() {
                let (invalid, repeats) = what_is_known(bucket, *key)?;
                self.row(&columns, &mut meanings, row, Known { invalid, standing: *standing, repeats }, &mut judged)?;
            }
            write(&judged.silver(&rows, &self.shard.prices.keys)?)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        columns: &Columns<'_>,
        meanings: &mut Meanings,
        row: usize,
        known: Known<'_>,
        judged: &mut Judged,
    ) -> Result<(), Error> {
        let (rules, shard) = (self.rules, &mut *self.shard);
        let (at, clamped) = columns.billing_time(rules, row)?;
        let (number, kind) = columns.kind(meanings, row)?;
        let verdict = rules.counting.verdict(known.invalid, known.standing, known.repeats.is_some());
        let reported = columns.reported_currency(meanings, row);
        let (ad, campaign) = columns.ad(meanings, shard, row)?;
        let found = shard.prices.in_force(campaign, at, reported)?;
        let billed = verdict == Verdict::Billable;
        let cost = if billed {
            let what = || format!("the cost of event {}", columns.id(row));
            found
                .price
                .cost(kind, columns.reported_micros(row), reported)
                .map_err(|e| Error::overflow(what())(e))?
                .nanos
        } else {
            0
        };
        let leaf = || columns.billed(row, at, found.key, cost, rules.counting.rules_version);
        self.leaves.next_row(billed.then(leaf).as_ref())?;
        judged.clamped.push(clamped);
        judged.verdicts.push(verdict_number(verdict));
        judged.prices.push(found.number);
        judged.costs.push(cost);
        judged.repeats.append_option(known.repeats.filter(|_| verdict == Verdict::RepeatClick));
        let fact = Fact {
            user: columns.user(row).map(Sketch::hash),
            cost,
            ad,
            price: found.number,
            minute: u8::try_from(at.0.rem_euclid(HOUR) / MINUTE).unwrap_or(0),
            kind: number,
            verdict: verdict_number(verdict),
            device: columns.device(meanings, row)?,
            country: columns.country(meanings, row)?,
        };
        let hour = at.since(rules.day.start()) / HOUR;
        shard.add(usize::try_from(hour).unwrap_or(0), fact)
    }
}

/// The columns that judging and silver take from the rows at `places` of the runs.
fn gather(runs: &[Run], places: &[(usize, usize)]) -> Result<RecordBatch, Error> {
    let schema = runs.first().map(|r| r.batch.schema()).unwrap_or_else(|| Arc::new(Schema::empty()));
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (i, field) in schema.fields().iter().enumerate().filter(|(_, f)| !ONLY_CLAIMED.contains(&f.name().as_str())) {
        let parts: Vec<&dyn Array> = runs.iter().map(|r| r.batch.column(i).as_ref()).collect();
        let is_coded = matches!(field.data_type(), DataType::Dictionary(_, _));
        columns.push(if is_coded { words::gather(&parts, places)? } else { interleave(&parts, places)? });
        fields.push(field.clone());
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn what_is_known(bucket: &Bucket, key: Key) -> Result<(Option<InvalidCode>, Option<&str>), Error> {
    let row = key.row as usize;
    bucket
        .runs
        .get(key.run as usize)
        .and_then(|run| Some((*run.invalid.get(row)?, run.repeats.get(row)?.as_deref())))
        .ok_or_else(|| Error::Internal("a row of a bucket is missing".to_owned()))
}

/// What the archive as a whole says about a row.
struct Known<'a> {
    invalid: Option<InvalidCode>,
    standing: IdStanding,
    /// The click it repeats.
    repeats: Option<&'a str>,
}

/// What is found out about the rows of a chunk.
struct Judged {
    clamped: Vec<bool>,
    /// Places in `Verdict::ALL`.
    verdicts: Vec<u8>,
    /// Numbers of price keys.
    prices: Vec<u32>,
    costs: Vec<i64>,
    repeats: StringBuilder,
}

/// A verdict's place in `Verdict::ALL`.
fn verdict_number(verdict: Verdict) -> u8 {
    (0_u8..).zip(Verdict::ALL).find(|(_, v)| *v == verdict).map_or(u8::MAX, |(number, _)| number)
}

impl Judged {
    fn with_capacity(rows: usize) -> Self {
        Self {
            clamped: Vec::with_capacity(rows),
            verdicts: Vec::with_capacity(rows),
            prices: Vec::with_capacity(rows),
            costs: Vec::with_capacity(rows),
            repeats: StringBuilder::with_capacity(rows, 0),
        }
    }

    /// The silver rows of the chunk, under the shard's price keys: what is new here, the rest as archived.
    fn silver(mut self, bronze: &RecordBatch, keys: &[PriceKey]) -> Result<RecordBatch, Error> {
        let versions = |price: &u32| keys.get(*price as usize).map_or(0, |key| i64::from(key.version));
        let mut new: Vec<(&str, ArrayRef)> = vec![
            ("price_version", Arc::new(self.prices.iter().map(versions).collect::<Int64Array>())),
            ("verdict", words::coded(&self.verdicts, Verdict::ALL.iter().map(|v| v.as_str()))?),
            ("currency", words::coded(&self.prices, keys.iter().map(|k| k.currency.as_str()))?),
            ("price_model", words::coded(&self.prices, keys.iter().map(|k| k.model))?),
            ("clamped", Arc::new(BooleanArray::from(self.clamped))),
            ("cost_nanos", Arc::new(Int64Array::from(self.costs))),
            ("repeat_of", Arc::new(self.repeats.finish())),
        ];
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for field in SILVER_EVENTS.file_schema().fields() {
            let made = new.iter_mut().find(|(name, _)| name == field.name()).map(|(_, column)| column.clone());
            let column = made.or_else(|| bronze.column_by_name(field.name()).cloned());
            let column = column.ok_or_else(|| Error::Corrupt(format!("bronze has no column {}", field.name())))?;
            fields.push(Field::new(field.name(), column.data_type().clone(), field.is_nullable()));
            columns.push(column);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

//! A bucket's rows → their verdicts and costs: silver rows, facts for the aggregates, leaves for the Merkle tree.
//! Guarantee: every row gets exactly one verdict by the one kernel (`shared::verdict`), the price in force at its
//! billing time, and a checked cost, which is 0 unless it is billable.
//! Never: trusts the archive's day or billing time; other bounds than the archive's are refused (ADR 1).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::interleave_record_batch;
use lake::tables::SILVER_EVENTS;
use shared::billed::Billed;
use shared::event::EventKind;
use shared::money::Currency;
use shared::price::PriceBook;
use shared::sketch::Sketch;
use shared::time::{Day, HOUR, MINUTE, Timestamp};
use shared::verdict::{Counting, IdStanding, InvalidCode, Verdict};

use crate::bucket::{Bucket, Key};
use crate::error::Error;
use crate::facts::{DEVICES, Fact, Shard};
use crate::leaves::Leaves;
use crate::prices::PriceKey;
use crate::source::column;

/// Rows judged and written at once.
const CHUNK_ROWS: usize = 16 * 1024;
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
        let runs: Vec<&RecordBatch> = bucket.runs.iter().map(|r| &r.batch).collect();
        for (keys, standings) in bucket.keys.chunks(CHUNK_ROWS).zip(bucket.standings.chunks(CHUNK_ROWS)) {
            let places: Vec<(usize, usize)> = keys.iter().map(|k| (k.run as usize, k.row as usize)).collect();
            let rows = interleave_record_batch(&runs, &places)?;
            let mut judged = Judged::with_capacity(keys.len());
            let columns = Columns::of(&rows)?;
            for (row, (key, standing)) in keys.iter().zip(standings).enumerate() {
                let (invalid, repeats) = what_is_known(bucket, *key)?;
                self.row(&columns, row, Known { invalid, standing: *standing, repeats }, &mut judged)?;
            }
            write(&judged.silver(&rows)?)?;
        }
        Ok(())
    }

    fn row(&mut self, columns: &Columns<'_>, row: usize, known: Known<'_>, judged: &mut Judged) -> Result<(), Error> {
        let (rules, shard) = (self.rules, &mut *self.shard);
        let (at, clamped) = columns.billing_time(rules, row)?;
        let (number, kind) = columns.kind(row)?;
        let verdict = rules.counting.verdict(known.invalid, known.standing, known.repeats.is_some());
        let reported = columns.reported_currency(row)?;
        let (ad, campaign) = shard.ad(columns.ads.value(row), columns.campaigns.value(row))?;
        let found = shard.prices.in_force(campaign, at, reported)?;
        let micros = (!columns.costs.is_null(row)).then(|| columns.costs.value(row));
        let billed = verdict == Verdict::Billable;
        let cost = if billed {
            let what = || format!("the cost of event {}", columns.ids.value(row));
            found.price.cost(kind, micros, reported).map_err(|e| Error::overflow(what())(e))?.nanos
        } else {
            0
        };
        let leaf = || columns.billed(row, at, found.key, cost, rules.counting.rules_version);
        self.leaves.next_row(billed.then(leaf).as_ref())?;
        judged.push(at, clamped, verdict, found.key, cost);
        judged.repeats.push(known.repeats.filter(|_| verdict == Verdict::RepeatClick).map(str::to_owned));
        let fact = Fact {
            user: (!columns.users.is_null(row)).then(|| Sketch::hash(columns.users.value(row))),
            cost,
            ad,
            price: found.number,
            minute: u8::try_from(at.0.rem_euclid(HOUR) / MINUTE).unwrap_or(0),
            kind: number,
            verdict: verdict_number(verdict),
            device: columns.device(row)?,
            country: columns.country(row)?,
        };
        let hour = at.since(rules.day.start()) / HOUR;
        shard.add(usize::try_from(hour).unwrap_or(0), fact)
    }
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

/// The columns of a chunk that decide.
struct Columns<'a> {
    ids: &'a StringArray,
    kinds: &'a StringArray,
    event_times: &'a TimestampMicrosecondArray,
    ingest_times: &'a TimestampMicrosecondArray,
    billing_times: &'a TimestampMicrosecondArray,
    ads: &'a StringArray,
    campaigns: &'a StringArray,
    users: &'a StringArray,
    countries: &'a StringArray,
    devices: &'a StringArray,
    costs: &'a Int64Array,
    currencies: &'a StringArray,
}

/// What is found out about the rows of a chunk.
struct Judged {
    billing_times: Vec<i64>,
    clamped: Vec<bool>,
    verdicts: Vec<&'static str>,
    currencies: Vec<Currency>,
    models: Vec<&'static str>,
    versions: Vec<i64>,
    costs: Vec<i64>,
    repeats: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, Error> {
        Ok(Self {
            ids: column(batch, "event_id")?,
            kinds: column(batch, "event_type")?,
            event_times: column(batch, "event_time")?,
            ingest_times: column(batch, "ingest_time")?,
            billing_times: column(batch, "billing_time")?,
            ads: column(batch, "ad_id")?,
            campaigns: column(batch, "campaign_id")?,
            users: column(batch, "user_pseudo_id")?,
            countries: column(batch, "country")?,
            devices: column(batch, "device_type")?,
            costs: column(batch, "cost_micros")?,
            currencies: column(batch, "currency")?,
        })
    }

    fn kind(&self, row: usize) -> Result<(u8, EventKind), Error> {
        let kind = self.kinds.value(row);
        let found = (0_u8..).zip(KINDS).find(|(_, k)| k.as_str() == kind);
        found.ok_or_else(|| Error::Corrupt(format!("{kind:?} is not an event type")))
    }

    fn billed(&self, row: usize, at: Timestamp, price: PriceKey, cost_nanos: i64, rules_version: u32) -> Billed<'_> {
        Billed {
            event_id: self.ids.value(row),
            event_type: self.kinds.value(row),
            campaign_id: self.campaigns.value(row),
            ad_id: self.ads.value(row),
            billing_time: at,
            currency: price.currency,
            price_model: price.model,
            price_version: i64::from(price.version),
            cost_nanos,
            rules_version,
        }
    }

    fn billing_time(&self, rules: &Rules, row: usize) -> Result<(Timestamp, bool), Error> {
        let (event, ingest) = (Timestamp(self.event_times.value(row)), Timestamp(self.ingest_times.value(row)));
        let billing = rules.counting.billing_time(event, ingest);
        let (id, archived) = (self.ids.value(row), Timestamp(self.billing_times.value(row)));
        if billing.at != archived {
            return Err(Error::Invalid(format!(
                "event {id} was archived to bill at {archived}, by these rules it bills at {}: \
                 use the bounds the archive was written with",
                billing.at
            )));
        }
        if billing.at.day() != rules.day {
            return Err(Error::Corrupt(format!("event {id} bills at {archived} and is stored under {}", rules.day)));
        }
        Ok((billing.at, billing.clamped))
    }

    fn reported_currency(&self, row: usize) -> Result<Option<Currency>, Error> {
        if self.currencies.is_null(row) {
            return Ok(None);
        }
        let text = self.currencies.value(row);
        Currency::parse(text).map(Some).ok_or_else(|| Error::Corrupt(format!("{text:?} is not a currency")))
    }

    fn device(&self, row: usize) -> Result<u8, Error> {
        let device = self.devices.value(row);
        let found = (0_u8..).zip(DEVICES).find(|(_, d)| *d == device).map(|(number, _)| number);
        found.ok_or_else(|| Error::Corrupt(format!("{device:?} is not a device type")))
    }

    fn country(&self, row: usize) -> Result<[u8; 2], Error> {
        let country = self.countries.value(row);
        country.as_bytes().try_into().map_err(|_| Error::Corrupt(format!("{country:?} is not a country")))
    }
}

/// A verdict's place in `Verdict::ALL`.
fn verdict_number(verdict: Verdict) -> u8 {
    (0_u8..).zip(Verdict::ALL).find(|(_, v)| *v == verdict).map_or(u8::MAX, |(number, _)| number)
}

impl Judged {
    fn with_capacity(rows: usize) -> Self {
        Self {
            billing_times: Vec::with_capacity(rows),
            clamped: Vec::with_capacity(rows),
            verdicts: Vec::with_capacity(rows),
            currencies: Vec::with_capacity(rows),
            models: Vec::with_capacity(rows),
            versions: Vec::with_capacity(rows),
            costs: Vec::with_capacity(rows),
            repeats: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, at: Timestamp, clamped: bool, verdict: Verdict, price: PriceKey, cost: i64) {
        self.billing_times.push(at.0);
        self.clamped.push(clamped);
        self.verdicts.push(verdict.as_str());
        self.currencies.push(price.currency);
        self.models.push(price.model);
        self.versions.push(i64::from(price.version));
        self.costs.push(cost);
    }

    /// The silver rows of the chunk: what is new here, the rest as archived.
    fn silver(self, bronze: &RecordBatch) -> Result<RecordBatch, Error> {
        let times = TimestampMicrosecondArray::from(self.billing_times).with_timezone("UTC");
        let currencies = StringArray::from_iter_values(self.currencies.iter().map(Currency::as_str));
        let mut new: Vec<(&str, ArrayRef)> = vec![
            ("billing_time", Arc::new(times)),
            ("clamped", Arc::new(BooleanArray::from(self.clamped))),
            ("verdict", Arc::new(StringArray::from(self.verdicts))),
            ("currency", Arc::new(currencies)),
            ("price_model", Arc::new(StringArray::from(self.models))),
            ("price_version", Arc::new(Int64Array::from(self.versions))),
            ("cost_nanos", Arc::new(Int64Array::from(self.costs))),
            ("repeat_of", Arc::new(StringArray::from(self.repeats))),
        ];
        let schema = SILVER_EVENTS.file_schema();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let made = new.iter_mut().find(|(name, _)| name == field.name()).map(|(_, column)| column.clone());
            let column = made.or_else(|| bronze.column_by_name(field.name()).cloned());
            columns.push(column.ok_or_else(|| Error::Corrupt(format!("bronze has no column {}", field.name())))?);
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

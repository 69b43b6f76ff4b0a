//! The columns of a bucket's rows that decide, as values: times, words by number, costs.
//! Guarantee: what the archive must not hold (an unknown type, device, country or currency) is an error, and so is a
//! row that by these rules bills at another time than it was archived for (ADR 1).

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use shared::billed::Billed;
use shared::event::EventKind;
use shared::money::Currency;
use shared::time::Timestamp;

use crate::error::Error;
use crate::facts::{DEVICES, Shard};
use crate::judge::{KINDS, Rules};
use crate::prices::PriceKey;
use crate::source::column;
use crate::words::Words;

/// An ad of a campaign, by the shard's numbers.
type Numbers = (u32, u32);

/// What the words of one bucket mean, by their numbers.
pub(crate) struct Meanings {
    kinds: Vec<(u8, EventKind)>,
    devices: Vec<u8>,
    countries: Vec<[u8; 2]>,
    currencies: Vec<Currency>,
    /// Of each ad, the campaign (by its word) it was last met in, and the numbers of both.
    ads: Vec<Option<(usize, Numbers)>>,
}

impl Meanings {
    /// Of a bucket whose rows all share the words of `batch`.
    ///
    /// # Errors
    /// A word that cannot be.
    pub(crate) fn of(batch: &RecordBatch) -> Result<Self, Error> {
        let words = |name| Words::of(batch, name);
        Ok(Self {
            kinds: words("event_type")?.all().map(kind).collect::<Result<_, _>>()?,
            devices: words("device_type")?.all().map(device).collect::<Result<_, _>>()?,
            countries: words("country")?.all().map(country).collect::<Result<_, _>>()?,
            currencies: words("currency")?.all().map(currency).collect::<Result<_, _>>()?,
            ads: words("ad_id")?.all().map(|_| None).collect(),
        })
    }
}

fn kind(word: &str) -> Result<(u8, EventKind), Error> {
    let found = (0_u8..).zip(KINDS).find(|(_, k)| k.as_str() == word);
    found.ok_or_else(|| Error::Corrupt(format!("{word:?} is not an event type")))
}

fn device(word: &str) -> Result<u8, Error> {
    let found = (0_u8..).zip(DEVICES).find(|(_, d)| *d == word).map(|(number, _)| number);
    found.ok_or_else(|| Error::Corrupt(format!("{word:?} is not a device type")))
}

fn country(word: &str) -> Result<[u8; 2], Error> {
    word.as_bytes().try_into().map_err(|_| Error::Corrupt(format!("{word:?} is not a country")))
}

fn currency(word: &str) -> Result<Currency, Error> {
    Currency::parse(word).ok_or_else(|| Error::Corrupt(format!("{word:?} is not a currency")))
}

/// The columns of a chunk that decide.
pub(crate) struct Columns<'a> {
    ids: &'a StringArray,
    kinds: Words<'a>,
    event_times: &'a TimestampMicrosecondArray,
    ingest_times: &'a TimestampMicrosecondArray,
    billing_times: &'a TimestampMicrosecondArray,
    ads: Words<'a>,
    campaigns: Words<'a>,
    users: &'a StringArray,
    countries: Words<'a>,
    devices: Words<'a>,
    costs: &'a Int64Array,
    currencies: Words<'a>,
}

impl<'a> Columns<'a> {
    /// Those of `batch`.
    ///
    /// # Errors
    /// When one is missing.
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, Error> {
        let words = |name| Words::of(batch, name);
        Ok(Self {
            ids: column(batch, "event_id")?,
            kinds: words("event_type")?,
            event_times: column(batch, "event_time")?,
            ingest_times: column(batch, "ingest_time")?,
            billing_times: column(batch, "billing_time")?,
            ads: words("ad_id")?,
            campaigns: words("campaign_id")?,
            users: column(batch, "user_pseudo_id")?,
            countries: words("country")?,
            devices: words("device_type")?,
            costs: column(batch, "cost_micros")?,
            currencies: words("currency")?,
        })
    }

    /// The id of a row.
    pub(crate) fn id(&self, row: usize) -> &'a str {
        self.ids.value(row)
    }

    /// Its type, by number and as such.
    pub(crate) fn kind(&self, known: &Meanings, row: usize) -> Result<(u8, EventKind), Error> {
        meaning(&known.kinds, self.kinds, row)
    }

    /// Its device type's number.
    pub(crate) fn device(&self, known: &Meanings, row: usize) -> Result<u8, Error> {
        meaning(&known.devices, self.devices, row)
    }

    /// Its country.
    pub(crate) fn country(&self, known: &Meanings, row: usize) -> Result<[u8; 2], Error> {
        meaning(&known.countries, self.countries, row)
    }

    /// The currency it reports its cost in.
    pub(crate) fn reported_currency(&self, known: &Meanings, row: usize) -> Option<Currency> {
        self.currencies.code(row).and_then(|code| known.currencies.get(code)).copied()
    }

    /// The cost it reports, in micros.
    pub(crate) fn reported_micros(&self, row: usize) -> Option<i64> {
        (!self.costs.is_null(row)).then(|| self.costs.value(row))
    }

    /// The pseudonym of its person.
    pub(crate) fn user(&self, row: usize) -> Option<&'a str> {
        (!self.users.is_null(row)).then(|| self.users.value(row))
    }

    /// The shard's numbers of its ad and campaign.
    pub(crate) fn ad(&self, known: &mut Meanings, shard: &mut Shard, row: usize) -> Result<Numbers, Error> {
        let missing = || Error::Corrupt("an event has no ad or no campaign".to_owned());
        let (ad, campaign) = self.ads.code(row).zip(self.campaigns.code(row)).ok_or_else(missing)?;
        let last = known.ads.get_mut(ad).ok_or_else(missing)?;
        if let Some((_, numbers)) = last.filter(|(of, _)| *of == campaign) {
            return Ok(numbers);
        }
        let numbers = shard.ad(self.ads.get(row), self.campaigns.get(row))?;
        *last = Some((campaign, numbers));
        Ok(numbers)
    }

    /// What its leaf says, if it bills.
    pub(crate) fn billed(
        &self,
        row: usize,
        at: Timestamp,
        price: PriceKey,
        cost: i64,
        rules_version: u32,
    ) -> Billed<'a> {
        Billed {
            event_id: self.ids.value(row),
            event_type: self.kinds.get(row),
            campaign_id: self.campaigns.get(row),
            ad_id: self.ads.get(row),
            billing_time: at,
            currency: price.currency,
            price_model: price.model,
            price_version: i64::from(price.version),
            cost_nanos: cost,
            rules_version,
        }
    }

    /// When it bills, and whether that is not its own time.
    pub(crate) fn billing_time(&self, rules: &Rules, row: usize) -> Result<(Timestamp, bool), Error> {
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
}

fn meaning<T: Copy>(known: &[T], words: Words<'_>, row: usize) -> Result<T, Error> {
    let found = words.code(row).and_then(|code| known.get(code)).copied();
    found.ok_or_else(|| Error::Corrupt("an event lacks its type, device or country".to_owned()))
}

//! How rollup rows look in ClickHouse.
//! Guarantee: what is written reads back as it was; what does not fit is an error, and so is a sum of what fits. Pure.

use std::collections::BTreeMap;

use clickhouse::Row;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::event::{Country, DeviceType};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::{Counts, Finality, RollupKey, RollupRow, RowVersion, TimeRange};
use shared::serving_store::StoreError;
use shared::sketch::Sketch;
use shared::time::{HOUR, SECOND, Timestamp};

/// Reconcile's number among the writers.
pub(super) const EXACT: i64 = -1;
/// Costs are below this, so that no sum of 2³¹ of them overflows.
const COST_LIMIT: i128 = 1 << 95;

const AD_MINUTE: i8 = 1;
const CAMPAIGN_MINUTE: i8 = 2;
const CAMPAIGN_HOUR: i8 = 3;

/// One row of the table `rollup`.
#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
pub(super) struct StoredRow {
    pub(super) grain: i8,
    pub(super) hour: u32,
    pub(super) ad_id: String,
    pub(super) campaign_id: String,
    pub(super) window_start: u32,
    pub(super) country: String,
    pub(super) device_type: String,
    pub(super) currency: String,
    pub(super) writer: i64,
    pub(super) take: u64,
    pub(super) version: u64,
    pub(super) impressions: u64,
    pub(super) clicks: u64,
    pub(super) conversions: u64,
    pub(super) cost_nanos: i128,
    pub(super) uniques: Raw,
}

/// The bytes of a string column that is no text; empty is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Raw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

impl Raw {
    /// The sketch's bytes.
    pub(super) fn of(sketch: Option<&Sketch>) -> Self {
        Self(sketch.map(Sketch::to_bytes).unwrap_or_default())
    }

    /// The sketch, if there is one.
    pub(super) fn sketch(&self) -> Result<Option<Sketch>, StoreError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        Sketch::from_bytes(&self.0).map(Some).map_err(|e| corrupt(e.to_string()))
    }
}

/// What is stored contradicts us.
pub(super) fn corrupt(why: String) -> StoreError {
    StoreError::Corrupt(why)
}

/// Seconds since 1970, for a question: what does not fit becomes the nearest that does.
pub(super) fn seconds(at: Timestamp) -> u32 {
    let seconds = at.0.div_euclid(SECOND).clamp(0, i64::from(u32::MAX));
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// The first second at or after an instant: where windows start that start at or after it.
pub(super) fn seconds_up(at: Timestamp) -> u32 {
    seconds(at.plus(SECOND - 1))
}

/// The range of the windows that start in `range`, as first and end, and the hour the first lies in.
pub(super) fn bounds(range: &TimeRange) -> (u32, u32, u32) {
    (seconds(range.start.floor(HOUR)), seconds_up(range.start), seconds_up(range.end))
}

/// An instant from its seconds.
pub(super) fn instant(seconds: u32) -> Timestamp {
    Timestamp(i64::from(seconds) * SECOND)
}

/// Seconds since 1970, to be stored.
fn exact_seconds(at: Timestamp) -> Result<u32, StoreError> {
    let fits = (instant(seconds(at)) == at).then(|| seconds(at));
    fits.ok_or_else(|| corrupt(format!("{at} does not fit: times are whole seconds from 1970 to 2106")))
}

impl StoredRow {
    /// A row of `writer`; speed's take is 0.
    pub(super) fn new(row: &RollupRow, writer: i64, version: RowVersion) -> Result<Self, StoreError> {
        let counts = &row.counts;
        let largest = counts.impressions.max(counts.clicks).max(counts.conversions);
        if i64::try_from(largest).is_err() || counts.cost_nanos.unsigned_abs() >= COST_LIMIT.unsigned_abs() {
            return Err(corrupt(format!("{counts:?} of {:?} does not fit", row.key)));
        }
        let (grain, ad_id, campaign_id, country, device_type, currency) = words(&row.key);
        Ok(Self {
            grain,
            hour: exact_seconds(row.key.hour())?,
            ad_id: ad_id.to_owned(),
            campaign_id: campaign_id.to_owned(),
            window_start: exact_seconds(row.key.window_start())?,
            country: country.to_owned(),
            device_type: device_type.to_owned(),
            currency: currency.as_str().to_owned(),
            writer,
            take: 0,
            version: version.0,
            impressions: counts.impressions,
            clicks: counts.clicks,
            conversions: counts.conversions,
            cost_nanos: counts.cost_nanos,
            uniques: Raw::of(row.uniques.as_ref()),
        })
    }

    /// What the row is about.
    pub(super) fn key(&self) -> Result<RollupKey, StoreError> {
        let at = instant(self.window_start);
        let campaign_id = word(&self.campaign_id, |t| CampaignId::new(t).ok())?;
        let currency = word(&self.currency, Currency::parse)?;
        match self.grain {
            AD_MINUTE => {
                let ad_id = word(&self.ad_id, |t| AdId::new(t).ok())?;
                Ok(RollupKey::AdMinute { minute: at, ad_id, campaign_id, currency })
            }
            CAMPAIGN_MINUTE => Ok(RollupKey::CampaignMinute { minute: at, campaign_id, currency }),
            CAMPAIGN_HOUR => Ok(RollupKey::CampaignHour {
                hour: at,
                campaign_id,
                country: word(&self.country, Country::parse)?,
                device_type: word(&self.device_type, DeviceType::parse)?,
                currency,
            }),
            other => Err(corrupt(format!("a row of grain {other}"))),
        }
    }

    /// What it says.
    pub(super) fn value(&self) -> Result<Value, StoreError> {
        let counts = Counts {
            impressions: self.impressions,
            clicks: self.clicks,
            conversions: self.conversions,
            cost_nanos: self.cost_nanos,
        };
        Ok((counts, self.uniques.sketch()?))
    }
}

fn words(key: &RollupKey) -> (i8, &str, &str, &str, &str, &Currency) {
    match key {
        RollupKey::AdMinute { ad_id, campaign_id, currency, .. } => {
            (AD_MINUTE, ad_id.as_str(), campaign_id.as_str(), "", "", currency)
        }
        RollupKey::CampaignMinute { campaign_id, currency, .. } => {
            (CAMPAIGN_MINUTE, "", campaign_id.as_str(), "", "", currency)
        }
        RollupKey::CampaignHour { campaign_id, country, device_type, currency, .. } => {
            (CAMPAIGN_HOUR, "", campaign_id.as_str(), country.as_str(), device_type.as_str(), currency)
        }
    }
}

/// A word read by `parse`.
pub(super) fn word<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(text).ok_or_else(|| corrupt(format!("a column says {text:?}")))
}

/// How final a row is.
pub(super) fn finality(text: &str) -> Result<Finality, StoreError> {
    let all = [Finality::Provisional, Finality::Reconciled, Finality::Settled];
    word(text, |t| all.into_iter().find(|f| f.as_str() == t))
}

/// What a key says: counts, and who was counted.
pub(super) type Value = (Counts, Option<Sketch>);

/// Both together; one set of users alone keeps its very bytes.
pub(super) fn add(a: Value, b: &Value) -> Result<Value, StoreError> {
    let counts = a.0.merge(&b.0).map_err(|e| corrupt(format!("a sum over writers: {e}")))?;
    let uniques = match (a.1, &b.1) {
        (Some(a), Some(b)) => Some(a.merge(b)),
        (a, b) => a.or_else(|| b.clone()),
    };
    Ok((counts, uniques))
}

/// Rows by what they are about.
pub(super) fn by_key(rows: Vec<StoredRow>) -> Result<BTreeMap<RollupKey, Vec<StoredRow>>, StoreError> {
    let mut keys: BTreeMap<RollupKey, Vec<StoredRow>> = BTreeMap::new();
    for row in rows {
        keys.entry(row.key()?).or_default().push(row);
    }
    Ok(keys)
}

/// What the rows of one key say together.
pub(super) fn sum(rows: &[StoredRow]) -> Result<Value, StoreError> {
    rows.iter().try_fold((Counts::default(), None), |sum, row| add(sum, &row.value()?))
}

/// Counts from the sums of a question.
pub(super) fn counts(
    impressions: u128,
    clicks: u128,
    conversions: u128,
    cost_nanos: i128,
) -> Result<Counts, StoreError> {
    let fits = |n: u128| u64::try_from(n).map_err(|_| corrupt(format!("a sum of {n} does not fit")));
    Ok(Counts { impressions: fits(impressions)?, clicks: fits(clicks)?, conversions: fits(conversions)?, cost_nanos })
}

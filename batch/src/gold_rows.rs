//! Aggregates → Arrow rows of the gold tables, in the tables' order and columns.
//! Guarantee: a count or a sum that does not fit its column is an error. Never: computes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use lake::tables::{GOLD_AD_MINUTE, GOLD_BILLING_DAY, GOLD_CAMPAIGN_HOUR, TableDef};
use shared::money::{Currency, Overflow};
use shared::rollup::Counts;
use shared::time::{MINUTE, Timestamp};

use crate::error::Error;
use crate::facts::DEVICES;
use crate::gold::{AdMinute, Billing, CampaignHour, OTHER_VERDICTS};
use crate::names::Names;
use crate::prices::PriceKey;

/// The columns of the other verdicts, in the order of `Verdict::ALL`.
pub(crate) const OTHER_COLUMNS: [&str; OTHER_VERDICTS] = [
    "duplicates",
    "conflicts",
    "repeat_clicks",
    "invalid_bad_signature",
    "invalid_expired",
    "invalid_known_bot",
    "invalid_datacenter_ip",
    "invalid_rate",
    "invalid_inactive_ad",
];
/// The largest sum of nanos a table can hold: 38 digits.
const MAX_NANO_SUM: i128 = 10_i128.pow(38) - 1;

type Columns = Vec<(&'static str, ArrayRef)>;

/// Rows of `gold/ad_minute`.
pub(crate) fn ad_minutes(names: &Names, hour: Timestamp, rows: &[AdMinute]) -> Result<RecordBatch, Error> {
    let mut columns = counts(rows.iter().map(|r| &r.counts))?;
    let minutes = rows.iter().map(|r| hour.plus(i64::from(r.minute) * MINUTE));
    columns.push(("ad_id", text(rows.iter().map(|r| ad(names, r.ad)))));
    columns.push(("campaign_id", text(rows.iter().map(|r| campaign_of(names, r.ad)))));
    columns.push(("minute", times(minutes)));
    columns.push(("currency", currencies(names, rows.iter().map(|r| r.currency))));
    batch(&GOLD_AD_MINUTE, &columns)
}

/// Rows of `gold/campaign_hour`.
pub(crate) fn campaign_hours(names: &Names, hour: Timestamp, rows: &[CampaignHour]) -> Result<RecordBatch, Error> {
    let mut columns = counts(rows.iter().map(|r| &r.counts))?;
    let campaign = |r: &CampaignHour| names.campaigns.get(r.campaign as usize).map_or("", |c| c.as_str());
    let country = |r: &CampaignHour| std::str::from_utf8(&r.country).unwrap_or("ZZ").to_owned();
    let device = |r: &CampaignHour| DEVICES.get(usize::from(r.device)).copied().unwrap_or("other");
    columns.push(("hour", times(rows.iter().map(|_| hour))));
    columns.push(("campaign_id", text(rows.iter().map(campaign))));
    columns.push(("country", Arc::new(StringArray::from_iter_values(rows.iter().map(country)))));
    columns.push(("device_type", text(rows.iter().map(device))));
    columns.push(("currency", currencies(names, rows.iter().map(|r| r.currency))));
    columns.push(("uniques", longs(rows.iter().map(|r| r.uniques))?));
    columns.push(("users_sketch", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|r| &r.sketch)))));
    batch(&GOLD_CAMPAIGN_HOUR, &columns)
}

/// Rows of `gold/billing_day`.
pub(crate) fn billing_lines(names: &Names, rows: &[(u32, u32, Billing)]) -> Result<RecordBatch, Error> {
    let price = |rank: u32| names.prices.get(rank as usize);
    let version = |rank: u32| price(rank).map_or(0, |p| u64::from(p.version));
    let mut columns = counts(rows.iter().map(|(_, _, line)| &line.counts))?;
    columns.push(("campaign_id", text(rows.iter().map(|(ad, _, _)| campaign_of(names, *ad)))));
    columns.push(("ad_id", text(rows.iter().map(|(rank, _, _)| ad(names, *rank)))));
    let codes = rows.iter().map(|(_, p, _)| price(*p).map_or(Currency::NONE, |p: &PriceKey| p.currency).to_string());
    columns.push(("currency", Arc::new(StringArray::from_iter_values(codes))));
    columns.push(("price_model", text(rows.iter().map(|(_, p, _)| price(*p).map_or("free", |p| p.model)))));
    columns.push(("price_version", longs(rows.iter().map(|(_, p, _)| version(*p)))?));
    for (i, name) in OTHER_COLUMNS.into_iter().enumerate() {
        let count = |line: &Billing| line.others.get(i).copied().unwrap_or(0);
        columns.push((name, longs(rows.iter().map(|(_, _, line)| count(line)))?));
    }
    batch(&GOLD_BILLING_DAY, &columns)
}

fn ad(names: &Names, rank: u32) -> &str {
    names.ads.get(rank as usize).map_or("", |a| a.ad_id.as_str())
}

fn campaign_of(names: &Names, rank: u32) -> &str {
    names.ads.get(rank as usize).map_or("", |a| a.campaign_id.as_str())
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn times(values: impl Iterator<Item = Timestamp>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values.map(|t| t.0)).with_timezone("UTC"))
}

fn currencies(names: &Names, ranks: impl Iterator<Item = u32>) -> ArrayRef {
    let code = |rank: u32| names.currencies.get(rank as usize).copied().unwrap_or(Currency::NONE);
    Arc::new(StringArray::from_iter_values(ranks.map(|r| code(r).to_string())))
}

fn longs(values: impl Iterator<Item = u64>) -> Result<ArrayRef, Error> {
    let values: Result<Vec<i64>, _> = values.map(i64::try_from).collect();
    let values = values.map_err(|_| Overflow).map_err(Error::overflow("a count"))?;
    Ok(Arc::new(Int64Array::from(values)))
}

fn counts<'a>(rows: impl Iterator<Item = &'a Counts> + Clone) -> Result<Columns, Error> {
    let sums: Vec<i128> = rows.clone().map(|c| c.cost_nanos).collect();
    if sums.iter().any(|s| !(-MAX_NANO_SUM..=MAX_NANO_SUM).contains(s)) {
        return Err(Error::overflow("a sum of cost")(Overflow));
    }
    let sums = Decimal128Array::from(sums).with_precision_and_scale(38, 0)?;
    Ok(vec![
        ("impressions", longs(rows.clone().map(|c| c.impressions))?),
        ("clicks", longs(rows.clone().map(|c| c.clicks))?),
        ("conversions", longs(rows.map(|c| c.conversions))?),
        ("cost_nanos", Arc::new(sums)),
    ])
}

fn batch(table: &TableDef, columns: &Columns) -> Result<RecordBatch, Error> {
    let schema = table.file_schema();
    let find = |name: &str| columns.iter().find(|(n, _)| *n == name).map(|(_, column)| column.clone());
    let missing = |name: &str| Error::Internal(format!("{} has a column {name} that nobody computes", table.name));
    let columns: Result<Vec<_>, _> =
        schema.fields().iter().map(|f| find(f.name()).ok_or_else(|| missing(f.name()))).collect();
    Ok(RecordBatch::try_new(schema, columns?)?)
}

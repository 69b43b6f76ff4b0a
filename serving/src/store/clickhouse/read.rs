//! The reading calls: each asks a view that shows every key's newest row of the take that counts: `shown` by hours,
//! `shown_by_id` for one ad or campaign.
//! Guarantee: an answer is of one instant; rows of several writers are summed. Never: reads the tables behind the views.

use std::collections::{BTreeMap, BTreeSet};

use clickhouse::Row;
use serde::Deserialize;
use shared::event::{Country, DeviceType};
use shared::id::CampaignId;
use shared::money::Currency;
use shared::rollup::{RollupKey, RollupRow, TimeRange};
use shared::serving_store::{CampaignHourPoint, HourRows, SeriesPoint, StoreError, TopBy, TopCampaign, WriterStatus};
use shared::time::Timestamp;

use super::super::rank::{measure, rank};
use super::connection::Connection;
use super::rows::{
    Raw, StoredRow, Value, add, bounds, by_key, corrupt, counts, finality, instant, seconds, seconds_up, sum, word,
};

const HOUR_ROWS: &str = include_str!("../../../../sql/clickhouse/40_read_hour.sql");
const AD_MINUTES: &str = include_str!("../../../../sql/clickhouse/50_read_ad_minutes.sql");
const CAMPAIGN_MINUTES: &str = include_str!("../../../../sql/clickhouse/51_read_campaign_minutes.sql");
const CAMPAIGN_HOURS: &str = include_str!("../../../../sql/clickhouse/52_read_campaign_hours.sql");
const CAMPAIGNS: &str = include_str!("../../../../sql/clickhouse/53_sum_campaigns.sql");
const OWNED: &str = include_str!("../../../../sql/clickhouse/54_read_owned_hours.sql");
const WRITERS: &str = include_str!("../../../../sql/clickhouse/55_read_writers.sql");
const DRAW: &str = include_str!("../../../../sql/clickhouse/61_draw_number.sql");

/// Up to so many campaigns are looked up by the server; more are picked out of all.
const MAX_NAMED: usize = 1_000;

/// An answer that is one number.
#[derive(Row, Deserialize)]
pub(super) struct Number {
    pub(super) number: u64,
}

/// Who owns an hour.
#[derive(Row, Deserialize)]
pub(super) struct Owner {
    at: u32,
    pub(super) version: u64,
    pub(super) take: u64,
}

impl Owner {
    /// The hour.
    pub(super) fn hour(&self) -> Timestamp {
        instant(self.at)
    }
}

#[derive(Row, Deserialize)]
struct MinuteSum {
    window_start: u32,
    currency: String,
    finality: String,
    impressions: u128,
    clicks: u128,
    conversions: u128,
    cost_nanos: i128,
}

#[derive(Row, Deserialize)]
struct CampaignHour {
    window_start: u32,
    country: String,
    device_type: String,
    currency: String,
    finality: String,
    impressions: u64,
    clicks: u64,
    conversions: u64,
    cost_nanos: i128,
    uniques: Raw,
}

#[derive(Row, Deserialize)]
struct CampaignSum {
    campaign_id: String,
    currency: String,
    impressions: u128,
    clicks: u128,
    conversions: u128,
    cost_nanos: i128,
}

#[derive(Row, Deserialize)]
struct Told {
    writer: u32,
    status: String,
}

/// A number nobody else has, greater than any drawn before.
pub(super) async fn draw_number(connection: &Connection) -> Result<u64, StoreError> {
    let drawn: Number = connection.one("drawing a number", connection.statement(DRAW)).await?;
    Ok(drawn.number)
}

/// The hours of `range` that reconcile owns.
pub(super) async fn owners(connection: &Connection, range: &TimeRange) -> Result<Vec<Owner>, StoreError> {
    let query = connection.statement(OWNED).param("first", seconds_up(range.start)).param("end", seconds_up(range.end));
    connection.all("reading owned hours", query).await
}

/// What is shown for an hour, one row for each key and writer.
pub(super) async fn hour_rows(connection: &Connection, hour: Timestamp) -> Result<Vec<StoredRow>, StoreError> {
    connection.all("reading an hour", connection.statement(HOUR_ROWS).param("hour", seconds(hour))).await
}

/// What is shown for an hour.
pub(super) async fn hour(connection: &Connection, hour: Timestamp) -> Result<HourRows, StoreError> {
    let cells = by_key(hour_rows(connection, hour).await?)?;
    let row = |(key, rows): (RollupKey, Vec<StoredRow>)| {
        let (counts, uniques) = sum(&rows)?;
        Ok(RollupRow { key, counts, uniques })
    };
    cells.into_iter().map(row).collect()
}

/// One ad's minutes.
pub(super) async fn ad_series(c: &Connection, ad: &str, range: &TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
    series(c, "reading an ad", AD_MINUTES, ad, range).await
}

/// One campaign's minutes.
pub(super) async fn campaign_series(
    c: &Connection,
    campaign: &str,
    range: &TimeRange,
) -> Result<Vec<SeriesPoint>, StoreError> {
    series(c, "reading a campaign", CAMPAIGN_MINUTES, campaign, range).await
}

async fn series(
    connection: &Connection,
    doing: &str,
    sql: &str,
    id: &str,
    range: &TimeRange,
) -> Result<Vec<SeriesPoint>, StoreError> {
    let (first_hour, first, end) = bounds(range);
    let query = connection.statement(sql).param("id", id).param("first_hour", first_hour);
    let sums: Vec<MinuteSum> = connection.all(doing, query.param("first", first).param("end", end)).await?;
    let point = |s: MinuteSum| {
        Ok(SeriesPoint {
            window_start: instant(s.window_start),
            currency: word(&s.currency, Currency::parse)?,
            counts: counts(s.impressions, s.clicks, s.conversions, s.cost_nanos)?,
            finality: finality(&s.finality)?,
        })
    };
    sums.into_iter().map(point).collect()
}

/// One campaign's hours by dimension.
pub(super) async fn campaign_hours(
    connection: &Connection,
    campaign: &CampaignId,
    range: &TimeRange,
) -> Result<Vec<CampaignHourPoint>, StoreError> {
    let query = connection.statement(CAMPAIGN_HOURS).param("id", campaign.as_str());
    let query = query.param("first", seconds_up(range.start)).param("end", seconds_up(range.end));
    let rows: Vec<CampaignHour> = connection.all("reading a campaign's hours", query).await?;
    let mut cells: BTreeMap<_, (Value, _)> = BTreeMap::new();
    for row in rows {
        let place = (
            instant(row.window_start),
            word(&row.country, Country::parse)?,
            word(&row.device_type, DeviceType::parse)?,
            word(&row.currency, Currency::parse)?,
        );
        let told = counts(row.impressions.into(), row.clicks.into(), row.conversions.into(), row.cost_nanos)?;
        let value = (told, row.uniques.sketch()?);
        let sum = match cells.remove(&place) {
            Some((sum, _)) => add(sum, &value)?,
            None => value,
        };
        cells.insert(place, (sum, finality(&row.finality)?));
    }
    let point = |((hour, country, device_type, currency), ((counts, uniques), finality))| CampaignHourPoint {
        hour,
        country,
        device_type,
        currency,
        counts,
        uniques: Option::unwrap_or_default(uniques),
        finality,
    };
    Ok(cells.into_iter().map(point).collect())
}

/// The busiest campaigns.
pub(super) async fn top(
    connection: &Connection,
    range: &TimeRange,
    by: TopBy,
    n: usize,
    among: Option<&[CampaignId]>,
) -> Result<Vec<TopCampaign>, StoreError> {
    let among: Option<BTreeSet<&str>> = among.map(|ids| ids.iter().map(CampaignId::as_str).collect());
    if among.as_ref().is_some_and(BTreeSet::is_empty) {
        return Ok(Vec::new());
    }
    let named: Vec<&str> =
        among.iter().filter(|ids| ids.len() <= MAX_NAMED).flat_map(|ids| ids.iter().copied()).collect();
    let (first_hour, first, end) = bounds(range);
    let query = connection.statement(CAMPAIGNS).param("first_hour", first_hour).param("first", first);
    let query = query.param("end", end).param("among", named);
    let sums: Vec<CampaignSum> = connection.all("reading the top campaigns", query).await?;
    let mut lines = Vec::new();
    for s in sums {
        if among.as_ref().is_some_and(|ids| !ids.contains(s.campaign_id.as_str())) {
            continue;
        }
        let counts = counts(s.impressions, s.clicks, s.conversions, s.cost_nanos)?;
        if measure(&counts, by) > 0 {
            let campaign_id = word(&s.campaign_id, |t| CampaignId::new(t).ok())?;
            lines.push(TopCampaign { campaign_id, currency: word(&s.currency, Currency::parse)?, counts });
        }
    }
    Ok(rank(lines, by, n))
}

/// What every writer last told.
pub(super) async fn writers(connection: &Connection) -> Result<BTreeMap<u32, WriterStatus>, StoreError> {
    let told: Vec<Told> = connection.all("reading the writers", connection.statement(WRITERS)).await?;
    let status = |t: Told| match serde_json::from_str(&t.status) {
        Ok(status) => Ok((t.writer, status)),
        Err(e) => Err(corrupt(format!("the status of writer {}: {e}", t.writer))),
    };
    told.into_iter().map(status).collect()
}

//! The reading calls, each inside one read transaction, so that every answer is of one instant.
//! Guarantee: rows of several writers are summed; nothing is written.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Row, Transaction};
use shared::id::{AdId, CampaignId};
use shared::rollup::{Counts, Finality, RollupKey, RollupRow, RowVersion, TimeRange};
use shared::serving_store::{CampaignHourPoint, HourRows, SeriesPoint, TopBy, TopCampaign, WriterStatus};
use shared::sketch::Sketch;
use shared::time::{Day, HOUR, MINUTE, Timestamp};

use super::encode::{self, Failure};
use super::write::{add, union};

const HOUR_AD_MINUTES: &str = include_str!("../../../sql/serving/40_read_hour_ad_minutes.sql");
const HOUR_CAMPAIGN_MINUTES: &str = include_str!("../../../sql/serving/41_read_hour_campaign_minutes.sql");
const HOUR_CAMPAIGN_HOURS: &str = include_str!("../../../sql/serving/42_read_hour_campaign_hours.sql");
const AD_SERIES: &str = include_str!("../../../sql/serving/50_read_ad_minute_series.sql");
const CAMPAIGN_SERIES: &str = include_str!("../../../sql/serving/51_read_campaign_minute_series.sql");
const CAMPAIGN_HOURS: &str = include_str!("../../../sql/serving/52_read_campaign_hours.sql");
const SUM_CAMPAIGNS: &str = include_str!("../../../sql/serving/53_sum_campaigns.sql");
const OWNED_HOURS: &str = "SELECT hour, version FROM owned_hour WHERE hour >= ?1 AND hour < ?2";
const SETTLED_DAYS: &str = "SELECT day FROM settled_day WHERE day >= ?1 AND day <= ?2";

/// Which hours of a range are owned and which days settled.
struct Finalities {
    owned: BTreeMap<Timestamp, RowVersion>,
    settled: BTreeSet<Day>,
}

impl Finalities {
    fn read(tx: &Transaction<'_>, range: &TimeRange) -> Result<Self, Failure> {
        let owned = owned_hours(tx, &(range.start.floor(HOUR)..range.end))?;
        let mut days = tx.prepare_cached(SETTLED_DAYS)?;
        let days = days.query_map((range.start.day().0, range.end.day().0), |r| r.get(0).map(Day))?;
        Ok(Self { owned, settled: days.collect::<Result<_, _>>()? })
    }

    fn of(&self, at: Timestamp) -> Finality {
        match (self.owned.contains_key(&at.floor(HOUR)), self.settled.contains(&at.day())) {
            (false, _) => Finality::Provisional,
            (true, false) => Finality::Reconciled,
            (true, true) => Finality::Settled,
        }
    }
}

/// Everything shown for one hour.
pub(super) fn hour(tx: &Transaction<'_>, hour: Timestamp) -> Result<HourRows, Failure> {
    let number = [encode::hour_number(hour)];
    let mut shown = Vec::new();
    let mut statement = tx.prepare_cached(HOUR_AD_MINUTES)?;
    let mut rows = statement.query(number)?;
    while let Some(row) = rows.next()? {
        let key = RollupKey::AdMinute {
            minute: encode::minute(row, 0)?,
            ad_id: encode::word(row, 2, |t| AdId::new(t).ok())?,
            campaign_id: encode::word(row, 3, |t| CampaignId::new(t).ok())?,
            currency: encode::currency(row, 4)?,
        };
        shown.push(RollupRow { key, counts: encode::counts_from_sql(row, 5)?, uniques: None });
    }
    let mut statement = tx.prepare_cached(HOUR_CAMPAIGN_MINUTES)?;
    let mut rows = statement.query(number)?;
    while let Some(row) = rows.next()? {
        let key = RollupKey::CampaignMinute {
            minute: encode::minute(row, 0)?,
            campaign_id: encode::word(row, 2, |t| CampaignId::new(t).ok())?,
            currency: encode::currency(row, 3)?,
        };
        shown.push(RollupRow { key, counts: encode::counts_from_sql(row, 4)?, uniques: None });
    }
    let mut statement = tx.prepare_cached(HOUR_CAMPAIGN_HOURS)?;
    for (key, (counts, uniques)) in merge_hours(statement.query(number)?)? {
        shown.push(RollupRow { key, counts, uniques });
    }
    shown.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(shown)
}

type Merged = BTreeMap<RollupKey, (Counts, Option<Sketch>)>;

/// Sums campaign hours of several writers.
fn merge_hours(mut rows: rusqlite::Rows<'_>) -> Result<Merged, Failure> {
    let mut merged = Merged::new();
    while let Some(row) = rows.next()? {
        let key = RollupKey::CampaignHour {
            hour: encode::hour_start(row.get(0)?),
            campaign_id: encode::word(row, 1, |t| CampaignId::new(t).ok())?,
            country: encode::country(row, 2)?,
            device_type: encode::device_type(row, 3)?,
            currency: encode::currency(row, 4)?,
        };
        let (counts, uniques) = (encode::counts_from_sql(row, 5)?, encode::sketch_from_sql(row, 10)?);
        let sum = match merged.remove(&key) {
            None => (counts, uniques),
            Some((sum, users)) => (add(&sum, &counts)?, union(users, uniques)),
        };
        merged.insert(key, sum);
    }
    Ok(merged)
}

/// The hours reconcile owns that start in `range`.
pub(super) fn owned_hours(tx: &Transaction<'_>, range: &TimeRange) -> Result<BTreeMap<Timestamp, RowVersion>, Failure> {
    let owned = |row: &Row<'_>| -> rusqlite::Result<_> {
        Ok((encode::hour_start(row.get(0)?), encode::version_back(row.get(1)?)))
    };
    let mut statement = tx.prepare_cached(OWNED_HOURS)?;
    let rows = statement.query_map(encode::windows(range, HOUR), owned)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// One ad's minutes.
pub(super) fn ad_series(tx: &Transaction<'_>, ad: &AdId, range: &TimeRange) -> Result<Vec<SeriesPoint>, Failure> {
    series(tx, AD_SERIES, ad.as_str(), range)
}

/// One campaign's minutes.
pub(super) fn campaign_series(
    tx: &Transaction<'_>,
    campaign: &CampaignId,
    range: &TimeRange,
) -> Result<Vec<SeriesPoint>, Failure> {
    series(tx, CAMPAIGN_SERIES, campaign.as_str(), range)
}

/// The hours that hold the minutes `from..to`, and those minutes.
fn minutes_and_hours(range: &TimeRange) -> (i64, i64, i64, i64) {
    let (from, to) = encode::windows(range, MINUTE);
    (from.div_euclid(60), to.saturating_add(59).div_euclid(60), from, to)
}

fn series(tx: &Transaction<'_>, sql: &str, id: &str, range: &TimeRange) -> Result<Vec<SeriesPoint>, Failure> {
    let finalities = Finalities::read(tx, range)?;
    let (first_hour, end_hour, first_minute, end_minute) = minutes_and_hours(range);
    let mut statement = tx.prepare_cached(sql)?;
    let mut rows = statement.query((id, first_hour, end_hour, first_minute, end_minute))?;
    let mut points = Vec::new();
    while let Some(row) = rows.next()? {
        let window_start = encode::minute(row, 0)?;
        points.push(SeriesPoint {
            window_start,
            currency: encode::currency(row, 2)?,
            counts: encode::counts_from_sql(row, 3)?,
            finality: finalities.of(window_start),
        });
    }
    Ok(points)
}

/// One campaign's hours by dimension.
pub(super) fn campaign_hours(
    tx: &Transaction<'_>,
    campaign: &CampaignId,
    range: &TimeRange,
) -> Result<Vec<CampaignHourPoint>, Failure> {
    let finalities = Finalities::read(tx, range)?;
    let (first, end) = encode::windows(range, HOUR);
    let mut statement = tx.prepare_cached(CAMPAIGN_HOURS)?;
    let merged = merge_hours(statement.query((campaign.as_str(), first, end))?)?;
    let point = |(key, (counts, uniques)): (RollupKey, (Counts, Option<Sketch>))| match key {
        RollupKey::CampaignHour { hour, country, device_type, currency, .. } => {
            let finality = finalities.of(hour);
            let uniques = uniques.unwrap_or_default();
            Some(CampaignHourPoint { hour, country, device_type, currency, counts, uniques, finality })
        }
        RollupKey::AdMinute { .. } | RollupKey::CampaignMinute { .. } => None,
    };
    Ok(merged.into_iter().filter_map(point).collect())
}

/// The busiest campaigns.
pub(super) fn top(
    tx: &Transaction<'_>,
    range: &TimeRange,
    by: TopBy,
    n: usize,
    among: Option<&BTreeSet<CampaignId>>,
) -> Result<Vec<TopCampaign>, Failure> {
    let mut statement = tx.prepare_cached(SUM_CAMPAIGNS)?;
    let mut rows = statement.query(minutes_and_hours(range))?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let counts = encode::counts_from_sql(row, 2)?;
        if measure(&counts, by) > 0 && among.is_none_or(|a| a.contains(id)) {
            let campaign_id = encode::word(row, 0, |t| CampaignId::new(t).ok())?;
            lines.push(TopCampaign { campaign_id, currency: encode::currency(row, 1)?, counts });
        }
    }
    Ok(rank(lines, by, n))
}

/// Orders lines that come by campaign and currency; the sorts are stable.
fn rank(mut lines: Vec<TopCampaign>, by: TopBy, n: usize) -> Vec<TopCampaign> {
    lines.sort_by_key(|l| Reverse(measure(&l.counts, by)));
    if by != TopBy::Cost {
        lines.truncate(n);
        return lines;
    }
    lines.sort_by_key(|l| l.currency);
    let per_currency = lines.chunk_by(|a, b| a.currency == b.currency);
    per_currency.flat_map(|lines| lines.iter().take(n).cloned()).collect()
}

fn measure(counts: &Counts, by: TopBy) -> i128 {
    match by {
        TopBy::Clicks => i128::from(counts.clicks),
        TopBy::Impressions => i128::from(counts.impressions),
        TopBy::Conversions => i128::from(counts.conversions),
        TopBy::Cost => counts.cost_nanos,
    }
}

/// What every writer last told.
pub(super) fn writers(tx: &Transaction<'_>) -> Result<BTreeMap<u32, WriterStatus>, Failure> {
    let mut statement = tx.prepare_cached("SELECT writer, status FROM writer_status ORDER BY writer")?;
    let mut rows = statement.query([])?;
    let mut writers = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let status = encode::word(row, 1, |t| serde_json::from_str(t).ok())?;
        writers.insert(row.get(0)?, status);
    }
    Ok(writers)
}

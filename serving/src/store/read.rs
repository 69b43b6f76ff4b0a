//! The reading calls, each inside one read transaction, so that every answer is of one instant.
//! Guarantee: rows of several writers are summed; nothing is written.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Row, Rows, Transaction};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::{Counts, Finality, RollupKey, RollupRow, RowVersion, TimeRange};
use shared::serving_store::{CampaignHourPoint, HourRows, SeriesPoint, TopBy, TopCampaign, WriterStatus};
use shared::sketch::Sketch;
use shared::time::{Day, HOUR, MINUTE, Timestamp};

use super::encode::{self, Failure};
use super::rank::{measure, rank};
use super::write::{add, union};

const HOUR_AD_MINUTES: &str = include_str!("../../../sql/serving/40_read_hour_ad_minutes.sql");
const HOUR_CAMPAIGN_MINUTES: &str = include_str!("../../../sql/serving/41_read_hour_campaign_minutes.sql");
const HOUR_CAMPAIGN_HOURS: &str = include_str!("../../../sql/serving/42_read_hour_campaign_hours.sql");
const AD_SERIES: &str = include_str!("../../../sql/serving/50_read_ad_minute_series.sql");
const CAMPAIGN_SERIES: &str = include_str!("../../../sql/serving/51_read_campaign_minute_series.sql");
const CAMPAIGN_HOURS: &str = include_str!("../../../sql/serving/52_read_campaign_hours.sql");
const MINUTE_HOURS: &str = include_str!("../../../sql/serving/53_list_campaign_minute_hours.sql");
const SUM_ALL: &str = include_str!("../../../sql/serving/54_sum_campaigns_of_hour.sql");
const SUM_ONE: &str = include_str!("../../../sql/serving/55_sum_campaign_of_hour.sql");
const WHOLE_ALL: &str = include_str!("../../../sql/serving/56_read_campaigns_of_hour.sql");
const WHOLE_ONE: &str = include_str!("../../../sql/serving/57_read_campaign_of_hour.sql");
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
fn merge_hours(mut rows: Rows<'_>) -> Result<Merged, Failure> {
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

/// Up to so many campaigns are looked up one by one; more are picked out of all.
const MAX_SEEKS: usize = 64;

type Sums = BTreeMap<(CampaignId, Currency), Counts>;

/// The busiest campaigns.
pub(super) fn top(
    tx: &Transaction<'_>,
    range: &TimeRange,
    by: TopBy,
    n: usize,
    among: Option<&BTreeSet<CampaignId>>,
) -> Result<Vec<TopCampaign>, Failure> {
    let (first_hour, end_hour, first_minute, end_minute) = minutes_and_hours(range);
    let mut statement = tx.prepare_cached(MINUTE_HOURS)?;
    let hours = statement.query_map((first_hour, end_hour), |r| r.get::<_, i64>(0))?;
    let mut sums = Sums::new();
    for hour in hours {
        let hour = hour?;
        let (from, to) = ((first_minute - hour * 60).max(0), (end_minute - hour * 60).min(60));
        let is_whole = (from, to) == (0, 60);
        match among {
            Some(ids) if ids.len() <= MAX_SEEKS => {
                let mut one = tx.prepare_cached(if is_whole { WHOLE_ONE } else { SUM_ONE })?;
                for id in ids {
                    let id = id.as_str();
                    let rows = if is_whole { one.query((hour, id)) } else { one.query((hour, from, to, id)) };
                    add_up(&mut sums, rows?, None)?;
                }
            }
            _ if is_whole => add_up(&mut sums, tx.prepare_cached(WHOLE_ALL)?.query([hour])?, among)?,
            _ => add_up(&mut sums, tx.prepare_cached(SUM_ALL)?.query((hour, from, to))?, among)?,
        }
    }
    let line = |((campaign_id, currency), counts)| TopCampaign { campaign_id, currency, counts };
    let lines = sums.into_iter().map(line).filter(|l| measure(&l.counts, by) > 0).collect();
    Ok(rank(lines, by, n))
}

fn add_up(sums: &mut Sums, mut rows: Rows<'_>, among: Option<&BTreeSet<CampaignId>>) -> Result<(), Failure> {
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if among.is_none_or(|a| a.contains(id)) {
            let key = (encode::word(row, 0, |t| CampaignId::new(t).ok())?, encode::currency(row, 1)?);
            let sum = sums.entry(key).or_default();
            *sum = add(sum, &encode::counts_from_sql(row, 2)?)?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::embedded::MIGRATIONS;
    use super::*;

    /// The steps SQLite takes for `sql`, as it describes them.
    fn plan(connection: &Connection, sql: &str) -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let unbound = statement.parameter_count();
        let parameters = rusqlite::params_from_iter((0..unbound).map(|_| 0));
        let steps = statement.query_map(parameters, |r| r.get::<_, String>(3)).unwrap();
        steps.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn every_question_seeks_by_hour_and_id_and_scans_no_table() {
        let connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|m| connection.execute_batch(m).unwrap());
        let questions = [
            HOUR_AD_MINUTES,
            HOUR_CAMPAIGN_MINUTES,
            HOUR_CAMPAIGN_HOURS,
            AD_SERIES,
            CAMPAIGN_SERIES,
            CAMPAIGN_HOURS,
            MINUTE_HOURS,
            SUM_ALL,
            SUM_ONE,
            WHOLE_ALL,
            WHOLE_ONE,
            OWNED_HOURS,
            SETTLED_DAYS,
        ];
        for sql in questions {
            let steps = plan(&connection, sql);
            let scanned =
                |s: &&String| s.starts_with("SCAN") && !s.starts_with("SCAN hours") && *s != "SCAN CONSTANT ROW";
            assert_eq!(steps.iter().find(scanned), None, "{sql}: {steps:#?}");
        }
        for (sql, seek) in [
            (AD_SERIES, "SEARCH r USING PRIMARY KEY (hour=? AND ad_id=?)"),
            (CAMPAIGN_SERIES, "SEARCH r USING PRIMARY KEY (hour=? AND campaign_id=?)"),
            (CAMPAIGN_HOURS, "(hour=? AND campaign_id=?)"),
        ] {
            let steps = plan(&connection, sql);
            assert!(steps.iter().any(|s| s.contains(seek)), "{sql}: {steps:#?}");
        }
        let steps = plan(&connection, SUM_ALL);
        assert!(!steps.iter().any(|s| s.contains("TEMP B-TREE")), "sums are read in key order: {steps:#?}");
    }
}

//! How rollup rows look in the database: short integer times, cost in two summable halves, ordered versions.
//! Guarantee: what is written reads back as it was; what does not fit is an error. Pure but for SQLite's types.

use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, ValueRef};
use shared::event::{Country, DeviceType};
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RowVersion, TimeRange};
use shared::serving_store::StoreError;
use shared::sketch::Sketch;
use shared::time::{HOUR, MINUTE, Timestamp};

/// Reconcile's number among the writers.
pub(super) const EXACT: i64 = -1;

/// Why a call failed, before it is known what was attempted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Corrupt(String),
}

impl Failure {
    /// The port's error: what heals by itself is unavailable, what contradicts our schema is corrupt.
    pub(super) fn while_doing(self, doing: &str) -> StoreError {
        use rusqlite::ErrorCode as Code;
        let error = match self {
            Self::Corrupt(why) => return StoreError::Corrupt(format!("{doing}: {why}")),
            Self::Sqlite(error) => error,
        };
        let heals = matches!(
            error.sqlite_error_code(),
            Some(
                Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::DiskFull
                    | Code::CannotOpen
                    | Code::SystemIoFailure
                    | Code::ReadOnly
                    | Code::PermissionDenied
                    | Code::OutOfMemory
                    | Code::FileLockingProtocolFailed
                    | Code::OperationInterrupted
            )
        );
        let why = error.to_string();
        if heals {
            StoreError::Unavailable { doing: doing.to_owned(), why }
        } else {
            StoreError::Corrupt(format!("{doing}: {why}"))
        }
    }
}

/// Hours since 1970.
pub(super) fn hour_number(at: Timestamp) -> i64 {
    at.0.div_euclid(HOUR)
}

/// The start of an hour by its number.
pub(super) fn hour_start(number: i64) -> Timestamp {
    Timestamp(number.saturating_mul(HOUR))
}

fn minute_of_hour(at: Timestamp) -> i64 {
    at.0.rem_euclid(HOUR) / MINUTE
}

/// The numbers of the windows of `length` that start in `range`.
pub(super) fn windows(range: &TimeRange, length: i64) -> (i64, i64) {
    let ceil = |t: Timestamp| t.0.saturating_add(length - 1).div_euclid(length);
    (ceil(range.start), ceil(range.end))
}

/// A version as an integer in the database's signed order.
pub(super) fn version(version: RowVersion) -> i64 {
    (version.0 ^ (1 << 63)).cast_signed()
}

/// A version from its integer.
pub(super) fn version_back(stored: i64) -> RowVersion {
    RowVersion(stored.cast_unsigned() ^ (1 << 63))
}

/// A cost as `high * 2^32 + low`, `0 <= low < 2^32`.
fn halves(nanos: i128) -> Result<(i64, i64), Failure> {
    let high = i64::try_from(nanos >> 32).map_err(|_| Failure::Corrupt(format!("{nanos} nanos do not fit")))?;
    let low = i64::try_from(nanos & 0xFFFF_FFFF).map_err(|_| Failure::Corrupt(format!("{nanos} nanos do not fit")))?;
    Ok((high, low))
}

/// A cost (or a sum of costs) from its halves.
fn whole(high: i64, low: i64) -> i128 {
    (i128::from(high) << 32) + i128::from(low)
}

/// The five columns of counts.
pub(super) fn counts_to_sql(counts: &Counts) -> Result<[i64; 5], Failure> {
    let integer = |n: u64| i64::try_from(n).map_err(|_| Failure::Corrupt(format!("a count of {n} does not fit")));
    let (high, low) = halves(counts.cost_nanos)?;
    Ok([integer(counts.impressions)?, integer(counts.clicks)?, integer(counts.conversions)?, high, low])
}

/// The counts from five columns, the first at `column`.
pub(super) fn counts_from_sql(row: &Row<'_>, column: usize) -> Result<Counts, Failure> {
    let count = |offset: usize| -> Result<u64, Failure> {
        let n: i64 = row.get(column + offset)?;
        u64::try_from(n).map_err(|_| Failure::Corrupt(format!("a count of {n}")))
    };
    Ok(Counts {
        impressions: count(0)?,
        clicks: count(1)?,
        conversions: count(2)?,
        cost_nanos: whole(row.get(column + 3)?, row.get(column + 4)?),
    })
}

/// A sketch column.
pub(super) fn sketch_from_sql(row: &Row<'_>, column: usize) -> Result<Option<Sketch>, Failure> {
    let bytes: Option<Vec<u8>> = row.get(column)?;
    bytes.map(|b| Sketch::from_bytes(&b).map_err(|e| Failure::Corrupt(e.to_string()))).transpose()
}

/// A text column read by `parse`.
pub(super) fn word<T>(row: &Row<'_>, column: usize, parse: impl Fn(&str) -> Option<T>) -> Result<T, Failure> {
    let text = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    parse(text).ok_or_else(|| Failure::Corrupt(format!("{text:?} in column {column}")))
}

/// A currency column.
pub(super) fn currency(row: &Row<'_>, column: usize) -> Result<Currency, Failure> {
    word(row, column, Currency::parse)
}

/// A country column.
pub(super) fn country(row: &Row<'_>, column: usize) -> Result<Country, Failure> {
    word(row, column, Country::parse)
}

/// A device column.
pub(super) fn device_type(row: &Row<'_>, column: usize) -> Result<DeviceType, Failure> {
    word(row, column, DeviceType::parse)
}

/// A minute from its hour and minute columns.
pub(super) fn minute(row: &Row<'_>, column: usize) -> Result<Timestamp, Failure> {
    let (hour, minute): (i64, i64) = (row.get(column)?, row.get(column + 1)?);
    Ok(hour_start(hour).plus(minute * MINUTE))
}

/// The statements of one grain.
pub(super) struct Statements {
    pub(super) shows: &'static str,
    pub(super) upsert: &'static str,
    pub(super) read: &'static str,
    pub(super) delete: &'static str,
}

const AD_MINUTE: Statements = Statements {
    shows: "SELECT EXISTS (SELECT 1 FROM ad_minute WHERE hour = ?1)",
    upsert: include_str!("../../../sql/serving/10_upsert_ad_minute.sql"),
    read: include_str!("../../../sql/serving/20_read_ad_minute_key.sql"),
    delete: include_str!("../../../sql/serving/30_delete_ad_minute_key.sql"),
};
const CAMPAIGN_MINUTE: Statements = Statements {
    shows: "SELECT EXISTS (SELECT 1 FROM campaign_minute WHERE hour = ?1)",
    upsert: include_str!("../../../sql/serving/11_upsert_campaign_minute.sql"),
    read: include_str!("../../../sql/serving/21_read_campaign_minute_key.sql"),
    delete: include_str!("../../../sql/serving/31_delete_campaign_minute_key.sql"),
};
const CAMPAIGN_HOUR: Statements = Statements {
    shows: "SELECT EXISTS (SELECT 1 FROM campaign_hour WHERE hour = ?1)",
    upsert: include_str!("../../../sql/serving/12_upsert_campaign_hour.sql"),
    read: include_str!("../../../sql/serving/22_read_campaign_hour_key.sql"),
    delete: include_str!("../../../sql/serving/32_delete_campaign_hour_key.sql"),
};

/// The statements for a key's grain.
pub(super) fn statements(key: &RollupKey) -> &'static Statements {
    match key {
        RollupKey::AdMinute { .. } => &AD_MINUTE,
        RollupKey::CampaignMinute { .. } => &CAMPAIGN_MINUTE,
        RollupKey::CampaignHour { .. } => &CAMPAIGN_HOUR,
    }
}

/// The key's columns, in the order of its table's primary key.
pub(super) fn key_values(key: &RollupKey) -> Vec<ToSqlOutput<'_>> {
    let mut values = Vec::with_capacity(16);
    values.push(ToSqlOutput::from(hour_number(key.window_start())));
    match key {
        RollupKey::AdMinute { minute, ad_id, campaign_id, currency } => {
            values.push(text(ad_id.as_str()));
            values.push(ToSqlOutput::from(minute_of_hour(*minute)));
            values.push(text(campaign_id.as_str()));
            values.push(text(currency.as_str()));
        }
        RollupKey::CampaignMinute { minute, campaign_id, currency } => {
            values.push(text(campaign_id.as_str()));
            values.push(text(currency.as_str()));
            values.push(ToSqlOutput::from(minute_of_hour(*minute)));
        }
        RollupKey::CampaignHour { campaign_id, country, device_type, currency, .. } => {
            values.push(text(campaign_id.as_str()));
            values.push(text(country.as_str()));
            values.push(text(device_type.as_str()));
            values.push(text(currency.as_str()));
        }
    }
    values
}

fn text(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

/// The order of a grain's primary key, so that a batch writes each page once.
pub(super) fn storage_order(a: &RollupKey, b: &RollupKey) -> std::cmp::Ordering {
    let (table_a, id_a) = table_and_id(a);
    let (table_b, id_b) = table_and_id(b);
    (table_a, a.hour(), id_a).cmp(&(table_b, b.hour(), id_b)).then_with(|| a.cmp(b))
}

fn table_and_id(key: &RollupKey) -> (u8, &str) {
    match key {
        RollupKey::AdMinute { ad_id, .. } => (0, ad_id.as_str()),
        RollupKey::CampaignMinute { campaign_id, .. } => (1, campaign_id.as_str()),
        RollupKey::CampaignHour { campaign_id, .. } => (2, campaign_id.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sum_of_halves_is_the_half_of_the_sum(amounts in prop::collection::vec(-(1_i128 << 80)..(1_i128 << 80), 0..50)) {
            let halves: Vec<_> = amounts.iter().map(|n| halves(*n).unwrap()).collect();
            prop_assert!(halves.iter().all(|(_, low)| (0..1_i64 << 32).contains(low)));
            let (high, low) = halves.iter().fold((0, 0), |(h, l), (high, low)| (h + high, l + low));
            prop_assert_eq!(whole(high, low), amounts.iter().sum::<i128>());
        }

        #[test]
        fn stored_versions_keep_their_order(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(version(RowVersion(a)).cmp(&version(RowVersion(b))), a.cmp(&b));
            prop_assert_eq!(version_back(version(RowVersion(a))), RowVersion(a));
        }

        #[test]
        fn windows_are_those_that_start_in_the_range(start in -500_i64..500, end in -500_i64..500, number in -70_i64..70) {
            let range = Timestamp(start)..Timestamp(end);
            let (from, to) = windows(&range, 10);
            prop_assert_eq!((from..to).contains(&number), range.contains(&Timestamp(number * 10)));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        assert!(halves(i128::MAX).is_err() && halves(i128::MIN).is_err());
        assert!(counts_to_sql(&Counts { clicks: u64::MAX, ..Counts::default() }).is_err());
    }
}

//! From what the store shows to what a report says: merging windows and dimensions, rounding money once. Pure.
//! Guarantee: the rows of a report add up to the store's, in integers; cost is rounded half-even per row, never
//! before (contract 2.8).

use std::collections::BTreeMap;

use serde::Serialize;
use shared::event::{Country, DeviceType};
use shared::money::{Currency, Overflow, micros_half_even};
use shared::rollup::{Counts, Finality, RowVersion, TimeRange};
use shared::serving_store::{CampaignHourPoint, SeriesPoint};
use shared::sketch::{STANDARD_ERROR_PPM, Sketch};
use shared::time::{HOUR, Timestamp};
use utoipa::ToSchema;

use crate::bounds::{Judge, RowBounds};

/// The hours reconcile owns within a range.
pub(crate) type OwnedHours = BTreeMap<Timestamp, RowVersion>;

/// Whether every hour of `range` is owned, so that nothing provisional can be in it.
pub(crate) fn is_exact(range: &TimeRange, owned: &OwnedHours) -> bool {
    let mut hour = range.start.floor(HOUR);
    while hour < range.end {
        if !owned.contains_key(&hour) {
            return false;
        }
        hour = hour.plus(HOUR);
    }
    true
}

/// Which layer a number comes from.
pub(crate) fn source(finality: Finality) -> &'static str {
    match finality {
        Finality::Provisional => "speed",
        Finality::Reconciled | Finality::Settled => "batch",
    }
}

/// What was counted, as every row says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counted {
    /// Billable impressions.
    pub(crate) impressions: u64,
    /// Billable clicks.
    pub(crate) clicks: u64,
    /// Billable conversions.
    pub(crate) conversions: u64,
}

impl From<&Counts> for Counted {
    fn from(counts: &Counts) -> Self {
        Self { impressions: counts.impressions, clicks: counts.clicks, conversions: counts.conversions }
    }
}

/// One window of an ad's series, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeriesRow {
    /// The first minute of the window, RFC 3339 UTC.
    #[schema(example = "2026-01-05T10:00:00Z")]
    pub(crate) minute: String,
    /// ISO 4217; XXX where nothing has a price.
    pub(crate) currency: String,
    #[serde(flatten)]
    pub(crate) counted: Counted,
    /// Cost in micros of the currency, rounded half-even from exact nanos.
    pub(crate) cost_micros: i64,
    /// Where the exact numbers lie; absent once the row is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bounds: Option<RowBounds>,
    /// provisional, reconciled or settled.
    pub(crate) finality: String,
    /// speed or batch.
    pub(crate) source: String,
}

/// What a series row is about, in the order of rows.
pub(crate) type SeriesKey = (Timestamp, Currency);

struct Window {
    counts: Counts,
    finality: Finality,
}

/// Merges minutes into windows of `length` microseconds. A window longer than an hour is provisional as long as
/// one of its hours is, whether or not that hour shows anything yet.
pub(crate) fn series(
    points: &[SeriesPoint],
    length: i64,
    owned: &OwnedHours,
    judge: &Judge,
) -> Result<BTreeMap<SeriesKey, SeriesRow>, Overflow> {
    let mut windows: BTreeMap<SeriesKey, Window> = BTreeMap::new();
    for point in points {
        let start = point.window_start.floor(length);
        let window = windows.entry((start, point.currency)).or_insert_with(|| {
            let whole = is_exact(&(start..start.plus(length)), owned);
            let finality = if whole { Finality::Settled } else { Finality::Provisional };
            Window { counts: Counts::default(), finality }
        });
        window.counts = window.counts.merge(&point.counts)?;
        window.finality = window.finality.min(point.finality);
    }
    let row = |(key, window): (SeriesKey, Window)| {
        let cost_micros = micros_half_even(window.counts.cost_nanos)?;
        let bounds = judge.row(key.0, length, &window.counts, window.finality);
        let row = SeriesRow {
            minute: key.0.to_string(),
            currency: key.1.to_string(),
            counted: (&window.counts).into(),
            cost_micros,
            bounds: bounds.map(|b| b.with_cost(&window.counts, cost_micros)),
            finality: window.finality.as_str().to_owned(),
            source: source(window.finality).to_owned(),
        };
        Ok((key, row))
    };
    windows.into_iter().map(row).collect()
}

/// The dimensions a campaign's hours may be grouped by: the allow-list (L6). Others would have too many values,
/// or too few people in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grouping {
    pub(crate) by_country: bool,
    pub(crate) by_device: bool,
}

impl Grouping {
    /// The allowed sets, as written in `groupBy`.
    pub(crate) const ALLOWED: [&'static str; 3] = ["country", "deviceType", "country,deviceType"];

    /// From `groupBy`; `None` when the set is not allowed.
    pub(crate) fn parse(text: Option<&str>) -> Option<Self> {
        let (by_country, by_device) = match text {
            None | Some("") => (false, false),
            Some("country") => (true, false),
            Some("deviceType") => (false, true),
            Some("country,deviceType" | "deviceType,country") => (true, true),
            Some(_) => return None,
        };
        Some(Self { by_country, by_device })
    }
}

/// One hour of a campaign, in one currency and one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HourRow {
    /// The start of the hour, RFC 3339 UTC.
    #[schema(example = "2026-01-05T10:00:00Z")]
    pub(crate) hour: String,
    /// ISO 3166-1 alpha-2, ZZ unknown; only where grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) country: Option<String>,
    /// desktop, mobile, tablet, ctv or other; only where grouped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_type: Option<String>,
    /// ISO 4217; XXX where nothing has a price.
    pub(crate) currency: String,
    #[serde(flatten)]
    pub(crate) counted: Counted,
    /// Spend in micros of the currency, rounded half-even from exact nanos.
    pub(crate) spend_micros: i64,
    /// Unique users, estimated by a sketch; not additive over rows.
    pub(crate) uniques: u64,
    /// One standard error of `uniques`, in users.
    pub(crate) uniques_std_err: u64,
    /// Where the exact numbers lie; absent once the row is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bounds: Option<RowBounds>,
    /// provisional, reconciled or settled.
    pub(crate) finality: String,
    /// speed or batch.
    pub(crate) source: String,
    /// Events up to this instant are in the row; absent where nothing was counted yet.
    pub(crate) as_of: Option<String>,
}

/// What an hour row is about, in the order of rows.
pub(crate) type HourKey = (Timestamp, Option<Country>, Option<DeviceType>, Currency);

/// Merges hours over the dimensions that are not asked for. `as_of` is that of provisional rows.
pub(crate) fn hours(
    points: Vec<CampaignHourPoint>,
    grouping: Grouping,
    as_of: Option<Timestamp>,
    judge: &Judge,
) -> Result<BTreeMap<HourKey, HourRow>, Overflow> {
    let mut groups: BTreeMap<HourKey, (Window, Sketch)> = BTreeMap::new();
    for p in points {
        let country = grouping.by_country.then_some(p.country);
        let device = grouping.by_device.then_some(p.device_type);
        let group = groups.entry((p.hour, country, device, p.currency));
        let (window, users) =
            group.or_insert_with(|| (Window { counts: Counts::default(), finality: Finality::Settled }, Sketch::new()));
        window.counts = window.counts.merge(&p.counts)?;
        window.finality = window.finality.min(p.finality);
        *users = if users.is_empty() { p.uniques } else { users.merge(&p.uniques) };
    }
    let row = |(key, (window, users)): (HourKey, (Window, Sketch))| {
        let bounds = judge.row(key.0, HOUR, &window.counts, window.finality);
        let mut row = hour_row(key, &window, users.estimate(), as_of)?;
        row.bounds = bounds.map(|b| b.with_cost(&window.counts, row.spend_micros).with_uniques(row.uniques));
        Ok((key, row))
    };
    groups.into_iter().map(row).collect()
}

fn hour_row(key: HourKey, window: &Window, uniques: u64, as_of: Option<Timestamp>) -> Result<HourRow, Overflow> {
    let (hour, country, device, currency) = key;
    let as_of = match window.finality {
        Finality::Provisional => as_of,
        Finality::Reconciled | Finality::Settled => Some(hour.plus(HOUR)),
    };
    Ok(HourRow {
        hour: hour.to_string(),
        country: country.map(|c| c.as_str().to_owned()),
        device_type: device.map(|d| d.as_str().to_owned()),
        currency: currency.to_string(),
        counted: (&window.counts).into(),
        spend_micros: micros_half_even(window.counts.cost_nanos)?,
        uniques,
        bounds: None,
        uniques_std_err: uniques.saturating_mul(STANDARD_ERROR_PPM).div_ceil(1_000_000),
        finality: window.finality.as_str().to_owned(),
        source: source(window.finality).to_owned(),
        as_of: as_of.map(|t| t.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::time::{DAY, MINUTE};

    use super::*;

    fn judge() -> Judge {
        Judge::new(std::sync::Arc::default(), None)
    }

    fn points() -> impl Strategy<Value = Vec<SeriesPoint>> {
        let point = (0..3_000_i64, 0..9_u64, -(1_i128 << 70)..(1_i128 << 70), any::<bool>()).prop_map(
            |(minute, clicks, cost_nanos, euro)| SeriesPoint {
                window_start: Timestamp(minute * MINUTE),
                currency: Currency::parse(if euro { "EUR" } else { "USD" }).unwrap(),
                counts: Counts { clicks, impressions: clicks * 3, conversions: 1, cost_nanos: cost_nanos / (1 << 20) },
                finality: Finality::Reconciled,
            },
        );
        prop::collection::vec(point, 0..60)
    }

    proptest! {
        #[test]
        fn every_granularity_adds_up_to_the_minutes(points in points()) {
            let sums = |length| {
                let rows = series(&points, length, &OwnedHours::new(), &judge()).unwrap();
                let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
                for row in rows.values() {
                    let sum = sums.entry(row.currency.clone()).or_default();
                    let Counted { impressions, clicks, conversions } = row.counted;
                    *sum = (sum.0 + impressions, sum.1 + clicks, sum.2 + conversions);
                }
                (sums, rows)
            };
            let (minutes, _) = sums(MINUTE);
            for length in [5 * MINUTE, HOUR, DAY] {
                prop_assert_eq!(&sums(length).0, &minutes);
            }
            // Cost is rounded once per row, from the exact sum and not from rounded minutes.
            let (_, days) = sums(DAY);
            for day in days.into_values() {
                let exact: i128 = points.iter()
                    .filter(|p| p.window_start.floor(DAY).to_string() == day.minute && p.currency.to_string() == day.currency)
                    .map(|p| p.counts.cost_nanos).sum();
                prop_assert_eq!(day.cost_micros, micros_half_even(exact).unwrap());
            }
        }
    }

    #[test]
    fn a_day_is_as_final_as_its_least_final_hour_even_an_empty_one() {
        let point = |minute: i64, finality| SeriesPoint {
            window_start: Timestamp(minute * MINUTE),
            currency: Currency::NONE,
            counts: Counts { clicks: 1, ..Counts::default() },
            finality,
        };
        let finality = |points: &[SeriesPoint], owned: &OwnedHours| {
            series(points, DAY, owned, &judge()).unwrap().into_values().next().unwrap().finality
        };
        let all: OwnedHours = (0..24).map(|h| (Timestamp(h * HOUR), RowVersion::reconciled(1))).collect();
        let mut but_one = all.clone();
        but_one.remove(&Timestamp(23 * HOUR));
        let settled = [point(0, Finality::Settled), point(61, Finality::Settled)];
        assert_eq!(finality(&settled, &all), "settled");
        assert_eq!(finality(&settled, &but_one), "provisional", "the last hour may still grow");
        assert_eq!(finality(&[settled[0].clone(), point(61, Finality::Reconciled)], &all), "reconciled");
    }

    #[test]
    fn only_the_listed_dimension_sets_are_grouped_by() {
        assert_eq!(Grouping::parse(None), Some(Grouping { by_country: false, by_device: false }));
        assert!(Grouping::ALLOWED.iter().all(|set| Grouping::parse(Some(set)).is_some()));
        for bad in ["userPseudoId", "adId", "country,adId", "country,country", "Country", " country", ","] {
            assert_eq!(Grouping::parse(Some(bad)), None, "{bad}");
        }
    }
}

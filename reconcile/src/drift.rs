//! Drift: how far the shown numbers of a day were from the exact ones, by campaign, hour and currency. Pure.
//! Measured on the ad-minute grain (the two campaign grains are sums of the same events). Errors of
//! two campaign hours do not cancel each other in a sum.
//! Never: uses a float; ratios are integers in parts per million.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use shared::id::CampaignId;
use shared::money::{Currency, Overflow};
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::sketch::SketchUnion;
use shared::time::Timestamp;

/// A million.
const MILLION: u128 = 1_000_000;

/// One campaign hour's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellKey {
    /// The start of the hour.
    pub hour: Timestamp,
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The cost's currency.
    pub currency: Currency,
}

/// What was shown beside what is exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// What the serving store showed.
    #[serde(with = "counts_json")]
    pub shown: Counts,
    /// What is exact.
    #[serde(with = "counts_json")]
    pub exact: Counts,
}

/// One campaign hour.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Counts and cost.
    pub counts: Pair,
    /// Unique users shown and exact, as estimated by the sketches.
    pub uniques: (u64, u64),
}

/// One hour's measurement.
#[derive(Debug, Clone, Default)]
pub struct HourDrift {
    /// Campaign hours that differ.
    pub cells: BTreeMap<CellKey, Cell>,
    /// Sums over every campaign, differing or not, by currency.
    pub totals: BTreeMap<Currency, Pair>,
}

/// Measures one hour.
///
/// # Errors
/// [`Overflow`] when a sum does not fit.
pub fn measure(hour: Timestamp, shown: &[RollupRow], exact: &[RollupRow]) -> Result<HourDrift, Overflow> {
    let mut counts: HashMap<(&CampaignId, Currency), Pair> = HashMap::new();
    let mut users: HashMap<(&CampaignId, Currency), (SketchUnion, SketchUnion)> = HashMap::new();
    for (row, is_shown) in shown.iter().map(|r| (r, true)).chain(exact.iter().map(|r| (r, false))) {
        match &row.key {
            RollupKey::AdMinute { campaign_id, currency, .. } => {
                let pair = counts.entry((campaign_id, *currency)).or_default();
                let side = if is_shown { &mut pair.shown } else { &mut pair.exact };
                *side = side.merge(&row.counts)?;
            }
            RollupKey::CampaignHour { campaign_id, currency, .. } => {
                let Some(sketch) = &row.uniques else { continue };
                let pair = users.entry((campaign_id, *currency)).or_default();
                let side = if is_shown { &mut pair.0 } else { &mut pair.1 };
                side.add(sketch);
            }
            RollupKey::CampaignMinute { .. } => {}
        }
    }
    let cell = |(campaign_id, currency): (&CampaignId, Currency)| {
        let campaign_id = campaign_id.clone();
        CellKey { hour, campaign_id, currency }
    };
    let mut counts: BTreeMap<CellKey, Pair> = counts.into_iter().map(|(key, pair)| (cell(key), pair)).collect();
    let mut drift = HourDrift::default();
    for (key, pair) in &counts {
        let total = drift.totals.entry(key.currency).or_default();
        total.shown = total.shown.merge(&pair.shown)?;
        total.exact = total.exact.merge(&pair.exact)?;
    }
    let estimate =
        |(key, (shown, exact)): (_, (SketchUnion, SketchUnion))| (cell(key), (shown.estimate(), exact.estimate()));
    let estimates: BTreeMap<CellKey, (u64, u64)> = users.into_iter().map(estimate).collect();
    for (key, uniques) in &estimates {
        if uniques.0 != uniques.1 {
            counts.entry(key.clone()).or_default();
        }
    }
    for (key, pair) in counts {
        let uniques = estimates.get(&key).copied().unwrap_or_default();
        if pair.shown != pair.exact || uniques.0 != uniques.1 {
            drift.cells.insert(key, Cell { counts: pair, uniques });
        }
    }
    Ok(drift)
}

/// The distance between shown and exact in one measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distance {
    /// |shown − exact|, summed where several cells are.
    #[serde(with = "absolute_text")]
    pub absolute: u128,
    /// In parts per million of the exact value; a million where something is shown and nothing is exact.
    pub ppm: u64,
}

impl Distance {
    /// From its parts.
    #[must_use]
    pub fn new(absolute: u128, exact: u128) -> Self {
        let ppm = match (absolute, exact) {
            (0, _) => 0,
            (_, 0) => MILLION,
            (a, e) => a.checked_mul(MILLION).map_or_else(|| a / (e / MILLION).max(1), |scaled| scaled / e),
        };
        Self { absolute, ppm: u64::try_from(ppm).unwrap_or(u64::MAX) }
    }
}

/// The distances of every measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Distances {
    /// Impressions.
    pub impressions: Distance,
    /// Clicks.
    pub clicks: Distance,
    /// Conversions.
    pub conversions: Distance,
    /// Cost, absolute in nanos.
    pub cost_nanos: Distance,
}

impl Distances {
    /// Of one pair.
    #[must_use]
    pub fn of(pair: &Pair) -> Self {
        Self::over(std::iter::once(pair), &pair.exact)
    }

    /// Σ |shown − exact| over `cells` against the exact value of the whole: errors do not cancel.
    #[must_use]
    pub fn over<'a>(cells: impl Iterator<Item = &'a Pair>, exact: &Counts) -> Self {
        let mut sums = [0_u128; 4];
        for pair in cells {
            let (s, e) = (&pair.shown, &pair.exact);
            let parts = [
                u128::from(s.impressions.abs_diff(e.impressions)),
                u128::from(s.clicks.abs_diff(e.clicks)),
                u128::from(s.conversions.abs_diff(e.conversions)),
                s.cost_nanos.abs_diff(e.cost_nanos),
            ];
            for (sum, part) in sums.iter_mut().zip(parts) {
                *sum = sum.saturating_add(part);
            }
        }
        let [impressions, clicks, conversions, cost] = sums;
        Self {
            impressions: Distance::new(impressions, exact.impressions.into()),
            clicks: Distance::new(clicks, exact.clicks.into()),
            conversions: Distance::new(conversions, exact.conversions.into()),
            cost_nanos: Distance::new(cost, exact.cost_nanos.unsigned_abs()),
        }
    }

    /// Both together, against the exact value of the whole.
    #[must_use]
    pub fn plus(&self, other: &Self, exact: &Counts) -> Self {
        let add = |a: Distance, b: Distance, exact| Distance::new(a.absolute.saturating_add(b.absolute), exact);
        Self {
            impressions: add(self.impressions, other.impressions, exact.impressions.into()),
            clicks: add(self.clicks, other.clicks, exact.clicks.into()),
            conversions: add(self.conversions, other.conversions, exact.conversions.into()),
            cost_nanos: add(self.cost_nanos, other.cost_nanos, exact.cost_nanos.unsigned_abs()),
        }
    }

    /// The events these distances are about.
    #[must_use]
    pub fn events(&self) -> u128 {
        self.impressions.absolute + self.clicks.absolute + self.conversions.absolute
    }

    /// Whether there is no distance at all.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.events() == 0 && self.cost_nanos.absolute == 0
    }
}

/// Counts in JSON: camelCase, cost as text.
pub mod counts_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use shared::rollup::Counts;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Form {
        impressions: u64,
        clicks: u64,
        conversions: u64,
        #[serde(with = "lake::run_record::integer_text")]
        cost_nanos: i128,
    }

    /// Writes the counts.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(c: &Counts, s: S) -> Result<S::Ok, S::Error> {
        let Counts { impressions, clicks, conversions, cost_nanos } = *c;
        Form { impressions, clicks, conversions, cost_nanos }.serialize(s)
    }

    /// Reads them back.
    ///
    /// # Errors
    /// When the form is another.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Counts, D::Error> {
        let Form { impressions, clicks, conversions, cost_nanos } = Form::deserialize(d)?;
        Ok(Counts { impressions, clicks, conversions, cost_nanos })
    }
}

mod absolute_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

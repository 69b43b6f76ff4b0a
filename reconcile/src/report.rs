//! The drift report of a day: what was shown, what is exact, how far apart, why, and that nothing is left.
//! One JSON file per day, `reports/drift/day=YYYY-MM-DD.json`, and one per finished run that stays. It is first written before anything is overwritten
//! (`measured`), so what speed showed is on record even if we die half-way, and again when every hour was read back
//! as exact (`corrected`). A rerun of the same run keeps the measurements of hours that are exact already.
//! Never: mixes currencies in a sum; lists more campaign hours than its limit (it says how many it left out).

use std::collections::{BTreeMap, BTreeSet};

use lake::LakeRoot;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use shared::bound::Coverage;
use shared::id::CampaignId;
use shared::money::{Currency, Overflow};
use shared::rollup::RollupRow;
use shared::time::{Day, Timestamp};

use crate::causes::{Candidates, Explanation, ShownBy, explain};
use crate::compare::differing;
use crate::drift::{Cell, CellKey, Distances, HourDrift, Pair, measure};
use crate::error::Error;
use crate::settings::Settings;

/// The version of the report's form.
pub const SCHEMA_VERSION: u32 = 2;

/// Where a day's report lies within the data root.
#[must_use]
pub fn path(day: Day) -> String {
    format!("reports/drift/day={day}.json")
}

/// Where the report of one finished run is kept for good.
#[must_use]
pub fn kept_path(day: Day, run: u64) -> String {
    format!("reports/drift/runs/day={day}/run={run}.json")
}

/// How far a reconcile has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Drift is measured; overwriting has not finished.
    Measured,
    /// Drift is over tolerance; nothing was overwritten.
    OverTolerance,
    /// Every hour was overwritten and read back as exact.
    Corrected,
}

/// Shown against exact, with the distances over campaign hours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measure {
    /// The sums.
    #[serde(flatten)]
    pub sums: Pair,
    /// Σ |shown − exact| over campaign hours: errors do not cancel.
    pub distance: Distances,
}

impl Measure {
    /// The same when every hour was read back as exact.
    #[must_use]
    pub fn exact_after(&self) -> Self {
        let exact = self.sums.exact;
        Self { sums: Pair { shown: exact, exact }, distance: Distances::default() }
    }
}

/// One campaign hour that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CampaignHour {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The cost's currency.
    pub currency: Currency,
    /// Shown and exact.
    #[serde(flatten)]
    pub measure: Measure,
    /// Unique users shown (estimate).
    pub uniques_shown: u64,
    /// Unique users by the exact path's sketch (estimate).
    pub uniques_exact: u64,
    /// What explains it.
    pub causes: Explanation,
    /// What was there to explain it.
    pub candidates: Candidates,
}

/// One hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hour {
    /// Its start, RFC 3339.
    #[serde(with = "rfc3339")]
    pub hour: Timestamp,
    /// Who wrote what was shown.
    pub shown_by: ShownBy,
    /// By currency.
    pub before: BTreeMap<Currency, Measure>,
    /// Rows of all three grains that differed.
    pub rows_differing: u64,
    /// Campaign hours that differed.
    pub campaigns_differing: u64,
    /// Those, largest difference first, up to the limit.
    pub campaigns: Vec<CampaignHour>,
    /// What explains the hour's differences.
    pub causes: Explanation,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The billing day.
    pub day: Day,
    /// The batch run it was compared with.
    pub run: u64,
    /// How far it has come.
    pub status: Status,
    /// The tolerance in force, in parts per million.
    pub tolerance_ppm: u64,
    /// The largest ratio found in hours that showed something, in parts per million.
    pub worst_ppm: u64,
    /// The whole day before, by currency.
    pub before: BTreeMap<Currency, Measure>,
    /// The whole day after, as read back; absent until then.
    pub after: Option<BTreeMap<Currency, Measure>>,
    /// Campaign hours that differed before.
    pub campaign_hours_differing: u64,
    /// What explains the differences, in events.
    pub causes: Explanation,
    /// How good the bounds were that the day was shown with; absent where speed showed nothing.
    pub bounds: Option<Coverage>,
    /// Rows of all three grains that differed before.
    pub rows_differing: u64,
    /// The 24 hours.
    pub hours: Vec<Hour>,
}

/// One hour as measured.
pub(crate) struct Measured {
    pub(crate) hour: Timestamp,
    pub(crate) shown_by: ShownBy,
    pub(crate) drift: HourDrift,
    pub(crate) rows_differing: u64,
}

impl Measured {
    pub(crate) fn of(
        hour: Timestamp,
        shown_by: ShownBy,
        shown: &[RollupRow],
        exact: &[RollupRow],
    ) -> Result<Self, Overflow> {
        let rows_differing = u64::try_from(differing(shown, exact).count()).unwrap_or(u64::MAX);
        Ok(Self { hour, shown_by, drift: measure(hour, shown, exact)?, rows_differing })
    }
}

/// Describes one hour.
pub(crate) fn hour(
    measured: Measured,
    candidates: &BTreeMap<(CampaignId, Timestamp), Candidates>,
    limit: usize,
) -> Result<Hour, Overflow> {
    let Measured { hour, shown_by, drift, rows_differing } = measured;
    let mut before = BTreeMap::new();
    for (currency, sums) in &drift.totals {
        let cells = drift.cells.iter().filter(|(k, _)| k.currency == *currency).map(|(_, cell)| &cell.counts);
        before.insert(*currency, Measure { sums: *sums, distance: Distances::over(cells, &sums.exact) });
    }
    let describe = |(key, cell): (CellKey, Cell)| {
        let candidates = candidates.get(&(key.campaign_id.clone(), hour)).copied().unwrap_or_default();
        CampaignHour {
            campaign_id: key.campaign_id,
            currency: key.currency,
            measure: Measure { sums: cell.counts, distance: Distances::of(&cell.counts) },
            uniques_shown: cell.uniques.0,
            uniques_exact: cell.uniques.1,
            causes: explain(&cell.counts, shown_by, &candidates),
            candidates,
        }
    };
    let mut campaigns: Vec<CampaignHour> = drift.cells.into_iter().map(describe).collect();
    let mut causes = Explanation::default();
    for campaign in &campaigns {
        causes.add(&campaign.causes)?;
    }
    let campaigns_differing = u64::try_from(campaigns.len()).unwrap_or(u64::MAX);
    campaigns.sort_by_key(|c| std::cmp::Reverse((c.measure.distance.events(), c.measure.distance.cost_nanos.absolute)));
    campaigns.truncate(limit);
    Ok(Hour { hour, shown_by, before, rows_differing, campaigns_differing, campaigns, causes })
}

/// The campaign hours whose causes are wanted.
pub(crate) fn wanted(hours: &[Measured]) -> BTreeSet<(CampaignId, Timestamp)> {
    hours.iter().flat_map(|h| h.drift.cells.keys().map(|k| (k.campaign_id.clone(), k.hour))).collect()
}

impl Report {
    /// Adds the hours up.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit.
    pub(crate) fn of(day: Day, run: u64, hours: Vec<Hour>, settings: &Settings) -> Result<Self, Overflow> {
        let before = sum(&hours, |_| true)?;
        let shown = sum(&hours, |h| h.shown_by != ShownBy::Nobody)?;
        let mut causes = Explanation::default();
        for hour in &hours {
            causes.add(&hour.causes)?;
        }
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            day,
            run,
            status: Status::Measured,
            tolerance_ppm: settings.tolerance_ppm,
            worst_ppm: shown.values().map(|m| worst_ppm(m, settings.tolerance_floor_events)).max().unwrap_or(0),
            before,
            after: None,
            campaign_hours_differing: hours.iter().map(|h| h.campaigns_differing).sum(),
            causes,
            bounds: None,
            rows_differing: hours.iter().map(|h| h.rows_differing).sum(),
            hours,
        })
    }

    /// Whether the drift is more than may be overwritten without force.
    #[must_use]
    pub fn is_over_tolerance(&self) -> bool {
        self.worst_ppm > self.tolerance_ppm
    }

    /// The report of `day`, if there is one that reads; one of another form is measured anew.
    ///
    /// # Errors
    /// [`Error::Objects`].
    pub async fn load(root: &LakeRoot, day: Day) -> Result<Option<Self>, Error> {
        let path = root.path(&path(day));
        let bytes = match root.store().get(&path).await {
            Ok(found) => found.bytes().await.map_err(Error::objects(format!("reading {path}")))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(Error::objects(format!("opening {path}"))(e)),
        };
        let report = serde_json::from_slice(&bytes);
        if let Err(error) = &report {
            tracing::warn!(%path, %error, "the drift report does not read and is measured anew");
        }
        Ok(report.ok())
    }

    /// Writes the report; a finished one is kept by its run too, because a later run replaces the day's.
    ///
    /// # Errors
    /// [`Error::Objects`].
    pub async fn save(&self, root: &LakeRoot) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::damaged(path(self.day), e))?;
        bytes.push(b'\n');
        let kept = (self.status == Status::Corrected).then(|| kept_path(self.day, self.run));
        for name in kept.into_iter().chain([path(self.day)]) {
            let path = root.path(&name);
            let put = root.store().put(&path, bytes.clone().into()).await;
            put.map_err(Error::objects(format!("writing {path}")))?;
        }
        Ok(())
    }
}

/// Small numbers do not count: a difference of a few events, or any cost of a few events.
fn worst_ppm(measure: &Measure, floor: u64) -> u64 {
    let d = &measure.distance;
    let exact = &measure.sums.exact;
    let events = u128::from(exact.impressions) + u128::from(exact.clicks) + u128::from(exact.conversions);
    let by_count =
        if d.events() < u128::from(floor) { 0 } else { d.impressions.ppm.max(d.clicks.ppm).max(d.conversions.ppm) };
    let by_cost = if events.max(d.events()) < u128::from(floor) { 0 } else { d.cost_nanos.ppm };
    by_count.max(by_cost)
}

fn sum(hours: &[Hour], wanted: impl Fn(&Hour) -> bool) -> Result<BTreeMap<Currency, Measure>, Overflow> {
    let mut sums: BTreeMap<Currency, Measure> = BTreeMap::new();
    for hour in hours.iter().filter(|h| wanted(h)) {
        for (currency, measure) in &hour.before {
            let sum = sums.entry(*currency).or_default();
            let pair = Pair {
                shown: sum.sums.shown.merge(&measure.sums.shown)?,
                exact: sum.sums.exact.merge(&measure.sums.exact)?,
            };
            *sum = Measure { sums: pair, distance: sum.distance.plus(&measure.distance, &pair.exact) };
        }
    }
    Ok(sums)
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use shared::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(d)?;
        Timestamp::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

//! Gold → serving for one day: measure, overwrite, report, publish. The only file with the order of things.
//!
//! 1. The newest run record of the day; its gold is read against its checksums, and the books must balance.
//! 2. Drift is measured hour by hour and the report saved. Over tolerance and not forced: stop here.
//! 3. Each hour is made exact and owned, in order, and read back.
//! 4. The report is saved again, the settlement published, the day marked as settled.
//!
//! On crash: every step can be done again and then changes nothing; the rerun goes on where it stopped.
//! Never: overwrites or publishes anything when a sum does not balance.

use std::collections::BTreeMap;
use std::sync::Arc;

use lake::LakeRoot;
use lake::run_record::RunRecord;
use serde::Serialize;
use shared::bound::DayCalibration;
use shared::money::Currency;
use shared::rollup::RowVersion;
use shared::serving_store::{ServingStore, reached};
use shared::telemetry::metric_names;
use shared::time::{Clock, Day, Timestamp};

use crate::balance::GrainSums;
use crate::calibrate::{self, Samples};
use crate::causes;
use crate::correct;
use crate::error::Error;
use crate::gold::Gold;
use crate::manifest::{Manifest, Total};
use crate::publish::{self, Published};
use crate::report::{self, Hour, Measure, Measured, Report, Status};
use crate::runs;
use crate::settings::Settings;
use crate::settlements::{Settlements, folder};
use crate::signature::Signer;

/// Hours in a day, and so the parts the report's limit is divided by.
const HOURS: usize = 24;

/// What reconcile works on.
#[derive(Clone)]
pub struct Deps {
    /// The lake with gold and the run records.
    pub lake: LakeRoot,
    /// The data root: `settlement/` and `reports/` are written here.
    pub data: LakeRoot,
    /// The serving store.
    pub store: Arc<dyn ServingStore>,
    /// The time (only to decide what is old enough to clean up).
    pub clock: Arc<dyn Clock>,
    /// Signs settlements.
    pub signer: Signer,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// The billing day.
    pub day: Day,
    /// Overwrite even when the drift is over tolerance.
    pub force: bool,
    /// Why a new settlement version exists; worked out from what changed where absent.
    pub reason: Option<String>,
}

/// How far a run is, for progress bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many of the day's hours are measured.
    Measured(usize),
    /// So many of the day's hours are exact.
    Corrected(usize),
    /// The settlement is being published.
    Publishing,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// Batch has not run the day: try again later.
    NotReady {
        /// The day.
        day: Day,
    },
    /// The drift is over tolerance: the report says where, nothing was overwritten.
    OverTolerance(Summary),
    /// Exact and published as a new version.
    Settled(Summary),
    /// Exact, and these lines were published before.
    AlreadySettled(Summary),
}

impl Outcome {
    /// The exit code of the job (contract 3).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settled(_) => 0,
            Self::NotReady { .. } => 10,
            Self::OverTolerance(_) => 11,
            Self::AlreadySettled(_) => 99,
        }
    }
}

/// What a run did: the one JSON line of the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The day.
    pub day: Day,
    /// The batch run it was made exact with.
    pub run: u64,
    /// Rows of the serving store that this run changed.
    pub rows_changed: u64,
    /// Shown against exact before, by currency.
    pub before: BTreeMap<Currency, Measure>,
    /// The same as read back; absent when nothing was overwritten.
    pub after: Option<BTreeMap<Currency, Measure>>,
    /// The largest ratio found, parts per million.
    pub worst_ppm: u64,
    /// The settlement that stands; absent when nothing was published.
    pub settlement: Option<SettlementSummary>,
}

/// The settlement that stands after a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettlementSummary {
    /// Its folder within the data root.
    pub folder: String,
    /// Its version.
    pub version: u32,
    /// Its number over all days.
    pub sequence: u64,
    /// Its lines.
    pub row_count: u64,
    /// What is settled, by currency.
    pub totals: BTreeMap<Currency, Total>,
}

impl SettlementSummary {
    fn of(manifest: &Manifest) -> Self {
        Self {
            folder: folder(manifest.day, manifest.version),
            version: manifest.version,
            sequence: manifest.sequence,
            row_count: manifest.row_count,
            totals: manifest.totals.clone(),
        }
    }
}

/// Reconciles and settles one day.
///
/// # Errors
/// Those of lake and stores; [`Error::Unbalanced`] and [`Error::Damaged`] before anything is overwritten.
pub async fn run(
    deps: &Deps,
    settings: &Settings,
    request: &Request,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Outcome, Error> {
    let day = request.day;
    let Some(record) = runs::newest(&deps.lake, day).await? else { return Ok(Outcome::NotReady { day }) };
    let gold = Gold::open(deps.lake.clone(), record).await?;
    let content = publish::content(&gold).await?;
    let (mut report, learnt) = measure(deps, settings, &gold, progress).await?;
    metrics::gauge!(metric_names::RECONCILE_DRIFT).set(u32::try_from(report.worst_ppm).unwrap_or(u32::MAX));
    if report.is_over_tolerance() && !request.force && report.status != Status::Corrected {
        report.status = Status::OverTolerance;
        report.save(&deps.data).await?;
        return Ok(Outcome::OverTolerance(summary(&report, 0, None)));
    }
    if let Some(learnt) = learnt {
        let mut calibration = calibrate::load(&deps.data).await?;
        calibration.learn(day, learnt);
        calibrate::save(&deps.data, &calibration).await?;
    }
    let rows_changed = overwrite(deps, &gold, &mut report, progress).await?;
    metrics::counter!(metric_names::RECONCILE_ROWS).increment(rows_changed);
    progress(Progress::Publishing);
    let settlements = Settlements::new(deps.data.clone());
    let (reason, now) = (request.reason.as_deref(), deps.clock.now());
    let order = publish::Order { signer: &deps.signer, settings, reason, now };
    let published = publish::publish(&settlements, &gold, &content, order).await?;
    deps.store.mark_settled(day, published.manifest().version).await?;
    let summary = summary(&report, rows_changed, Some(SettlementSummary::of(published.manifest())));
    Ok(match published {
        Published::New(_) => {
            metrics::counter!(metric_names::RECONCILE_SETTLEMENTS).increment(1);
            Outcome::Settled(summary)
        }
        Published::Unchanged(_) => Outcome::AlreadySettled(summary),
    })
}

fn summary(report: &Report, rows_changed: u64, settlement: Option<SettlementSummary>) -> Summary {
    Summary {
        day: report.day,
        run: report.run,
        rows_changed,
        before: report.before.clone(),
        after: report.after.clone(),
        worst_ppm: report.worst_ppm,
        settlement,
    }
}

/// Measures the day. What an earlier attempt of the same run measured is kept where it cannot be measured any
/// more: for hours that attempt made exact, and wholly when it made all of them exact. Also what the day teaches about
/// its provisional numbers, where speed showed any.
async fn measure(
    deps: &Deps,
    settings: &Settings,
    gold: &Gold,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(Report, Option<DayCalibration>), Error> {
    let record = gold.record();
    let version = RowVersion::reconciled(record.run);
    let earlier = Report::load(&deps.data, record.day).await?.filter(|r| r.run == record.run);
    let is_done = earlier.as_ref().is_some_and(|r| r.status == Status::Corrected);
    let mut hours: BTreeMap<_, Hour> = earlier.iter().flat_map(|r| &r.hours).map(|h| (h.hour, h.clone())).collect();
    let earlier_bounds = earlier.as_ref().and_then(|r| r.bounds);
    let (mut sums, mut fresh, mut samples) = (GrainSums::default(), Vec::new(), Samples::default());
    for (n, hour) in record.day.hours().enumerate() {
        let exact = gold.hour(hour).await?;
        sums.add(&exact)?;
        let owner = correct::owner(deps.store.as_ref(), hour).await?;
        if !is_done && (owner != Some(version) || !hours.contains_key(&hour)) {
            let shown = deps.store.read_hour(hour).await?;
            let by = correct::shown_by(owner, &shown);
            samples.add(hour, by, &shown, &exact)?;
            fresh.push(Measured::of(hour, by, &shown, &exact)?);
        }
        progress(Progress::Measured(n + 1));
    }
    check(record, &sums)?;
    if let Some(earlier) = earlier.filter(|_| is_done) {
        return Ok((earlier, None));
    }
    let candidates = causes::candidates(gold, &report::wanted(&fresh), settings.late_after.as_micros()).await?;
    for measured in fresh {
        let hour = measured.hour;
        hours.insert(hour, report::hour(measured, &candidates, settings.report_rows.div_ceil(HOURS))?);
    }
    let mut report = Report::of(record.day, record.run, hours.into_values().collect(), settings)?;
    let learnt = learn(deps, settings, gold, samples).await?;
    report.bounds = earlier_bounds.or(learnt.as_ref().map(|l| l.coverage));
    Ok((report, learnt))
}

/// What the day teaches, and how good the bounds were that other days had taught.
async fn learn(
    deps: &Deps,
    settings: &Settings,
    gold: &Gold,
    mut samples: Samples,
) -> Result<Option<DayCalibration>, Error> {
    samples.read_arrivals(gold, settings.late_after.as_micros()).await?;
    let bounds = calibrate::load(&deps.data).await?.bounds(Some(gold.record().day));
    let as_of = reached(deps.store.writers().await?.values()).unwrap_or(Timestamp::MIN);
    let Some(coverage) = samples.coverage(&bounds, as_of.min(deps.clock.now())) else { return Ok(None) };
    let gauge = |ppm: u64| u32::try_from(ppm).unwrap_or(u32::MAX);
    metrics::gauge!(metric_names::RECONCILE_BOUND_COVERAGE).set(gauge(coverage.inside_ppm));
    metrics::gauge!(metric_names::RECONCILE_BOUND_WIDTH).set(gauge(coverage.median_width_ppm));
    Ok(Some(samples.learn(gold.record().run, coverage)))
}

fn check(record: &RunRecord, sums: &GrainSums) -> Result<(), Error> {
    let findings = sums.findings(record);
    if findings.is_empty() { Ok(()) } else { Err(Error::Unbalanced { day: record.day, findings }) }
}

/// Makes every hour exact and completes the report, which is written before and after.
async fn overwrite(
    deps: &Deps,
    gold: &Gold,
    report: &mut Report,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<u64, Error> {
    let was_done = report.status == Status::Corrected;
    if !was_done {
        report.status = Status::Measured;
        report.save(&deps.data).await?;
    }
    let version = RowVersion::reconciled(report.run);
    let mut rows_changed = 0;
    for (n, hour) in report.day.hours().enumerate() {
        let exact = gold.hour(hour).await?;
        rows_changed += correct::apply(deps.store.as_ref(), hour, &exact, version).await?;
        progress(Progress::Corrected(n + 1));
    }
    if !was_done {
        report.after = Some(report.before.iter().map(|(currency, m)| (*currency, m.exact_after())).collect());
        report.status = Status::Corrected;
        report.save(&deps.data).await?;
    }
    Ok(rows_changed)
}

//! What a day teaches about its provisional numbers, and how good the bounds were that it was shown with.
//! Reads: what was shown and what is exact, hour by hour; `silver/events` of the run, six columns, one pass, for when
//! events came. Writes: `reports/calibration.json`, before anything is overwritten, so that what was shown is still
//! there. On crash: a repeated attempt of the run sees fewer windows and changes nothing (see [`Calibration::learn`]).
//! Never: judges a day by bounds it taught itself; uses a float.

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;
use lake::LakeRoot;
use object_store::ObjectStoreExt;
use shared::bound::{self, AGES, Bounds, CALIBRATION_PATH, Calibration, Cell, Coverage, DayCalibration, KINDS, Window};
use shared::event::EventKind;
use shared::id::CampaignId;
use shared::money::{Currency, Overflow};
use shared::rollup::{RollupKey, RollupRow};
use shared::time::{HOUR, MINUTE, Timestamp};
use shared::verdict::Verdict;

use crate::causes::ShownBy;
use crate::columns::Columns;
use crate::drift::Pair;
use crate::error::Error;
use crate::gold::{Gold, SILVER};

const COLUMNS: [&str; 6] = ["event_type", "campaign_id", "currency", "billing_time", "ingest_time", "verdict"];

/// Arrivals by kind and age.
type Late = [[u64; 6]; 3];

/// A campaign hour in one currency.
type Key = (Timestamp, CampaignId, Currency);

/// One campaign hour that speed showed.
#[derive(Debug, Clone, Default)]
struct Sample {
    pair: Pair,
    /// Billable events that came later than each age after the hour's end.
    late: Late,
    /// Those of them that were too late for speed, which never showed them.
    dropped: [u64; 3],
}

/// The campaign hours of a day that speed showed, and when their events came.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    hours: BTreeMap<Key, Sample>,
    /// Billable events that came later than each age after their minute's end, and all.
    late_minutes: Late,
    events: [u64; 3],
}

impl Samples {
    /// Adds an hour, once; one that speed did not show teaches nothing.
    pub(crate) fn add(
        &mut self,
        hour: Timestamp,
        by: ShownBy,
        shown: &[RollupRow],
        exact: &[RollupRow],
    ) -> Result<(), Overflow> {
        if by != ShownBy::Speed {
            return Ok(());
        }
        let mut pairs: HashMap<(&CampaignId, Currency), Pair> = HashMap::new();
        for (row, is_shown) in shown.iter().map(|r| (r, true)).chain(exact.iter().map(|r| (r, false))) {
            let RollupKey::AdMinute { campaign_id, currency, .. } = &row.key else { continue };
            let pair = pairs.entry((campaign_id, *currency)).or_default();
            let side = if is_shown { &mut pair.shown } else { &mut pair.exact };
            *side = side.merge(&row.counts)?;
        }
        let sample = |pair| Sample { pair, ..Sample::default() };
        let of_hour = pairs.into_iter().map(|((id, currency), pair)| ((hour, id.clone(), currency), sample(pair)));
        self.hours.extend(of_hour);
        Ok(())
    }

    /// Reads when the run's events came; later than `late_after` is too late for speed.
    ///
    /// # Errors
    /// Those of the lake.
    pub(crate) async fn read_arrivals(&mut self, gold: &Gold, late_after: i64) -> Result<(), Error> {
        if self.hours.is_empty() || gold.record().output(SILVER).is_none() {
            return Ok(());
        }
        gold.each_batch(SILVER, &COLUMNS, |batch, what| self.tally(batch, what, late_after)).await
    }

    fn tally(&mut self, batch: &RecordBatch, what: &str, late_after: i64) -> Result<(), Error> {
        let c = Columns::of(batch, what);
        let (kinds, campaigns, currencies) = (c.text("event_type")?, c.text("campaign_id")?, c.text("currency")?);
        let (billing, ingest, verdicts) = (c.times("billing_time")?, c.times("ingest_time")?, c.text("verdict")?);
        for i in (0..batch.num_rows()).filter(|i| verdicts.value(*i) == Verdict::Billable.as_str()) {
            let (billed, came) = (Timestamp(billing.value(i)), Timestamp(ingest.value(i)));
            let kind = c.parse("event_type", kinds.value(i), EventKind::parse(kinds.value(i)).and_then(place))?;
            bump(&mut self.events, kind, 1);
            let after_minute = came.since(billed.floor(MINUTE).plus(MINUTE));
            if after_minute <= 0 {
                continue; // nearly all of them
            }
            later(&mut self.late_minutes, kind, after_minute);
            let hour = billed.floor(HOUR);
            let (after_hour, is_dropped) = (came.since(hour.plus(HOUR)), came.since(billed) > late_after);
            if after_hour <= 0 && !is_dropped {
                continue;
            }
            let campaign = c.parse("campaign_id", campaigns.value(i), CampaignId::new(campaigns.value(i)).ok())?;
            let currency = c.parse("currency", currencies.value(i), Currency::parse(currencies.value(i)))?;
            if let Some(sample) = self.hours.get_mut(&(hour, campaign, currency)) {
                later(&mut sample.late, kind, after_hour);
                bump(&mut sample.dropped, kind, u64::from(is_dropped));
            }
        }
        Ok(())
    }

    /// How good `bounds` were for windows of the age they had when they were last shown, `as_of`; `None` when nothing
    /// was shown by speed.
    pub(crate) fn coverage(&self, bounds: &Bounds, as_of: Timestamp) -> Option<Coverage> {
        let (mut inside, mut widths) = (0, Vec::with_capacity(self.hours.len()));
        for ((hour, ..), sample) in &self.hours {
            let ranges = bounds.of_counts(Window::Hour, as_of.since(hour.plus(HOUR)), &sample.pair.shown);
            let holds =
                KINDS.iter().zip(&ranges).all(|(kind, range)| range.holds(bound::count(&sample.pair.exact, *kind)));
            inside += u64::from(holds);
            let width: u64 = ranges.iter().map(|r| r.high - r.low).sum();
            let shown: u64 = KINDS.iter().map(|kind| bound::count(&sample.pair.shown, *kind)).sum();
            widths.push(ppm(width, shown));
        }
        widths.sort_unstable();
        let windows = u64::try_from(self.hours.len()).unwrap_or(u64::MAX);
        let median_width_ppm = *widths.get(widths.len() / 2)?;
        Some(Coverage { windows, inside, inside_ppm: ppm(inside, windows), median_width_ppm })
    }

    /// What the day teaches.
    pub(crate) fn learn(&self, run: u64, coverage: Coverage) -> DayCalibration {
        let mut cells = [[Cell::default(); 6]; 3];
        for (kind, ages) in cells.iter_mut().enumerate() {
            for (age, cell) in ages.iter_mut().enumerate() {
                *cell = self.cell(kind, age);
            }
        }
        DayCalibration { run, coverage, cells }
    }

    /// The rates first, over all windows; then how far single windows went beyond them.
    fn cell(&self, kind: usize, age: usize) -> Cell {
        let windows: Vec<(u64, u64, u64)> = self.hours.values().map(|s| s.at(kind, age)).collect();
        let sum = |part: fn(&(u64, u64, u64)) -> u64| windows.iter().map(part).sum::<u64>();
        let (shown, missed, excess) = (sum(|w| w.0), sum(|w| w.1), sum(|w| w.2));
        let late = at(&self.late_minutes, kind, age);
        let events = self.events.get(kind).copied().unwrap_or(0);
        let mut cell = Cell {
            late_minute_ppm: ppm(late, events.saturating_sub(late)),
            late_hour_ppm: ppm(missed, shown),
            excess_ppm: ppm(excess, shown),
            ..Cell::default()
        };
        let mut scores: [(Vec<u64>, Vec<u64>); 4] = Default::default();
        for (n, missed, excess) in windows {
            if let Some((up, down)) = scores.get_mut(bound::size_class(n)) {
                up.push(bound::score_milli(cell.late_hour_ppm, n, missed));
                down.push(bound::score_milli(cell.excess_ppm, n, excess));
            }
        }
        for (size, (mut up, mut down)) in scores.into_iter().enumerate() {
            let set = |to: &mut [u64; 4], value| to.iter_mut().skip(size).take(1).for_each(|slot| *slot = value);
            set(&mut cell.windows, up.len() as u64);
            set(&mut cell.up_milli, bound::quantile(&mut up));
            set(&mut cell.down_milli, bound::quantile(&mut down));
        }
        cell
    }
}

impl Sample {
    /// What the hour showed when it was that old, what it missed of the exact number, and what it had too much.
    fn at(&self, kind: usize, age: usize) -> (u64, u64, u64) {
        let of = |counts| KINDS.get(kind).map_or(0, |k| bound::count(counts, *k));
        let (shown, exact) = (of(&self.pair.shown), of(&self.pair.exact));
        let dropped = self.dropped.get(kind).copied().unwrap_or(0);
        let came_later = at(&self.late, kind, age).saturating_sub(dropped);
        let then = shown.saturating_sub(came_later);
        (then, exact.saturating_sub(then), then.saturating_sub(exact))
    }
}

fn place(kind: EventKind) -> Option<usize> {
    KINDS.iter().position(|k| *k == kind)
}

fn bump(counts: &mut [u64; 3], kind: usize, by: u64) {
    counts.iter_mut().skip(kind).take(1).for_each(|n| *n = n.saturating_add(by));
}

/// Counts an event that came `after` a window's end with every age it was not there at.
fn later(late: &mut Late, kind: usize, after: i64) {
    for ages in late.iter_mut().skip(kind).take(1) {
        ages.iter_mut().zip(AGES).filter(|(_, age)| after > *age).for_each(|(n, _)| *n = n.saturating_add(1));
    }
}

fn at(late: &Late, kind: usize, age: usize) -> u64 {
    late.get(kind).and_then(|ages| ages.get(age)).copied().unwrap_or(0)
}

fn ppm(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 1_000_000 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// The calibration as it stands; none yet, or one of another form, is empty.
///
/// # Errors
/// [`Error::Objects`].
pub async fn load(root: &LakeRoot) -> Result<Calibration, Error> {
    let path = root.path(CALIBRATION_PATH);
    let bytes = match root.store().get(&path).await {
        Ok(found) => found.bytes().await.map_err(Error::objects(format!("reading {path}")))?,
        Err(object_store::Error::NotFound { .. }) => return Ok(Calibration::default()),
        Err(e) => return Err(Error::objects(format!("opening {path}"))(e)),
    };
    let read: Option<Calibration> = serde_json::from_slice(&bytes).ok();
    Ok(read.filter(|c| c.schema_version == bound::SCHEMA_VERSION).unwrap_or_default())
}

pub(crate) async fn save(root: &LakeRoot, calibration: &Calibration) -> Result<(), Error> {
    let path = root.path(CALIBRATION_PATH);
    let text = serde_json::to_vec_pretty(calibration).map_err(|e| Error::damaged(CALIBRATION_PATH, e))?;
    let put = root.store().put(&path, text.into()).await;
    put.map(|_| ()).map_err(Error::objects(format!("writing {path}")))
}

//! How far a provisional number may be from the exact one: learnt from days that were reconciled. Pure, integers only.
//!
//! A window that shows `n` may still miss what has not arrived (or came too late for speed) and may hold what only the
//! whole archive can tell from billable events. Of each the calibration knows a rate, by what is counted and by the
//! window's age, and how far beyond the rate single windows went:
//!
//! `high = n + λn + k·√(λn + 1)`, `low = n − εn − k′·√(εn + 1)`
//!
//! λ is the share that arrives later than the age, ε the share that was too much, each the largest of the kept days;
//! k is the 99.8 % quantile of (miss − λn) ÷ √(λn + 1) over the campaign hours of a day, by size of n, again the largest
//! of the kept days. The square root is Poisson's, so few events have room. Without enough windows the stated defaults
//! stand, which are wide on purpose.
//! Guarantee: about events that happened up to `asOf`; what has yet to happen is no error.
//! Never: uses a float.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::EventKind;
use crate::rollup::Counts;
use crate::time::{Day, HOUR, MINUTE};

/// The version of the calibration's form.
pub const SCHEMA_VERSION: u32 = 1;
/// Where the calibration lies within the data root.
pub const CALIBRATION_PATH: &str = "reports/calibration.json";
/// Days that are kept: the newest ones.
pub const KEPT_DAYS: usize = 7;
/// The age of a window when each class begins, microseconds after its end; an open window is in the first.
pub const AGES: [i64; 6] = [0, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 2 * HOUR];
/// The shown number at which each size begins.
pub const SIZES: [u64; 4] = [0, 10, 100, 1_000];
/// What is bounded by its own rates.
pub const KINDS: [EventKind; 3] = [EventKind::Impression, EventKind::Click, EventKind::Conversion];

/// Windows of one age and size that must have been seen before the defaults are given up.
const ENOUGH: u64 = 200;
/// Before any calibration: a tenth may yet come to an open window, less to older ones, in parts per million.
const DEFAULT_LATE_PPM: [u64; 6] = [100_000, 60_000, 40_000, 30_000, 20_000, 20_000];
/// Before any calibration: so much may be too much.
const DEFAULT_EXCESS_PPM: u64 = 30_000;
/// Before any calibration, in thousandths.
const DEFAULT_K_MILLI: u64 = 4_000;
const MILLION: u128 = 1_000_000;

/// The length of a window, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Window {
    /// Minutes, up to less than an hour.
    Minute,
    /// Hours and longer.
    Hour,
}

impl Window {
    /// Of a window of so many microseconds.
    #[must_use]
    pub fn of(length: i64) -> Self {
        if length < HOUR { Self::Minute } else { Self::Hour }
    }
}

/// A range the exact number lies in, ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The least.
    pub low: u64,
    /// The most.
    pub high: u64,
}

impl Bound {
    /// Whether `exact` lies in it.
    #[must_use]
    pub fn holds(&self, exact: u64) -> bool {
        (self.low..=self.high).contains(&exact)
    }
}

/// What one day taught about one kind at one age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// Of a minute's events, those that came later than this age, per million that came before.
    pub late_minute_ppm: u64,
    /// The same of an hour's.
    pub late_hour_ppm: u64,
    /// What was shown too much, per million shown.
    pub excess_ppm: u64,
    /// The 99.8 % quantile of misses beyond the rate, in thousandths, by size.
    pub up_milli: [u64; 4],
    /// The same of excess.
    pub down_milli: [u64; 4],
    /// Windows seen, by size.
    pub windows: [u64; 4],
}

/// How good the bounds were that a day was shown with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Campaign hours that were shown.
    pub windows: u64,
    /// Those whose exact counts all lay within their bounds.
    pub inside: u64,
    /// The same per million.
    pub inside_ppm: u64,
    /// The median width of a campaign hour's bounds, per million of what it showed.
    pub median_width_ppm: u64,
}

/// One day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayCalibration {
    /// The batch run it was compared with.
    pub run: u64,
    /// How good the bounds were.
    pub coverage: Coverage,
    /// What it taught: by kind ([`KINDS`]), then by age ([`AGES`]).
    pub cells: [[Cell; 6]; 3],
}

/// What the kept days taught.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Calibration {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// By day.
    pub days: BTreeMap<Day, DayCalibration>,
}

impl Calibration {
    /// Adds a day and forgets the oldest beyond [`KEPT_DAYS`]. A repeated attempt of one run, which sees fewer windows
    /// because some are exact already, changes nothing.
    pub fn learn(&mut self, day: Day, learnt: DayCalibration) {
        self.schema_version = SCHEMA_VERSION;
        let known = self.days.get(&day);
        if known.is_some_and(|k| k.run == learnt.run && k.coverage.windows >= learnt.coverage.windows) {
            return;
        }
        self.days.insert(day, learnt);
        while self.days.len() > KEPT_DAYS {
            self.days.pop_first();
        }
    }

    /// The bounds that the kept days allow, leaving out `but`.
    #[must_use]
    pub fn bounds(&self, but: Option<Day>) -> Bounds {
        let mut bounds = Bounds::default();
        for (_, day) in self.days.iter().filter(|(day, _)| but != Some(**day)) {
            for (sum, cell) in bounds.0.iter_mut().flatten().zip(day.cells.iter().flatten()) {
                sum.late_minute_ppm = sum.late_minute_ppm.max(cell.late_minute_ppm);
                sum.late_hour_ppm = sum.late_hour_ppm.max(cell.late_hour_ppm);
                sum.excess_ppm = sum.excess_ppm.max(cell.excess_ppm);
                for size in 0..SIZES.len() {
                    let raise = |to: &mut [u64; 4], from: &[u64; 4]| {
                        if let (Some(to), Some(from)) = (to.get_mut(size), from.get(size)) {
                            *to = (*to).max(*from);
                        }
                    };
                    raise(&mut sum.up_milli, &cell.up_milli);
                    raise(&mut sum.down_milli, &cell.down_milli);
                }
                sum.windows.iter_mut().zip(cell.windows).for_each(|(sum, n)| *sum = sum.saturating_add(n));
            }
        }
        bounds
    }
}

/// What is known of every kind and age, over the kept days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds([[Cell; 6]; 3]);

impl Bounds {
    /// The bound of `shown` events of `kind` in a window that ended `age` microseconds before `asOf`.
    #[must_use]
    pub fn of(&self, kind: EventKind, window: Window, age: i64, shown: u64) -> Bound {
        let (age, size) = (age_class(age), size_class(shown));
        let kind = KINDS.iter().position(|k| *k == kind).unwrap_or(0);
        let cell = self.0.get(kind).and_then(|ages| ages.get(age)).copied().unwrap_or_default();
        let learnt = |k: &[u64; 4]| k.get(size).copied().unwrap_or(0);
        let seen: u64 = cell.windows.iter().sum();
        let (mut late, mut excess) = match window {
            Window::Minute => (cell.late_minute_ppm, cell.excess_ppm),
            Window::Hour => (cell.late_hour_ppm, cell.excess_ppm),
        };
        let (mut up, mut down) = (learnt(&cell.up_milli), learnt(&cell.down_milli));
        if seen < ENOUGH {
            late = late.max(DEFAULT_LATE_PPM.get(age).copied().unwrap_or(0));
            excess = excess.max(DEFAULT_EXCESS_PPM);
        }
        if cell.windows.get(size).copied().unwrap_or(0) < ENOUGH {
            (up, down) = (up.max(DEFAULT_K_MILLI), down.max(DEFAULT_K_MILLI));
        }
        Bound {
            low: shown.saturating_sub(room(excess, down, shown)),
            high: shown.saturating_add(room(late, up, shown)),
        }
    }

    /// The bounds of a row's counts, in the order of [`KINDS`].
    #[must_use]
    pub fn of_counts(&self, window: Window, age: i64, shown: &Counts) -> [Bound; 3] {
        KINDS.map(|kind| self.of(kind, window, age, count(shown, kind)))
    }
}

/// The count of one kind.
#[must_use]
pub fn count(counts: &Counts, kind: EventKind) -> u64 {
    match kind {
        EventKind::Impression => counts.impressions,
        EventKind::Click => counts.clicks,
        EventKind::Conversion => counts.conversions,
    }
}

/// The class of a window's age.
#[must_use]
pub fn age_class(age: i64) -> usize {
    AGES.iter().rposition(|begin| age >= *begin).unwrap_or(0)
}

/// The class of a shown number.
#[must_use]
pub fn size_class(shown: u64) -> usize {
    SIZES.iter().rposition(|begin| shown >= *begin).unwrap_or(0)
}

/// `rate·n` in millionths of an event, and √(rate·n + 1) likewise.
fn mean_and_root(rate_ppm: u64, n: u64) -> (u128, u128) {
    let mean = u128::from(rate_ppm) * u128::from(n);
    (mean, ((mean + MILLION) * MILLION).isqrt().max(1))
}

/// Whole events within `rate·n + k·√(rate·n + 1)`.
fn room(rate_ppm: u64, k_milli: u64, n: u64) -> u64 {
    let (mean, root) = mean_and_root(rate_ppm, n);
    let room = (mean + (root * u128::from(k_milli)).div_ceil(1_000)) / MILLION;
    u64::try_from(room).unwrap_or(u64::MAX)
}

/// How far `missed` of `n` goes beyond its rate: (missed − rate·n) ÷ √(rate·n + 1), in thousandths, rounded up.
#[must_use]
pub fn score_milli(rate_ppm: u64, n: u64, missed: u64) -> u64 {
    let (mean, root) = mean_and_root(rate_ppm, n);
    let beyond = (u128::from(missed) * MILLION).saturating_sub(mean);
    u64::try_from((beyond * 1_000).div_ceil(root)).unwrap_or(u64::MAX)
}

/// The 99.8 % quantile of scores (the largest of fewer than five hundred).
#[must_use]
pub fn quantile(scores: &mut [u64]) -> u64 {
    scores.sort_unstable();
    let rank = (scores.len() * 998).div_ceil(1_000).max(1);
    scores.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bound_holds_what_is_shown_and_never_narrows_with_age_or_size(
            shown in 0..1_000_000_u64, age in -HOUR..4 * HOUR, more in 0..1_000_u64,
        ) {
            let bounds = Bounds::default();
            let width = |age, shown| {
                let bound = bounds.of(EventKind::Click, Window::Hour, age, shown);
                assert!(bound.holds(shown) && bound.high > shown);
                bound.high - shown
            };
            prop_assert!(width(age, shown) >= width(age + HOUR, shown));
            prop_assert!(width(age, shown + more) >= width(age, shown));
        }

        #[test]
        fn a_miss_with_the_learnt_score_is_within_the_bound(
            rate in 0..200_000_u64, n in 0..1_000_000_u64, missed in 0..100_000_u64,
        ) {
            let k = score_milli(rate, n, missed);
            prop_assert!(room(rate, k, n) >= missed, "{k}");
        }
    }

    #[test]
    fn a_calibrated_bound_is_narrow_and_a_repeated_attempt_teaches_nothing() {
        let cell = Cell { late_hour_ppm: 100, windows: [1_000; 4], ..Cell::default() };
        let coverage = Coverage { windows: 500, ..Coverage::default() };
        let learnt = DayCalibration { run: 1, coverage, cells: [[cell; 6]; 3] };
        let mut calibration = Calibration::default();
        calibration.learn(Day(1), learnt.clone());
        let wide = Bounds::default().of(EventKind::Click, Window::Hour, HOUR, 100_000);
        let narrow = calibration.bounds(None).of(EventKind::Click, Window::Hour, HOUR, 100_000);
        assert_eq!((narrow.low, narrow.high), (100_000, 100_010));
        assert!(wide.high > 102_000 && wide.low < 97_000, "{wide:?}");
        assert_eq!(calibration.bounds(Some(Day(1))), Bounds::default(), "a day is not judged by itself");
        let fewer = DayCalibration { coverage: Coverage { windows: 2, ..coverage }, ..learnt.clone() };
        calibration.learn(Day(1), fewer);
        assert_eq!(calibration.days[&Day(1)], learnt);
        (2..20).for_each(|day| calibration.learn(Day(day), learnt.clone()));
        assert_eq!(calibration.days.len(), KEPT_DAYS);
    }
}

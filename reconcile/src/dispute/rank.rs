//! Every hypothesis and every pair of them, tried on the data: how much of the distance is left.
//! A pair is two differences of method at once: each may look weak alone. Pure; the order is that of the numbers.

use shared::money::Overflow;
use shared::rollup::Counts;
use shared::verdict::InvalidCode;

use super::causes::{Cause, LATENESS, Method, WINDOWS};
use super::compare::{At, Board, Distance, MILLION};
use super::cube::{Place, Sort};
use super::ours::Ours;

/// The farthest time zones, in minutes from UTC, and their step.
const ZONES: (i32, usize) = (14 * 60, 30);
/// Above so many of our numbers, pairs try only the best time zones.
const MANY: usize = 50_000;
/// How many that is.
const BEST_ZONES: usize = 6;
/// A factor is fitted over at least so many amounts.
const MIN_FACTOR_LINES: usize = 3;
/// A factor closer to one than this is none, in parts per million.
const MIN_FACTOR_PPM: i64 = 2_000;

/// One way of counting and what it leaves.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) causes: Vec<Cause>,
    pub(super) left: Distance,
    /// The distance that is left, in parts per million of the distance before: the mean over measures.
    pub(super) residual_ppm: i128,
    /// Our numbers counted this way.
    pub(super) numbers: Vec<(At, Counts)>,
}

/// Everything tried.
pub(super) struct Ranked {
    /// The distance without a hypothesis.
    pub(super) base: Distance,
    /// Our numbers without one.
    pub(super) baseline: Vec<(At, Counts)>,
    /// Best first.
    pub(super) tried: Vec<Tried>,
    /// How many.
    pub(super) tests: u64,
}

struct Trial<'a> {
    board: &'a Board<'a>,
    base: Distance,
    tried: Vec<Tried>,
    tests: u64,
}

/// Tries all.
pub(super) fn rank(board: &Board<'_>, ours: &Ours) -> Result<Ranked, Overflow> {
    let plain = board.cube.count(&Method::default())?;
    let baseline = board.ours(&plain, &[])?;
    let base = board.distance(&baseline);
    let mut trial = Trial { board, base, tried: Vec::new(), tests: 0 };
    if trial.base.events == 0 && trial.base.nanos.values().all(|n| *n == 0) {
        return Ok(Ranked { base: trial.base, baseline, tried: Vec::new(), tests: 0 });
    }
    let zones = zones(board.theirs.zone.0);
    let methods = methods(board, ours);
    for zone in &zones {
        trial.test(&plain, &[*zone])?;
    }
    trial.amounts(&plain, &[])?;
    let zones = if plain.len() > MANY { trial.best(BEST_ZONES) } else { zones };
    for (n, one) in methods.iter().enumerate() {
        let counted = board.cube.count(&Method::of(&[*one]))?;
        trial.test(&counted, &[*one])?;
        trial.amounts(&counted, &[*one])?;
        for zone in &zones {
            trial.test(&counted, &[*zone, *one])?;
        }
        for other in methods.iter().skip(n + 1).filter(|m| m.sort() != one.sort()) {
            trial.test(&board.cube.count(&Method::of(&[*one, *other]))?, &[*one, *other])?;
        }
    }
    for zone in trial.best(BEST_ZONES) {
        trial.amounts(&plain, &[zone])?;
    }
    let Trial { base, mut tried, tests, .. } = trial;
    let step = |t: &Tried| -> i64 { t.causes.iter().map(|c| step(*c, board, ours)).sum() };
    tried.sort_by_cached_key(|t| (t.residual_ppm, t.causes.len(), step(t), t.causes.clone()));
    Ok(Ranked { base, baseline, tried, tests })
}

/// How far a cause is from our own method: of causes that the data cannot tell apart, the nearest is taken.
fn step(cause: Cause, board: &Board<'_>, ours: &Ours) -> i64 {
    match cause {
        Cause::TimeZone { offset_minutes } => i64::from((offset_minutes - board.theirs.zone.0).abs()),
        Cause::RepeatWindow { seconds } => (ours.counting.repeat_click_seconds - seconds).abs(),
        Cause::LateNotCounted { seconds } => -seconds,
        _ => 0,
    }
}

/// Every other time zone.
fn zones(own: i32) -> Vec<Cause> {
    let all = (-ZONES.0..=ZONES.0).step_by(ZONES.1).filter(|m| *m != own);
    all.map(|offset_minutes| Cause::TimeZone { offset_minutes }).collect()
}

/// Every other way to count that the data can tell from ours.
fn methods(board: &Board<'_>, ours: &Ours) -> Vec<Cause> {
    let cube = board.cube;
    let own = ours.counting.repeat_click_seconds;
    let mut all: Vec<Cause> =
        WINDOWS.into_iter().filter(|w| *w != own).map(|seconds| Cause::RepeatWindow { seconds }).collect();
    if cube.has(|c| matches!(c.sort, Sort::Invalid(_))) {
        all.push(Cause::InvalidCounted { code: None });
    }
    for code in InvalidCode::ALL {
        if cube.has(|c| c.sort == Sort::invalid(code))
            && cube.has(|c| matches!(c.sort, Sort::Invalid(_)) && c.sort != Sort::invalid(code))
        {
            all.push(Cause::InvalidCounted { code: Some(code.as_str()) });
        }
    }
    if cube.has(|c| c.sort == Sort::Again) {
        all.push(Cause::DuplicatesCounted);
    }
    let late = LATENESS.into_iter().enumerate().filter(|(n, _)| cube.has(|c| c.is_billed && c.lateness > *n));
    all.extend(late.map(|(_, seconds)| Cause::LateNotCounted { seconds }));
    if cube.has(|c| c.is_after) {
        all.push(Cause::LateCounted);
    }
    all
}

impl Trial<'_> {
    fn test(&mut self, counted: &[(Place, Counts)], causes: &[Cause]) -> Result<(), Overflow> {
        self.tests += 1;
        let numbers = self.board.ours(counted, causes)?;
        let left = self.board.distance(&numbers);
        let residual_ppm = residual(&self.base, &left);
        // Only what helps, or is the only one of its sort, is ever shown: keep the numbers of no other.
        let helps = residual_ppm < MILLION;
        let numbers = if helps { numbers } else { Vec::new() };
        let is_kept = helps || causes.len() == 1;
        if is_kept {
            self.tried.push(Tried { causes: causes.to_vec(), left, residual_ppm, numbers });
        }
        self.forget();
        Ok(())
    }

    /// Keeps memory small: the numbers of all but the best few go.
    fn forget(&mut self) {
        const KEPT: usize = 400;
        if self.tried.len() > 2 * KEPT {
            self.tried.sort_by_key(|t| (t.causes.len() > 1, t.residual_ppm));
            let singles = self.tried.iter().take_while(|t| t.causes.len() == 1).count();
            self.tried.truncate(singles + KEPT);
        }
    }

    /// The hypotheses about amounts, on top of `causes`.
    fn amounts(&mut self, counted: &[(Place, Counts)], causes: &[Cause]) -> Result<(), Overflow> {
        if !self.board.theirs.has_amounts {
            return Ok(());
        }
        let rounded = [2, 0].map(|decimals| Cause::Rounded { decimals });
        for cause in self.factor(counted, causes)?.into_iter().chain(rounded) {
            self.test(counted, &[causes, &[cause]].concat())?;
        }
        Ok(())
    }

    /// The factor between all amounts that both sides have.
    fn factor(&self, counted: &[(Place, Counts)], causes: &[Cause]) -> Result<Option<Cause>, Overflow> {
        let numbers = self.board.ours(counted, causes)?;
        let (mut ours, mut theirs, mut lines) = (0_i128, 0_i128, 0);
        for line in self.board.lines(&numbers) {
            if let (Some(a), Some(b)) = (line.ours, line.theirs)
                && a.cost_nanos > 0
            {
                ours = ours.checked_add(a.cost_nanos).ok_or(Overflow)?;
                theirs = theirs.checked_add(b.cost_nanos).ok_or(Overflow)?;
                lines += 1;
            }
        }
        if lines < MIN_FACTOR_LINES || ours == 0 {
            return Ok(None);
        }
        let ppm = theirs.checked_mul(MILLION).ok_or(Overflow)? / ours;
        let ppm = i64::try_from(ppm).map_err(|_| Overflow)?;
        Ok((ppm > 0 && (ppm - 1_000_000).abs() >= MIN_FACTOR_PPM).then_some(Cause::Factor { ppm }))
    }

    /// The best time zones so far.
    fn best(&self, count: usize) -> Vec<Cause> {
        let mut found: Vec<(i128, Cause)> = self
            .tried
            .iter()
            .filter_map(|t| match t.causes.as_slice() {
                [zone @ Cause::TimeZone { .. }] => Some((t.residual_ppm, *zone)),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found.into_iter().take(count).map(|(_, zone)| zone).collect()
    }
}

/// What is left, as the mean over the measures that were apart before.
fn residual(base: &Distance, left: &Distance) -> i128 {
    let events = (base.events > 0).then(|| part(left.events, base.events));
    let amounts = base.nanos.iter().filter(|(_, before)| **before > 0);
    let amounts = amounts.map(|(c, before)| part(left.nanos.get(c).copied().unwrap_or(0), *before));
    let all: Vec<i128> = events.into_iter().chain(amounts).collect();
    // Where something is apart now that was not before, it is no explanation of that measure.
    let count = i128::try_from(all.len().max(1)).unwrap_or(1);
    all.iter().sum::<i128>() / count
}

fn part(after: i128, before: i128) -> i128 {
    (after * MILLION / before).min(10 * MILLION)
}

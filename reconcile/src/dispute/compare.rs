//! Two sets of numbers beside each other: matched, ours only, theirs only, differing; and how far apart in all.
//! Distances are sums of absolute differences, so errors of two campaigns do not cancel. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shared::money::{Currency, Overflow};
use shared::rollup::Counts;
use shared::time::{DAY, Day, HOUR};

use super::causes::Cause;
use super::cube::{Cube, Place, SLOT};
use super::ours::Ours;
use super::theirs::{Grain, Theirs};
use super::when::day_of;

/// A millionth.
pub(super) const MILLION: i128 = 1_000_000;

/// Whom and when: campaign or click, currency, local start of the period.
pub(super) type At = (u32, u32, i64);

/// Where the comparison takes place.
pub(super) struct Board<'a> {
    pub(super) theirs: &'a Theirs,
    pub(super) cube: &'a Cube,
    /// Their numbers by ours.
    pub(super) their_numbers: Vec<(At, Counts)>,
    /// Names that only their file has get numbers of their own.
    pub(super) names: BTreeMap<u32, String>,
    pub(super) currencies: BTreeMap<u32, Option<Currency>>,
}

/// Our numbers and theirs for one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) at: At,
    pub(super) ours: Option<Counts>,
    pub(super) theirs: Option<Counts>,
}

/// How far apart, by measure: events, and nanos by currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Distance {
    pub(super) events: i128,
    pub(super) nanos: BTreeMap<u32, i128>,
}

impl<'a> Board<'a> {
    pub(super) fn new(theirs: &'a Theirs, ours: &'a Ours) -> Self {
        let cube = &ours.cube;
        let mut names: BTreeMap<u32, String> = cube.names().into_iter().map(|(n, name)| (n, name.to_owned())).collect();
        let mut numbers: BTreeMap<String, u32> = names.iter().map(|(n, name)| (name.clone(), *n)).collect();
        let mut currencies = cube.currencies();
        let mut their_numbers = Vec::with_capacity(theirs.numbers.len());
        for (key, counts) in &theirs.numbers {
            let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
            let who = *numbers.entry(key.who.clone()).or_insert(next);
            names.entry(who).or_insert_with(|| key.who.clone());
            let known = currencies.iter().find(|(_, c)| **c == key.currency).map(|(n, _)| *n);
            let next = u32::try_from(currencies.len()).unwrap_or(u32::MAX);
            let currency = known.unwrap_or(next);
            currencies.entry(currency).or_insert(key.currency);
            their_numbers.push(((who, currency, key.period), *counts));
        }
        their_numbers.sort_unstable_by_key(|(at, _)| *at);
        Self { theirs, cube, their_numbers, names, currencies }
    }

    /// What we count under `causes`, by their keys, of their days only.
    pub(super) fn ours(&self, counted: &[(Place, Counts)], causes: &[Cause]) -> Result<Vec<(At, Counts)>, Overflow> {
        let minutes = causes.iter().find_map(|c| match c {
            Cause::TimeZone { offset_minutes } => Some(*offset_minutes),
            _ => None,
        });
        let offset = minutes.map_or(self.theirs.zone.micros(), |m| super::Zone(m).micros());
        let numbers = fold(counted, offset, self.theirs.grain, &self.theirs.days)?;
        self.repriced(numbers, causes)
    }

    /// Changes amounts as the causes say.
    fn repriced(&self, mut numbers: Vec<(At, Counts)>, causes: &[Cause]) -> Result<Vec<(At, Counts)>, Overflow> {
        for cause in causes {
            for (_, counts) in &mut numbers {
                counts.cost_nanos = match *cause {
                    Cause::Factor { ppm } => scaled(counts.cost_nanos, ppm.into())?,
                    Cause::Rounded { decimals } => rounded(counts.cost_nanos, decimals),
                    _ => counts.cost_nanos,
                };
            }
        }
        Ok(numbers)
    }

    /// Both sides, key by key.
    pub(super) fn lines(&self, ours: &[(At, Counts)]) -> Vec<Line> {
        let mut lines: BTreeMap<At, Line> = BTreeMap::new();
        for (at, counts) in ours {
            lines.insert(*at, Line { at: *at, ours: Some(*counts), theirs: None });
        }
        for (at, counts) in &self.their_numbers {
            let line = lines.entry(*at).or_insert(Line { at: *at, ours: None, theirs: None });
            line.theirs = Some(*counts);
        }
        lines.into_values().collect()
    }

    /// How far `ours` is from their numbers.
    pub(super) fn distance(&self, ours: &[(At, Counts)]) -> Distance {
        let mut distance = Distance::default();
        let (mut a, mut b) = (ours.iter().peekable(), self.their_numbers.iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => return distance,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((x, _)), Some((y, _))) => x.cmp(y),
            };
            let mine = if order.is_le() { a.next() } else { None };
            let other = if order.is_ge() { b.next() } else { None };
            let Some((at, _)) = mine.or(other) else { return distance };
            let counts = |side: Option<&(At, Counts)>| side.map(|(_, c)| *c).unwrap_or_default();
            let (x, y) = (counts(mine), counts(other));
            distance.events += self.events(&x, &y);
            if self.theirs.has_amounts {
                *distance.nanos.entry(at.1).or_default() += (x.cost_nanos - y.cost_nanos).abs();
            }
        }
    }

    /// The events that two counts differ by, in the measures their file has.
    pub(super) fn events(&self, a: &Counts, b: &Counts) -> i128 {
        let pairs = [(a.impressions, b.impressions), (a.clicks, b.clicks), (a.conversions, b.conversions)];
        pairs.iter().zip(self.theirs.counted).filter(|(_, is)| *is).map(|((x, y), _)| i128::from(x.abs_diff(*y))).sum()
    }
}

/// Counts by half hour → by their periods under an offset, of their days only.
fn fold(
    counted: &[(Place, Counts)],
    offset: i64,
    grain: Grain,
    days: &BTreeSet<Day>,
) -> Result<Vec<(At, Counts)>, Overflow> {
    let mut numbers: Vec<(At, Counts)> = Vec::new();
    for (place, counts) in counted {
        let local = place.slot * SLOT + offset;
        if !days.contains(&day_of(local)) {
            continue;
        }
        let period = match grain {
            Grain::Click => 0,
            Grain::Hour => local - local.rem_euclid(HOUR),
            Grain::Day => local - local.rem_euclid(DAY),
        };
        let at = (place.who, place.currency, period);
        match numbers.last_mut().filter(|(last, _)| *last == at) {
            Some((_, sum)) => *sum = sum.merge(counts)?,
            None => numbers.push((at, *counts)),
        }
    }
    Ok(numbers)
}

fn scaled(nanos: i128, ppm: i128) -> Result<i128, Overflow> {
    nanos.checked_mul(ppm).map(|n| n / MILLION).ok_or(Overflow)
}

/// Half-even to so many decimals of the currency.
fn rounded(nanos: i128, decimals: u32) -> i128 {
    let unit = 10_i128.pow(9_u32.saturating_sub(decimals));
    let (floor, rest) = (nanos.div_euclid(unit), nanos.rem_euclid(unit));
    let up = match (rest * 2).cmp(&unit) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => floor.rem_euclid(2),
    };
    (floor + up) * unit
}

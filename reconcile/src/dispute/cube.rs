//! Our events, boiled down to what any hypothesis can ask of them: by campaign (or click), currency, half hour and
//! class. A class is everything that decides whether some method counts an event. Pure.

use std::collections::BTreeMap;

use shared::money::{Currency, Overflow};
use shared::rollup::Counts;
use shared::time::MINUTE;
use shared::verdict::InvalidCode;

use super::causes::{Invalid, LATENESS, Method, WINDOWS};

/// The length of a slot: time zones differ by whole and half hours.
pub(super) const SLOT: i64 = 30 * MINUTE;

/// What an event is, before the chain of clicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    /// First with its id, valid.
    Valid,
    /// Duplicate or conflict.
    Again,
    /// Invalid, by the code's place in `InvalidCode::ALL`.
    Invalid(usize),
}

impl Sort {
    pub(super) fn invalid(code: InvalidCode) -> Self {
        Self::Invalid(InvalidCode::ALL.iter().position(|c| *c == code).unwrap_or(usize::MAX))
    }
}

/// What decides whether an event counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) sort: Sort,
    /// Whether we bill it.
    pub(super) is_billed: bool,
    /// How many of [`WINDOWS`] it is no repeat click under.
    pub(super) windows: usize,
    /// How many of [`LATENESS`] it exceeds.
    pub(super) lateness: usize,
    /// Whether it came after the settlement.
    pub(super) is_after: bool,
}

impl Class {
    /// Whether `method` counts it.
    pub(super) fn counts(&self, method: &Method) -> bool {
        let is_in = match self.sort {
            Sort::Valid => method.window.map_or(self.is_billed, |w| self.windows > w),
            Sort::Again => method.duplicates,
            Sort::Invalid(code) => match method.invalid {
                Invalid::None => false,
                Invalid::Code(only) => code == only,
                Invalid::All => true,
            },
        };
        is_in && (method.after || !self.is_after) && method.lateness.is_none_or(|l| self.lateness <= l)
    }
}

/// How many of the windows a click is no repeat under, `gap` microseconds after the one before.
pub(super) fn windows_of(gap: i64) -> usize {
    WINDOWS.iter().filter(|w| gap >= **w * 1_000_000).count()
}

/// How many of the limits an event exceeds that came `delay` microseconds after it happened.
pub(super) fn lateness_of(delay: i64) -> usize {
    LATENESS.iter().filter(|l| delay > **l * 1_000_000).count()
}

/// Where a count stands: campaign or click, currency, half hour (since 1970, UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) who: u32,
    pub(super) currency: u32,
    pub(super) slot: i64,
}

/// All events.
#[derive(Debug, Default)]
pub(super) struct Cube {
    names: BTreeMap<String, u32>,
    currencies: BTreeMap<Option<Currency>, u32>,
    cells: BTreeMap<(Place, Class), Counts>,
}

impl Cube {
    /// The number of a campaign or click.
    pub(super) fn who(&mut self, name: &str) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.insert(name.to_owned(), number);
        number
    }

    /// The number of a currency.
    pub(super) fn currency(&mut self, currency: Option<Currency>) -> u32 {
        let next = u32::try_from(self.currencies.len()).unwrap_or(u32::MAX);
        *self.currencies.entry(currency).or_insert(next)
    }

    /// The numbers with their names.
    pub(super) fn names(&self) -> BTreeMap<u32, &str> {
        self.names.iter().map(|(name, n)| (*n, name.as_str())).collect()
    }

    /// The numbers with their currencies.
    pub(super) fn currencies(&self) -> BTreeMap<u32, Option<Currency>> {
        self.currencies.iter().map(|(currency, n)| (*n, *currency)).collect()
    }

    /// Adds an event.
    pub(super) fn add(&mut self, place: Place, class: Class, counts: &Counts) -> Result<(), Overflow> {
        let sum = self.cells.entry((place, class)).or_default();
        *sum = sum.merge(counts)?;
        Ok(())
    }

    /// Whether there is an event of which `wanted` holds.
    pub(super) fn has(&self, wanted: impl Fn(&Class) -> bool) -> bool {
        self.cells.keys().any(|(_, class)| wanted(class))
    }

    /// What `method` counts, in the order of places.
    pub(super) fn count(&self, method: &Method) -> Result<Vec<(Place, Counts)>, Overflow> {
        let mut counted: Vec<(Place, Counts)> = Vec::new();
        for ((place, class), counts) in &self.cells {
            if !class.counts(method) {
                continue;
            }
            match counted.last_mut().filter(|(at, _)| at == place) {
                Some((_, sum)) => *sum = sum.merge(counts)?,
                None => counted.push((*place, *counts)),
            }
        }
        Ok(counted)
    }
}

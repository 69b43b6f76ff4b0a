//! What a version changes: one signed difference for every line that is not as it was. Pure.
//! Guarantee: the version before plus its deltas is the new version, line by line and to the nano; a line that did not
//! change has none. Owns: `deltas.csv`. Never: rounds; the difference in micros is that of two rounded amounts.

use std::collections::BTreeMap;

use lake::run_record::integer_text;
use serde::{Deserialize, Serialize};
use shared::money::{Currency, Overflow};
use shared::rollup::Counts;
use shared::time::Day;

use crate::line_file::{Cells, sheet};
use crate::lines::{COLUMNS, Line, LineKey, decimal};
use crate::manifest::Total;

/// The columns of free text.
const TEXT: [&str; 2] = ["campaign_id", "ad_id"];
/// Signed columns before the counts of the other verdicts.
const BILLED: usize = 13;

/// The signed difference of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) key: LineKey,
    /// Impressions, clicks, conversions.
    pub(crate) events: [i64; 3],
    pub(crate) cost_nanos: i128,
    pub(crate) cost_micros: i64,
    pub(crate) excluded: [i64; 9],
}

/// Σ of deltas in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeltaTotal {
    /// Lines that changed.
    pub row_count: u64,
    /// Signed difference in billable impressions.
    pub impressions: i64,
    /// In billable clicks.
    pub clicks: i64,
    /// In billable conversions.
    pub conversions: i64,
    /// In what is settled, micros.
    pub cost_micros: i64,
    /// In the unrounded amounts, nanos.
    #[serde(with = "integer_text")]
    pub cost_nanos: i128,
}

fn minus(new: u64, old: u64) -> Result<i64, Overflow> {
    i64::try_from(i128::from(new) - i128::from(old)).map_err(|_| Overflow)
}

fn events(counts: &Counts) -> [u64; 3] {
    [counts.impressions, counts.clicks, counts.conversions]
}

impl Delta {
    /// From a line of the version before and one of the new version, which have the same key where both are there;
    /// `None` when nothing changed.
    ///
    /// # Errors
    /// [`Overflow`].
    pub(crate) fn between(old: Option<&Line>, new: Option<&Line>) -> Result<Option<Self>, Overflow> {
        let Some(key) = new.or(old).map(|line| line.key.clone()).filter(|_| old != new) else { return Ok(None) };
        let (zero, none) = (Counts::default(), [0; 9]);
        let counts = |line: Option<&Line>| line.map_or(zero, |l| l.counts);
        let others = |line: Option<&Line>| line.map_or(none, |l| l.excluded);
        let micros = |line: Option<&Line>| line.map_or(Ok(0), Line::cost_micros);
        let (before, after) = (counts(old), counts(new));
        let mut delta = Self {
            key,
            events: [0; 3],
            cost_nanos: after.cost_nanos.checked_sub(before.cost_nanos).ok_or(Overflow)?,
            cost_micros: micros(new)?.checked_sub(micros(old)?).ok_or(Overflow)?,
            excluded: [0; 9],
        };
        for (slot, (new, old)) in delta.events.iter_mut().zip(events(&after).into_iter().zip(events(&before))) {
            *slot = minus(new, old)?;
        }
        for (slot, (new, old)) in delta.excluded.iter_mut().zip(others(new).into_iter().zip(others(old))) {
            *slot = minus(new, old)?;
        }
        Ok(Some(delta))
    }

    /// The cells in the order of the lines' columns; `version` is the new one.
    fn cells(&self, day: Day, version: u32) -> Cells {
        let LineKey { campaign_id, ad_id, currency, price_model, price_version } = &self.key;
        let mut cells = vec![
            day.to_string(),
            version.to_string(),
            campaign_id.to_string(),
            ad_id.to_string(),
            currency.to_string(),
            (*price_model).to_owned(),
            price_version.to_string(),
        ];
        cells.extend(self.events.iter().map(i64::to_string));
        cells.extend([self.cost_nanos.to_string(), self.cost_micros.to_string(), decimal(self.cost_micros)]);
        cells.extend(self.excluded.iter().map(i64::to_string));
        cells
    }

    fn from_cells(cells: &Cells, day: Day, version: u32) -> Result<Self, String> {
        let number = |at: usize| -> Result<i64, String> {
            let text = cells.get(at).map_or("", String::as_str);
            text.parse().map_err(|_| format!("{} is {text:?}", COLUMNS.get(at).unwrap_or(&"a cell")))
        };
        let mut excluded = [0; 9];
        for (i, slot) in excluded.iter_mut().enumerate() {
            *slot = number(BILLED + i)?;
        }
        let nanos = cells.get(10).and_then(|n| n.parse().ok()).ok_or("cost_nanos is no number")?;
        let delta = Self {
            key: LineKey::from_cells(cells)?,
            events: [number(7)?, number(8)?, number(9)?],
            cost_nanos: nanos,
            cost_micros: number(11)?,
            excluded,
        };
        match delta.cells(day, version).iter().zip(cells).zip(COLUMNS).find(|((wanted, found), _)| wanted != found) {
            Some(((wanted, found), column)) => Err(format!("{column} is {found:?} and must be {wanted:?}")),
            None => Ok(delta),
        }
    }
}

/// The bytes of `deltas.csv`.
pub(crate) fn write(deltas: &[Delta], day: Day, version: u32) -> Result<Vec<u8>, String> {
    sheet::write(&COLUMNS, &TEXT, deltas.iter().map(|d| Ok(d.cells(day, version))))
}

/// Calls `each` with the number of every row of `deltas.csv` and what it says.
pub(crate) fn read(
    bytes: &[u8],
    day: Day,
    version: u32,
    each: &mut dyn FnMut(u64, Result<Delta, String>),
) -> Result<(), String> {
    sheet::read(bytes, &COLUMNS, &TEXT, &mut |n, cells| each(n, Delta::from_cells(&cells, day, version)))
}

/// Σ of deltas by currency.
pub(crate) type DeltaTotals = BTreeMap<Currency, DeltaTotal>;

/// Adds a delta to its currency's sum.
///
/// # Errors
/// [`Overflow`].
pub(crate) fn add(totals: &mut DeltaTotals, delta: &Delta) -> Result<(), Overflow> {
    let total = totals.entry(delta.key.currency).or_default();
    let add = |a: i64, b: i64| a.checked_add(b).ok_or(Overflow);
    let [impressions, clicks, conversions] = delta.events;
    *total = DeltaTotal {
        row_count: total.row_count + 1,
        impressions: add(total.impressions, impressions)?,
        clicks: add(total.clicks, clicks)?,
        conversions: add(total.conversions, conversions)?,
        cost_micros: add(total.cost_micros, delta.cost_micros)?,
        cost_nanos: total.cost_nanos.checked_add(delta.cost_nanos).ok_or(Overflow)?,
    };
    Ok(())
}

/// The totals after the deltas, given those before; counts of lines are left as they are.
///
/// # Errors
/// [`Overflow`], also where a count would be negative.
pub(crate) fn apply(
    before: &BTreeMap<Currency, Total>,
    deltas: &DeltaTotals,
) -> Result<BTreeMap<Currency, Total>, Overflow> {
    let mut after = before.clone();
    for (currency, d) in deltas {
        let total = after.entry(*currency).or_default();
        let count = |n: u64, by: i64| n.checked_add_signed(by).ok_or(Overflow);
        *total = Total {
            row_count: total.row_count,
            impressions: count(total.impressions, d.impressions)?,
            clicks: count(total.clicks, d.clicks)?,
            conversions: count(total.conversions, d.conversions)?,
            cost_micros: total.cost_micros.checked_add(d.cost_micros).ok_or(Overflow)?,
            cost_nanos: total.cost_nanos.checked_add(d.cost_nanos).ok_or(Overflow)?,
        };
    }
    Ok(after)
}

//! What adjustments add up to, and what is due with them: a part of the manifest. Pure; overflow is an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::money::{Currency, Overflow};

use crate::ledger::Adjustment;
use crate::manifest::Total;

/// Control totals of the adjustments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adjusted {
    /// Adjustments.
    pub row_count: u64,
    /// By currency.
    pub totals: BTreeMap<Currency, AdjustmentTotal>,
}

/// Σ of adjustments in one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdjustmentTotal {
    /// Adjustments.
    pub row_count: u64,
    /// Signed difference in impressions.
    pub impressions: i64,
    /// In clicks.
    pub clicks: i64,
    /// In conversions.
    pub conversions: i64,
    /// In the amount, micros.
    pub amount_micros: i64,
}

impl Adjusted {
    /// Adds one.
    ///
    /// # Errors
    /// [`Overflow`].
    pub(crate) fn add(&mut self, a: &Adjustment) -> Result<(), Overflow> {
        let total = self.totals.entry(a.currency).or_default();
        let add = |a: i64, b: i64| a.checked_add(b).ok_or(Overflow);
        let [impressions, clicks, conversions] = a.events;
        *total = AdjustmentTotal {
            row_count: total.row_count + 1,
            impressions: add(total.impressions, impressions)?,
            clicks: add(total.clicks, clicks)?,
            conversions: add(total.conversions, conversions)?,
            amount_micros: add(total.amount_micros, a.amount_micros)?,
        };
        self.row_count += 1;
        Ok(())
    }
}

/// What is due: settled lines and adjustments, by currency.
///
/// # Errors
/// [`Overflow`].
pub(crate) fn due(
    totals: &BTreeMap<Currency, Total>,
    adjusted: &Adjusted,
) -> Result<BTreeMap<Currency, i64>, Overflow> {
    let mut due: BTreeMap<Currency, i64> = totals.iter().map(|(c, t)| (*c, t.cost_micros)).collect();
    for (currency, total) in &adjusted.totals {
        let sum = due.entry(*currency).or_default();
        *sum = sum.checked_add(total.amount_micros).ok_or(Overflow)?;
    }
    Ok(due)
}

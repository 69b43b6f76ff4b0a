//! What somebody's events were billed at, by day, campaign, ad and currency: what an adjustment takes back. Pure.
//! Guarantee: integers, checked; the sums are in the order of their keys. Never: keeps an event.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use serde::{Deserialize, Serialize};
use shared::time::Day;

use crate::error::Error;
use crate::run_record::integer_text;

/// The billable events of one ad on one day in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BilledSum {
    /// The billing day.
    pub day: Day,
    /// The campaign.
    pub campaign_id: String,
    /// The ad.
    pub ad_id: String,
    /// The currency.
    pub currency: String,
    /// Impressions, clicks, conversions.
    pub events: [i64; 3],
    /// Their unrounded cost, nanos.
    #[serde(with = "integer_text")]
    pub cost_nanos: i128,
}

/// Day, campaign, ad, currency.
type Key = (Day, String, String, String);

#[derive(Debug, Default)]
pub(crate) struct BilledSums(BTreeMap<Key, ([i64; 3], i128)>);

impl BilledSums {
    /// Adds the billable rows of a batch of silver that are wanted.
    ///
    /// # Errors
    /// `Corrupt` when the batch is not silver, or a sum does not fit.
    pub(crate) fn add(
        &mut self,
        day: Day,
        batch: &RecordBatch,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Result<(), Error> {
        let bad = |name: &str| Error::Corrupt(format!("silver of {day} has no column {name} as it should be"));
        let text = |name: &str| {
            let column = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            column.ok_or_else(|| bad(name))
        };
        let (verdicts, types, currencies) = (text("verdict")?, text("event_type")?, text("currency")?);
        let (campaigns, ads) = (text("campaign_id")?, text("ad_id")?);
        let costs = batch.column_by_name("cost_nanos").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let costs = costs.ok_or_else(|| bad("cost_nanos"))?;
        for row in (0..batch.num_rows()).filter(|row| verdicts.value(*row) == "billable" && is_wanted(*row)) {
            let of = |texts: &arrow::array::StringArray| texts.value(row).to_owned();
            let events = ["impression", "click", "conversion"].map(|name| i64::from(types.value(row) == name));
            self.count((day, of(campaigns), of(ads), of(currencies)), events, costs.value(row).into())?;
        }
        Ok(())
    }

    /// Adds what another file had.
    ///
    /// # Errors
    /// `Corrupt` when a sum does not fit.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), Error> {
        other.0.into_iter().try_for_each(|(key, (events, cost))| self.count(key, events, cost))
    }

    fn count(&mut self, key: Key, events: [i64; 3], cost: i128) -> Result<(), Error> {
        let too_much = || Error::Corrupt(format!("what {} was billed on {} does not fit", key.1, key.0));
        let sum = self.0.get(&key).copied().unwrap_or_default();
        let mut counts = sum.0;
        for (count, more) in counts.iter_mut().zip(events) {
            *count = count.checked_add(more).ok_or_else(too_much)?;
        }
        let cost = sum.1.checked_add(cost).ok_or_else(too_much)?;
        self.0.insert(key, (counts, cost));
        Ok(())
    }

    /// The sums.
    pub(crate) fn sums(self) -> Vec<BilledSum> {
        let sum = |((day, campaign_id, ad_id, currency), (events, cost_nanos))| BilledSum {
            day,
            campaign_id,
            ad_id,
            currency,
            events,
            cost_nanos,
        };
        self.0.into_iter().map(sum).collect()
    }
}

//! The notice of a restatement (`restatement.json`): per campaign and currency what was due, what is due now, and the
//! difference; for whoever booked the version before. Pure.
//! Guarantee: campaigns named and counts of those below the threshold add up to the whole difference.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::id::CampaignId;
use shared::money::{Currency, Overflow};
use shared::time::Day;

use crate::ledger::Adjustment;
use crate::lines::Line;

/// The version of the notice's form.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What changed for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Notice {
    pub(crate) schema_version: u32,
    pub(crate) day: Day,
    pub(crate) version: u32,
    pub(crate) supersedes: u32,
    pub(crate) reason: String,
    /// Campaigns whose amount changed by less are only counted.
    pub(crate) threshold_micros: u64,
    /// By campaign and currency.
    pub(crate) campaigns: Vec<Changed>,
    /// Those below the threshold, by currency.
    pub(crate) below: BTreeMap<Currency, Below>,
}

/// One campaign in one currency: amounts with adjustments, events billable and adjusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Changed {
    pub(crate) campaign_id: CampaignId,
    pub(crate) currency: Currency,
    pub(crate) old_micros: i64,
    pub(crate) new_micros: i64,
    pub(crate) delta_micros: i64,
    pub(crate) old_events: i64,
    pub(crate) new_events: i64,
    pub(crate) delta_events: i64,
}

/// What the notice does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Below {
    pub(crate) campaigns: u64,
    pub(crate) delta_micros: i64,
    pub(crate) delta_events: i64,
}

/// Amount and events of one campaign and currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    micros: i64,
    events: i64,
}

impl Sum {
    fn add(&mut self, micros: i64, events: i64) -> Result<(), Overflow> {
        self.micros = self.micros.checked_add(micros).ok_or(Overflow)?;
        self.events = self.events.checked_add(events).ok_or(Overflow)?;
        Ok(())
    }
}

/// The campaigns of two versions, as they are read.
#[derive(Debug, Default)]
pub(crate) struct Campaigns(BTreeMap<(CampaignId, Currency), [Sum; 2]>);

/// Which version something is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Old,
    New,
}

impl Campaigns {
    fn sum(&mut self, side: Side, campaign: &CampaignId, currency: Currency) -> &mut Sum {
        let [old, new] = self.0.entry((campaign.clone(), currency)).or_default();
        match side {
            Side::Old => old,
            Side::New => new,
        }
    }

    pub(crate) fn line(&mut self, side: Side, line: &Line) -> Result<(), Overflow> {
        let events = i64::try_from(line.billable()?).map_err(|_| Overflow)?;
        self.sum(side, &line.key.campaign_id, line.key.currency).add(line.cost_micros()?, events)
    }

    pub(crate) fn adjustment(&mut self, side: Side, a: &Adjustment) -> Result<(), Overflow> {
        let events = a.events.iter().try_fold(0_i64, |sum, n| sum.checked_add(*n)).ok_or(Overflow)?;
        self.sum(side, &a.campaign_id, a.currency).add(a.amount_micros, events)
    }

    /// The campaigns that changed: those to name, and the sums of the others.
    pub(crate) fn changes(self, threshold: u64) -> Result<(Vec<Changed>, BTreeMap<Currency, Below>), Overflow> {
        let (mut named, mut below) = (Vec::new(), BTreeMap::<Currency, Below>::new());
        for ((campaign_id, currency), [old, new]) in self.0.into_iter().filter(|(_, [old, new])| old != new) {
            let delta_micros = new.micros.checked_sub(old.micros).ok_or(Overflow)?;
            let delta_events = new.events.checked_sub(old.events).ok_or(Overflow)?;
            if delta_micros.unsigned_abs() < threshold {
                let others = below.entry(currency).or_default();
                others.campaigns += 1;
                others.delta_micros = others.delta_micros.checked_add(delta_micros).ok_or(Overflow)?;
                others.delta_events = others.delta_events.checked_add(delta_events).ok_or(Overflow)?;
                continue;
            }
            named.push(Changed {
                campaign_id,
                currency,
                old_micros: old.micros,
                new_micros: new.micros,
                delta_micros,
                old_events: old.events,
                new_events: new.events,
                delta_events,
            });
        }
        Ok((named, below))
    }
}

impl Notice {
    /// The file's bytes: indented JSON and a line feed.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Σ of the differences by currency, those below the threshold too; `None` when a sum does not fit.
    pub(crate) fn delta_micros(&self) -> Option<BTreeMap<Currency, i64>> {
        let mut sums: BTreeMap<Currency, i64> = self.below.iter().map(|(c, b)| (*c, b.delta_micros)).collect();
        for changed in &self.campaigns {
            let sum = sums.entry(changed.currency).or_default();
            *sum = sum.checked_add(changed.delta_micros)?;
        }
        Some(sums)
    }
}

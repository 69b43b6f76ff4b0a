//! Rollups: counts and cost per key and window. Merging is associative and commutative, so minutes make
//! hours and partial rows make whole ones, in any order.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::event::{Country, DeviceType, EventKind};
use crate::id::{AdId, CampaignId};
use crate::money::{Currency, Overflow};
use crate::sketch::Sketch;
use crate::time::Timestamp;

/// What is counted: billable events and their unrounded cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Billable impressions.
    pub impressions: u64,
    /// Billable clicks.
    pub clicks: u64,
    /// Billable conversions.
    pub conversions: u64,
    /// Cost in nanos of the key's currency.
    pub cost_nanos: i128,
}

impl Counts {
    /// The counts of one billable event.
    #[must_use]
    #[inline]
    pub fn one(kind: EventKind, cost_nanos: i64) -> Self {
        let is = |k: EventKind| u64::from(kind == k);
        Self {
            impressions: is(EventKind::Impression),
            clicks: is(EventKind::Click),
            conversions: is(EventKind::Conversion),
            cost_nanos: i128::from(cost_nanos),
        }
    }

    /// Both together.
    ///
    /// # Errors
    /// [`Overflow`] when a sum does not fit.
    #[inline]
    pub fn merge(&self, other: &Self) -> Result<Self, Overflow> {
        Ok(Self {
            impressions: self.impressions.checked_add(other.impressions).ok_or(Overflow)?,
            clicks: self.clicks.checked_add(other.clicks).ok_or(Overflow)?,
            conversions: self.conversions.checked_add(other.conversions).ok_or(Overflow)?,
            cost_nanos: self.cost_nanos.checked_add(other.cost_nanos).ok_or(Overflow)?,
        })
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// What a row is about. `window_start` is inclusive; the length follows from the variant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RollupKey {
    /// One ad's minute.
    AdMinute {
        /// Start of the minute.
        minute: Timestamp,
        /// The ad.
        ad_id: AdId,
        /// Its campaign.
        campaign_id: CampaignId,
        /// The cost's currency.
        currency: Currency,
    },
    /// One campaign's minute: the dashboard's live bars and top lists.
    CampaignMinute {
        /// Start of the minute.
        minute: Timestamp,
        /// The campaign.
        campaign_id: CampaignId,
        /// The cost's currency.
        currency: Currency,
    },
    /// One campaign's hour by the drill-down dimensions, with unique users.
    CampaignHour {
        /// Start of the hour.
        hour: Timestamp,
        /// The campaign.
        campaign_id: CampaignId,
        /// Where the device was.
        country: Country,
        /// What the device was.
        device_type: DeviceType,
        /// The cost's currency.
        currency: Currency,
    },
}

impl RollupKey {
    /// The start of the row's window.
    #[must_use]
    pub fn window_start(&self) -> Timestamp {
        match self {
            Self::AdMinute { minute, .. } | Self::CampaignMinute { minute, .. } => *minute,
            Self::CampaignHour { hour, .. } => *hour,
        }
    }

    /// The start of the hour the row's window lies in: the unit in which reconcile takes ownership.
    #[must_use]
    pub fn hour(&self) -> Timestamp {
        self.window_start().floor(crate::time::HOUR)
    }
}

/// A row: absolute values, never increments (decisions.md D-9).
#[derive(Debug, Clone)]
pub struct RollupRow {
    /// What it is about.
    pub key: RollupKey,
    /// What was counted.
    pub counts: Counts,
    /// Unique users; only campaign hours have them.
    pub uniques: Option<Sketch>,
}

/// How final a number is (contract 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finality {
    /// From the speed layer: approximate.
    Provisional,
    /// From batch: exact.
    Reconciled,
    /// From batch and in a published settlement.
    Settled,
}

impl Finality {
    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisional => "provisional",
            Self::Reconciled => "reconciled",
            Self::Settled => "settled",
        }
    }
}

/// The version of a row: tier, then generation, then sequence, packed so that a plain integer comparison
/// orders them and exact beats approximate for ever (decisions.md D-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowVersion(pub u64);

impl RowVersion {
    /// Tier 0: a speed flush. `generation` rises with every start of the writer (22 bits), `sequence` with every
    /// flush (40 bits).
    #[must_use]
    pub fn speed(generation: u32, sequence: u64) -> Self {
        Self(((u64::from(generation) & 0x3F_FFFF) << 40) | (sequence & 0xFF_FFFF_FFFF))
    }

    /// Tier 1: reconcile, by run number.
    #[must_use]
    pub fn reconciled(run: u64) -> Self {
        Self((1 << 62) | (run & 0x3FFF_FFFF_FFFF_FFFF))
    }

    /// The generation of a tier 0 version.
    #[must_use]
    pub fn generation(self) -> u32 {
        u32::try_from((self.0 >> 40) & 0x3F_FFFF).unwrap_or(u32::MAX)
    }

    /// 0 speed, 1 reconciled, 2 adjusted.
    #[must_use]
    pub fn tier(self) -> u64 {
        self.0 >> 62
    }
}

/// A half-open range of instants.
pub type TimeRange = Range<Timestamp>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Counts> {
        (0..u64::MAX / 4, 0..u64::MAX / 4, 0..u64::MAX / 4, -(1_i128 << 100)..(1_i128 << 100)).prop_map(
            |(impressions, clicks, conversions, cost_nanos)| Counts { impressions, clicks, conversions, cost_nanos },
        )
    }

    proptest! {
        #[test]
        fn merge_is_associative_and_commutative(a in counts(), b in counts(), c in counts()) {
            prop_assert_eq!(a.merge(&b), b.merge(&a));
            prop_assert_eq!(a.merge(&b).and_then(|x| x.merge(&c)), b.merge(&c).and_then(|x| a.merge(&x)));
        }

        #[test]
        fn reconciled_beats_every_speed_version(generation in any::<u32>(), sequence in any::<u64>(), run in 0..1_u64 << 40) {
            prop_assert!(RowVersion::reconciled(run) > RowVersion::speed(generation, sequence));
            prop_assert_eq!(RowVersion::reconciled(run).tier(), 1);
        }
    }

    #[test]
    fn an_overflowing_merge_is_an_error() {
        let full = Counts { clicks: u64::MAX, ..Counts::default() };
        assert_eq!(full.merge(&Counts::one(EventKind::Click, 0)), Err(Overflow));
    }
}

//! One correction: a signed delta to a billing day, with who says so, why, and what it corrects. Pure.
//! Guarantee: two adjustments are the same exactly when every field a person wrote is; the canonical text that is
//! signed holds all of them. Never: repairs a field.

use std::fmt;

use serde::Serialize;
use shared::id::{AdId, CampaignId, RefId};
use shared::money::Currency;
use shared::time::Day;

/// Why a day is corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A review found invalid traffic that the rules had let pass.
    FraudReview,
    /// The buyer gets something back for what was not delivered as agreed.
    MakeGood,
    /// More was delivered than ordered, and the surplus is not charged.
    Overdelivery,
    /// A person's data was erased.
    PrivacyErasure,
    /// Events that came after the day could be restated.
    LateData,
    /// Anything else; the note says what.
    Other,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::FraudReview, Self::MakeGood, Self::Overdelivery, Self::PrivacyErasure, Self::LateData, Self::Other];

    /// The code used in files and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FraudReview => "fraud_review",
            Self::MakeGood => "make_good",
            Self::Overdelivery => "overdelivery",
            Self::PrivacyErasure => "privacy_erasure",
            Self::LateData => "late_data",
            Self::Other => "other",
        }
    }

    /// From its code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }

    /// The kind of account that stands against the receivable: late data is revenue like any other.
    #[must_use]
    pub fn account(self) -> &'static str {
        match self {
            Self::FraudReview => "fraud_write_off",
            Self::LateData => "revenue",
            Self::Other => "other_adjustment",
            Self::MakeGood | Self::Overdelivery | Self::PrivacyErasure => self.as_str(),
        }
    }
}

/// A settlement that an adjustment refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Corrects {
    /// By its number among all settlements.
    Sequence(u64),
    /// By day and version.
    Version(Day, u32),
}

impl Corrects {
    /// From a sequence number (`7`) or a day and version (`2026-01-05/1`).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let found = match text.split_once('/') {
            Some((day, version)) => Self::Version(Day::parse(day)?, version.parse().ok()?),
            None => Self::Sequence(text.parse().ok()?),
        };
        (found.to_string() == text).then_some(found)
    }
}

impl fmt::Display for Corrects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(number) => write!(f, "{number}"),
            Self::Version(day, version) => write!(f, "{day}/{version}"),
        }
    }
}

/// A correction as a person wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Its idempotency key.
    pub id: RefId,
    /// The billing day it corrects.
    pub day: Day,
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The ad, where it is about one.
    pub ad_id: Option<AdId>,
    /// The currency of the amount.
    pub currency: Currency,
    /// Signed differences in events: impressions, clicks, conversions.
    pub events: [i64; 3],
    /// The signed amount, micros of the currency.
    pub amount_micros: i64,
    /// Why.
    pub reason: Reason,
    /// A note for a person.
    pub note: String,
    /// Who answers for it.
    pub actor: String,
    /// The settlement it refers to.
    pub corrects: Option<Corrects>,
}

impl Adjustment {
    /// Every field as text, in the order of the file's columns.
    #[must_use]
    pub fn cells(&self) -> [String; 13] {
        let [impressions, clicks, conversions] = self.events.map(|n| n.to_string());
        [
            self.id.to_string(),
            self.day.to_string(),
            self.campaign_id.to_string(),
            self.ad_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            self.currency.to_string(),
            impressions,
            clicks,
            conversions,
            self.amount_micros.to_string(),
            self.reason.as_str().to_owned(),
            self.note.clone(),
            self.actor.clone(),
            self.corrects.map(|c| c.to_string()).unwrap_or_default(),
        ]
    }

    /// What is signed: a JSON array of text, which no field can break out of.
    #[must_use]
    pub fn canonical(&self, source_sha256: &str, key_id: &str) -> String {
        let mut parts = vec!["adjustment/v1".to_owned(), key_id.to_owned(), source_sha256.to_owned()];
        parts.extend(self.cells());
        serde_json::Value::from(parts).to_string()
    }
}

/// An adjustment with its proof of origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The correction.
    pub adjustment: Adjustment,
    /// SHA-256 of the file it was imported from, lower-case hex.
    pub source_sha256: String,
    /// The key that signed it.
    pub key_id: String,
    /// The signature of [`Adjustment::canonical`].
    pub signature: String,
}

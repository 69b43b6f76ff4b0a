//! The port through which a number is explained: the life of one event, and a campaign's way from received to due.
//! The composition root implements it (it needs batch, reconcile and the price books); serving and the command line
//! ask. Guarantee: nothing in an answer is personal data.

use async_trait::async_trait;
use serde::{Serialize, Serializer};

use crate::error::ErrorKind;
use crate::id::{CampaignId, EventId};
use crate::time::{Day, HOUR, MINUTE, Timestamp};

/// Who can explain.
#[async_trait]
pub trait Explainer: Send + Sync {
    /// Everywhere the id was archived, in archive order; empty where it never was.
    ///
    /// # Errors
    /// When the lake or a settlement cannot be read.
    async fn event(&self, id: &EventId) -> Result<Vec<Occurrence>, Unexplained>;

    /// A campaign's day; absent where the day was never recounted.
    ///
    /// # Errors
    /// The same; and when the steps do not sum.
    async fn campaign(&self, id: &CampaignId, day: Day) -> Result<Option<Waterfall>, Unexplained>;
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unexplained {
    /// What the receiver must do.
    pub kind: ErrorKind,
    /// What failed.
    pub why: String,
}

impl Unexplained {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// One archived event with the id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Occurrence {
    /// The day it bills on.
    pub day: Day,
    /// What happened.
    pub event_type: String,
    /// The ad.
    pub ad_id: String,
    /// The campaign.
    pub campaign_id: String,
    /// When it happened, by the client.
    #[serde(serialize_with = "rfc3339")]
    pub event_time: Timestamp,
    /// When, where and at which place of the log it was accepted.
    #[serde(flatten)]
    pub place: Place,
    /// What the gateway found invalid; absent where nothing was. Either way it accepted the event.
    pub invalid_at_capture: Option<String>,
    /// The payload's identity, in hexadecimal.
    pub fingerprint: String,
    /// The event that holds the id, where this is not it.
    pub first: Option<Place>,
    /// What batch made of it, if its day has been run since.
    pub judged: Option<Judgement>,
}

/// Where an event stands in the archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// When it was accepted.
    #[serde(serialize_with = "rfc3339")]
    pub ingest_time: Timestamp,
    /// Where.
    pub region: String,
    /// Its log partition.
    pub partition: i32,
    /// Its position there.
    pub position: i64,
}

/// What batch made of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// The run that says so.
    pub run: u64,
    /// The rules it was judged by.
    pub rules_version: u32,
    /// The time it bills at.
    #[serde(serialize_with = "rfc3339")]
    pub billing_time: Timestamp,
    /// Whether its own time was out of bounds, so that its ingest time bills.
    pub clamped: bool,
    /// The windows of the speed layer and of the reports it belongs to.
    pub windows: Windows,
    /// Its verdict.
    pub verdict: String,
    /// The verdict in a sentence.
    pub why: String,
    /// The click it repeats.
    pub repeats: Option<Repeated>,
    /// The currency.
    pub currency: String,
    /// How its campaign paid.
    pub price_model: String,
    /// The price book version that brought the price in; 0 without one.
    pub price_version: i64,
    /// The price in force.
    pub price: Option<PriceRule>,
    /// What it costs, unrounded, in nanos of the currency.
    pub cost_nanos: i64,
    /// Where it is settled.
    pub settled: Option<SettledLine>,
}

/// The start of each window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Windows {
    /// The minute.
    #[serde(serialize_with = "rfc3339")]
    pub minute: Timestamp,
    /// Five minutes.
    #[serde(serialize_with = "rfc3339")]
    pub five_minutes: Timestamp,
    /// The hour.
    #[serde(serialize_with = "rfc3339")]
    pub hour: Timestamp,
}

impl Windows {
    /// Those of a billing time.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        Self { minute: at.floor(MINUTE), five_minutes: at.floor(5 * MINUTE), hour: at.floor(HOUR) }
    }
}

/// The click just before on the same impression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repeated {
    /// Its id.
    pub event_id: String,
    /// Where it stands; absent where it is not found any more.
    #[serde(flatten)]
    pub place: Option<Place>,
}

/// A price of the book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceRule {
    /// Micros per click, per thousand impressions or per conversion.
    pub price_micros: i64,
    /// Since when.
    #[serde(serialize_with = "rfc3339")]
    pub valid_from: Timestamp,
}

/// The settlement line that an event counts in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettledLine {
    /// The settlement's folder within the data root.
    pub folder: String,
    /// Its version.
    pub version: u32,
    /// Its number among all settlements.
    pub sequence: u64,
    /// The file (the CSV beside it has the same rows).
    pub file: String,
    /// The row in that file; the first line after the header is 1.
    pub row: u64,
    /// The line's unrounded sum, in nanos; text.
    pub line_cost_nanos: String,
    /// What the line settles, in micros.
    pub line_cost_micros: i64,
    /// Adjustments of its campaign and ad (or of the campaign as a whole) in its currency.
    pub adjustments: Vec<AdjustmentNote>,
}

/// A signed correction of the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdjustmentNote {
    /// Its id.
    pub adjustment_id: String,
    /// The ad, where it is about one.
    pub ad_id: Option<String>,
    /// The currency.
    pub currency: String,
    /// The signed amount, in micros.
    pub amount_micros: i64,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub actor: String,
}

/// A campaign's day from archived to due. Every step is a number with a reason; the counts and the amounts sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waterfall {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The day.
    pub day: Day,
    /// The run the numbers come from.
    pub run: u64,
    /// Events: archived, less each verdict that is not billed, is billable; then by kind.
    pub events: Vec<Step>,
    /// Amounts by currency.
    pub amounts: Vec<Amounts>,
    /// What the dashboard showed before, against this.
    pub drift: Option<Drift>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A step: what is added or taken away, or (a sum) where that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What it is.
    pub what: String,
    /// The number, signed.
    pub events: i64,
    /// Whether it is the sum of the steps before.
    pub is_sum: bool,
    /// Why.
    pub why: String,
}

/// One currency's way from priced units to due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// The currency.
    pub currency: String,
    /// Units × price, by model and price version.
    pub priced: Vec<Priced>,
    /// Their sum, unrounded, in nanos; text.
    pub unrounded_nanos: String,
    /// What rounding each line to micros adds or takes, in nanos; text.
    pub rounding_nanos: String,
    /// Σ of this run's lines, in micros.
    pub lines_micros: i64,
    /// What the newest settlement says, in micros; absent where there is none.
    pub settled_micros: Option<i64>,
    /// The adjustments of the day, settled or not.
    pub adjustments: Vec<AdjustmentNote>,
    /// Their sum, in micros.
    pub adjustments_micros: i64,
    /// Lines and adjustments, in micros.
    pub due_micros: i64,
}

/// Units at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Priced {
    /// cpc, cpm, cpa, reported or free.
    pub price_model: String,
    /// The price book version that brought the price in.
    pub price_version: i64,
    /// Micros per click, per thousand impressions or per conversion; absent where each event brings its own.
    pub price_micros: Option<i64>,
    /// The billable events that this model pays.
    pub units: u64,
    /// Their cost, in nanos; text.
    pub cost_nanos: String,
}

/// How far the dashboard was from exact, over the campaign's hours, in events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// Σ |shown − exact|.
    pub events: u64,
    /// By cause; they sum to `events`.
    pub causes: Vec<Cause>,
    /// Σ |shown − exact| of unique users by hour: the sketch's error and what the causes did to it.
    pub uniques: u64,
}

/// A cause of drift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Its name in the drift report.
    pub cause: String,
    /// In words.
    pub why: String,
    /// The events it explains.
    pub events: u64,
}

fn rfc3339<S: Serializer>(at: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(at)
}

/// A verdict in a sentence.
#[must_use]
pub fn verdict_sentence(verdict: &str) -> &'static str {
    match verdict {
        "billable" => "first with its id, valid, not a repeat: it counts",
        "duplicate" => "an earlier event has this id and payload",
        "conflict" => "an earlier event has this id with another payload",
        "repeat_click" => "the click before on this impression is too close",
        "invalid:bad_signature" => "its signature is not ours; it claims nothing",
        "invalid:expired" => "its signature was over when it came; it claims nothing",
        "invalid:known_bot" => "its user agent names a robot",
        "invalid:datacenter_ip" => "its address belongs to a data centre",
        "invalid:rate" => "more than a person can do",
        "invalid:inactive_ad" => "its ad was not running",
        _ => "invalid by rule",
    }
}

//! The serving store port: approximate rows by speed, exact rows by reconcile, series for readers.
//! Guarantee: exact beats approximate for ever. Reconcile takes ownership of whole hours; a speed write to an
//! owned hour changes nothing and is counted. Writes are keyed absolute values with a version, so a replay
//! overwrites and never adds (decisions.md D-9).

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::event::{Country, DeviceType};
use crate::id::{AdId, CampaignId};
use crate::money::Currency;
use crate::rollup::{Counts, Finality, RollupKey, RollupRow, RowVersion, TimeRange};
use crate::sketch::Sketch;
use crate::time::{Day, Timestamp};

/// A serving store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away, locked or full.
    #[error("serving store is unavailable while {doing}: {why}")]
    Unavailable {
        /// What was attempted.
        doing: String,
        /// Why it failed.
        why: String,
    },
    /// What is stored contradicts itself or our schema.
    #[error("serving store is corrupt: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Corrupt(_) => ErrorKind::Corrupt,
        }
    }
}

/// One flush of one speed worker: rows appear together or not at all.
#[derive(Debug, Clone)]
pub struct Flush {
    /// The worker: its log partition. Rows of several writers with one key are summed at read.
    pub writer: u32,
    /// Orders this writer's flushes; a row with an older version never replaces a newer one.
    pub version: RowVersion,
    /// Absolute values of every row that changed since the last flush.
    pub rows: Vec<RollupRow>,
    /// What this writer knows about its own progress, shown on the dashboard.
    pub status: WriterStatus,
}

/// What a speed worker tells about itself with every flush.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WriterStatus {
    /// Events before this instant are assumed to have been seen.
    pub watermark: Timestamp,
    /// The newest event time counted.
    pub max_event_time: Timestamp,
    /// The ingest time of the newest event counted: rows are as of this instant.
    pub as_of: Timestamp,
    /// When this was flushed.
    pub flushed_at: Timestamp,
    /// The next log position.
    pub next_position: u64,
    /// Records behind the end of the log.
    pub lag: u64,
    /// Every event this worker saw, by outcome (counted, duplicate, late, …): the sums conserve.
    pub outcomes: BTreeMap<String, u64>,
    /// Of the late ones among them, how many fell into each hour (its first instant): the exact path counts them.
    pub late_by_hour: BTreeMap<Timestamp, u64>,
    /// 95th percentile from ingest to flush over the last minutes, milliseconds.
    pub ingest_p95_ms: u64,
    /// The same for the busiest campaigns.
    pub campaign_p95_ms: BTreeMap<CampaignId, u64>,
}

/// The instant every writer has reached: what was accepted before it is shown. `None` while one has counted nothing
/// yet. A writer that had no lag when it last flushed stood at that instant, however long ago its last event was.
#[must_use]
pub fn reached<'a>(writers: impl IntoIterator<Item = &'a WriterStatus>) -> Option<Timestamp> {
    let mut reached = Some(Timestamp::MAX);
    for status in writers {
        let at = if status.lag == 0 { status.flushed_at.max(status.as_of) } else { status.as_of };
        reached = reached.filter(|_| at > Timestamp::MIN).map(|r| r.min(at));
    }
    reached
}

/// What an upsert did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upserted {
    /// Rows written.
    pub written: u64,
    /// Rows in hours that reconcile owns: left alone.
    pub superseded: u64,
}

/// The exact rows of one hour, as reconcile found them different.
#[derive(Debug, Clone, Default)]
pub struct Correction {
    /// Cells whose shown sum differs or is missing: the exact value.
    pub set: Vec<RollupRow>,
    /// Cells that are shown but do not exist.
    pub remove: Vec<RollupKey>,
}

impl Correction {
    /// Checks that every row and key lies in `hour`, the unit of ownership.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first one that does not.
    pub fn check(&self, hour: Timestamp) -> Result<(), StoreError> {
        let mut keys = self.set.iter().map(|r| &r.key).chain(&self.remove);
        match keys.find(|k| k.hour() != hour) {
            Some(key) => Err(StoreError::Corrupt(format!("a correction of hour {hour} names {key:?}"))),
            None => Ok(()),
        }
    }
}

/// What is shown for one hour, summed over writers: one row per key, sorted by key.
pub type HourRows = Vec<RollupRow>;

/// One point of an ad's series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesPoint {
    /// Start of the window.
    pub window_start: Timestamp,
    /// The cost's currency.
    pub currency: Currency,
    /// What was counted.
    pub counts: Counts,
    /// How final it is.
    pub finality: Finality,
}

/// One campaign hour by dimension.
#[derive(Debug, Clone)]
pub struct CampaignHourPoint {
    /// Start of the hour.
    pub hour: Timestamp,
    /// Where.
    pub country: Country,
    /// What device.
    pub device_type: DeviceType,
    /// The cost's currency.
    pub currency: Currency,
    /// What was counted.
    pub counts: Counts,
    /// Unique users.
    pub uniques: Sketch,
    /// How final it is.
    pub finality: Finality,
}

/// By what a top list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopBy {
    /// Clicks.
    Clicks,
    /// Impressions.
    Impressions,
    /// Conversions.
    Conversions,
    /// Cost (only sums in one currency compare; the list is per currency).
    Cost,
}

/// One line of a top list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopCampaign {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The cost's currency.
    pub currency: Currency,
    /// What was counted.
    pub counts: Counts,
}

/// Where rollups are kept and read.
#[async_trait]
pub trait ServingStore: Send + Sync {
    /// Upserts one flush: for each (key, writer) the newest version stays; hours owned by reconcile are left alone.
    /// A flush of a generation older than the last one handed out for its writer comes from a zombie and
    /// changes nothing at all.
    async fn upsert_approximate(&self, flush: Flush) -> Result<Upserted, StoreError>;

    /// The next generation for a writer: larger than any it was given before, durable when returned.
    async fn next_generation(&self, writer: u32) -> Result<u32, StoreError>;

    /// What is shown for the hour that starts at `hour` (all three grains), for reconcile to compare.
    async fn read_hour(&self, hour: Timestamp) -> Result<HourRows, StoreError>;

    /// Makes one hour exact: applies the correction and takes ownership, in one transaction. Later speed
    /// writes to the hour change nothing. Returns how many rows changed; 0 when repeated, and 0 when a newer
    /// version owns the hour. A change takes the settled mark off the day: what is shown is no longer what was
    /// published, until [`ServingStore::mark_settled`] says so again.
    ///
    /// A speed flush may slip in between [`ServingStore::read_hour`] and this call. Read the hour again once it
    /// is owned: from then on nothing but a newer reconcile moves it.
    async fn overwrite_exact(
        &self,
        hour: Timestamp,
        correction: Correction,
        version: RowVersion,
    ) -> Result<u64, StoreError>;

    /// The hours of `range` that reconcile owns, with the version that took them.
    async fn owned_hours(&self, range: TimeRange) -> Result<BTreeMap<Timestamp, RowVersion>, StoreError>;

    /// Marks a day as published with settlement `version`: its owned hours show as settled.
    async fn mark_settled(&self, day: Day, version: u32) -> Result<(), StoreError>;

    /// One ad's minutes in `range`, by time and currency.
    async fn ad_series(&self, ad: &AdId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError>;

    /// One campaign's minutes in `range`, by time and currency.
    async fn campaign_series(&self, campaign: &CampaignId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError>;

    /// One campaign's hours in `range`, by time and dimensions.
    async fn campaign_hours(
        &self,
        campaign: &CampaignId,
        range: TimeRange,
    ) -> Result<Vec<CampaignHourPoint>, StoreError>;

    /// The `n` busiest campaigns in `range` by the campaign minutes, one line per campaign and currency; only
    /// those in `among`, where given. Lines with nothing to order by are left out, equals are ordered by campaign
    /// and currency. By cost the list is `n` lines per currency, ordered by currency.
    async fn top(
        &self,
        range: TimeRange,
        by: TopBy,
        n: usize,
        among: Option<&[CampaignId]>,
    ) -> Result<Vec<TopCampaign>, StoreError>;

    /// Forgets minutes that start before `minutes` and hours before `hours` (both first instants of an hour), oldest
    /// first and at most `at_most` rows of each grain; answers how many rows, 0 when all are gone. Ownership stays, so
    /// that no late flush brings a forgotten hour back.
    async fn forget(&self, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Result<u64, StoreError>;

    /// What every writer last told about itself.
    async fn writers(&self) -> Result<BTreeMap<u32, WriterStatus>, StoreError>;
}

//! The serving store on ClickHouse.
//! Guarantee: the port's, without transactions: every write is one block, may be repeated, and what takes two is shown by
//! the second alone (docs/adr/0016-clickhouse-without-transactions.md).
//! On crash, ours or the server's: a call that returned is on disk; one that did not is repeated by its caller.
//! Never: waits longer than `clickhouse.timeout` for an answer; puts a value into the text of a statement.
//!
//! [`write`] is speed's, [`exact`] reconcile's, [`read`] everybody's; [`rows`] is how values are stored, [`connection`] asks.

mod connection;
mod exact;
mod examine;
mod failure;
mod forget;
mod http;
mod migrate;
mod read;
mod rows;
mod settings;
mod write;

use std::collections::BTreeMap;

use async_trait::async_trait;
use shared::id::{AdId, CampaignId};
use shared::rollup::{RowVersion, TimeRange};
use shared::serving_store::{
    CampaignHourPoint, Correction, Flush, HourRows, SeriesPoint, ServingStore, StoreError, TopBy, TopCampaign,
    Upserted, WriterStatus,
};
use shared::time::{Day, Timestamp};

use self::connection::Connection;
pub use self::examine::{Examined, examine};
pub use self::migrate::{Layout, lay_out};
pub use self::settings::Settings;

const SETTLE: &str = include_str!("../../../../sql/clickhouse/65_settle_day.sql");

/// A serving store in one ClickHouse database. Clones share the connections.
#[derive(Clone)]
pub struct ClickHouseStore(Connection);

impl ClickHouseStore {
    /// Connects, and brings the database to the newest schema.
    ///
    /// # Errors
    /// Unavailable when the server does not answer or the user may not do what is needed, corrupt when the database is
    /// something else or from a newer version.
    pub async fn open(settings: &Settings) -> Result<Self, StoreError> {
        let connection = Connection::new(settings)?;
        let applied = migrate::migrate(&connection, &settings.database).await?;
        if applied > 0 {
            tracing::info!(applied, database = settings.database, "made the tables");
        }
        Ok(Self(connection))
    }

    /// Connects to a store that is there, and makes nothing.
    ///
    /// # Errors
    /// As [`ClickHouseStore::open`]; unavailable also when the tables are missing or of another version.
    pub async fn open_existing(settings: &Settings) -> Result<Self, StoreError> {
        let connection = Connection::new(settings)?;
        migrate::check(&connection, &settings.database).await?;
        Ok(Self(connection))
    }
}

#[async_trait]
impl ServingStore for ClickHouseStore {
    async fn upsert_approximate(&self, flush: Flush) -> Result<Upserted, StoreError> {
        write::upsert(&self.0, &flush).await
    }

    async fn next_generation(&self, writer: u32) -> Result<u32, StoreError> {
        write::next_generation(&self.0, writer).await
    }

    async fn read_hour(&self, hour: Timestamp) -> Result<HourRows, StoreError> {
        read::hour(&self.0, hour).await
    }

    async fn overwrite_exact(
        &self,
        hour: Timestamp,
        correction: Correction,
        version: RowVersion,
    ) -> Result<u64, StoreError> {
        correction.check(hour)?;
        exact::overwrite(&self.0, hour, &correction, version).await
    }

    async fn owned_hours(&self, range: TimeRange) -> Result<BTreeMap<Timestamp, RowVersion>, StoreError> {
        let owners = read::owners(&self.0, &range).await?;
        Ok(owners.iter().map(|owner| (owner.hour(), RowVersion(owner.version))).collect())
    }

    async fn mark_settled(&self, day: Day, version: u32) -> Result<(), StoreError> {
        let settle = self.0.statement(SETTLE).param("at", rows::seconds(day.start()));
        self.0.run("marking a day", settle.param("version", version)).await
    }

    async fn ad_series(&self, ad: &AdId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        read::ad_series(&self.0, ad.as_str(), &range).await
    }

    async fn campaign_series(&self, campaign: &CampaignId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        read::campaign_series(&self.0, campaign.as_str(), &range).await
    }

    async fn campaign_hours(
        &self,
        campaign: &CampaignId,
        range: TimeRange,
    ) -> Result<Vec<CampaignHourPoint>, StoreError> {
        read::campaign_hours(&self.0, campaign, &range).await
    }

    async fn top(
        &self,
        range: TimeRange,
        by: TopBy,
        n: usize,
        among: Option<&[CampaignId]>,
    ) -> Result<Vec<TopCampaign>, StoreError> {
        read::top(&self.0, &range, by, n, among).await
    }

    async fn forget(&self, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Result<u64, StoreError> {
        forget::forget(&self.0, minutes, hours, at_most).await
    }

    async fn writers(&self) -> Result<BTreeMap<u32, WriterStatus>, StoreError> {
        read::writers(&self.0).await
    }
}

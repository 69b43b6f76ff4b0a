//! One way to ask: every call has a deadline and every error its words.
//! Guarantee: an insert is one block and synchronous, so that an answer means that all of it is there, and an error that
//! none or all of it is. Never: retries; the callers' writes may be repeated and they decide.

use std::future::Future;
use std::time::Duration;

use clickhouse::query::Query;
use clickhouse::{Client, Row, RowOwned, RowRead};
use serde::Serialize;
use shared::serving_store::StoreError;

use super::failure::while_doing;
use super::http;
use super::rows::StoredRow;
use super::settings::Settings;

/// Rows of one insert: one block, which ClickHouse adds as a whole. More are several inserts.
const MAX_BLOCK_ROWS: usize = 1_000_000;

/// What every statement is run with: a profile of the server must not change what an answer means.
const SETTINGS: [(&str, &str); 6] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "0"), // rows are upserts; a repeated block after a deletion must not be dropped
    ("max_insert_block_size", "1048576"),
    ("distributed_foreground_insert", "1"),
    ("lightweight_deletes_sync", "2"),
    ("do_not_merge_across_partitions_select_final", "1"), // a key's hour is in its partition's day
];

/// A client with a deadline.
#[derive(Clone)]
pub(super) struct Connection {
    client: Client,
    timeout: Duration,
}

impl Connection {
    /// A client of the database; asks nothing yet.
    pub(super) fn new(settings: &Settings) -> Result<Self, StoreError> {
        let mut client = http::client(settings)?.with_url(&settings.url).with_user(&settings.user);
        let unreadable = |e: std::io::Error| StoreError::Unavailable {
            doing: format!("reading {}", settings.password_file.display()),
            why: e.to_string(),
        };
        if let Some(password) = settings.password().map_err(unreadable)? {
            client = client.with_password(password);
        }
        for (name, value) in SETTINGS {
            client = client.with_setting(name, value);
        }
        let seconds = settings.timeout.0.as_secs().max(1).to_string();
        client = client.with_setting("max_execution_time", seconds).with_database(&settings.database);
        Ok(Self { client, timeout: settings.timeout.0 })
    }

    /// The same server without the database, which may not be there yet.
    pub(super) fn without_database(&self) -> Self {
        Self { client: self.client.clone().with_database("default"), timeout: self.timeout }
    }

    /// A statement; its values are parameters.
    pub(super) fn statement(&self, sql: &str) -> Query {
        self.client.query_raw(sql)
    }

    /// Every row of an answer.
    pub(super) async fn all<T: RowOwned + RowRead>(&self, doing: &str, query: Query) -> Result<Vec<T>, StoreError> {
        self.timed(doing, query.fetch_all()).await
    }

    /// The one row of an answer.
    pub(super) async fn one<T: RowOwned + RowRead>(&self, doing: &str, query: Query) -> Result<T, StoreError> {
        self.timed(doing, query.fetch_one()).await
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn run(&self, doing: &str, query: Query) -> Result<(), StoreError> {
        self.timed(doing, query.execute()).await
    }

    /// Adds rollup rows: as a whole, up to [`MAX_BLOCK_ROWS`] of them.
    pub(super) async fn add_rows(&self, doing: &str, rows: &[StoredRow]) -> Result<(), StoreError> {
        for block in rows.chunks(MAX_BLOCK_ROWS) {
            self.insert(doing, "rollup", block).await?;
        }
        Ok(())
    }

    /// Adds one block to a table.
    pub(super) async fn insert<T>(&self, doing: &str, table: &str, rows: &[T]) -> Result<(), StoreError>
    where
        T: RowOwned + for<'a> Row<Value<'a> = T> + Serialize + Sync,
    {
        let send = async {
            let mut insert = self.client.insert::<T>(table).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        self.timed(doing, send).await
    }

    /// Waits for an answer until the deadline; ClickHouse's own error for the caller to look at.
    pub(super) async fn raw<T>(
        &self,
        call: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> clickhouse::error::Result<T> {
        tokio::time::timeout(self.timeout, call).await.unwrap_or(Err(clickhouse::error::Error::TimedOut))
    }

    async fn timed<T>(
        &self,
        doing: &str,
        call: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, StoreError> {
        self.raw(call).await.map_err(|error| while_doing(doing, &error))
    }
}

//! Forgets what is past its time, a few rows at a time.
//! On crash: ClickHouse finishes a deletion that it began; what only one table has lost is found again in the other. Never: touches the marks, so that hours stay owned.

use clickhouse::Row;
use serde::Deserialize;
use shared::serving_store::StoreError;
use shared::time::Timestamp;

use super::connection::Connection;
use super::rows::seconds;

const FIND: &str = include_str!("../../../../sql/clickhouse/70_find_forgettable.sql");
const FORGET: &str = include_str!("../../../../sql/clickhouse/71_forget.sql");
/// What holds rows. The last is the one that [`FIND`] looks into.
const TABLES: [&str; 2] = ["rollup_by_id", "rollup"];

/// Rows of one grain that may go: how many, and the key of the last.
#[derive(Row, Deserialize)]
struct Forgettable {
    rows: u64,
    last: (u32, String, String, u32, String, String, String, i64),
}

/// Forgets up to `at_most` rows of each grain; answers how many.
pub(super) async fn forget(
    connection: &Connection,
    minutes: Timestamp,
    hours: Timestamp,
    at_most: u64,
) -> Result<u64, StoreError> {
    let mut forgotten = 0;
    for (grain, before) in [("ad_minute", minutes), ("campaign_minute", minutes), ("campaign_hour", hours)] {
        forgotten += forget_grain(connection, grain, before, at_most).await?;
    }
    Ok(forgotten)
}

async fn forget_grain(
    connection: &Connection,
    grain: &str,
    before: Timestamp,
    at_most: u64,
) -> Result<u64, StoreError> {
    const DOING: &str = "forgetting old rows";
    let query = connection.statement(FIND).param("grain", grain).param("before", seconds(before));
    let found: Forgettable = connection.one(DOING, query.param("most", at_most)).await?;
    if found.rows == 0 {
        return Ok(0);
    }
    let (hour, ad_id, campaign_id, window_start, country, device_type, currency, writer) = found.last;
    for table in TABLES {
        let delete = connection.statement(FORGET).param("table", table).param("grain", grain).param("hour", hour);
        let delete = delete.param("ad_id", &ad_id).param("campaign_id", &campaign_id).param("writer", writer);
        let delete = delete.param("window_start", window_start).param("country", &country);
        let delete = delete.param("device_type", &device_type).param("currency", &currency);
        connection.run(DOING, delete).await?;
    }
    Ok(found.rows)
}

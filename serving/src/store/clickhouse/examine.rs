//! What an operator should know about the server and the user: for `clickledger doctor`.

use clickhouse::Row;
use serde::Deserialize;
use shared::serving_store::StoreError;

use super::ClickHouseStore;
use super::connection::Connection;
use super::settings::Settings;

const EXAMINE: &str = include_str!("../../../../sql/clickhouse/90_examine.sql");
/// The first version with `generateSnowflakeID`, and the one that all tests run on.
const OLDEST: (u32, u32) = (24, 6);
const TESTED: &str = "26.7";
/// More parts than this in one day's partition are a backlog of merges; at 3,000 ClickHouse refuses inserts.
const MANY_PARTS: u64 = 300;
/// What a role may do, and the rights it takes.
const RIGHTS: [(&str, &str); 4] = [
    ("read", "CHECK GRANT SELECT ON shown_by_id"),
    ("add rows", "CHECK GRANT INSERT ON rollup"),
    ("take hours", "CHECK GRANT INSERT ON mark"),
    ("forget", "CHECK GRANT ALTER DELETE, ALTER UPDATE ON rollup_by_id"),
];

#[derive(Row, Deserialize)]
struct Server {
    version: String,
    most_parts: Option<u64>,
}

/// What was found, and what somebody should change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// One line: version, rights, parts.
    pub finding: String,
    /// Sentences that say what to change; empty when all is well.
    pub shortcomings: Vec<String>,
}

/// Looks at a store and its server; changes nothing.
///
/// # Errors
/// Those of [`ClickHouseStore::open_existing`].
pub async fn examine(settings: &Settings) -> Result<Examined, StoreError> {
    let ClickHouseStore(connection) = ClickHouseStore::open_existing(settings).await?;
    const DOING: &str = "examining the server";
    let server: Server = connection.one(DOING, connection.statement(EXAMINE)).await?;
    let most_parts = server.most_parts.unwrap_or(0);
    let may = may(&connection, DOING).await?;
    let mut shortcomings = Vec::new();
    if number(&server.version).is_some_and(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        shortcomings.push(format!(
            "version {}: {major}.{minor} is the oldest that will do, {TESTED} is tested",
            server.version
        ));
    }
    if most_parts > MANY_PARTS {
        shortcomings.push(format!(
            "{most_parts} parts in one day: merges are behind; raise speed.flush_interval or give ClickHouse faster disks"
        ));
    }
    if !may.contains(&"read") {
        shortcomings.push(format!("{} may not read: GRANT SELECT ON {}.*", settings.user, settings.database));
    }
    let finding = format!(
        "ClickHouse {}, database {}; {} may {}; at most {most_parts} parts a day",
        server.version,
        settings.database,
        settings.user,
        may.join(", ")
    );
    Ok(Examined { finding, shortcomings })
}

async fn may(connection: &Connection, doing: &str) -> Result<Vec<&'static str>, StoreError> {
    let mut may = Vec::new();
    for (what, check) in RIGHTS {
        if connection.one::<u8>(doing, connection.statement(check)).await? == 1 {
            may.push(what);
        }
    }
    Ok(may)
}

/// Major and minor.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

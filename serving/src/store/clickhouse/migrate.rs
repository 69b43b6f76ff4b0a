//! Brings the database to the newest schema.
//! Guarantee: every statement may be repeated, so that several roles may start at once and a crash between any two is
//! mended by the next start. Never: touches a schema that is newer than this program.

use shared::serving_store::StoreError;

use super::connection::Connection;
use super::failure::{is_missing, while_doing};
use super::read::Number;
use super::settings::Settings;

/// Every migration in order.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../../../sql/clickhouse/001_create_tables.sql"),
    include_str!("../../../../sql/clickhouse/002_create_rollup_by_id.sql"),
];
const CREATE_DATABASE: &str = include_str!("../../../../sql/clickhouse/80_create_database.sql");
const CLUSTER: &str = include_str!("../../../../sql/clickhouse/cluster/001_create_distributed_tables.sql");
const USE_TIERS: &str = include_str!("../../../../sql/clickhouse/91_use_tiers.sql");
const MOVE_TO_COLD: &str = include_str!("../../../../sql/clickhouse/92_move_to_cold.sql");
const COUNT_SHARDED: &str = include_str!("../../../../sql/clickhouse/93_count_sharded.sql");
/// What stands for all shards of a cluster.
const SHARDED: [&str; 5] = ["rollup", "rollup_by_id", "mark", "generation", "writer_status"];
/// Those of them that grow with every flush.
const TIERED: [&str; 2] = ["rollup", "rollup_by_id"];
const READ_VERSION: &str = include_str!("../../../../sql/clickhouse/81_read_schema_version.sql");
const WRITE_VERSION: &str = include_str!("../../../../sql/clickhouse/82_write_schema_version.sql");

/// How the tables are laid out: as an operator wants them, once, before roles use them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// Over all shards of the cluster that the server's macro `cluster` names; to be run on every node.
    pub cluster: bool,
    /// Days after which rows move to the volume `cold` of the storage policy `tiered`.
    pub cold_after_days: Option<u32>,
}

/// Brings the database to the newest schema, in this layout. May be repeated.
///
/// # Errors
/// Unavailable when the server does not answer, or the user may not, or there is no such cluster or policy; corrupt when the
/// tables are there in another layout.
pub async fn lay_out(settings: &Settings, layout: Layout) -> Result<(), StoreError> {
    const DOING: &str = "laying out the tables";
    let connection = Connection::new(settings)?;
    if layout.cluster {
        shard(&connection, &settings.database).await?;
    }
    migrate(&connection, &settings.database).await?;
    if let Some(days) = layout.cold_after_days {
        for table in TIERED {
            let table = if layout.cluster { format!("{table}_local") } else { table.to_owned() };
            connection.run(DOING, connection.statement(USE_TIERS).param("table", &table)).await?;
            let cold = connection.statement(MOVE_TO_COLD).param("table", &table).param("days", days);
            connection.run(DOING, cold).await?;
        }
    }
    Ok(())
}

/// Makes this node's own tables, and in the place of [`MIGRATIONS`]' tables those that stand for all shards.
async fn shard(connection: &Connection, database: &str) -> Result<(), StoreError> {
    const DOING: &str = "making the tables of a cluster";
    create_database(connection, database).await?;
    let own = MIGRATIONS.into_iter().flat_map(statements).filter_map(|sql| local(&sql));
    for sql in own.chain(statements(CLUSTER)) {
        connection.run(DOING, connection.statement(&sql)).await?;
    }
    let sharded: Number = connection.one(DOING, connection.statement(COUNT_SHARDED)).await?;
    if usize::try_from(sharded.number) == Ok(SHARDED.len()) {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!(
        "{database} has the tables of a single node: lay a cluster out in another database"
    )))
}

/// A node's own table for one that is to stand for all shards.
fn local(sql: &str) -> Option<String> {
    let create = |name: &str| format!("CREATE TABLE IF NOT EXISTS {name}");
    let name = SHARDED.into_iter().find(|name| sql.contains(&format!("{} (", create(name))))?;
    Some(sql.replace(&create(name), &create(&format!("{name}_local"))))
}

/// Applies what is missing; answers how many migrations that were. Needs no right to create anything when it is none.
pub(super) async fn migrate(connection: &Connection, database: &str) -> Result<usize, StoreError> {
    const DOING: &str = "making the tables";
    let applied = applied(connection).await?;
    let Some(missing) = MIGRATIONS.get(applied..) else {
        let newest = MIGRATIONS.len();
        return Err(StoreError::Corrupt(format!(
            "schema {applied} of {database} was made by a newer version than this, which knows {newest}"
        )));
    };
    if applied == 0 {
        create_database(connection, database).await?;
    }
    for (number, migration) in (applied + 1..).zip(missing) {
        for sql in statements(migration) {
            connection.run(DOING, connection.statement(&sql)).await?;
        }
        connection.run(DOING, connection.statement(WRITE_VERSION).param("number", number)).await?;
    }
    Ok(missing.len())
}

/// Whether the schema is this program's; changes nothing.
pub(super) async fn check(connection: &Connection, database: &str) -> Result<(), StoreError> {
    let (applied, newest) = (applied(connection).await?, MIGRATIONS.len());
    if applied == newest {
        return Ok(());
    }
    let why = format!("{database} has schema {applied} and not {newest}: clickledger serving migrate");
    Err(StoreError::Unavailable { doing: "looking at the schema".to_owned(), why })
}

/// How many migrations were applied.
async fn applied(connection: &Connection) -> Result<usize, StoreError> {
    const DOING: &str = "reading the schema's version";
    let read = connection.statement(READ_VERSION).fetch_one::<Number>();
    match connection.raw(read).await {
        Ok(newest) => usize::try_from(newest.number).map_err(|e| StoreError::Corrupt(format!("{DOING}: {e}"))),
        Err(error) if is_missing(&error) => Ok(0),
        Err(error) => Err(while_doing(DOING, &error)),
    }
}

async fn create_database(connection: &Connection, database: &str) -> Result<(), StoreError> {
    let server = connection.without_database();
    server.run("making the database", server.statement(CREATE_DATABASE).param("name", database)).await
}

/// The statements of a migration: each ends with a semicolon at the end of its line.
fn statements(migration: &str) -> impl Iterator<Item = String> {
    migration.split(";\n").map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned)
}

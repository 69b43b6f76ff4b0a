//! Brings the database to the newest schema.
//! Guarantee: every statement may be repeated, so that several roles may start at once and a crash between any two is
//! mended by the next start. Never: touches a schema that is newer than this program.

use clickhouse::query::Query;
use shared::serving_store::StoreError;

use super::connection::Connection;
use super::failure::{is_missing, while_doing};
use super::read::Number;

/// Every migration in order.
const MIGRATIONS: [&str; 1] = [include_str!("../../../../sql/clickhouse/001_create_tables.sql")];
const CREATE_DATABASE: &str = include_str!("../../../../sql/clickhouse/80_create_database.sql");
const READ_VERSION: &str = include_str!("../../../../sql/clickhouse/81_read_schema_version.sql");
const WRITE_VERSION: &str = include_str!("../../../../sql/clickhouse/82_write_schema_version.sql");

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
        let server = connection.without_database();
        server.run(DOING, server.statement(CREATE_DATABASE).param("name", database)).await?;
    }
    for (number, migration) in (applied + 1..).zip(missing) {
        for statement in statements(connection, migration) {
            connection.run(DOING, statement).await?;
        }
        connection.run(DOING, connection.statement(WRITE_VERSION).param("number", number)).await?;
    }
    Ok(missing.len())
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

/// The statements of a migration: each ends with a semicolon at the end of its line.
fn statements(connection: &Connection, migration: &str) -> Vec<Query> {
    let statements = migration.split(";\n").map(str::trim).filter(|s| !s.is_empty());
    statements.map(|sql| connection.statement(sql)).collect()
}

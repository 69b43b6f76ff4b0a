//! Speed's calls: a flush, a generation.
//! Guarantee: a flush is one block, and repeating it changes nothing; no two callers get the same generation.
//! On crash: rows without their status are written again by the retry, with the same values.

use std::collections::BTreeSet;

use clickhouse::Row;
use serde::Deserialize;
use shared::rollup::RollupKey;
use shared::serving_store::{Flush, StoreError, Upserted};
use shared::time::{HOUR, Timestamp};

use super::connection::Connection;
use super::read::{self, Number};
use super::rows::{StoredRow, corrupt, seconds};

const WRITER: &str = include_str!("../../../../sql/clickhouse/60_read_writer.sql");
const CLAIM: &str = include_str!("../../../../sql/clickhouse/62_claim_generation.sql");
const RIVALS: &str = include_str!("../../../../sql/clickhouse/63_count_rivals.sql");
const TELL: &str = include_str!("../../../../sql/clickhouse/64_tell_status.sql");
const KEPT: &str = include_str!("../../../../sql/clickhouse/41_read_kept.sql");

/// So many times a generation is asked for while others ask too.
const MAX_CLAIMS: u32 = 32;

#[derive(Row, Deserialize)]
struct Writer {
    generation: u32,
    version: u64,
}

async fn writer(connection: &Connection, writer: u32) -> Result<Writer, StoreError> {
    connection.one("reading a writer", connection.statement(WRITER).param("writer", writer)).await
}

/// Upserts one flush.
pub(super) async fn upsert(connection: &Connection, flush: &Flush) -> Result<Upserted, StoreError> {
    const DOING: &str = "upserting a flush";
    let writer = writer(connection, flush.writer).await?;
    if flush.version.generation() < writer.generation {
        return Ok(Upserted::default());
    }
    let is_newest = flush.version.0 > writer.version;
    let owned = owned_hours(connection, flush).await?;
    let kept = if is_newest { BTreeSet::new() } else { kept(connection, flush).await? };
    let (mut done, mut rows) = (Upserted::default(), Vec::with_capacity(flush.rows.len()));
    for row in &flush.rows {
        if owned.contains(&row.key.hour()) {
            done.superseded += 1;
        } else if !kept.contains(&row.key) {
            rows.push(StoredRow::new(row, i64::from(flush.writer), flush.version)?);
            done.written += 1;
        }
    }
    connection.add_rows(DOING, &rows).await?;
    if is_newest {
        let status = serde_json::to_string(&flush.status).map_err(|e| corrupt(format!("a writer's status: {e}")))?;
        let tell = connection.statement(TELL).param("writer", flush.writer).param("version", flush.version.0);
        connection.run(DOING, tell.param("status", status)).await?;
    }
    Ok(done)
}

/// The first and the last hour of a flush.
fn hours(flush: &Flush) -> Option<(Timestamp, Timestamp)> {
    let hours = || flush.rows.iter().map(|row| row.key.hour());
    Some((hours().min()?, hours().max()?))
}

async fn owned_hours(connection: &Connection, flush: &Flush) -> Result<BTreeSet<Timestamp>, StoreError> {
    let Some((first, last)) = hours(flush) else { return Ok(BTreeSet::new()) };
    let owners = read::owners(connection, &(first..last.plus(HOUR))).await?;
    Ok(owners.iter().map(read::Owner::hour).collect())
}

/// What this writer has stored with the flush's version or a newer one. Only a flush that is not its newest needs to look.
async fn kept(connection: &Connection, flush: &Flush) -> Result<BTreeSet<RollupKey>, StoreError> {
    let Some((first, last)) = hours(flush) else { return Ok(BTreeSet::new()) };
    let query = connection.statement(KEPT).param("first", seconds(first)).param("last", seconds(last));
    let query = query.param("writer", i64::from(flush.writer)).param("version", flush.version.0);
    let rows: Vec<StoredRow> = connection.all("reading what is stored", query).await?;
    rows.iter().map(StoredRow::key).collect()
}

/// The next generation of a writer. ClickHouse cannot compare and set, so a number is claimed and then looked at: of two
/// that claim the same, whoever looks last sees the other's claim and asks for another.
pub(super) async fn next_generation(connection: &Connection, id: u32) -> Result<u32, StoreError> {
    const DOING: &str = "taking a generation";
    for round in 0..MAX_CLAIMS {
        let claim = read::draw_number(connection).await?;
        let generation = writer(connection, id).await?.generation + 1 + lead(claim, round);
        let about =
            |sql| connection.statement(sql).param("writer", id).param("generation", generation).param("claim", claim);
        connection.run(DOING, about(CLAIM)).await?;
        let rivals: Number = connection.one(DOING, about(RIVALS)).await?;
        if rivals.number == 0 {
            return Ok(generation);
        }
    }
    Err(StoreError::Unavailable {
        doing: format!("{DOING} of writer {id}"),
        why: "others take generations of it without end".to_owned(),
    })
}

/// How many numbers to leave out, so that rivals part: none at first, then fewer than twice as many with every round.
fn lead(claim: u64, round: u32) -> u32 {
    let mixed = claim.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48; // the numbers differ in their middle bits
    u32::try_from(mixed % (1 << round.min(8))).unwrap_or(0)
}

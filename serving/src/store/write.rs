//! The writing calls, each inside a transaction that its caller commits.
//! Guarantee: exact beats approximate for ever, an older version never replaces a newer one, repeating changes nothing.

use std::collections::BTreeMap;
use std::mem::discriminant;

use rusqlite::types::ToSqlOutput;
use rusqlite::{OptionalExtension, Statement, Transaction, params_from_iter};
use shared::rollup::{Counts, RollupKey, RollupRow, RowVersion};
use shared::serving_store::{Correction, Flush, Upserted};
use shared::sketch::Sketch;
use shared::time::{Day, Timestamp};

use super::encode::{self, EXACT, Failure};

const TAKE_GENERATION: &str = include_str!("../../../sql/serving/60_take_generation.sql");
const UPSERT_STATUS: &str = include_str!("../../../sql/serving/61_upsert_writer_status.sql");
const OWN_HOUR: &str = include_str!("../../../sql/serving/62_own_hour.sql");
const SETTLE_DAY: &str = include_str!("../../../sql/serving/63_settle_day.sql");
const DELETE_OLD_AD_MINUTES: &str = include_str!("../../../sql/serving/70_delete_old_ad_minutes.sql");
const DELETE_OLD_CAMPAIGN_MINUTES: &str = include_str!("../../../sql/serving/71_delete_old_campaign_minutes.sql");
const DELETE_OLD_CAMPAIGN_HOURS: &str = include_str!("../../../sql/serving/72_delete_old_campaign_hours.sql");

/// Upserts one flush.
pub(super) fn upsert(tx: &Transaction<'_>, flush: &mut Flush) -> Result<Upserted, Failure> {
    let mut done = Upserted::default();
    if is_zombie(tx, flush)? {
        return Ok(done);
    }
    flush.rows.sort_unstable_by(|a, b| encode::storage_order(&a.key, &b.key));
    let mut owned: BTreeMap<Timestamp, bool> = BTreeMap::new();
    for row in &flush.rows {
        let hour = row.key.hour();
        let is_owned = match owned.get(&hour) {
            Some(known) => *known,
            None => {
                let is_owned = owner(tx, hour)?.is_some();
                owned.insert(hour, is_owned);
                is_owned
            }
        };
        if is_owned {
            done.superseded += 1;
        } else {
            done.written += write_row(tx, row, i64::from(flush.writer), flush.version)?;
        }
    }
    let status =
        serde_json::to_string(&flush.status).map_err(|e| Failure::Corrupt(format!("a writer's status: {e}")))?;
    tx.prepare_cached(UPSERT_STATUS)?.execute((flush.writer, encode::version(flush.version), status))?;
    Ok(done)
}

fn is_zombie(tx: &Transaction<'_>, flush: &Flush) -> Result<bool, Failure> {
    let mut last = tx.prepare_cached("SELECT generation FROM generation WHERE writer = ?1")?;
    let last: Option<u32> = last.query_row([flush.writer], |r| r.get(0)).optional()?;
    Ok(flush.version.generation() < last.unwrap_or(0))
}

fn write_row(tx: &Transaction<'_>, row: &RollupRow, writer: i64, version: RowVersion) -> Result<u64, Failure> {
    put_row(&mut *tx.prepare_cached(encode::statements(&row.key).upsert)?, row, writer, version)
}

/// Executes the upsert of the row's grain.
fn put_row(upsert: &mut Statement<'_>, row: &RollupRow, writer: i64, version: RowVersion) -> Result<u64, Failure> {
    let mut values = encode::key_values(&row.key);
    values.push(ToSqlOutput::from(writer));
    values.push(ToSqlOutput::from(encode::version(version)));
    values.extend(encode::counts_to_sql(&row.counts)?.map(ToSqlOutput::from));
    if let RollupKey::CampaignHour { .. } = row.key {
        let uniques = row.uniques.as_ref().map(Sketch::to_bytes);
        values.push(uniques.map_or(ToSqlOutput::from(rusqlite::types::Null), ToSqlOutput::from));
    }
    let changed = upsert.execute(params_from_iter(values))?;
    u64::try_from(changed).map_err(|_| Failure::Corrupt(format!("{changed} rows")))
}

fn owner(tx: &Transaction<'_>, hour: Timestamp) -> Result<Option<RowVersion>, Failure> {
    let mut owner = tx.prepare_cached("SELECT version FROM owned_hour WHERE hour = ?1")?;
    Ok(owner.query_row([encode::hour_number(hour)], |r| r.get(0)).optional()?.map(encode::version_back))
}

/// The next generation of a writer.
pub(super) fn next_generation(tx: &Transaction<'_>, writer: u32) -> Result<u32, Failure> {
    Ok(tx.query_row(TAKE_GENERATION, [writer], |r| r.get(0))?)
}

/// Makes an hour exact and takes it.
pub(super) fn overwrite(
    tx: &Transaction<'_>,
    hour: Timestamp,
    correction: &Correction,
    version: RowVersion,
) -> Result<u64, Failure> {
    if owner(tx, hour)?.is_some_and(|owner| owner > version) {
        return Ok(0);
    }
    let mut changed = 0;
    let mut set: Vec<&RollupRow> = correction.set.iter().collect();
    set.sort_unstable_by(|a, b| encode::storage_order(&a.key, &b.key));
    for grain in set.chunk_by(|a, b| discriminant(&a.key) == discriminant(&b.key)) {
        changed += overwrite_grain(tx, hour, grain, version)?;
    }
    for key in &correction.remove {
        changed += u64::from(delete_key(tx, key)?);
    }
    tx.execute(OWN_HOUR, (encode::hour_number(hour), encode::version(version)))?;
    if changed > 0 {
        tx.execute("DELETE FROM settled_day WHERE day = ?1", [hour.day().0])?;
    }
    Ok(changed)
}

/// Makes rows of one table exact. Where the hour shows nothing in it there is nothing to compare with and to take away.
fn overwrite_grain(
    tx: &Transaction<'_>,
    hour: Timestamp,
    rows: &[&RollupRow],
    version: RowVersion,
) -> Result<u64, Failure> {
    let Some(first) = rows.first() else { return Ok(0) };
    let statements = encode::statements(&first.key);
    let is_shown: bool = tx.prepare_cached(statements.shows)?.query_row([encode::hour_number(hour)], |r| r.get(0))?;
    let mut upsert = tx.prepare_cached(statements.upsert)?;
    let mut changed = 0;
    for row in rows {
        if !is_shown {
            changed += put_row(&mut upsert, row, EXACT, version)?;
            continue;
        }
        let shown = read_key(tx, &row.key)?;
        let same = shown.is_some_and(|(counts, uniques)| {
            counts == row.counts && bytes(uniques.as_ref()) == bytes(row.uniques.as_ref())
        });
        if !same {
            delete_key(tx, &row.key)?;
            changed += put_row(&mut upsert, row, EXACT, version)?;
        }
    }
    Ok(changed)
}

fn bytes(sketch: Option<&Sketch>) -> Option<Vec<u8>> {
    sketch.map(Sketch::to_bytes)
}

/// What is shown for one key, if anything.
fn read_key(tx: &Transaction<'_>, key: &RollupKey) -> Result<Option<(Counts, Option<Sketch>)>, Failure> {
    let statements = encode::statements(key);
    let mut read = tx.prepare_cached(statements.read)?;
    let mut rows = read.query(params_from_iter(encode::key_values(key)))?;
    let mut shown = None;
    while let Some(row) = rows.next()? {
        let counts = encode::counts_from_sql(row, 0)?;
        let uniques = match key {
            RollupKey::CampaignHour { .. } => encode::sketch_from_sql(row, 5)?,
            RollupKey::AdMinute { .. } | RollupKey::CampaignMinute { .. } => None,
        };
        shown = Some(match shown {
            None => (counts, uniques),
            Some((sum, users)) => (add(&sum, &counts)?, union(users, uniques)),
        });
    }
    Ok(shown)
}

/// Both sums.
pub(super) fn add(a: &Counts, b: &Counts) -> Result<Counts, Failure> {
    a.merge(b).map_err(|e| Failure::Corrupt(format!("a sum over writers: {e}")))
}

/// Both sets of users; one alone keeps its very bytes.
pub(super) fn union(a: Option<Sketch>, b: Option<Sketch>) -> Option<Sketch> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.merge(&b)),
        (a, b) => a.or(b),
    }
}

fn delete_key(tx: &Transaction<'_>, key: &RollupKey) -> Result<bool, Failure> {
    let mut delete = tx.prepare_cached(encode::statements(key).delete)?;
    Ok(delete.execute(params_from_iter(encode::key_values(key)))? > 0)
}

/// Forgets old rows, a few of each grain.
pub(super) fn forget(tx: &Transaction<'_>, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Result<u64, Failure> {
    let most = i64::try_from(at_most).unwrap_or(i64::MAX);
    let mut rows = 0;
    for (delete, before) in
        [(DELETE_OLD_AD_MINUTES, minutes), (DELETE_OLD_CAMPAIGN_MINUTES, minutes), (DELETE_OLD_CAMPAIGN_HOURS, hours)]
    {
        rows += tx.prepare_cached(delete)?.execute((encode::hour_number(before), most))?;
    }
    u64::try_from(rows).map_err(|_| Failure::Corrupt(format!("{rows} rows")))
}

/// Marks a day as published.
pub(super) fn settle(tx: &Transaction<'_>, day: Day, version: u32) -> Result<(), Failure> {
    tx.execute(SETTLE_DAY, (day.0, version))?;
    Ok(())
}

//! Makes one hour exact. Reconcile writes the whole hour anew, under a take that nobody reads, and then one mark says that
//! this take is the hour.
//! Guarantee: a reader sees the hour before or after, never between; a row of speed that arrives later is of take 0, and
//! so of no hour that is owned.
//! On crash: rows of a take that no mark names are never shown; the call is repeated with a take of its own.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use shared::rollup::{RollupRow, RowVersion};
use shared::serving_store::{Correction, StoreError};
use shared::time::{DAY, HOUR, Timestamp};

use super::connection::Connection;
use super::read::{self, Owner};
use super::rows::{EXACT, Raw, StoredRow, by_key, seconds, sum};

const HOUR_MARK: i8 = 1;
const DAY_MARK: i8 = 2;

/// One row of the table `mark`.
#[derive(Row, Serialize, Deserialize)]
struct Mark {
    kind: i8,
    at: u32,
    version: u64,
    take: u64,
    gone: bool,
}

/// Applies the correction and takes the hour; answers how many cells changed.
pub(super) async fn overwrite(
    connection: &Connection,
    hour: Timestamp,
    correction: &Correction,
    version: RowVersion,
) -> Result<u64, StoreError> {
    const DOING: &str = "overwriting an hour";
    let owner = read::owners(connection, &(hour..hour.plus(HOUR))).await?.into_iter().next();
    if owner.as_ref().is_some_and(|owner| owner.version > version.0) {
        return Ok(0);
    }
    let shown = read::hour_rows(connection, hour).await?;
    let (mut rows, changed) = corrected(shown, correction, version)?;
    let own = |take| Mark { kind: HOUR_MARK, at: seconds(hour), version: version.0, take, gone: false };
    match owner {
        Some(Owner { version: standing, .. }) if changed == 0 && standing == version.0 => return Ok(0),
        Some(Owner { take, .. }) if changed == 0 => {
            connection.insert(DOING, "mark", &[own(take)]).await?;
            return Ok(0);
        }
        _ => {}
    }
    let take = read::draw_number(connection).await?;
    rows.iter_mut().for_each(|row| row.take = take);
    connection.add_rows(DOING, &rows).await?;
    let mut marks = vec![own(take)];
    if changed > 0 {
        let day = hour.floor(DAY);
        marks.push(Mark { kind: DAY_MARK, at: seconds(day), version: 0, take, gone: true });
    }
    // One block: the day stops being settled in the very instant the hour changes.
    connection.insert(DOING, "mark", &marks).await?;
    Ok(changed)
}

/// The hour's rows after the correction, and how many cells it changed. What was right keeps its rows, one per writer.
fn corrected(
    shown: Vec<StoredRow>,
    correction: &Correction,
    version: RowVersion,
) -> Result<(Vec<StoredRow>, u64), StoreError> {
    let mut cells = by_key(shown)?;
    let mut changed = 0;
    for row in &correction.set {
        let same = match cells.get(&row.key) {
            Some(rows) => says(rows, row)?,
            None => false,
        };
        if !same {
            cells.insert(row.key.clone(), vec![StoredRow::new(row, EXACT, version)?]);
            changed += 1;
        }
    }
    for key in &correction.remove {
        changed += u64::from(cells.remove(key).is_some());
    }
    Ok((cells.into_values().flatten().collect(), changed))
}

/// Whether the rows of a cell say together what `row` says, to the byte.
fn says(rows: &[StoredRow], row: &RollupRow) -> Result<bool, StoreError> {
    let (counts, uniques) = sum(rows)?;
    Ok(counts == row.counts && Raw::of(uniques.as_ref()) == Raw::of(row.uniques.as_ref()))
}

//! One hour of the serving store made exact: compare, overwrite what differs, own the hour, read it back.
//! Guarantee: when an hour is done, what is shown equals gold in every cell, and no later speed write changes it.
//! On crash: an hour is overwritten whole or not at all; doing it again changes nothing.
//! Never: writes a cell that does not differ.

use shared::rollup::{RollupRow, RowVersion};
use shared::serving_store::ServingStore;
use shared::time::{HOUR, Timestamp};

use crate::causes::ShownBy;
use crate::compare::diff;
use crate::error::Error;

/// So many times an hour is compared again: a speed flush may slip in before the hour is owned, never after.
const MAX_ROUNDS: usize = 3;

/// Makes the hour exact; answers how many rows changed.
///
/// # Errors
/// Those of the store; [`Error::Superseded`] when a newer run owns the hour; [`Error::NotExact`] when the store
/// does not keep what it was given.
pub async fn apply(
    store: &dyn ServingStore,
    hour: Timestamp,
    exact: &[RollupRow],
    version: RowVersion,
) -> Result<u64, Error> {
    let mut changed = 0;
    let mut left = 0;
    for _ in 0..MAX_ROUNDS {
        let owner = owner(store, hour).await?;
        if let Some(by) = owner.filter(|owner| *owner > version) {
            return Err(superseded(hour, version, by));
        }
        let difference = diff(&store.read_hour(hour).await?, exact);
        if difference.is_empty() && owner == Some(version) {
            return Ok(changed);
        }
        left = difference.correction.set.len() + difference.correction.remove.len();
        changed += store.overwrite_exact(hour, difference.correction, version).await?;
    }
    Err(Error::NotExact { hour, cells: left })
}

/// The version of the reconcile that owns the hour.
pub(crate) async fn owner(store: &dyn ServingStore, hour: Timestamp) -> Result<Option<RowVersion>, Error> {
    let owned = store.owned_hours(hour..hour.plus(HOUR)).await?;
    Ok(owned.get(&hour).copied())
}

/// Who wrote what an hour shows.
pub(crate) fn shown_by(owner: Option<RowVersion>, shown: &[RollupRow]) -> ShownBy {
    match (owner, shown.is_empty()) {
        (Some(_), _) => ShownBy::Reconcile,
        (None, true) => ShownBy::Nobody,
        (None, false) => ShownBy::Speed,
    }
}

fn superseded(hour: Timestamp, ours: RowVersion, by: RowVersion) -> Error {
    let run = |version: RowVersion| version.0 - RowVersion::reconciled(0).0;
    Error::Superseded { day: hour.day(), run: run(ours), by: run(by) }
}

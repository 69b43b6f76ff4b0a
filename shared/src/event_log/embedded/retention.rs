//! Forgetting: whole segments, the oldest first, each deletion durable before the next.
//! On crash between two deletions: the log simply starts a little earlier; an index without its segment is removed when
//! the log is opened.
//! Never: removes a segment that has a record younger than the age, unless the size demands it; the newest segment
//! is never removed, so positions always go on.

use super::super::{LogError, Retention};
use super::active::Sealed;
use super::folder::{doing, remove};
use super::index::Index;
use super::writer::State;
use crate::time::Timestamp;

/// Forgets what is past `retention` at `now`; answers the bytes freed.
pub(super) fn enforce(state: &mut State, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
    state.sealed.extend(state.active.recover()?);
    let oldest_kept = now.plus(-i64::try_from(retention.max_age.as_micros()).unwrap_or(i64::MAX));
    if state.active.has_records() && state.active.index().latest() < Some(oldest_kept) {
        state.sealed.push_back(state.active.roll()?);
    }
    let mut freed = 0;
    while let Some(oldest) = state.sealed.front() {
        let is_too_much = total(state) > retention.max_bytes;
        if !is_too_much && !is_older(state, oldest.number, oldest_kept)? {
            break;
        }
        freed += delete(state)?;
    }
    if freed > 0 {
        tracing::info!(bytes = freed, folder = %state.folder.path().display(), "the log forgot its oldest segments");
    }
    Ok(freed)
}

fn total(state: &State) -> u64 {
    state.active.bytes() + state.sealed.iter().map(|s| s.bytes).sum::<u64>()
}

fn is_older(state: &State, number: u64, oldest_kept: Timestamp) -> Result<bool, LogError> {
    let index = Index::of_sealed(&state.folder, number, state.partitions)?;
    Ok(index.is_none_or(|index| index.latest() < Some(oldest_kept)))
}

/// Removes the oldest sealed segment: first the records, then what points to them.
fn delete(state: &mut State) -> Result<u64, LogError> {
    let Some(Sealed { number, bytes }) = state.sealed.front() else { return Ok(0) };
    let (number, bytes) = (*number, *bytes);
    for path in [state.folder.segment(number), state.folder.index(number)] {
        remove(&path).map_err(doing(format!("removing {}", path.display())))?;
    }
    state.folder.sync()?;
    state.sealed.pop_front();
    Ok(bytes)
}

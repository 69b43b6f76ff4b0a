//! What came into the archive since a day's last run, and whether any of it can change the day. Mostly it cannot: the
//! archive grows all the time, with other days' events.
//! Guarantee: "no" is exact. A day follows from its own files, from whatever elsewhere shares an id with one of its
//! events, from the clicks that its clicks are chained to, and from whatever shares an id with those; so where none of
//! these came or went, a run would write the same bytes. "Perhaps" is said where that is not plain.
//! Memory: as [`crate::hashes`] and [`crate::clicks`]. Reads of the day two columns of clicks and the hashes, of the
//! rest what came or went. Never: writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use lake::table::DataFile;
use object_store::ObjectStore;
use shared::time::Day;
use shared::verdict::Counting;

use crate::clicks::{self, Files};
use crate::compute::near;
use crate::error::Error;
use crate::hashes::{self, Request};
use crate::settings::Settings;
use crate::snapshot::{self, Snapshot};
use crate::source::Source;

/// Whether what came or went since version `before` of the archive may change `day`.
///
/// # Errors
/// When the archive cannot be read.
pub(crate) async fn may_change(
    snapshot: &Snapshot,
    before: u64,
    day: Day,
    store: &Arc<dyn ObjectStore>,
    counting: &Arc<Counting>,
    settings: &Settings,
) -> Result<bool, Error> {
    let before = match snapshot.events.at_version(before).await {
        Ok(table) => table.files()?,
        Err(lake::Error::Invalid(_)) => return Ok(true), // cleaned away
        Err(error) => return Err(error.into()),
    };
    let now = paths(snapshot.ours.iter().chain(&snapshot.others));
    let then = paths(&before);
    let gone: Vec<&DataFile> = before.iter().filter(|f| !now.contains(f.object_path.as_ref())).collect();
    let is_new = |file: &DataFile| !then.contains(file.object_path.as_ref());
    if gone.iter().any(|f| f.day == day) || snapshot.ours.iter().any(is_new) {
        return Ok(true);
    }
    let others: Vec<DataFile> = snapshot.others.iter().chain(gone).cloned().collect();
    let is_changed = |file: &DataFile| is_new(file) || !now.contains(file.object_path.as_ref());
    let changed: Vec<bool> = others.iter().map(is_changed).collect();
    if !changed.contains(&true) {
        return Ok(false);
    }
    let (workers, memory) = (settings.workers(), settings.memory_limit.0 / 2);
    let ours = snapshot::open(store, &snapshot.ours, workers).await?;
    let all: Vec<Source> = ours.iter().cloned().chain(others.iter().map(|f| Source::new(store, f))).collect();
    let files = Files { near: near(&snapshot.ours, &others, counting), ours: ours.len(), all };
    let linked = clicks::find(&files, counting, workers, memory).await?;
    let is_of_changed = |file: usize| file.checked_sub(ours.len()).and_then(|i| changed.get(i)).is_some_and(|c| *c);
    if linked.iter().any(|click| is_of_changed(click.file())) {
        return Ok(true);
    }
    let theirs = files.all.iter().skip(ours.len()).zip(&changed).filter(|(_, changed)| **changed);
    let request = Request {
        others: theirs.map(|(source, _)| source.clone()).collect(),
        wanted: clicks::wanted(&linked),
        buckets: hashes::buckets(snapshot.rows(), settings.silver_file_rows),
        workers,
        memory,
        ours,
    };
    let days = request.ours.len();
    let scan = hashes::scan(request).await?;
    Ok(scan.foreign.iter().chain(scan.wanted.iter().skip(days)).any(|hits| !hits.is_empty()))
}

fn paths<'a>(files: impl IntoIterator<Item = &'a DataFile>) -> BTreeSet<&'a str> {
    files.into_iter().map(|f| f.object_path.as_ref()).collect()
}

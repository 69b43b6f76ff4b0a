//! What one run reads: the bronze tables at pinned versions, the files of the day and those of every other day.
//! Guarantee: whatever is archived, compacted or vacuumed meanwhile, the run sees one state (vacuum keeps pins).

use std::sync::Arc;

use lake::LakeRoot;
use lake::table::{DataFile, Table};
use lake::tables::{BRONZE_BAD, BRONZE_EVENTS};
use object_store::ObjectStore;
use shared::progress::Positions;
use shared::time::Day;

use crate::error::Error;
use crate::source::Source;
use crate::tasks;

/// The log of events, as `bronze/bad` names it.
pub(crate) const EVENTS_TOPIC: &str = "events";
/// The log of refusals, as `bronze/bad` names it.
pub(crate) const DEAD_LETTERS_TOPIC: &str = "dead_letters";

/// The pinned inputs of a run.
pub(crate) struct Snapshot {
    /// Bronze events.
    pub(crate) events: Table,
    /// Bronze bad records; read after `events`, so it holds every undecodable record those positions cover.
    pub(crate) bad: Table,
    /// The day's files, ordered by path.
    pub(crate) ours: Vec<DataFile>,
    /// The files of every other day, ordered by day and path.
    pub(crate) others: Vec<DataFile>,
}

impl Snapshot {
    /// Pins the newest versions.
    ///
    /// # Errors
    /// Those of the lake.
    pub(crate) async fn take(root: &LakeRoot, day: Day) -> Result<Self, Error> {
        let events = Table::open(root, &BRONZE_EVENTS).await?;
        let bad = Table::open(root, &BRONZE_BAD).await?;
        let (ours, others) = events.files()?.into_iter().partition(|f| f.day == day);
        Ok(Self { events, bad, ours, others })
    }

    /// The next log position after what the lake holds of `topic`.
    ///
    /// # Errors
    /// Those of the lake.
    pub(crate) async fn positions(&self, topic: &str, partitions: u32) -> Result<Positions, Error> {
        let mut positions = Positions::default();
        for partition in 0..partitions {
            let at = match topic {
                EVENTS_TOPIC => self.events.transaction_version(&format!("bronze/events/{partition}")).await?,
                _ => self.bad.transaction_version(&format!("bronze/bad/{topic}/{partition}")).await?,
            };
            positions.0.insert(partition, at.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
        }
        Ok(positions)
    }

    /// Rows of the day, by the table's own statistics.
    pub(crate) fn rows(&self) -> u64 {
        self.ours.iter().map(|f| f.rows).sum()
    }
}

/// The day's files with their footers in memory, opened on `workers` threads.
///
/// # Errors
/// When a file is missing, damaged, or holds another number of rows than the table states.
pub(crate) async fn open(
    store: &Arc<dyn ObjectStore>,
    files: &[DataFile],
    workers: usize,
) -> Result<Vec<Source>, Error> {
    let sources = files.iter().map(|f| Source::new(store, f)).collect();
    tasks::each(workers, sources, Source::opened).await
}

//! What came into the archive since a day's last run or left it, and whether any of that can change the day. Mostly it
//! cannot: the archive grows all the time with other days' events, and their files are merged.
//! Guarantee: "no" is exact. A day follows from its own files, from honest claims elsewhere on the ids of its events,
//! from the clicks its clicks are chained to, and from claims on those clicks' ids; each only as far as it is not
//! later than all events of the day. Where these are what they were, a run would write the same bytes. A "yes" may be
//! wrong. Memory: as [`crate::hashes`] and [`crate::clicks`]. Never: writes, or reads a file later than the day's.

use std::collections::BTreeSet;
use std::sync::Arc;

use compact_str::CompactString;
use lake::table::DataFile;
use object_store::ObjectStore;
use shared::event::Fingerprint;
use shared::time::{Day, Timestamp};
use shared::verdict::{ArchiveOrder, Counting};

use crate::claims;
use crate::clicks::{self, Files};
use crate::compute::near;
use crate::error::Error;
use crate::hashes::{self, Hit, Request};
use crate::settings::Settings;
use crate::snapshot::{self, Snapshot};
use crate::source::Source;
use crate::tasks;

/// The files of other days that came, and those that went.
struct Change {
    came: Vec<DataFile>,
    went: Vec<DataFile>,
}

/// What some files say that may decide a verdict of the day.
#[derive(Debug, Default, PartialEq, Eq)]
struct Evidence {
    /// Claims on ids: id, when, payload.
    claims: BTreeSet<(CompactString, ArchiveOrder, Fingerprint)>,
    /// Clicks of chains: key, when, id.
    clicks: BTreeSet<(CompactString, ArchiveOrder, CompactString)>,
}

/// Whether what came and went since version `before` of the archive may change `day`.
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
    let last = snapshot.ours.iter().map(|f| f.ingest_time().map_or(Timestamp::MAX, |(_, high)| high)).max();
    let Some(change) = Change::between(&before, snapshot, day, last) else { return Ok(true) };
    match last {
        Some(last) if !(change.came.is_empty() && change.went.is_empty()) => {
            let (came, went) = change.evidence(snapshot, last, store, counting, settings).await?;
            Ok(came != went)
        }
        _ => Ok(false),
    }
}

impl Change {
    /// What changed and is not later than `last`; nothing where the day's own files are others.
    fn between(before: &[DataFile], snapshot: &Snapshot, day: Day, last: Option<Timestamp>) -> Option<Self> {
        let paths = |files: &mut dyn Iterator<Item = &DataFile>| -> BTreeSet<String> {
            files.map(|f| f.object_path.to_string()).collect()
        };
        let (then, now) = (paths(&mut before.iter()), paths(&mut snapshot.ours.iter().chain(&snapshot.others)));
        let other = |file: &DataFile, known: &BTreeSet<String>| !known.contains(file.object_path.as_ref());
        if snapshot.ours.iter().any(|f| other(f, &then)) || before.iter().any(|f| f.day == day && other(f, &now)) {
            return None;
        }
        let in_time = |f: &&DataFile| last.is_some_and(|last| f.ingest_time().is_none_or(|(low, _)| low <= last));
        Some(Self {
            came: snapshot.others.iter().filter(|f| other(f, &then)).filter(in_time).cloned().collect(),
            went: before.iter().filter(|f| other(f, &now)).filter(in_time).cloned().collect(),
        })
    }

    /// What the files that came say, and what those that went said.
    async fn evidence(
        &self,
        snapshot: &Snapshot,
        last: Timestamp,
        store: &Arc<dyn ObjectStore>,
        counting: &Arc<Counting>,
        settings: &Settings,
    ) -> Result<(Evidence, Evidence), Error> {
        let (workers, memory) = (settings.workers(), settings.memory_limit.0 / 2);
        let changed = || self.came.iter().chain(&self.went);
        let paths: BTreeSet<&str> = changed().map(|f| f.object_path.as_ref()).collect();
        let same = snapshot.others.iter().filter(|f| !paths.contains(f.object_path.as_ref()));
        let others: Vec<DataFile> = changed().chain(same).cloned().collect();
        let ours = snapshot::open(store, &snapshot.ours, workers).await?;
        let all: Vec<Source> = ours.iter().cloned().chain(others.iter().map(|f| Source::new(store, f))).collect();
        let near = near(&snapshot.ours, &others, counting);
        let linked =
            clicks::find(&Files { near, ours: ours.len(), all: all.clone() }, counting, workers, memory).await?;
        let theirs: Vec<Source> = all.into_iter().skip(ours.len()).take(self.came.len() + self.went.len()).collect();
        let buckets = hashes::buckets(snapshot.rows(), settings.silver_file_rows);
        let (first, wanted) = (ours.len(), clicks::wanted(&linked));
        let scan = hashes::scan(Request { ours, others: theirs.clone(), wanted, buckets, workers, memory }).await?;
        let hits = scan.foreign.into_iter().zip(scan.wanted.into_iter().skip(first)).map(|(a, b)| [a, b].concat());
        let read = tasks::each(workers, theirs.into_iter().zip(hits).collect(), read).await?;
        let (mut came, mut went) = (Evidence::default(), Evidence::default());
        for (place, claims) in read.into_iter().enumerate() {
            let side = if place < self.came.len() { &mut came } else { &mut went };
            let honest = claims.into_iter().filter(|c| !c.forged && c.order.ingest_time <= last);
            side.claims.extend(honest.map(|c| (c.event_id, c.order, c.fingerprint)));
        }
        for click in linked.into_iter().filter(|c| c.order.ingest_time <= last) {
            match click.file().checked_sub(first) {
                Some(file) if file < self.came.len() => came.clicks.insert(click.into_parts()),
                Some(file) if file < self.came.len() + self.went.len() => went.clicks.insert(click.into_parts()),
                _ => false,
            };
        }
        Ok((came, went))
    }
}

fn read((source, hits): (Source, Vec<Hit>)) -> Result<Vec<crate::standing::Claim<u32>>, Error> {
    let rows: BTreeSet<u32> = hits.into_iter().map(|hit| hit.row).collect();
    if rows.is_empty() { Ok(Vec::new()) } else { claims::read(&source, &rows.into_iter().collect::<Vec<_>>()) }
}

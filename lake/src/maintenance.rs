//! Upkeep beside running writers: small files into larger sorted ones, files nobody needs removed, figures.
//! Guarantee: no row is added, lost or changed; whatever a pinned version or the retention needs stays.
//! On crash: `optimize` leaves orphans, `vacuum` leaves some files for the next time; readers notice neither.
//! Never: runs on its own, or removes a file younger than the retention (a writer may be about to commit it).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use shared::config::{ByteSize, Problem, Span};
use shared::error::ErrorKind;
use shared::time::Day;

use crate::erasures::Erasures;
use crate::error::Error;
use crate::local_store::Synced;
use crate::root::LakeRoot;
use crate::sort::sorted_file;
use crate::table::{DataFile, Table};
use crate::tables::{self, TableDef};

/// How files are merged and when they may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Merge files of a day until they are about so large; larger than half of it is left alone.
    pub target_file_size: ByteSize,
    /// Remove files that no version needs once they are so old. Must be longer than the longest batch run.
    pub retention: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { target_file_size: ByteSize::mib(64), retention: Span::secs(7 * 86_400) }
    }
}

impl Settings {
    /// Everything wrong with these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(1 << 20..=1 << 30).contains(&self.target_file_size.0) {
            problems.push(Problem::new("lake.maintenance.target_file_size", "use 1MiB to 1GiB"));
        }
        if self.retention < Span::secs(3_600) {
            problems.push(Problem::new("lake.maintenance.retention", "use at least 1h, or running writers lose files"));
        }
        problems
    }
}

/// What [`optimize`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Optimized {
    /// Files merged away.
    pub files_before: u64,
    /// Files in their place.
    pub files_after: u64,
    /// Their rows.
    pub rows: u64,
    /// Groups left for the next time because another writer moved their files.
    pub skipped: u64,
}

/// Merges small files of `days` (or of all days) into sorted ones of about the target size.
///
/// # Errors
/// `Invalid` for a table whose order is its writer's own; `Unavailable` or `Corrupt`.
pub async fn optimize(table: &mut Table, settings: &Settings, day: Option<Day>) -> Result<Optimized, Error> {
    if table.def().sort.is_empty() {
        let name = table.def().name;
        let why = "batch writes it in the order of its ids' hashes, in files that run records name";
        return Err(Error::Invalid(format!("{name} is not merged: {why}; `batch run` makes them anew")));
    }
    table.refresh().await?;
    let mut done = Optimized::default();
    let stem = format!("merged-{}", table.root().clock().now().0);
    let groups = groups(table.files()?, settings.target_file_size.0, day);
    for (number, group) in groups.into_iter().enumerate() {
        let (files, rows) = (group.len() as u64, group.iter().map(|f| f.rows).sum::<u64>());
        match merge(table, group, &format!("{stem}-{number:06}")).await {
            Ok(()) => {
                done.files_before += files;
                done.files_after += 1;
                done.rows += rows;
            }
            Err(e) if e.kind() == ErrorKind::Conflict => done.skipped += 1,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Small files of one day, in groups of at least two and about `target` bytes.
fn groups(files: Vec<DataFile>, target: u64, day: Option<Day>) -> Vec<Vec<DataFile>> {
    let mut days: BTreeMap<Day, Vec<DataFile>> = BTreeMap::new();
    for file in files.into_iter().filter(|f| f.size <= target / 2 && day.is_none_or(|d| f.day == d)) {
        days.entry(file.day).or_default().push(file);
    }
    let mut groups = Vec::new();
    for files in days.into_values() {
        let (mut group, mut size) = (Vec::new(), 0);
        for file in files {
            if size + file.size > target {
                groups.push(std::mem::take(&mut group));
                size = 0;
            }
            size += file.size;
            group.push(file);
        }
        groups.push(group);
    }
    groups.retain(|g| g.len() > 1);
    groups
}

async fn merge(table: &mut Table, old: Vec<DataFile>, stem: &str) -> Result<(), Error> {
    let Some(day) = old.first().map(|f| f.day) else { return Ok(()) };
    let mut readers = Vec::new();
    for file in &old {
        readers.push(table.read(file, None).await?);
    }
    let (def, stem) = (table.def(), stem.to_owned());
    let sort = move || {
        let batches = readers.into_iter().flatten().collect::<Result<Vec<RecordBatch>, Error>>()?;
        sorted_file(def, day, &stem, &batches)
    };
    let merged = tokio::task::spawn_blocking(sort).await??;
    let rows: u64 = old.iter().map(|f| f.rows).sum();
    if merged.file.rows != rows {
        let why = format!("{}: {} files of {day} state {rows} rows and hold {}", def.name, old.len(), merged.file.rows);
        return Err(Error::Corrupt(why));
    }
    let new = table.store(merged).await?;
    let outcome = table.rewrite(old, vec![new.clone()]).await;
    if let Err(Error::Conflict { .. }) = &outcome {
        table.discard(&[new]).await;
    }
    let committed = outcome?;
    tracing::debug!(table = def.name, version = committed.version(), rows, "files were merged");
    Ok(())
}

/// A version of a table that must stay readable, such as the input of a published settlement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The table's name.
    pub table: String,
    /// The version.
    pub version: u64,
}

/// What [`vacuum`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vacuumed {
    /// Data files removed (or that would be, in a dry run).
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Delta log files removed.
    pub log_files: u64,
    /// Staging files of crashed writers removed.
    pub staged: u64,
}

/// Removes the files of `table` that neither its newest version, nor a pin, nor any version within the retention
/// needs, orphans of crashed writers among them, and the Delta log before the oldest version that must stay readable.
///
/// # Errors
/// `Invalid` when a pinned version cannot be read; `Unavailable`. Nothing is removed unless all pins were read.
pub async fn vacuum(table: &mut Table, retention: Span, pins: &[Pin], dry_run: bool) -> Result<Vacuumed, Error> {
    table.refresh().await?;
    let now = table.root().clock().now();
    let cutoff = now.plus(-retention.as_micros()).as_millis();
    let pinned: BTreeSet<u64> = pins.iter().filter(|p| p.table == table.def().name).map(|p| p.version).collect();
    let erasures = Erasures::load(table.root()).await?;
    let needed = needed(table, &pinned, cutoff, &erasures).await?;
    let erased: BTreeSet<Path> = erasures.gone(table.def().name).into_iter().map(|p| table.object_path(p)).collect();
    let is_due = |f: &ObjectMeta| f.last_modified.timestamp_millis() < cutoff || erased.contains(&f.location);
    let doomed: Vec<ObjectMeta> =
        data_files(table).await?.into_iter().filter(|f| is_due(f) && !needed.contains(&f.location)).collect();
    let mut done =
        Vacuumed { files: doomed.len() as u64, bytes: doomed.iter().map(|f| f.size).sum(), ..Default::default() };
    if dry_run {
        return Ok(done);
    }
    let paths = futures::stream::iter(doomed.into_iter().map(|f| Ok(f.location))).boxed();
    let removed: Result<Vec<Path>, _> = table.root().store().delete_stream(paths).try_collect().await;
    removed.map_err(|e| Error::unavailable(format!("removing files of {}", table.def().name), e))?;
    done.log_files = clean_log(table, pinned.first().copied(), cutoff).await?;
    done.staged = remove_staged(table, retention.0).await?;
    Ok(done)
}

/// The files of the newest version, of the pinned ones, and those removed since `cutoff` (epoch milliseconds). What an
/// erasure replaced is not needed; its twin is.
async fn needed(
    table: &Table,
    pinned: &BTreeSet<u64>,
    cutoff: i64,
    erasures: &Erasures,
) -> Result<BTreeSet<Path>, Error> {
    let mut needed: BTreeSet<Path> = table.files()?.into_iter().map(|f| f.object_path).collect();
    for version in pinned {
        let files = table.at_version(*version).await?.files()?.into_iter();
        needed.extend(files.map(|f| crate::erase::today(table, erasures, f).object_path));
    }
    let name = table.def().name;
    needed.extend(erasures.waiting(name).map(|twin| table.object_path(&twin.new.path)));
    let gone = erasures.gone(name);
    let log = table.delta().log_store();
    let mut tombstones = table.state()?.all_tombstones(log.as_ref());
    while let Some(tombstone) = tombstones.next().await {
        let removed = tombstone.map_err(|e| Error::delta("reading removed files", e))?;
        if removed.deletion_timestamp().is_none_or(|at| at >= cutoff) && !gone.contains(&*removed.path()) {
            needed.insert(table.object_path(&removed.path()));
        }
    }
    Ok(needed)
}

/// Everything in the table's folder but the Delta log.
async fn data_files(table: &Table) -> Result<Vec<ObjectMeta>, Error> {
    let (store, folder) = (table.root().store(), table.object_path(""));
    let log = table.object_path("_delta_log");
    let listed: Result<Vec<ObjectMeta>, _> = store.list(Some(&folder)).try_collect().await;
    let listed = listed.map_err(|e| Error::unavailable(format!("listing {}", table.def().name), e))?;
    Ok(listed.into_iter().filter(|f| !f.location.prefix_matches(&log)).collect())
}

async fn clean_log(table: &Table, oldest_pin: Option<u64>, cutoff: i64) -> Result<u64, Error> {
    let log = table.delta().log_store();
    let keep = oldest_pin.map_or(table.version(), |pin| pin.min(table.version()));
    let cleaned = deltalake::checkpoints::cleanup_expired_logs_for(keep, log.as_ref(), cutoff, None).await;
    Ok(cleaned.map_err(|e| Error::delta("cleaning the Delta log", e))? as u64)
}

async fn remove_staged(table: &Table, retention: Duration) -> Result<u64, Error> {
    let Some(folder) = table.root().folder() else { return Ok(0) };
    let folder = folder.join(table.def().name);
    // Staging files carry the machine's time, whatever the lake's clock says.
    let now = shared::time::Clock::now(&shared::time::SystemClock::default());
    let age = u64::try_from(now.0).unwrap_or(0);
    let before = (SystemTime::UNIX_EPOCH + Duration::from_micros(age)).checked_sub(retention);
    let Some(before) = before else { return Ok(0) };
    let removed = tokio::task::spawn_blocking(move || Synced::remove_staged(&folder, before)).await?;
    Ok(removed.map_err(|e| Error::unavailable("removing staging files", e))? as u64)
}

/// The size of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Its name.
    pub table: String,
    /// Its newest version.
    pub version: u64,
    /// Its days.
    pub days: u64,
    /// Its files.
    pub files: u64,
    /// Those smaller than half the target size.
    pub small_files: u64,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Objects in its Delta log.
    pub log_files: u64,
    /// Their bytes.
    pub log_bytes: u64,
}

/// The figures of every table.
///
/// # Errors
/// `Unavailable` or `Corrupt`.
pub async fn stats(root: &LakeRoot, settings: &Settings) -> Result<Vec<Stats>, Error> {
    let mut all = Vec::new();
    for def in tables::ALL {
        all.push(stats_of(root, def, settings.target_file_size.0).await?);
    }
    Ok(all)
}

async fn stats_of(root: &LakeRoot, def: &'static TableDef, target: u64) -> Result<Stats, Error> {
    let table = Table::open(root, def).await?;
    let files = table.files()?;
    let store: Arc<dyn object_store::ObjectStore> = root.store();
    let log: Result<Vec<ObjectMeta>, _> = store.list(Some(&table.object_path("_delta_log"))).try_collect().await;
    let log = log.map_err(|e| Error::unavailable(format!("listing {}", def.name), e))?;
    Ok(Stats {
        table: def.name.to_owned(),
        version: table.version(),
        days: files.iter().map(|f| f.day).collect::<BTreeSet<_>>().len() as u64,
        files: files.len() as u64,
        small_files: files.iter().filter(|f| f.size <= target / 2).count() as u64,
        rows: files.iter().map(|f| f.rows).sum(),
        bytes: files.iter().map(|f| f.size).sum(),
        log_files: log.len() as u64,
        log_bytes: log.iter().map(|f| f.size).sum(),
    })
}

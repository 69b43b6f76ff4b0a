//! Erasing a person: every file that names them is rewritten without them, in one commit per table, and removed.
//!
//! 1. Every file that a version or a pin may need is searched; those that name the person get a twin, stored beside.
//! 2. The plan is recorded ([`crate::erasures`]); from here on readers find the twins.
//! 3. Each table swaps the files in one commit (compare-and-set against archivers and batch), the old ones are removed.
//! 4. Again from 1 until nothing is found: a file may have been merged or added meanwhile.
//!
//! Guarantee: rows, their order, ids, positions, sums and verdicts stay; what decided a verdict is kept as its outcome
//! (a bot stays a bot), and a pseudonym becomes a surrogate, so that batch over the same events gives the same bill.
//! A job that reads an old file at that moment fails, and finds the twin when it is run again.
//! On crash: before 2 the twins are orphans for vacuum; after it [`finish`] goes on from the record.
//! Never: logs or records the person's id, or touches a file that a writer has not committed yet.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use object_store::ObjectStoreExt;
use shared::error::ErrorKind;
use shared::time::{Day, Timestamp};

use crate::billed_sums::BilledSums;
use crate::erasures::{self, Erasure, Erasures, Policy, State, Twin};
use crate::error::Error;
use crate::file::{NewFile, ParquetFile};
use crate::maintenance::Pin;
use crate::root::LakeRoot;
use crate::run_record::OutputFile;
use crate::subject::Subject;
use crate::table::{DataFile, Table};
use crate::tables::{BRONZE_BAD, BRONZE_EVENTS, SILVER_EVENTS, TableDef};

/// The tables that know people.
pub const TABLES: [&TableDef; 3] = [&BRONZE_EVENTS, &BRONZE_BAD, &SILVER_EVENTS];

/// So many times everything is searched again before giving up against busy writers.
const MAX_ROUNDS: usize = 5;
/// So many times a swap is tried against others that replace the same files.
const MAX_SWAPS: usize = 20;

/// What an erasure is recorded as.
#[derive(Debug, Clone)]
pub struct Request {
    /// A keyed hash of the person's pseudonym.
    pub subject_hash: String,
    /// What becomes of what the person's events were billed at.
    pub policy: Policy,
    /// When the event log has forgotten what it still holds.
    pub log_forgets_at: Timestamp,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Erases a person; answers the records it wrote (in a dry run, the one it would write), none when nothing names them.
///
/// # Errors
/// `Invalid` when a pinned version cannot be read, `Conflict` when writers kept moving the tables; `Unavailable`.
/// Doing it again goes on from where it stopped.
pub async fn erase(root: &LakeRoot, subject: &Subject, pins: &[Pin], request: &Request) -> Result<Vec<Erasure>, Error> {
    let mut done = Vec::new();
    if !request.dry_run {
        finish(root).await?;
    }
    for _ in 0..MAX_ROUNDS {
        let erasures = Erasures::load(root).await?;
        let Some(mut record) = plan(root, &erasures, subject, pins, request).await? else { return Ok(done) };
        if request.dry_run {
            return Ok(vec![record]);
        }
        erasures::save(root, &record).await?;
        complete(root, &mut record).await?;
        done.push(record);
    }
    Err(Error::conflict("the lake", "writers kept adding the person's events: stop them or ask again"))
}

/// Completes erasures that a crash interrupted; answers how many.
///
/// # Errors
/// As [`erase`].
pub async fn finish(root: &LakeRoot) -> Result<usize, Error> {
    let erasures = Erasures::load(root).await?;
    let planned: Vec<_> = erasures.records().iter().filter(|r| r.state == State::Planned).cloned().collect();
    for mut record in planned.clone() {
        complete(root, &mut record).await?;
    }
    Ok(planned.len())
}

/// Searches every table; `None` when nobody is found.
async fn plan(
    root: &LakeRoot,
    erasures: &Erasures,
    subject: &Subject,
    pins: &[Pin],
    request: &Request,
) -> Result<Option<Erasure>, Error> {
    let mut record = Erasure {
        number: erasures.next_number(),
        state: State::Planned,
        subject: request.subject_hash.clone(),
        policy: request.policy,
        at: root.clock().now(),
        log_forgets_at: request.log_forgets_at,
        tables: BTreeMap::new(),
        billed: Vec::new(),
    };
    let mut billed = BilledSums::default();
    let mut own: BTreeMap<&str, BTreeMap<Day, u64>> = BTreeMap::new();
    let stem = format!("erased-{:06}-{}", record.number, record.at.0);
    for def in TABLES {
        let table = Table::open(root, def).await?;
        let candidates = candidates(&table, erasures, pins).await?;
        let erased = record.tables.entry(def.name.to_owned()).or_default();
        for (n, file) in candidates.kept.into_iter().enumerate() {
            let stem = format!("{stem}-{n:06}");
            let is_current = candidates.current.contains(&file.path);
            let Some((named, twin)) = twin(&table, file, subject, &stem, request.dry_run).await? else { continue };
            erased.rows += named.rows;
            erased.twins.push(twin);
            if is_current {
                *own.entry(def.name).or_default().entry(named.day).or_default() += named.own;
                billed.merge(named.billed)?;
            }
        }
        for file in candidates.unneeded {
            if names(&table, &file, subject).await? {
                erased.dropped.push(file.path);
            }
        }
    }
    if request.policy == Policy::Adjust {
        let mut of = |def: &TableDef| own.remove(def.name).unwrap_or_default();
        all_are_judged(&of(&BRONZE_EVENTS), &of(&SILVER_EVENTS))?;
        record.billed = billed.sums();
    }
    let found = record.tables.values().any(|t| !t.twins.is_empty() || !t.dropped.is_empty());
    Ok(found.then_some(record))
}

/// The committed files of a table.
struct Candidates {
    /// The paths of the newest version.
    current: BTreeSet<String>,
    /// What the newest version or a pin needs.
    kept: Vec<DataFile>,
    /// What only versions need that nobody pinned.
    unneeded: Vec<DataFile>,
}

async fn candidates(table: &Table, erasures: &Erasures, pins: &[Pin]) -> Result<Candidates, Error> {
    let name = table.def().name;
    let mut kept: BTreeMap<String, DataFile> = table.files()?.into_iter().map(|f| (f.path.clone(), f)).collect();
    let current = kept.keys().cloned().collect();
    let versions: BTreeSet<u64> = pins.iter().filter(|p| p.table == name).map(|p| p.version).collect();
    for version in versions {
        for file in table.at_version(version).await?.files()? {
            let file = today(table, erasures, file);
            kept.entry(file.path.clone()).or_insert(file);
        }
    }
    let gone = erasures.gone(name);
    let (log, store) = (table.delta().log_store(), table.root().store());
    let mut unneeded = Vec::new();
    let mut tombstones = table.state()?.all_tombstones(log.as_ref());
    while let Some(tombstone) = tombstones.next().await {
        let path = tombstone.map_err(|e| Error::delta("reading removed files", e))?.path().into_owned();
        let object_path = table.object_path(&path);
        if kept.contains_key(&path) || gone.contains(path.as_str()) {
            continue;
        }
        match store.head(&object_path).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => continue, // vacuum took it
            Err(e) => return Err(Error::unavailable(format!("looking for {object_path}"), e)),
        }
        let Some(day) = day_of(&path) else { continue };
        unneeded.push(DataFile {
            day,
            path,
            object_path,
            size: 0,
            rows: 0,
            ranges: BTreeMap::new(),
            modified_millis: 0,
        });
    }
    Ok(Candidates { current, kept: kept.into_values().collect(), unneeded })
}

/// A pinned file under the name it has today; its rows and ranges are the same.
pub(crate) fn today(table: &Table, erasures: &Erasures, file: DataFile) -> DataFile {
    let sha256 = String::new();
    let named = OutputFile { path: file.path.clone(), bytes: file.size, rows: file.rows, sha256 };
    let current = erasures.current(table.def().name, &named);
    DataFile { object_path: table.object_path(&current.path), path: current.path, size: current.bytes, ..file }
}

fn day_of(path: &str) -> Option<Day> {
    Day::parse(path.split('/').next()?.split_once('=')?.1)
}

/// Whether a file names the person.
async fn names(table: &Table, file: &DataFile, subject: &Subject) -> Result<bool, Error> {
    let (def, subject) = (table.def(), subject.clone());
    let rows = table.read(file, Some(Subject::columns(def))).await?;
    let search = move || {
        for batch in rows {
            if subject.rows_named(&batch?) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    };
    tokio::task::spawn_blocking(search).await?
}

/// What a file says of the person.
struct Named {
    day: Day,
    /// Rows with their name anywhere.
    rows: u64,
    /// Rows of events that are theirs.
    own: u64,
    /// Of those, the billed ones.
    billed: BilledSums,
}

/// The file without the person, stored (but in a dry run), and what it said of them; `None` where that is nothing.
async fn twin(
    table: &Table,
    file: DataFile,
    subject: &Subject,
    stem: &str,
    dry_run: bool,
) -> Result<Option<(Named, Twin)>, Error> {
    if !names(table, &file, subject).await? {
        return Ok(None);
    }
    let (rows, subject, mut made) =
        (table.read(&file, None).await?, subject.clone(), ParquetFile::new(table.def(), file.day, stem)?);
    let (day, has_bill) = (file.day, table.def().name == SILVER_EVENTS.name);
    let write = move || {
        let mut named = Named { day, rows: 0, own: 0, billed: BilledSums::default() };
        for batch in rows {
            let batch = batch?;
            let is_theirs = |row: usize| subject.is_theirs(&batch, row);
            named.rows += subject.rows_named(&batch);
            named.own += (0..batch.num_rows()).filter(|row| is_theirs(*row)).count() as u64;
            if has_bill {
                named.billed.add(day, &batch, is_theirs)?;
            }
            made.write(&subject.erase(&batch)?)?;
        }
        Ok::<_, Error>((named, made.finish()?))
    };
    let (named, encoded) = tokio::task::spawn_blocking(write).await??;
    let new = if dry_run { encoded.file } else { table.store(encoded).await? };
    let new = OutputFile { path: new.path, bytes: new.size, rows: new.rows, sha256: new.sha256 };
    Ok(Some((named, Twin { old: file.path, day: file.day, new })))
}

/// A bill can only be taken back once it is made: every event of the person has to have been judged. Batch writes one
/// row of silver for each event of bronze, in the same day.
fn all_are_judged(archived: &BTreeMap<Day, u64>, judged: &BTreeMap<Day, u64>) -> Result<(), Error> {
    match archived.iter().find(|(day, events)| judged.get(day) != Some(events)) {
        None => Ok(()),
        Some((day, _)) => Err(Error::Invalid(format!(
            "{day} has events of the person that no batch run has judged, so what to take back is not known: run batch first"
        ))),
    }
}

/// Swaps and removes what the record names, then says so in it.
async fn complete(root: &LakeRoot, record: &mut Erasure) -> Result<(), Error> {
    for def in TABLES {
        let Some(erased) = record.tables.get_mut(def.name) else { continue };
        let mut table = Table::open(root, def).await?;
        table.set_commit_metadata([("erasure".to_owned(), record.number.into())].into());
        swap(&mut table, &erased.twins).await?;
        erased.version = Some(table.version());
        for path in erased.twins.iter().map(|t| &t.old).chain(&erased.dropped) {
            match root.store().delete(&table.object_path(path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(Error::unavailable(format!("removing {}/{path}", def.name), e)),
            }
        }
    }
    record.state = State::Done;
    erasures::save(root, record).await?;
    tracing::info!(erasure = record.number, "a person was erased from the lake");
    Ok(())
}

/// Puts the twins in the place of those files that the newest version still has.
async fn swap(table: &mut Table, twins: &[Twin]) -> Result<(), Error> {
    for _ in 0..MAX_SWAPS {
        table.refresh().await?;
        let mut current: BTreeMap<String, DataFile> = table.files()?.into_iter().map(|f| (f.path.clone(), f)).collect();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for twin in twins {
            let Some(file) = current.remove(&twin.old) else { continue };
            let n = &twin.new;
            new.push(NewFile {
                path: n.path.clone(),
                day: twin.day,
                size: n.bytes,
                rows: n.rows,
                sha256: n.sha256.clone(),
                ranges: file.ranges.clone(),
            });
            old.push(file);
        }
        if old.is_empty() {
            return Ok(());
        }
        match table.rewrite(old, new).await {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => return Err(e),
        }
    }
    Err(Error::conflict(table.def().name, "others kept replacing the files to be erased"))
}

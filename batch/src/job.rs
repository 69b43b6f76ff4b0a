//! The run of one day, its steps in order: pin, check, compute, audit, compare, publish, record.
//! Guarantee: a day is a pure function of (bronze version, rules, prices, code version); the same again is
//! [`Status::Unchanged`] and writes nothing. What does not balance is not published.
//! On crash: before the record nothing is visible, since readers take the files that a record names; the next run
//! takes a higher number than anything it finds and starts over.

use std::collections::BTreeMap;
use std::sync::Arc;

use lake::LakeRoot;
use lake::file::NewFile;
use lake::run_record::{
    CaptureHour, FORMAT_VERSION, OutputFile, PartitionConservation, RunOutcome, RunRecord, TableOutput,
};
use lake::table::Table;
use lake::tables::{BRONZE_BAD, BRONZE_EVENTS, GOLD_PROOF_BLOCKS, SILVER_EVENTS, TableDef};
use object_store::path::Path;
use shared::event_log::EventLog;
use shared::merkle::Root;
use shared::price::PriceBook;
use shared::telemetry::metric_names;
use shared::time::{Clock, Day};
use shared::verdict::Counting;

use crate::audit::Books;
use crate::capture::capture;
use crate::compute::{Computed, Place, Workshop, compute};
use crate::engine::Engine;
use crate::error::{Differences, Error};
use crate::judge::Rules;
use crate::known::Known;
use crate::positions::{Covered, conserve};
use crate::progress::{Listener, Report, Step};
use crate::publish::Target;
use crate::ready;
use crate::runs::Runs;
use crate::settings::Settings;
use crate::since;
use crate::snapshot::Snapshot;
use crate::stage::Stage;
use crate::whatif::{self, Shadow};

/// The version of the computation: raise it when the same inputs give other bytes.
pub const CODE_VERSION: u32 = 4;

/// What a run works on.
#[derive(Clone)]
pub struct Deps {
    /// The lake.
    pub root: LakeRoot,
    /// The events log: only asked how far it had come.
    pub events: Arc<dyn EventLog>,
    /// The dead-letter log: likewise.
    pub dead_letters: Arc<dyn EventLog>,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// The prices.
    pub prices: Arc<PriceBook>,
    /// The counting rules; their time bounds must be those the lake was archived with.
    pub counting: Arc<Counting>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The billing day.
    pub day: Day,
    /// Compute everything, publish nothing.
    pub dry_run: bool,
    /// Compute even where no input changed, and before the day is closed.
    pub force: bool,
}

/// How the result compares with the day's last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is the first.
    Computed,
    /// It differs.
    Restated,
    /// It is the same; nothing was written.
    Unchanged,
}

impl Status {
    /// The word used in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Restated => "restated",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Compared with the last run.
    pub status: Status,
    /// Whether it was published; false for a dry run and for what is unchanged.
    pub published: bool,
    /// The record: the new one, or the last one where nothing changed.
    pub record: RunRecord,
    /// The record of the run before.
    pub previous: Option<RunRecord>,
    /// A dry run's difference to the run before.
    pub shadow: Option<Shadow>,
}

/// Recomputes one day.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Conflict`], [`Error::Conservation`] and those of storage; nothing is visible then.
pub async fn recompute(
    deps: &Deps,
    settings: &Settings,
    request: Request,
    listener: &Listener,
) -> Result<Outcome, Error> {
    let day = request.day;
    let snapshot = Snapshot::take(&deps.root, day).await?;
    let covered = ready::check(deps, settings, &snapshot, day, request.force).await?;
    let runs = Runs::open(&deps.root).await?;
    let previous = runs.of(day).await?.pop();
    if let Some(last) = previous.as_ref()
        && !request.force
        && is_same_work(last, &snapshot, deps, settings).await
    {
        let (record, shadow) = (last.clone(), request.dry_run.then(|| Shadow::unchanged(last)));
        return Ok(Outcome { status: Status::Unchanged, published: false, record, previous, shadow });
    }
    let target = Target::open(&deps.root, day, previous.as_ref().map_or(0, |r| r.run)).await?;
    let stage = Arc::new(Stage::new(&settings.spill_folder())?);
    let workshop = Workshop {
        workers: settings.workers(),
        memory: settings.memory_limit.0,
        bucket_rows: settings.silver_file_rows,
        spill: stage.folder().to_owned(),
        stage,
        run: target.run,
        report: Report { day, listener: listener.clone() },
        place: Place::of(settings, &deps.root)?,
    };
    let rules = Arc::new(Rules { day, counting: deps.counting.clone(), prices: deps.prices.clone() });
    let computed = compute(&workshop, &snapshot, &deps.root.store(), rules).await?;
    workshop.report.step(Step::Audit, 0, 1);
    let audited = audit(&workshop, &snapshot, &covered, deps, &computed, request).await?;
    let Computed { outputs, merkle } = computed;
    let mut record = record(deps, &snapshot, &target, audited, merkle, &previous)?;
    record.outputs = outputs.iter().map(|(def, files)| (def.name.to_owned(), target.draft(def, files))).collect();
    let shadow = if request.dry_run {
        let silver = Table::open(&deps.root, &SILVER_EVENTS).await?;
        let staged = outputs.iter().find(|(def, _)| def.name == SILVER_EVENTS.name);
        let files = staged.map_or(&[][..], |(_, files)| files.as_slice());
        Some(whatif::compare(&silver, previous.as_ref(), workshop.stage.clone(), files).await?)
    } else {
        None
    };
    let status = match &previous {
        None => Status::Computed,
        Some(last) if same_gold(last, &record) => Status::Unchanged,
        Some(_) => Status::Restated,
    };
    if status == Status::Unchanged {
        let record = previous.clone().unwrap_or(record);
        return Ok(Outcome { status, published: false, record, previous, shadow });
    }
    if !request.dry_run {
        workshop.report.step(Step::Publish, 0, outputs.len() as u64 + 1);
        target.publish(&workshop, &outputs, &mut record, runs).await?;
        count(&record);
    }
    Ok(Outcome { status, published: !request.dry_run, record, previous, shadow })
}

/// Recomputes the days from `from` to `to`, both included, in order; stops at the first that fails.
///
/// # Errors
/// As [`recompute`].
pub async fn backfill(
    deps: &Deps,
    settings: &Settings,
    (from, to): (Day, Day),
    request: Request,
    listener: &Listener,
) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::new();
    let mut day = from;
    while day <= to {
        outcomes.push(recompute(deps, settings, Request { day, ..request }, listener).await?);
        day = day.plus(1);
    }
    Ok(outcomes)
}

/// Whether the last run decided by the same rules on what this one would read, as far as it can tell.
async fn is_same_work(last: &RunRecord, snapshot: &Snapshot, deps: &Deps, settings: &Settings) -> bool {
    let same_rules = last.code_version == CODE_VERSION
        && last.counting == *deps.counting
        && last.price_book_version == deps.prices.version;
    match last.inputs.get(BRONZE_EVENTS.name) {
        Some(before) if same_rules && *before != snapshot.events.version() => {
            let store = deps.root.store();
            let changed = since::may_change(snapshot, *before, last.day, &store, &deps.counting, settings).await;
            !changed.unwrap_or_else(|error| {
                tracing::info!(%error, day = %last.day, "cannot tell what came since the last run: computing the day");
                true
            })
        }
        before => same_rules && before.is_some(),
    }
}

/// What balanced.
struct Audited {
    books: Books,
    partitions: Vec<PartitionConservation>,
    capture: Vec<CaptureHour>,
}

/// The conservation gate: nothing passes that does not balance.
async fn audit(
    workshop: &Workshop,
    snapshot: &Snapshot,
    covered: &Covered,
    deps: &Deps,
    computed: &Computed,
    Request { day, dry_run, .. }: Request,
) -> Result<Audited, Error> {
    let store = deps.root.store();
    let engine = Engine::new(workshop.workers, workshop.memory, &workshop.spill)?;
    let paths = |files: &[lake::table::DataFile]| files.iter().map(|f| f.object_path.clone()).collect::<Vec<_>>();
    engine.register("bronze", BRONZE_EVENTS.file_schema(), &store, &paths(&snapshot.ours))?;
    engine.register("bad", BRONZE_BAD.file_schema(), &store, &paths(&snapshot.bad.files_of(day)?))?;
    for (def, files) in &computed.outputs {
        let staged: Vec<Path> = files.iter().map(|f| Stage::path(def.name, f)).collect();
        engine.register(sql_name(def), def.file_schema(), workshop.stage.store(), &staged)?;
    }
    let books = Books::open(&engine).await?;
    let mut known = Known::load(&deps.root).await;
    let (partitions, mut differences) = conserve(snapshot, &store, covered, workshop.workers, &mut known).await?;
    if !dry_run {
        known.save(&deps.root, &snapshot.events.files()?).await?;
    }
    let written = deps.events.bounds().await?.end;
    let (capture, at_the_edge) = capture(snapshot, &store, covered, &written, workshop.workers, day).await?;
    differences.extend(at_the_edge);
    differences.extend(books.differences());
    differences.extend(books.tree_difference(computed.merkle.leaves));
    if differences.is_empty() {
        return Ok(Audited { books, partitions, capture });
    }
    Err(Error::Conservation { day, differences: Differences(differences) })
}

/// The name of a table in SQL: the last part of its path, `silver` for silver.
fn sql_name(def: &TableDef) -> &'static str {
    match def.name.rsplit_once('/') {
        Some(("silver", _)) | None => "silver",
        Some((_, name)) => name,
    }
}

fn record(
    deps: &Deps,
    snapshot: &Snapshot,
    target: &Target,
    Audited { books, partitions, capture }: Audited,
    merkle: Root,
    previous: &Option<RunRecord>,
) -> Result<RunRecord, Error> {
    let summary = books.summary(target.day)?;
    let inputs = [&snapshot.events, &snapshot.bad].map(|t: &Table| (t.def().name.to_owned(), t.version()));
    Ok(RunRecord {
        format_version: FORMAT_VERSION,
        code_version: CODE_VERSION,
        day: target.day,
        run: target.run,
        outcome: if previous.is_none() { RunOutcome::Computed } else { RunOutcome::Restated },
        inputs: inputs.into(),
        outputs: BTreeMap::new(),
        counting: Counting::clone(&deps.counting),
        price_book_version: deps.prices.version,
        verdicts: summary.verdicts,
        merkle,
        totals: summary.totals,
        hours: summary.hours,
        partitions,
        capture,
        quarantined: summary.quarantined,
        warnings: summary.warnings,
    })
}

/// Whether two runs wrote the same bytes of gold and billed the same events. (Every event counts in some billing line,
/// so silver is the same too, but perhaps cut into other files; the blocks say where in them.)
fn same_gold(a: &RunRecord, b: &RunRecord) -> bool {
    let hashes = |name: &str, output: &TableOutput| -> Vec<(String, String)> {
        output.files.iter().map(|f| (name.to_owned(), f.sha256.clone())).collect()
    };
    let gold = |r: &RunRecord| {
        let follows_files = |name: &str| [SILVER_EVENTS.name, GOLD_PROOF_BLOCKS.name].contains(&name);
        let outputs = r.outputs.iter().filter(|(name, _)| !follows_files(name));
        outputs.flat_map(|(name, o)| hashes(name, o)).collect::<Vec<_>>()
    };
    a.merkle == b.merkle && gold(a) == gold(b)
}

/// A table's part of the record.
pub(crate) fn output(version: u64, files: &[NewFile]) -> TableOutput {
    let file = |f: &NewFile| OutputFile { path: f.path.clone(), bytes: f.size, rows: f.rows, sha256: f.sha256.clone() };
    TableOutput { version, files: files.iter().map(file).collect() }
}

fn count(record: &RunRecord) {
    for (verdict, events) in &record.verdicts {
        metrics::counter!(metric_names::BATCH_EVENTS, "outcome" => verdict.clone()).increment(*events);
    }
    let events: u64 = record.verdicts.values().sum();
    tracing::info!(day = %record.day, run = record.run, events, "the day was recomputed");
}

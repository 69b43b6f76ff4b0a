//! Buckets judged by a Ballista cluster instead of this process; everything before and after stays where it was.
//!
//! ```text
//! this run                                     executors
//! inputs ── one object ──▶ scratch (S3) ─────▶ desk: bucket ▶ judge ──▶ scratch: silver, leaves, facts, "done"
//! plan ──▶ scheduler ──▶ a task for each bucket ──┘                        │
//! stage ◀──────────────────────────────── reports, then the objects ◀──────┘
//! ```
//! Guarantee: the bytes are those of one machine, since a task calls the same function on the same inputs; whatever
//! happens to scheduler and executors, a run ends with all buckets or with an error, and nothing is visible before its
//! record. On crash of the run: the scratch stays until a later run sweeps it; tasks still running find nothing.
//! The scheduler, the retries and the loss of executors are Ballista's (docs/adr/0027).

mod desk;
mod inputs;
mod parcel;
mod plan;
mod report;
mod roles;
mod scratch;

use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK;
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use bytes::Bytes;
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::{StreamExt, TryStreamExt};
use lake::LakeRoot;
use lake::file::{EncodedFile, NewFile};
use lake::tables::SILVER_EVENTS;

pub use roles::{executor, scheduler};

use crate::bucket::Inputs;
use crate::compute::Workshop;
use crate::error::Error;
use crate::facts::Shard;
use crate::judge::Rules;
use crate::progress::Step;
use crate::settings::Ballista;
use report::{Judged, Report};
use scratch::Scratch;

/// How often a run looks how far its cluster is.
const LOOK: Duration = Duration::from_secs(1);
/// Buckets whose objects are fetched at once.
const FETCHED_AT_ONCE: usize = 4;

/// A cluster to judge buckets on.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The lake, which the executors see too.
    root: LakeRoot,
    /// Where the scheduler is, and how long to wait for it.
    settings: Ballista,
}

impl Cluster {
    /// The cluster that the settings name, over this lake.
    pub(crate) fn new(root: &LakeRoot, settings: &Ballista) -> Self {
        Self { root: root.clone(), settings: settings.clone() }
    }
}

/// Judges every bucket on the cluster: the facts, and the silver files by bucket, in order; leaves go to the stage.
///
/// # Errors
/// `Unavailable` when the cluster or the store fails; else as on one machine.
pub(crate) async fn judge_all(
    workshop: &Workshop,
    cluster: &Cluster,
    inputs: Inputs,
    rules: &Arc<Rules>,
) -> Result<(Vec<Shard>, Vec<(u32, NewFile)>), Error> {
    let buckets = inputs.buckets;
    let packed = inputs::pack(workshop.run, rules, inputs)?;
    let scratch = Scratch::claim(&cluster.root, rules.day, workshop.run, packed).await?;
    let judged = async {
        scratch.sweep(&cluster.root, cluster.settings.scratch_age.0).await?;
        let reports = watch(workshop, cluster, &scratch, buckets).await?;
        fetch(workshop, rules, &scratch, reports).await
    };
    let judged = judged.await;
    if let Err(error) = scratch.remove().await {
        tracing::warn!(%error, "the scratch of this run stays until a later run removes it");
    }
    judged
}

/// Runs the plan, tells how far it is, and gives up when nothing happens.
async fn watch(
    workshop: &Workshop,
    cluster: &Cluster,
    scratch: &Scratch,
    buckets: u32,
) -> Result<Vec<(u32, Report)>, Error> {
    let running = run(&cluster.settings, scratch, buckets);
    tokio::pin!(running);
    let (mut done, mut silence) = (0, Duration::ZERO);
    loop {
        workshop.report.step(Step::Judge, done, u64::from(buckets));
        tokio::select! {
            reports = &mut running => return match reports {
                // Ballista does not make reports again that were lost with an executor in a job's last stage.
                Err(error) if scratch.done().await? == u64::from(buckets) => {
                    tracing::warn!(%error, "every bucket is judged: reading the reports from the store");
                    stored(scratch, buckets).await
                }
                ended => ended,
            },
            () = shared::time::sleep(LOOK) => {}
        }
        let now = scratch.done().await?;
        silence = if now > done { Duration::ZERO } else { silence + LOOK };
        done = now;
        if silence > cluster.settings.patience.0 {
            let why = format!("no bucket was judged for {}; are executors running?", cluster.settings.patience);
            return Err(away(&cluster.settings, why));
        }
    }
}

/// Runs the plan: a report for every bucket, in order.
async fn run(settings: &Ballista, scratch: &Scratch, buckets: u32) -> Result<Vec<(u32, Report)>, Error> {
    let plan = plan::plan(scratch.inputs_path().as_ref(), buckets).map_err(|e| Error::Internal(e.to_string()))?;
    let codec = plan::Codec::new(None)?;
    // A bucket is the unit that is scheduled, lost and tried again.
    let config = SessionConfig::new_with_ballista().set_usize(BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK, 1);
    let (url, known, session) = (settings.scheduler_url.clone(), config.ballista_config(), scratch.inputs_path());
    let rows = async {
        let session = session.to_string();
        let rows = execute_physical_plan::<PhysicalPlanNode>(url, &known, plan, &codec, session, config).await?;
        rows.try_collect::<Vec<_>>().await
    };
    let rows = rows.await.map_err(|e| away(settings, e.to_string()))?;
    let mut reports = Vec::with_capacity(buckets as usize);
    for rows in &rows {
        reports.extend(plan::reports(rows)?);
    }
    reports.sort_by_key(|(bucket, _)| *bucket);
    if reports.iter().map(|(bucket, _)| *bucket).eq(0..buckets) {
        return Ok(reports);
    }
    Err(Error::Internal(format!("a cluster answered {} reports on {buckets} buckets", reports.len())))
}

/// The reports that tasks stored.
async fn stored(scratch: &Scratch, buckets: u32) -> Result<Vec<(u32, Report)>, Error> {
    let mut reports = Vec::new();
    for bucket in 0..buckets {
        let report = scratch.find(&desk::done_name(bucket)).await?;
        let report = report.ok_or_else(|| Error::Internal(format!("bucket {bucket} is done and has no report")))?;
        reports.push((bucket, Report::parse(&report)?));
    }
    Ok(reports)
}

fn away(settings: &Ballista, why: String) -> Error {
    Error::Unavailable { doing: format!("judging on the cluster of {}", settings.scheduler_url), why }
}

/// Brings what the tasks made to the stage.
async fn fetch(
    workshop: &Workshop,
    rules: &Arc<Rules>,
    scratch: &Scratch,
    reports: Vec<(u32, Report)>,
) -> Result<(Vec<Shard>, Vec<(u32, NewFile)>), Error> {
    let memory = workshop.memory / 4 / (reports.len() as u64).max(1);
    let mut judged = Vec::new();
    for (bucket, report) in reports {
        match report {
            Report::Empty => {}
            Report::Judged(made) => judged.push((bucket, made)),
            Report::Refused { kind, why } => return Err(kind.error(format!("bucket {bucket}: {why}"))),
        }
    }
    let fetched = judged.into_iter().map(|(bucket, made)| fetch_one(workshop, rules, scratch, bucket, made, memory));
    let fetched: Vec<(Shard, (u32, NewFile))> =
        futures::stream::iter(fetched).buffered(FETCHED_AT_ONCE).try_collect().await?;
    Ok(fetched.into_iter().unzip())
}

async fn fetch_one(
    workshop: &Workshop,
    rules: &Arc<Rules>,
    scratch: &Scratch,
    bucket: u32,
    made: Judged,
    memory: u64,
) -> Result<(Shard, (u32, NewFile)), Error> {
    let object = async |what: &str, check: report::Check| -> Result<Bytes, Error> {
        let name = desk::object_name(&made.attempt, bucket, what);
        let found = scratch.find(&name).await?;
        let gone = || Error::Unavailable { doing: format!("fetching {name}"), why: "it is gone".to_owned() };
        let found = found.ok_or_else(gone)?;
        check.whole(&name, found)
    };
    let silver = object("silver", made.silver_check).await?;
    let leaves = object("leaves", made.leaves).await?;
    let facts = object("facts", made.facts).await?;
    let (stage, folder, rules) = (workshop.stage.clone(), workshop.spill.clone(), rules.clone());
    let file = made.silver.into_file(rules.day);
    tokio::task::spawn_blocking(move || {
        stage.keep_leaves(bucket, &leaves)?;
        let kept = stage.keep(SILVER_EVENTS.name, EncodedFile { file, bytes: silver })?;
        Ok((parcel::unpack(&facts, memory, &folder, &rules.prices)?, (bucket, kept)))
    })
    .await?
}

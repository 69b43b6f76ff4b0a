//! The computation of a day at pinned inputs: clicks and hashes, buckets, silver, gold. Writes to the stage only.
//! Guarantee: the files' bytes follow from the day's events, the rules and the prices: not from threads, memory, how
//! the archive is cut into files, or anything that does not meet the day.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use lake::LakeRoot;
use lake::file::{EncodedFile, NewFile, ParquetFile};
use lake::table::DataFile;
use lake::tables::{GOLD_AD_MINUTE, GOLD_BILLING_DAY, GOLD_CAMPAIGN_HOUR, GOLD_PROOF_BLOCKS, SILVER_EVENTS, TableDef};
use object_store::ObjectStore;
use shared::merkle::Root;
use shared::time::{HOUR, Timestamp};
use shared::verdict::Counting;

use crate::bucket::{self, Inputs};
use crate::clicks::{self, Files};
#[cfg(feature = "ballista")]
use crate::cluster;
use crate::error::Error;
use crate::facts::{HOURS, Shard};
use crate::gold::{self, BillingLines, HourGold};
use crate::gold_rows;
use crate::hashes::{self, Request};
use crate::judge::{Judge, Rules};
use crate::leaves::Leaves;
use crate::names::{self, HourInput, Names};
use crate::progress::{Report, Step};
use crate::settings::{Engine, Settings};
use crate::snapshot::{self, Snapshot};
use crate::source::Source;
use crate::stage::Stage;
use crate::tasks;
use crate::tree;

/// Bytes that a row of a bucket takes while it is judged, about.
pub(crate) const BYTES_PER_BUCKET_ROW: u64 = 700;
/// Rows of a billing file encoded at once.
const BILLING_CHUNK: usize = 64 * 1024;

/// What a computation may use, and where its results wait.
pub(crate) struct Workshop {
    /// Threads.
    pub(crate) workers: usize,
    /// Bytes of memory, about.
    pub(crate) memory: u64,
    /// Rows of a bucket, about: what is judged at once and becomes one silver file.
    pub(crate) bucket_rows: u64,
    /// Where facts spill.
    pub(crate) spill: PathBuf,
    /// Where files wait.
    pub(crate) stage: Arc<Stage>,
    /// The run's number, part of every file's name.
    pub(crate) run: u64,
    /// Who wants to know how far it is.
    pub(crate) report: Report,
    /// Where buckets are judged.
    pub(crate) place: Place,
}

/// Where buckets are judged; it changes no byte.
pub(crate) enum Place {
    /// On the threads of this process.
    Here,
    /// By a cluster's executors.
    #[cfg(feature = "ballista")]
    Cluster(Box<cluster::Cluster>),
}

impl Place {
    /// The place that the settings ask for.
    ///
    /// # Errors
    /// When this program was built without it.
    pub(crate) fn of(settings: &Settings, root: &LakeRoot) -> Result<Self, Error> {
        match settings.engine {
            Engine::Local => Ok(Self::Here),
            #[cfg(feature = "ballista")]
            Engine::Ballista => Ok(Self::Cluster(Box::new(cluster::Cluster::new(root, &settings.ballista)))),
            #[cfg(not(feature = "ballista"))]
            Engine::Ballista => Err(Error::Invalid(format!("{root:?}: built without the feature ballista"))),
        }
    }
}

/// The files of one table, in row order.
pub(crate) type Output = (&'static TableDef, Vec<NewFile>);

/// What a computation made.
pub(crate) struct Computed {
    /// Silver and gold.
    pub(crate) outputs: Vec<Output>,
    /// The tree over the billed events.
    pub(crate) merkle: Root,
}

/// Computes silver and gold of the day.
///
/// # Errors
/// When the archive cannot be read or contradicts itself, a sum does not fit, or the disk fails.
pub(crate) async fn compute(
    workshop: &Workshop,
    snapshot: &Snapshot,
    store: &Arc<dyn ObjectStore>,
    rules: Arc<Rules>,
) -> Result<Computed, Error> {
    let inputs = find(workshop, snapshot, store, &rules).await?;
    let (shards, files) = match &workshop.place {
        Place::Here => judge_all(workshop, inputs, snapshot.rows(), rules.clone()).await?,
        #[cfg(feature = "ballista")]
        Place::Cluster(cluster) => cluster::judge_all(workshop, cluster, inputs, &rules).await?,
    };
    let (buckets, silver): (Vec<u32>, Vec<NewFile>) = files.into_iter().unzip();
    let mut outputs: Vec<Output> = vec![(&SILVER_EVENTS, silver)];
    outputs.extend(aggregate(workshop, shards, &rules).await?);
    let (stage, day, run) = (workshop.stage.clone(), rules.day, workshop.run);
    let (merkle, blocks) = tokio::task::spawn_blocking(move || tree::build(&stage, day, run, &buckets)).await??;
    outputs.push((&GOLD_PROOF_BLOCKS, blocks));
    Ok(Computed { outputs, merkle })
}

/// Everything the verdicts need to know of the archive as a whole.
async fn find(
    workshop: &Workshop,
    snapshot: &Snapshot,
    store: &Arc<dyn ObjectStore>,
    rules: &Rules,
) -> Result<Inputs, Error> {
    let (workers, memory) = (workshop.workers, workshop.memory / 2);
    let ours = snapshot::open(store, &snapshot.ours, workers).await?;
    let others: Vec<Source> = snapshot.others.iter().map(|f| Source::new(store, f)).collect();
    let near = near(&snapshot.ours, &snapshot.others, &rules.counting);
    let files = Files { near, ours: ours.len(), all: ours.iter().chain(&others).cloned().collect() };
    workshop.report.step(Step::FindClicks, 0, 1);
    let linked = clicks::find(&files, &rules.counting, workers, memory).await?;
    workshop.report.step(Step::FindDuplicates, 0, 1);
    let buckets = hashes::buckets(snapshot.rows(), workshop.bucket_rows);
    let wanted = clicks::wanted(&linked);
    let request = Request { ours: ours.clone(), others: others.clone(), wanted, buckets, workers, memory };
    let scan = hashes::scan(request).await?;
    let repeats = clicks::repeats(&files, linked, scan.wanted, &rules.counting, workers).await?;
    let (layouts, foreign, counting) = (scan.layouts, scan.foreign, rules.counting.clone());
    Ok(Inputs { ours, layouts, repeats, others, foreign, buckets, counting })
}

/// The other files (by their place among all, the day's before them) that may hold a click near one of the day's.
pub(crate) fn near(ours: &[DataFile], others: &[DataFile], counting: &Counting) -> Vec<usize> {
    let bounds = ours.iter().map(|f| f.ingest_time().unwrap_or((Timestamp::MIN, Timestamp::MAX)));
    let Some(bounds) = bounds.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return Vec::new() };
    let reach = clicks::reach(bounds, counting);
    let overlaps = |(low, high): (Timestamp, Timestamp)| low <= reach.1 && high >= reach.0;
    let near = others.iter().enumerate().filter(|(_, f)| f.ingest_time().is_none_or(overlaps));
    near.map(|(i, _)| ours.len() + i).collect()
}

/// What became of a bucket, apart from its facts.
pub(crate) struct JudgedBucket {
    /// Its silver file.
    pub(crate) silver: EncodedFile,
    /// The leaves of its billed events.
    pub(crate) leaves: Vec<u8>,
}

/// Takes one bucket through all that is done to it alone, and its facts into `shard`; an empty bucket makes nothing.
/// Needs no other bucket and no other thread, so any process can do it.
///
/// # Errors
/// When the bucket cannot be read, a row contradicts the archive, an amount does not fit, or spilling fails.
pub(crate) fn judge_bucket(
    inputs: &Inputs,
    number: u32,
    run: u64,
    rules: &Rules,
    shard: &mut Shard,
) -> Result<Option<JudgedBucket>, Error> {
    let bucket = bucket::read(inputs, number)?;
    if bucket.keys.is_empty() {
        return Ok(None);
    }
    let mut file = ParquetFile::new(&SILVER_EVENTS, rules.day, &format!("run-{run}-{number:05}"))?;
    let mut leaves = Leaves::default();
    let mut judge = Judge { rules, shard, leaves: &mut leaves };
    judge.bucket(&bucket, |batch| Ok(file.write(batch)?))?;
    Ok(Some(JudgedBucket { silver: file.finish()?, leaves: leaves.into_bytes() }))
}

/// Judges every bucket: the facts, and the silver files by bucket, in order; leaves go to the stage.
async fn judge_all(
    workshop: &Workshop,
    inputs: Inputs,
    rows: u64,
    rules: Arc<Rules>,
) -> Result<(Vec<Shard>, Vec<(u32, NewFile)>), Error> {
    let buckets = inputs.buckets;
    let bucket_bytes = (rows / u64::from(buckets) + 1) * BYTES_PER_BUCKET_ROW;
    let fit = usize::try_from(workshop.memory / bucket_bytes).unwrap_or(usize::MAX);
    let workers = workshop.workers.min(fit).max(1);
    let (facts, spill) = (workshop.memory / 4 / workers as u64, workshop.spill.clone());
    let (stage, run, report) = (workshop.stage.clone(), workshop.run, workshop.report.clone());
    let (inputs, done, prices) = (Arc::new(inputs), AtomicU64::new(0), rules.prices.clone());
    report.step(Step::Judge, 0, u64::from(buckets));
    let parts = tasks::fold(
        workers,
        (0..buckets).collect(),
        move || (Shard::new(facts, spill.clone(), prices.clone()), Vec::new()),
        move |(shard, files): &mut (Shard, Vec<(u32, NewFile)>), number: u32| {
            if let Some(judged) = judge_bucket(&inputs, number, run, &rules, shard)? {
                stage.keep_leaves(number, &judged.leaves)?;
                files.push((number, stage.keep(SILVER_EVENTS.name, judged.silver)?));
            }
            report.step(Step::Judge, done.fetch_add(1, Ordering::Relaxed) + 1, u64::from(buckets));
            Ok(())
        },
    )
    .await?;
    let (shards, files): (Vec<Shard>, Vec<_>) = parts.into_iter().unzip();
    let mut files: Vec<(u32, NewFile)> = files.concat();
    files.sort_by_key(|(bucket, _)| *bucket);
    Ok((shards, files))
}

/// The gold files being written, hour after hour.
struct GoldFiles {
    minutes: ParquetFile,
    campaigns: ParquetFile,
    billing: BillingLines,
}

/// Aggregates the facts and writes the gold tables: one file each, hours in order.
async fn aggregate(workshop: &Workshop, shards: Vec<Shard>, rules: &Arc<Rules>) -> Result<Vec<Output>, Error> {
    let (names, hours) = names::unite(shards)?;
    let names = Arc::new(names);
    let stem = format!("run-{}", workshop.run);
    let mut files = GoldFiles {
        minutes: ParquetFile::new(&GOLD_AD_MINUTE, rules.day, &stem)?,
        campaigns: ParquetFile::new(&GOLD_CAMPAIGN_HOUR, rules.day, &stem)?,
        billing: BillingLines::default(),
    };
    let memory = workshop.memory / 2 / workshop.workers as u64;
    let mut hours = hours.into_iter();
    let mut at = rules.day.start();
    loop {
        workshop.report.step(Step::Aggregate, (HOURS - hours.len()) as u64, HOURS as u64);
        let some: Vec<HourInput> = hours.by_ref().take(workshop.workers).collect();
        if some.is_empty() {
            break;
        }
        let shared = names.clone();
        let gold = tasks::each(workshop.workers, some, move |input| gold::hour(&shared, input, memory)).await?;
        let (shared, first) = (names.clone(), at);
        at = at.plus(HOUR * i64::try_from(gold.len()).unwrap_or(0));
        files = tokio::task::spawn_blocking(move || files.write(&shared, first, gold)).await??;
    }
    let (stage, day) = (workshop.stage.clone(), rules.day);
    tokio::task::spawn_blocking(move || files.finish(&names, &stage, ParquetFile::new(&GOLD_BILLING_DAY, day, &stem)?))
        .await?
}

impl GoldFiles {
    fn write(mut self, names: &Names, first: Timestamp, hours: Vec<HourGold>) -> Result<Self, Error> {
        for (i, hour) in (0..).zip(hours) {
            let at = first.plus(i * HOUR);
            write(&mut self.minutes, &gold_rows::ad_minutes(names, at, &hour.minutes)?)?;
            write(&mut self.campaigns, &gold_rows::campaign_hours(names, at, &hour.campaigns)?)?;
            self.billing.add(hour.billing)?;
        }
        Ok(self)
    }

    fn finish(self, names: &Names, stage: &Stage, mut billing: ParquetFile) -> Result<Vec<Output>, Error> {
        for lines in self.billing.into_lines(names).chunks(BILLING_CHUNK) {
            write(&mut billing, &gold_rows::billing_lines(names, lines)?)?;
        }
        let keep = |def: &'static TableDef, file: ParquetFile| {
            let encoded: Option<EncodedFile> = if file.rows() == 0 { None } else { Some(file.finish()?) };
            let kept = encoded.map(|e| stage.keep(def.name, e)).transpose()?;
            Ok::<Output, Error>((def, kept.into_iter().collect()))
        };
        Ok(vec![
            keep(&GOLD_AD_MINUTE, self.minutes)?,
            keep(&GOLD_CAMPAIGN_HOUR, self.campaigns)?,
            keep(&GOLD_BILLING_DAY, billing)?,
        ])
    }
}

fn write(file: &mut ParquetFile, rows: &RecordBatch) -> Result<(), Error> {
    if rows.num_rows() == 0 { Ok(()) } else { Ok(file.write(rows)?) }
}

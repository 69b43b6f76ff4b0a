//! An executor's desk: takes a bucket of a run through [`crate::compute::judge_bucket`] and stores what comes out.
//! Guarantee: an attempt writes under its own name and says "done" last, so whatever the cluster repeats, loses or runs
//! twice, a bucket's result is that of one whole attempt; and all attempts give the same bytes.
//! Memory: one bucket for each task at once, and the inputs of the last run.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use lake::LakeRoot;
use tokio::sync::Mutex;

use super::inputs::{self, Work};
use super::parcel;
use super::report::{Check, Judged, Report, Silver};
use super::scratch::Scratch;
use crate::compute::judge_bucket;
use crate::error::Error;
use crate::facts::Shard;

/// What the tasks of one executor share.
pub(crate) struct Desk {
    root: LakeRoot,
    /// Where facts spill.
    spill: PathBuf,
    /// Bytes of facts that a task holds.
    facts_memory: u64,
    /// Threads that open the files of a run.
    workers: usize,
    /// The run that was worked on last, by the path of its inputs.
    last: Mutex<Option<(String, Arc<Work>)>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Desk({:?})", self.root)
    }
}

impl Desk {
    /// A desk in this lake.
    pub(crate) fn new(root: LakeRoot, spill: PathBuf, facts_memory: u64, workers: usize) -> Self {
        Self { root, spill, facts_memory, workers, last: Mutex::new(None) }
    }

    /// Judges a bucket of the run whose inputs are at `inputs`, unless an attempt before has; answers its report.
    ///
    /// # Errors
    /// What may heal, so that the cluster tries again.
    pub(crate) async fn judge(&self, inputs: &str, bucket: u32, attempt: &str) -> Result<Report, Error> {
        tracing::info!(bucket, attempt, "began a bucket");
        let report = self.judge_once(inputs, bucket, attempt).await;
        tracing::info!(bucket, attempt, failed = report.is_err(), "ended a bucket");
        report
    }

    async fn judge_once(&self, inputs: &str, bucket: u32, attempt: &str) -> Result<Report, Error> {
        let scratch = Scratch::of(self.root.store(), inputs)?;
        let done = done_name(bucket);
        if let Some(report) = scratch.find(&done).await? {
            return Report::parse(&report);
        }
        match self.attempt(&scratch, inputs, bucket, attempt).await {
            Ok(report) => Report::parse(&scratch.decide(&done, report.to_text()?.into()).await?),
            Err(error) => Report::refused(error),
        }
    }

    async fn attempt(&self, scratch: &Scratch, inputs: &str, bucket: u32, attempt: &str) -> Result<Report, Error> {
        let work = self.work(scratch, inputs).await?;
        let mut shard = Shard::new(self.facts_memory, self.spill.clone(), work.rules.prices.clone());
        let made = tokio::task::spawn_blocking(move || {
            let judged = judge_bucket(&work.inputs, bucket, work.run, &work.rules, &mut shard)?;
            Ok::<_, Error>((judged, parcel::pack(shard)?))
        });
        let (Some(judged), facts) = made.await?? else { return Ok(Report::Empty) };
        let (silver, leaves) = (judged.silver, Bytes::from(judged.leaves));
        let report = Judged {
            attempt: attempt.to_owned(),
            silver: Silver::of(&silver.file),
            silver_check: Check::of(&silver.bytes),
            leaves: Check::of(&leaves),
            facts: Check::of(&facts),
        };
        for (what, bytes) in [("silver", silver.bytes), ("leaves", leaves), ("facts", facts)] {
            scratch.put(&object_name(attempt, bucket, what), bytes).await?;
        }
        Ok(Report::Judged(report))
    }

    /// The run's inputs, read once for all its tasks.
    async fn work(&self, scratch: &Scratch, inputs: &str) -> Result<Arc<Work>, Error> {
        let mut last = self.last.lock().await;
        match last.as_ref().filter(|(path, _)| path == inputs) {
            Some((_, work)) => Ok(work.clone()),
            None => {
                let work = inputs::unpack(&scratch.inputs().await?, &self.root.store(), self.workers).await?;
                let work = Arc::new(work);
                *last = Some((inputs.to_owned(), work.clone()));
                Ok(work)
            }
        }
    }
}

/// The object that says which attempt made a bucket.
pub(crate) fn done_name(bucket: u32) -> String {
    format!("done/{bucket:05}")
}

/// An object of an attempt.
pub(crate) fn object_name(attempt: &str, bucket: u32, what: &str) -> String {
    format!("{attempt}/{bucket:05}.{what}")
}

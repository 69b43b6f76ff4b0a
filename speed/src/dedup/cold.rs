//! The ids that left memory for disk: a few sorted runs, looked up exactly.
//!
//! Guarantees: at most [`MOST_RUNS`], so an id that is nowhere costs as many cache lines and seldom a read. Too many are
//! made fewer by merging the two neighbours that are smallest together, at most a quarter of all ids. Ids whose buckets
//! were forgotten are not found; they take room until their run is merged, or the last of its buckets is forgotten: at
//! most a third more than the living take. How runs lie says nothing about an answer.
//! On crash: the runs are gone; a restart makes them anew from the dedup files.

use std::io;
use std::path::PathBuf;

use super::run::{Entry, Run, Writer};
use super::shelf::Shelf;
use crate::table::Id;

/// More runs are merged.
const MOST_RUNS: usize = 8;

/// What the disk refused.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) doing: &'static str,
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// The runs, oldest first. Their buckets do not overlap.
#[derive(Debug)]
pub(super) struct Cold {
    shelf: Box<dyn Shelf>,
    runs: Vec<Run>,
    /// Buckets before this one are forgotten.
    oldest: u64,
    reads: u64,
}

impl Cold {
    pub(super) fn new(shelf: Box<dyn Shelf>) -> Self {
        Self { shelf, runs: Vec::new(), oldest: 0, reads: 0 }
    }

    /// Whether `id` is in a bucket that is not forgotten.
    pub(super) fn holds(&mut self, id: &Id) -> Result<bool, Failure> {
        for run in self.runs.iter().rev() {
            if run.may_hold(id) {
                self.reads += 1;
                let bucket = run.find(id).map_err(|error| self.failed("read event ids in", error))?;
                if bucket.is_some_and(|bucket| bucket >= self.oldest) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Puts about `ids` ids of newer buckets, from `first` on, on disk: what `fill` pushes in order.
    pub(super) fn add(
        &mut self,
        first: u64,
        ids: usize,
        fill: impl FnOnce(&mut Writer) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let write = || {
            let mut writer = Writer::new(self.shelf.scratch()?, first, ids);
            fill(&mut writer)?;
            self.runs.push(writer.finish()?);
            while self.runs.len() > MOST_RUNS && self.merge_two()? {}
            Ok(())
        };
        write().map_err(|error| self.failed("write event ids to", error))
    }

    /// Forgets the buckets before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        self.oldest = oldest;
        self.runs.retain(|run| run.buckets().1 >= oldest);
    }

    /// Bytes in memory and on disk.
    pub(super) fn bytes(&self) -> (usize, u64) {
        (self.runs.iter().map(Run::bytes).sum(), self.runs.iter().map(Run::disk_bytes).sum())
    }

    /// How often the disk was asked for an id.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// Merges the two neighbours that are smallest together; whether there were two that can be.
    fn merge_two(&mut self) -> io::Result<bool> {
        let fit = |pair: &[Run]| match pair {
            [older, newer] => newer.buckets().1 - older.buckets().0 <= u64::from(u16::MAX),
            _ => false,
        };
        let pairs = self.runs.windows(2).enumerate().filter(|(_, pair)| fit(pair));
        let Some((at, _)) = pairs.min_by_key(|(_, pair)| pair.iter().map(Run::ids).sum::<usize>()) else {
            return Ok(false);
        };
        let Some([older, newer]) = self.runs.get(at..at + 2) else { return Ok(false) };
        let merged = self.merged(older, newer)?;
        self.runs.splice(at..at + 2, [merged]);
        Ok(true)
    }

    fn merged(&self, older: &Run, newer: &Run) -> io::Result<Run> {
        let first = older.buckets().0.max(self.oldest);
        let mut writer = Writer::new(self.shelf.scratch()?, first, older.ids() + newer.ids());
        let (mut olds, mut news) = (older.entries(), newer.entries());
        let (mut old, mut new) = (olds.next()?, news.next()?);
        loop {
            let entry: Entry = match (old, new) {
                (Some(entry), other) if other.is_none_or(|(id, _)| entry.0 < id) => {
                    old = olds.next()?;
                    entry
                }
                (_, Some(entry)) => {
                    new = news.next()?;
                    entry
                }
                (_, None) => return writer.finish(),
            };
            if entry.1 >= self.oldest {
                writer.push(entry)?;
            }
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Failure {
        Failure { doing, path: self.shelf.path().to_owned(), source }
    }
}

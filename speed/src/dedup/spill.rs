//! Which buckets of a memory are on disk: the oldest, as many as must be for the rest to fit.
//!
//! When the table is full the oldest buckets leave it, a quarter of the limit at once, and become a run (see `cold`). A
//! restart puts the same share of the dedup files into the table and the others straight onto the disk.
//! Guarantee: a disk that fails never makes an answer. What failed is kept; whoever uses the memory asks for it
//! ([`Memory::failure`]) before anything that was answered since is shown or saved, and begins again from the checkpoint.
//! Never: forgets. What is too much for memory and disk together is forgotten by [`Memory`], by counts alone.

use std::cmp::Reverse;

use super::cold::{Cold, Failure};
use super::shelf::Shelf;
use super::{BucketMessage, LIMIT_SHARE, Memory, MemoryMessage, tag_of};
use crate::Error;
use crate::table::{Id, number};

/// What of a memory is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OnDisk {
    /// Ids that are not forgotten.
    pub(crate) ids: usize,
    /// Bytes there.
    pub(crate) bytes: u64,
    /// Bytes in memory that spare reads.
    pub(crate) filter_bytes: usize,
    /// How often a block was read to look for an id.
    pub(crate) reads: u64,
}

#[derive(Debug)]
pub(super) struct Spill {
    cold: Cold,
    /// The most ids on disk, about.
    limit: usize,
    /// So many of the oldest buckets are there.
    buckets: usize,
    failure: Option<Failure>,
}

impl Spill {
    /// Takes note that so many of the oldest buckets are forgotten; how many of them were on disk.
    pub(super) fn forget(&mut self, count: usize, oldest: u64) -> usize {
        let on_disk = self.buckets.min(count);
        self.buckets -= on_disk;
        self.cold.forget_before(oldest);
        on_disk
    }

    fn note(&mut self, done: Result<(), Failure>) {
        if let Err(error) = done {
            self.failure.get_or_insert(error);
        }
    }
}

/// What of a checkpoint goes to disk.
#[derive(Debug, Default)]
pub(super) struct Colder {
    /// So many more buckets.
    buckets: usize,
    ids: Vec<(u128, Reverse<u64>)>,
}

impl Colder {
    pub(super) fn is_wanted(&self) -> bool {
        self.buckets > 0
    }
}

impl Memory<0> {
    /// Lets ids that memory has no room for go to `shelf`. Call it before there are any.
    pub(crate) fn spill_to(&mut self, shelf: Box<dyn Shelf>) {
        self.spill = Some(Spill { cold: Cold::new(shelf), limit: 0, buckets: 0, failure: None });
    }

    /// Keeps about so many ids on disk, if there is one.
    pub(crate) fn limit_on_disk(&mut self, limit: usize) {
        if let Some(spill) = &mut self.spill {
            spill.limit = limit;
        }
    }

    /// Why the disk failed, if it ever did: then no answer since counts.
    pub(crate) fn failure(&self) -> Option<Error> {
        let Failure { doing, path, source } = self.spill.as_ref()?.failure.as_ref()?;
        let source = std::io::Error::new(source.kind(), source.to_string());
        Some(Error::State { doing, path: path.clone(), source })
    }
}

impl<const N: usize> Memory<N> {
    /// What is on disk.
    pub(crate) fn on_disk(&self) -> OnDisk {
        let Some(spill) = &self.spill else { return OnDisk::default() };
        let ids: u64 = self.buckets.iter().take(spill.buckets).map(|bucket| bucket.ids).sum();
        let (filter_bytes, bytes) = spill.cold.bytes();
        OnDisk { ids: usize::try_from(ids).unwrap_or(usize::MAX), bytes, filter_bytes, reads: spill.cold.reads() }
    }

    /// Whether a claim may read or write a disk: when something is there, or the table is more than half full.
    pub(crate) fn may_wait_for_disk(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| spill.buckets > 0 || self.table.len() > self.limit / 2)
    }

    pub(super) fn buckets_on_disk(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.buckets)
    }

    pub(super) fn spill_limit(&self) -> usize {
        self.spill.as_ref().map_or(0, |spill| spill.limit)
    }

    /// Whether `id` is not in the table but on disk. After a failure every id is.
    pub(super) fn is_on_disk(&mut self, id: &Id) -> bool {
        let Some(spill) = self.spill.as_mut().filter(|spill| spill.buckets > 0) else { return false };
        if self.table.get(id).is_some() {
            return false;
        }
        spill.cold.holds(id).unwrap_or_else(|error| {
            spill.note(Err(error));
            true
        })
    }

    /// Puts the oldest buckets on disk, if the table has no room for one of `share` ids more.
    pub(super) fn make_room(&mut self, share: usize) {
        let stay = self.stay(self.buckets.iter().map(|bucket| bucket.ids));
        let Some(spill) = self.spill.as_mut().filter(|spill| spill.failure.is_none()) else { return };
        let leave = self.buckets.len() - stay;
        if self.table.len() <= self.limit - share || leave <= spill.buckets {
            return;
        }
        let leaving = self.buckets.iter().take(leave).skip(spill.buckets);
        let (mut numbers, mut first, mut ids) = ([None; 256], u64::MAX, 0);
        for bucket in leaving {
            let number = bucket.stored.number;
            if let Some(place) = numbers.get_mut(usize::from(tag_of(number))) {
                *place = Some(number);
            }
            first = first.min(number);
            ids += usize::try_from(bucket.ids).unwrap_or(0);
        }
        let number = |tag: u8| numbers.get(usize::from(tag)).copied().flatten();
        let table = &mut self.table;
        let added = spill.cold.add(first, ids, |run| {
            table.drain(|tag| number(tag).is_some(), |id, tag| run.push((id, number(tag).unwrap_or(first))))
        });
        spill.buckets = leave;
        spill.note(added);
    }

    /// How many of the newest buckets stay in the table when some must go; at least one.
    fn stay(&self, ids: impl DoubleEndedIterator<Item = u64>) -> usize {
        let room = (self.limit - self.limit / LIMIT_SHARE - self.limit / 4) as u64;
        let filled = ids.rev().scan(0, |all, ids| {
            *all += ids;
            Some(*all)
        });
        filled.take_while(|all| *all <= room).count().max(1)
    }

    /// What of a checkpoint is to go to disk.
    pub(super) fn begin_restore(&mut self, message: &MemoryMessage) -> Colder {
        let all: u64 = message.buckets.iter().map(|bucket| bucket.ids).sum();
        let is_full = all > (self.limit - self.limit / LIMIT_SHARE) as u64;
        let stay = self.stay(message.buckets.iter().map(|bucket| bucket.ids));
        let buckets = if is_full && self.spill.is_some() { message.buckets.len().saturating_sub(stay) } else { 0 };
        Colder { buckets, ids: Vec::new() }
    }

    /// Puts one more bucket of a checkpoint on disk.
    pub(super) fn restore_on_disk(
        &mut self,
        colder: &mut Colder,
        stored: &BucketMessage,
        ids: impl Iterator<Item = Id>,
    ) {
        let Some(spill) = self.spill.as_mut() else { return };
        colder.ids.extend(ids.map(|id| (number(&id), Reverse(stored.number))));
        colder.buckets -= 1;
        spill.buckets += 1;
        let is_enough = colder.ids.len() >= self.limit / 4 || colder.buckets == 0;
        if is_enough && spill.failure.is_none() {
            let mut ids = std::mem::take(&mut colder.ids);
            ids.sort_unstable();
            let first = ids.iter().map(|(_, Reverse(number))| *number).min().unwrap_or(0);
            let added = spill
                .cold
                .add(first, ids.len(), |run| ids.iter().try_for_each(|(id, Reverse(number))| run.push((*id, *number))));
            spill.note(added);
        }
    }
}

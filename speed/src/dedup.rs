//! What is remembered of the last hours: event ids (to drop repeats) and clicks on impressions (to find
//! repeat clicks), in time buckets that are forgotten whole.
//!
//! Guarantees: an id is remembered at least `window` after it came, unless the limit is reached; then the oldest
//! bucket goes early, and how many ids went is counted. Time is the partition's own (never going back), so a
//! replay remembers and forgets the same. Event ids that memory has no room for go to disk, oldest bucket first, and are
//! found there as before (`spill`): where an id is says nothing about an answer.
//! In a checkpoint each bucket is a file that only grows; it names the files with length and checksum, so
//! saving costs what is new, not what is remembered. On crash the bytes beyond that length are cut off.

mod cold;
mod filter;
mod run;
pub(crate) mod shelf;
mod spill;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use prost::Message;
use shared::time::{SECOND, Timestamp};

pub(crate) use self::spill::OnDisk;
use self::spill::Spill;
use crate::place::Append;
use crate::table::{Id, Table};

/// A window is cut into this many buckets, so an id lives up to 1/24 longer than it must.
const BUCKETS: i64 = 24;
/// A bucket also ends at this share of the limit, so that reaching the limit forgets little.
const LIMIT_SHARE: usize = 16;

/// A bucket as the checkpoint names it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct BucketMessage {
    /// Numbers the buckets; part of the file name.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// Start of its time slot, microseconds.
    #[prost(int64, tag = "2")]
    pub(crate) slot: i64,
    /// When the newest entry came, microseconds.
    #[prost(int64, tag = "3")]
    pub(crate) newest: i64,
    /// Bytes of the file that count.
    #[prost(uint64, tag = "4")]
    pub(crate) length: u64,
    /// crc32c of those bytes.
    #[prost(uint32, tag = "5")]
    pub(crate) checksum: u32,
    /// How many ids came new with it.
    #[prost(uint64, tag = "6")]
    pub(crate) ids: u64,
}

/// A [`Memory`] as the checkpoint holds it.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemoryMessage {
    /// The next bucket's number.
    #[prost(uint64, tag = "1")]
    pub(crate) next_number: u64,
    /// Ids forgotten before their time.
    #[prost(uint64, tag = "2")]
    pub(crate) forgotten: u64,
    /// The buckets, oldest first.
    #[prost(message, repeated, tag = "3")]
    pub(crate) buckets: Vec<BucketMessage>,
}

/// The bytes of a file are not what the checkpoint says.
#[derive(Debug, thiserror::Error)]
#[error("dedup file {0} does not hold what the checkpoint says")]
pub(crate) struct BadFile(String);

#[derive(Debug)]
struct Bucket<const N: usize> {
    /// As it is on disk.
    stored: BucketMessage,
    newest: Timestamp,
    /// How many ids came new with it. (Entries of old ids do not count: they free a place in another bucket.)
    ids: u64,
    /// What is not on disk yet.
    fresh: Vec<(Id, [u8; N])>,
}

impl<const N: usize> Bucket<N> {
    const ENTRY_BYTES: usize = 16 + N;
}

/// Ids of the last `window`, each with `N` bytes.
#[derive(Debug)]
pub(crate) struct Memory<const N: usize> {
    name: &'static str,
    window: i64,
    limit: usize,
    table: Table<N>,
    /// Oldest first; the first of them may be on disk instead of in the table.
    buckets: VecDeque<Bucket<N>>,
    spill: Option<Spill>,
    next_number: u64,
    forgotten: u64,
}

impl<const N: usize> Memory<N> {
    /// An empty memory whose files begin with `name`; `window` in microseconds.
    pub(crate) fn new(name: &'static str, window: i64, limit: usize) -> Self {
        Self {
            name,
            window,
            limit: limit.max(LIMIT_SHARE),
            table: Table::new(),
            buckets: VecDeque::new(),
            spill: None,
            next_number: 0,
            forgotten: 0,
        }
    }

    /// Keeps at most so many ids in memory from now on.
    pub(crate) fn limit(&mut self, limit: usize) {
        self.limit = limit.max(LIMIT_SHARE);
    }

    /// How many ids were forgotten before their time because of the limit.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Forgets what is older than the window at `now`, which never goes back.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let (slot, window) = (self.slot(), self.window);
        // By its slot and not by its newest id: how a slot is cut into buckets is the limit's doing.
        let last = |bucket: &Bucket<N>| bucket.newest.max(Timestamp(bucket.stored.slot).plus(slot));
        let over = self.buckets.iter().take_while(|bucket| last(bucket).plus(window) <= now).count();
        if over > 0 {
            self.forget(over);
        }
    }

    /// Remembers `id` if it is new at `now`; whether it was.
    pub(crate) fn claim(&mut self, id: Id, value: [u8; N], now: Timestamp) -> bool {
        self.begin_bucket(now);
        if self.is_on_disk(&id) {
            return false;
        }
        let Some(bucket) = self.buckets.back_mut() else { return true };
        let is_new = self.table.claim(id, tag_of(bucket.stored.number), value);
        if is_new {
            bucket.newest = now;
            bucket.ids += 1;
            bucket.fresh.push((id, value));
        }
        is_new
    }

    /// Remembers `id` with `value` at `now`, over what was remembered.
    pub(crate) fn put(&mut self, id: Id, value: [u8; N], now: Timestamp) {
        self.begin_bucket(now);
        let Some(bucket) = self.buckets.back_mut() else { return };
        bucket.ids += u64::from(self.table.put(id, tag_of(bucket.stored.number), value));
        bucket.newest = now;
        bucket.fresh.push((id, value));
    }

    /// See [`Table::touch`].
    pub(crate) fn touch(&self, id: &Id) -> u8 {
        self.table.touch(id)
    }

    /// What is remembered of `id`.
    pub(crate) fn get(&self, id: &Id) -> Option<[u8; N]> {
        self.table.get(id)
    }

    /// How many ids are remembered in memory, and the bytes of their table.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.table.len(), self.table.bytes())
    }

    /// How many ids are not on disk yet.
    #[cfg(test)]
    pub(crate) fn fresh(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.fresh.len()).sum()
    }

    fn begin_bucket(&mut self, now: Timestamp) {
        let slot = now.floor(self.slot()).0;
        let share = self.limit.div_ceil(LIMIT_SHARE);
        let goes_on = |bucket: &Bucket<N>| bucket.stored.slot == slot && bucket.ids < share as u64;
        if self.buckets.back().is_some_and(goes_on) {
            return;
        }
        let stored = BucketMessage { number: self.next_number, slot, newest: now.0, length: 0, checksum: 0, ids: 0 };
        self.next_number += 1;
        self.buckets.push_back(Bucket { stored, newest: now, ids: 0, fresh: Vec::new() });
        while self.len() > self.limit + self.spill_limit() - share && self.buckets.len() > 1 {
            let before = self.len();
            self.forget(1);
            self.forgotten += (before - self.len()) as u64;
        }
        self.make_room(share);
    }

    /// The length of a bucket's time slot.
    fn slot(&self) -> i64 {
        (self.window / BUCKETS).max(SECOND)
    }

    /// How many ids are remembered, in memory and on disk.
    fn len(&self) -> usize {
        self.table.len() + self.on_disk().ids
    }

    /// Forgets so many of the oldest buckets.
    fn forget(&mut self, count: usize) {
        self.buckets.drain(..count);
        let oldest = self.buckets.front().map_or(self.next_number, |bucket| bucket.stored.number);
        let on_disk = self.spill.as_mut().map_or(0, |spill| spill.forget(count, oldest));
        if count > on_disk {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let mut live = [false; 256];
        for bucket in self.buckets.iter().skip(self.buckets_on_disk()) {
            if let Some(flag) = live.get_mut(usize::from(tag_of(bucket.stored.number))) {
                *flag = true;
            }
        }
        self.table.sweep(|tag| live.get(usize::from(tag)).copied().unwrap_or(false));
    }

    /// The memory as it will be once the returned appends are on disk.
    pub(crate) fn stage(&self) -> (MemoryMessage, Vec<Append>) {
        let mut appends = Vec::new();
        let mut buckets = Vec::with_capacity(self.buckets.len());
        for bucket in &self.buckets {
            let mut message = bucket.stored.clone();
            message.newest = bucket.newest.0;
            message.ids = bucket.ids;
            if !bucket.fresh.is_empty() {
                let mut bytes = Vec::with_capacity(bucket.fresh.len() * Bucket::<N>::ENTRY_BYTES);
                for (id, value) in &bucket.fresh {
                    bytes.extend_from_slice(id);
                    bytes.extend_from_slice(value);
                }
                message.checksum = crc32c::crc32c_append(message.checksum, &bytes);
                message.length += bytes.len() as u64;
                appends.push(Append { file: self.file(message.number), offset: bucket.stored.length, bytes });
            }
            buckets.push(message);
        }
        (MemoryMessage { next_number: self.next_number, forgotten: self.forgotten, buckets }, appends)
    }

    /// Takes note that what [`Memory::stage`] returned is on disk; nothing came in between.
    pub(crate) fn mark_stored(&mut self, message: &MemoryMessage) {
        for (bucket, stored) in self.buckets.iter_mut().zip(&message.buckets) {
            bucket.stored = stored.clone();
            bucket.fresh = Vec::new();
        }
    }

    /// The file of bucket `number`.
    fn file(&self, number: u64) -> String {
        format!("{}-{number:010}", self.name)
    }

    /// Every file a checkpoint of this memory needs.
    pub(crate) fn files(name: &str, message: &MemoryMessage) -> Vec<String> {
        let filled = message.buckets.iter().filter(|bucket| bucket.length > 0);
        filled.map(|bucket| format!("{name}-{:010}", bucket.number)).collect()
    }

    /// The memory a checkpoint describes; `read` gives the first bytes of a file.
    pub(crate) fn restore(
        &mut self,
        message: &MemoryMessage,
        mut read: impl FnMut(&str, u64) -> Option<Vec<u8>>,
    ) -> Result<(), BadFile> {
        let mut colder = self.begin_restore(message);
        for stored in &message.buckets {
            let file = self.file(stored.number);
            let bytes = if stored.length == 0 { Some(Vec::new()) } else { read(&file, stored.length) };
            let bytes = bytes
                .filter(|b| b.len() as u64 == stored.length && b.len().is_multiple_of(16 + N))
                .filter(|b| crc32c::crc32c(b) == stored.checksum)
                .ok_or(BadFile(file))?;
            let entries = bytes.chunks_exact(16 + N).filter_map(|entry| entry.split_first_chunk::<16>());
            if colder.is_wanted() {
                self.restore_on_disk(&mut colder, stored, entries.map(|(id, _)| *id));
            } else {
                for (id, value) in entries {
                    self.table.put(*id, tag_of(stored.number), value.try_into().unwrap_or([0; N]));
                }
            }
            let newest = Timestamp(stored.newest);
            self.buckets.push_back(Bucket { stored: stored.clone(), newest, ids: stored.ids, fresh: Vec::new() });
        }
        self.next_number = message.next_number;
        self.forgotten = message.forgotten;
        Ok(())
    }
}

/// 1 to 255; far more than the about 42 buckets that are in memory at once, so no two of those share one.
fn tag_of(number: u64) -> u8 {
    u8::try_from(number % 255).unwrap_or(0) + 1
}

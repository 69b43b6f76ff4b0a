//! What is remembered of the last hours: event ids (to drop repeats) and clicks on impressions (to find
//! repeat clicks), in time buckets that are forgotten whole.
//!
//! Guarantees: an id is remembered at least `window` after it came, unless the limit is reached; then the oldest
//! bucket goes early, and how many ids went is counted. Time is the partition's own (never going back), so a
//! replay remembers and forgets the same.
//! On disk each bucket is a file that only grows; a checkpoint names the files with length and checksum, so
//! saving costs what is new, not what is remembered. On crash the bytes beyond that length are cut off.

use std::collections::VecDeque;

use prost::Message;
use shared::time::{SECOND, Timestamp};

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
    buckets: VecDeque<Bucket<N>>,
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
            next_number: 0,
            forgotten: 0,
        }
    }

    /// Remembers at most so many ids from now on.
    pub(crate) fn limit(&mut self, limit: usize) {
        self.limit = limit.max(LIMIT_SHARE);
    }

    /// How many ids were forgotten before their time because of the limit.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Forgets what is older than the window at `now`, which never goes back.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        let is_over = |bucket: &Bucket<N>| bucket.newest.plus(self.window) <= now;
        let over = self.buckets.iter().take_while(|bucket| is_over(bucket)).count();
        if over > 0 {
            self.buckets.drain(..over);
            self.sweep();
        }
    }

    /// Remembers `id` if it is new at `now`; whether it was.
    pub(crate) fn claim(&mut self, id: Id, value: [u8; N], now: Timestamp) -> bool {
        self.begin_bucket(now);
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

    /// How many ids are remembered, and the bytes of their table.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.table.len(), self.table.bytes())
    }

    /// How many ids are not on disk yet.
    #[cfg(test)]
    pub(crate) fn fresh(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.fresh.len()).sum()
    }

    fn begin_bucket(&mut self, now: Timestamp) {
        let slot = now.floor((self.window / BUCKETS).max(SECOND)).0;
        let share = self.limit.div_ceil(LIMIT_SHARE);
        let goes_on = |bucket: &Bucket<N>| bucket.stored.slot == slot && bucket.ids < share as u64;
        if self.buckets.back().is_some_and(goes_on) {
            return;
        }
        let stored = BucketMessage { number: self.next_number, slot, newest: now.0, length: 0, checksum: 0, ids: 0 };
        self.next_number += 1;
        self.buckets.push_back(Bucket { stored, newest: now, ids: 0, fresh: Vec::new() });
        while self.table.len() > self.limit - share && self.buckets.len() > 1 {
            let before = self.table.len();
            self.buckets.pop_front();
            self.sweep();
            self.forgotten += (before - self.table.len()) as u64;
        }
    }

    fn sweep(&mut self) {
        let mut live = [false; 256];
        for bucket in &self.buckets {
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
        for stored in &message.buckets {
            let file = self.file(stored.number);
            let bytes = if stored.length == 0 { Some(Vec::new()) } else { read(&file, stored.length) };
            let bytes = bytes
                .filter(|b| b.len() as u64 == stored.length && b.len().is_multiple_of(16 + N))
                .filter(|b| crc32c::crc32c(b) == stored.checksum)
                .ok_or(BadFile(file))?;
            for entry in bytes.chunks_exact(16 + N) {
                if let Some((id, value)) = entry.split_first_chunk::<16>() {
                    let value = value.try_into().unwrap_or([0; N]);
                    self.table.put(*id, tag_of(stored.number), value);
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

/// 1 to 255; far more than the about 42 buckets that live at once, so no two of those share one.
fn tag_of(number: u64) -> u8 {
    u8::try_from(number % 255).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::table::id_of;

    const WINDOW: i64 = 24 * 60 * SECOND;

    fn disk(memory: &mut Memory<8>, files: &mut BTreeMap<String, Vec<u8>>) -> MemoryMessage {
        let (message, appends) = memory.stage();
        for append in appends {
            let file = files.entry(append.file).or_default();
            file.truncate(usize::try_from(append.offset).unwrap());
            file.extend(append.bytes);
        }
        memory.mark_stored(&message);
        message
    }

    fn read<'a>(files: &'a BTreeMap<String, Vec<u8>>) -> impl FnMut(&str, u64) -> Option<Vec<u8>> + 'a {
        |file, length| files.get(file)?.get(..usize::try_from(length).ok()?).map(<[u8]>::to_vec)
    }

    proptest! {
        #[test]
        fn an_id_is_remembered_for_its_window_and_forgotten_a_bucket_later(
            steps in prop::collection::vec((0..40_u8, 0..600_i64), 1..300),
        ) {
            let mut memory = Memory::<0>::new("ids", WINDOW, 1_000_000);
            let mut claimed = BTreeMap::<u8, Timestamp>::new();
            let mut now = Timestamp(1_000 * SECOND);
            for (n, seconds) in steps {
                now = now.plus(seconds * SECOND);
                memory.advance(now);
                let age = claimed.get(&n).map(|at| now.since(*at));
                let is_new = memory.claim(id_of(&n.to_string()), [], now);
                match age {
                    Some(age) if age < WINDOW => prop_assert!(!is_new),
                    Some(age) if age < WINDOW + WINDOW / BUCKETS => {}
                    _ => prop_assert!(is_new),
                }
                if is_new {
                    claimed.insert(n, now);
                }
            }
            prop_assert_eq!(memory.forgotten(), 0);
        }

        #[test]
        fn a_restored_memory_answers_like_the_one_that_was_saved(
            before in prop::collection::vec((0..60_u8, 0..300_i64), 0..200),
            after in prop::collection::vec((0..60_u8, 0..300_i64), 0..100),
            saves in prop::collection::vec(0..200_usize, 0..5),
        ) {
            let mut files = BTreeMap::new();
            let mut memory = Memory::<8>::new("clicks", WINDOW, 64);
            let mut now = Timestamp(0);
            for (i, (n, seconds)) in before.iter().enumerate() {
                now = now.plus(seconds * SECOND);
                memory.advance(now);
                memory.put(id_of(&n.to_string()), now.0.to_le_bytes(), now);
                if saves.contains(&i) {
                    disk(&mut memory, &mut files);
                }
            }
            let message = disk(&mut memory, &mut files);
            prop_assert_eq!(memory.fresh(), 0);
            // What a crash during a later save leaves behind.
            for file in files.values_mut() {
                file.extend([7; 5]);
            }
            let mut restored = Memory::<8>::new("clicks", WINDOW, 64);
            restored.restore(&message, read(&files)).unwrap();
            for (n, seconds) in after {
                now = now.plus(seconds * SECOND);
                for m in [&mut memory, &mut restored] {
                    m.advance(now);
                    m.put(id_of(&n.to_string()), now.0.to_le_bytes(), now);
                }
                for n in 0..60_u8 {
                    prop_assert_eq!(memory.get(&id_of(&n.to_string())), restored.get(&id_of(&n.to_string())));
                }
            }
            prop_assert_eq!(memory.stage().0, restored.stage().0);
        }
    }

    #[test]
    fn beyond_the_limit_the_oldest_are_forgotten_and_counted() {
        let mut memory = Memory::<0>::new("ids", WINDOW, 160);
        for n in 0..10_000_u32 {
            assert!(memory.claim(id_of(&n.to_string()), [], Timestamp(0)));
            assert!(memory.table.len() <= 160);
        }
        assert_eq!(memory.table.len() as u64 + memory.forgotten(), 10_000);
        assert!(!memory.claim(id_of("9999"), [], Timestamp(0)));
        assert!(memory.claim(id_of("0"), [], Timestamp(0)));
    }

    #[test]
    fn one_id_that_comes_for_ever_takes_one_place_and_few_buckets() {
        let mut memory = Memory::<8>::new("clicks", WINDOW, 160);
        for n in 0..100_000 {
            memory.put(id_of("a"), [1; 8], Timestamp(n * SECOND / 100));
        }
        assert_eq!((memory.table.len(), memory.forgotten()), (1, 0));
        assert!(memory.buckets.len() <= 25, "{}", memory.buckets.len());
    }

    #[test]
    fn a_damaged_or_short_file_is_refused() {
        let mut files = BTreeMap::new();
        let mut memory = Memory::<8>::new("clicks", WINDOW, 64);
        memory.put(id_of("a"), [1; 8], Timestamp(0));
        let message = disk(&mut memory, &mut files);
        let whole = files.clone();
        files.values_mut().for_each(|f| f[3] ^= 1);
        assert!(Memory::<8>::new("clicks", WINDOW, 64).restore(&message, read(&files)).is_err());
        files = whole;
        files.values_mut().for_each(|f| f.truncate(10));
        assert!(Memory::<8>::new("clicks", WINDOW, 64).restore(&message, read(&files)).is_err());
    }
}

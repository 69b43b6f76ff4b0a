//! The dedup store of a single machine: in memory, sharded, in buckets by time that are dropped whole.
//! Bounded: past `max_entries` the oldest bucket goes early, and is counted. A remembered id takes 28 bytes in a
//! closed bucket (seven eighths of them) and about twice that in the open one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use shared::event::Fingerprint;
use shared::time::Timestamp;
use tokio::sync::Notify;

use super::seed::Seed;
use super::{Claim, DedupError, DedupStore, Key, Settings, Token, Wanted};

const SHARDS: usize = 64;
/// A bucket is closed after this part of the window, or of the shard's room.
const BUCKETS: u64 = 8;

/// The store.
#[derive(Debug)]
pub struct MemoryDedup {
    window: i64,
    lease: i64,
    entries_per_shard: usize,
    shards: Vec<Slot>,
    claims: AtomicU64,
    forgotten: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    shard: Mutex<Shard>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Shard {
    pending: HashMap<Key, Token, Seed>,
    open: HashMap<Key, Seen, Seed>,
    opened_at: Timestamp,
    closed: VecDeque<Closed>,
    closed_entries: usize,
}

/// A bucket that takes no more: sorted by key.
#[derive(Debug)]
struct Closed {
    opened_at: Timestamp,
    newest: Timestamp,
    entries: Box<[(Key, Seen)]>,
}

/// A durable event: half of its fingerprint, and milliseconds from its bucket's opening to its claim.
#[derive(Debug, Clone, Copy)]
struct Seen {
    fingerprint: [u8; 8],
    after: u32,
}

const _: () = assert!(size_of::<(Key, Seen)>() == 28);

impl Seen {
    fn at(self, opened_at: Timestamp) -> Timestamp {
        opened_at.plus(i64::from(self.after) * 1_000)
    }
}

fn half(fingerprint: Fingerprint) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = fingerprint.0;
    [a, b, c, d, e, f, g, h]
}

impl MemoryDedup {
    /// An empty store.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let per_shard = settings.max_entries / SHARDS as u64;
        Self {
            window: settings.window.as_micros(),
            lease: settings.lease.as_micros(),
            entries_per_shard: usize::try_from(per_shard).unwrap_or(usize::MAX).max(1),
            shards: std::iter::repeat_with(Slot::default).take(SHARDS).collect(),
            claims: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    fn slot(&self, key: Key) -> Option<&Slot> {
        self.shards.get(usize::from(key.0.first().copied()?) % SHARDS)
    }

    fn claim_one(&self, wanted: &Wanted, now: Timestamp) -> Option<Claim> {
        let mut shard = lock(self.slot(wanted.key)?);
        shard.expire(now, self.window);
        if let Some((seen, opened_at)) = shard.find(wanted.key).filter(|(s, o)| now.since(s.at(*o)) < self.window) {
            let same_payload = seen.fingerprint == half(wanted.fingerprint);
            return Some(Claim::Seen { first_seen: seen.at(opened_at), same_payload });
        }
        let place = match shard.pending.entry(wanted.key) {
            Entry::Occupied(held) if now.since(held.get().claimed_at) < self.lease => return Some(Claim::Pending),
            place => place,
        };
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        let token = Token { key: wanted.key, fingerprint: wanted.fingerprint, claimed_at: now, number };
        place.insert_entry(token);
        Some(Claim::New(token))
    }

    fn settle(&self, token: &Token, durable: bool) {
        let Some(slot) = self.slot(token.key) else { return };
        let mut shard = lock(slot);
        if shard.pending.get(&token.key).is_some_and(|held| held.number == token.number) {
            shard.pending.remove(&token.key);
        }
        if durable {
            let forgotten = shard.remember(token, self.window, self.entries_per_shard);
            self.forgotten.fetch_add(forgotten, Ordering::Relaxed);
        }
        drop(shard);
        slot.changed.notify_waiters();
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Shard> {
    slot.shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn find(&self, key: Key) -> Option<(Seen, Timestamp)> {
        let open = self.open.get(&key).map(|seen| (*seen, self.opened_at));
        open.or_else(|| {
            self.closed.iter().rev().find_map(|bucket| {
                let place = bucket.entries.binary_search_by_key(&key, |(k, _)| *k).ok()?;
                bucket.entries.get(place).map(|(_, seen)| (*seen, bucket.opened_at))
            })
        })
    }

    fn expire(&mut self, now: Timestamp, window: i64) {
        while self.closed.front().is_some_and(|oldest| now.since(oldest.newest) >= window) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> u64 {
        let dropped = self.closed.pop_front().map_or(0, |bucket| bucket.entries.len());
        self.closed_entries -= dropped;
        dropped as u64
    }

    /// Adds a durable event; returns how many were forgotten early to make room.
    fn remember(&mut self, token: &Token, window: i64, room: usize) -> u64 {
        let slice = i64::try_from(BUCKETS).map_or(window, |n| (window / n).max(1));
        let bucket_room = (room / usize::try_from(BUCKETS).unwrap_or(1)).max(1);
        let age = token.claimed_at.since(self.opened_at);
        if self.open.is_empty() {
            self.opened_at = token.claimed_at;
        } else if age >= slice || self.open.len() >= bucket_room {
            self.close(token.claimed_at);
        }
        let mut forgotten = 0;
        while self.closed_entries + self.open.len() >= room && !self.closed.is_empty() {
            forgotten += self.drop_oldest();
        }
        let after = u32::try_from(token.claimed_at.since(self.opened_at) / 1_000).unwrap_or(0);
        self.open.entry(token.key).or_insert(Seen { fingerprint: half(token.fingerprint), after });
        forgotten
    }

    /// Closes the open bucket and opens one at `now`.
    fn close(&mut self, now: Timestamp) {
        let mut entries: Vec<(Key, Seen)> = std::mem::take(&mut self.open).into_iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let newest = entries.iter().map(|(_, seen)| seen.at(self.opened_at)).max().unwrap_or(self.opened_at);
        self.closed_entries += entries.len();
        self.closed.push_back(Closed { opened_at: self.opened_at, newest, entries: entries.into_boxed_slice() });
        self.opened_at = now;
    }
}

#[async_trait]
impl DedupStore for MemoryDedup {
    async fn claim(&self, wanted: &[Wanted], now: Timestamp) -> Result<Vec<Claim>, DedupError> {
        let claims: Option<Vec<Claim>> = wanted.iter().map(|w| self.claim_one(w, now)).collect();
        claims.ok_or_else(|| DedupError("no shard for a key".to_owned()))
    }

    async fn confirm(&self, tokens: &[Token]) -> Result<(), DedupError> {
        tokens.iter().for_each(|token| self.settle(token, true));
        Ok(())
    }

    async fn release(&self, tokens: &[Token]) -> Result<(), DedupError> {
        tokens.iter().for_each(|token| self.settle(token, false));
        Ok(())
    }

    async fn settled(&self, key: Key) {
        let Some(slot) = self.slot(key) else { return };
        loop {
            // Listening begins before looking, so that no change falls between.
            let mut changed = std::pin::pin!(slot.changed.notified());
            changed.as_mut().enable();
            if !lock(slot).pending.contains_key(&key) {
                return;
            }
            changed.await;
        }
    }

    fn size(&self) -> (u64, u64) {
        let count = |slot: &Slot| {
            let shard = lock(slot);
            (shard.closed_entries + shard.open.len()) as u64
        };
        (self.shards.iter().map(count).sum(), self.forgotten.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;

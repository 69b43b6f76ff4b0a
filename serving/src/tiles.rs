//! Shared answers: whoever asks the same within a moment gets the same answer, computed once.
//! Guarantees: one computation per question at a time, however many ask (requirement Q5); when the store is away
//! the last good answer is given, marked stale (B12). Bounded by [`MAX_TILES`] and [`MAX_TILES_BYTES`].
//! Never: decides who may ask; the key must hold all that the answer depends on, the tenant too.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::config::Span;
use shared::http::problem::Problem;
use shared::time::Timestamp;

use crate::problems::ReportError;

/// Questions remembered.
const MAX_TILES: usize = 1_024;
/// Bytes of answers remembered; the least recently asked go first.
const MAX_TILES_BYTES: usize = 64 << 20;

/// One rendered answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    /// JSON.
    pub(crate) body: Bytes,
    /// Names the body, quoted.
    pub(crate) etag: String,
}

impl Tile {
    pub(crate) fn new(value: &impl Serialize) -> Result<Self, ReportError> {
        Ok(Self::of_bytes(serde_json::to_vec(value)?.into()))
    }

    pub(crate) fn of_bytes(body: Bytes) -> Self {
        let hash = Sha256::digest(&body);
        let short: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
        Self { body, etag: format!("\"{short}\"") }
    }

    /// The same answer, marked as of an earlier moment.
    fn as_stale(&self) -> Self {
        let Ok(serde_json::Value::Object(mut body)) = serde_json::from_slice(&self.body) else { return self.clone() };
        body.insert("stale".to_owned(), true.into());
        Self::of_bytes(serde_json::Value::Object(body).to_string().into())
    }
}

#[derive(Debug, Default)]
struct Slot {
    answer: tokio::sync::Mutex<Option<(Timestamp, Arc<Tile>)>>,
}

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    asked_at: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    asked: u64,
    bytes: usize,
}

/// The shared answers.
#[derive(Debug)]
pub(crate) struct Tiles {
    ttl: Span,
    table: Mutex<Table>,
}

impl Tiles {
    pub(crate) fn new(ttl: Span) -> Self {
        Self { ttl, table: Mutex::new(Table::default()) }
    }

    /// The answer to `key`, shared with everybody who asks within the time to live.
    pub(crate) async fn get<F>(&self, key: String, now: Timestamp, make: F) -> Result<Arc<Tile>, Problem>
    where
        F: Future<Output = Result<Tile, ReportError>>,
    {
        let slot = self.slot(&key);
        // Held while the answer is made: the others wait for it instead of asking the store as well. Whoever
        // gives up lets the next one in.
        let mut answer = slot.answer.lock().await;
        let fresh = |made_at: Timestamp| (0..self.ttl.as_micros()).contains(&now.since(made_at));
        if let Some((_, tile)) = answer.as_ref().filter(|(made_at, _)| fresh(*made_at)) {
            return Ok(Arc::clone(tile));
        }
        match make.await {
            Ok(tile) => {
                let tile = Arc::new(tile);
                *answer = Some((now, Arc::clone(&tile)));
                self.weigh(&key, tile.body.len());
                Ok(tile)
            }
            Err(error) => match answer.as_ref() {
                Some((_, last_good)) if error.is_outage() => {
                    tracing::warn!(%error, "the serving store is away: the last good answer is given, marked stale");
                    Ok(Arc::new(last_good.as_stale()))
                }
                _ => Err(error.into()),
            },
        }
    }

    fn slot(&self, key: &str) -> Arc<Slot> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.asked += 1;
        let asked_at = table.asked;
        if let Some(entry) = table.entries.get_mut(key) {
            entry.asked_at = asked_at;
            return Arc::clone(&entry.slot);
        }
        table.make_room(MAX_TILES - 1, MAX_TILES_BYTES);
        let slot = Arc::new(Slot::default());
        table.entries.insert(key.to_owned(), Entry { slot: Arc::clone(&slot), asked_at, bytes: 0 });
        slot
    }

    fn weigh(&self, key: &str, bytes: usize) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.entries.get_mut(key) else { return };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        table.bytes = table.bytes - before + bytes;
        table.make_room(MAX_TILES, MAX_TILES_BYTES);
    }
}

impl Table {
    fn make_room(&mut self, max_entries: usize, max_bytes: usize) {
        while self.entries.len() > max_entries || (self.bytes > max_bytes && self.entries.len() > 1) {
            let oldest = self.entries.iter().min_by_key(|(_, e)| e.asked_at).map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| self.entries.remove(&key)) else { return };
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use shared::serving_store::StoreError;

    use super::*;

    fn tiles() -> Tiles {
        Tiles::new(Span::secs(1))
    }

    fn tile(n: u32) -> Tile {
        Tile::new(&serde_json::json!({ "n": n, "stale": false })).unwrap()
    }

    fn outage() -> ReportError {
        ReportError::Store(StoreError::Unavailable { doing: "testing".to_owned(), why: "off".to_owned() })
    }

    #[tokio::test]
    async fn a_herd_asks_the_store_once() {
        let (tiles, made) = (Arc::new(tiles()), Arc::new(AtomicU32::new(0)));
        let askers = (0..100).map(|_| {
            let (tiles, made) = (Arc::clone(&tiles), Arc::clone(&made));
            tokio::spawn(async move {
                let make = async {
                    tokio::task::yield_now().await;
                    Ok(tile(made.fetch_add(1, Ordering::SeqCst)))
                };
                tiles.get("q".to_owned(), Timestamp(5), make).await.unwrap().body.clone()
            })
        });
        let answers = futures::future::join_all(askers).await;
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert!(answers.into_iter().all(|a| a.unwrap() == tile(0).body));
    }

    #[tokio::test]
    async fn an_answer_lives_as_long_as_its_time_and_only_for_its_question() {
        let tiles = tiles();
        let ask =
            async |key: &str, at, n| tiles.get(key.to_owned(), Timestamp(at), async { Ok(tile(n)) }).await.unwrap();
        assert_eq!(*ask("a", 0, 1).await, tile(1));
        assert_eq!(*ask("a", 999_999, 2).await, tile(1));
        assert_eq!(*ask("b", 999_999, 3).await, tile(3));
        assert_eq!(*ask("a", 1_000_000, 4).await, tile(4));
        assert_eq!(*ask("a", 0, 5).await, tile(5), "a clock that went back does not keep an answer for ever");
    }

    #[tokio::test]
    async fn in_an_outage_the_last_good_answer_is_given_as_stale_and_a_bug_is_not_hidden() {
        let tiles = tiles();
        let none = tiles.get("q".to_owned(), Timestamp(0), async { Err(outage()) }).await.unwrap_err();
        assert_eq!(none.status(), 503);
        tiles.get("q".to_owned(), Timestamp(0), async { Ok(tile(7)) }).await.unwrap();
        let later = Timestamp(5_000_000);
        let stale = tiles.get("q".to_owned(), later, async { Err(outage()) }).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&stale.body).unwrap();
        assert_eq!((body["n"].as_u64(), body["stale"].as_bool()), (Some(7), Some(true)));
        let corrupt = async { Err(ReportError::Store(StoreError::Corrupt("x".to_owned()))) };
        assert_eq!(tiles.get("q".to_owned(), later, corrupt).await.unwrap_err().status(), 500);
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_least_recently_asked_go_first() {
        let tiles = tiles();
        let big = || async { Ok(Tile::of_bytes(Bytes::from(vec![b'x'; MAX_TILES_BYTES / 4]))) };
        for n in 0..6 {
            tiles.get(format!("big{n}"), Timestamp(0), big()).await.unwrap();
            tiles.get("kept".to_owned(), Timestamp(0), async { Ok(tile(1)) }).await.unwrap();
        }
        for n in 0..2 * MAX_TILES {
            tiles.get(format!("small{n}"), Timestamp(0), async { Ok(tile(1)) }).await.unwrap();
            tiles.get("kept".to_owned(), Timestamp(0), async { Ok(tile(9)) }).await.unwrap();
        }
        let kept = tiles.get("kept".to_owned(), Timestamp(0), async { Ok(tile(2)) }).await.unwrap();
        assert_eq!(*kept, tile(1), "what is asked often stays");
        let table = tiles.table.lock().unwrap();
        assert!(table.entries.len() <= MAX_TILES && table.bytes <= MAX_TILES_BYTES);
        assert_eq!(table.bytes, table.entries.values().map(|e| e.bytes).sum::<usize>());
    }
}

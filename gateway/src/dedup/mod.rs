//! The edge's memory of event ids: a port, because a fleet shares one store and a single machine needs none.
//! A claim becomes final only when the event is durable (decisions.md D-2): claim → append → confirm, or release.
//! Guarantees: of two requests with one id at most one holds the claim; a claim whose holder failed is free again.
//! On crash or loss the store is simply empty: later layers deduplicate again, exactly.
//! Never: the last word on a duplicate, nor a reason to lose an event (a failing store lets everything pass).

mod memory;
#[cfg(feature = "redis")]
pub mod redis;
mod seed;
mod settings;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use shared::error::ErrorKind;
use shared::event::Fingerprint;
use shared::id::EventId;
use shared::time::Timestamp;

pub use memory::MemoryDedup;
pub use settings::Settings;

/// An event id as the store keeps it: 16 bytes of its SHA-256, so that nobody can make two ids one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// The key of an id.
    #[must_use]
    pub fn of(id: &EventId) -> Self {
        let mut first = [0; 16];
        first.iter_mut().zip(Sha256::digest(id.as_str())).for_each(|(to, from)| *to = from);
        Self(first)
    }
}

/// What a claim is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The event's id.
    pub key: Key,
    /// The event's payload.
    pub fingerprint: Fingerprint,
}

/// A held claim, to be confirmed or released. One that is neither is free again after the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Token {
    /// The id claimed.
    pub key: Key,
    /// The payload it was claimed for.
    pub fingerprint: Fingerprint,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// Which claim this is.
    pub number: u64,
}

/// The answer to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// Nobody had it: it is yours until you confirm or release it.
    New(Token),
    /// The id is taken by a durable event.
    Seen {
        /// When that event was claimed.
        first_seen: Timestamp,
        /// Whether it had the same payload.
        same_payload: bool,
    },
    /// Somebody else holds it and has not finished: wait for [`DedupStore::settled`] and claim again.
    Pending,
}

/// The store could not answer.
#[derive(Debug, thiserror::Error)]
#[error("dedup store: {0}")]
pub struct DedupError(pub String);

impl DedupError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

/// A store of claims.
#[async_trait]
pub trait DedupStore: Send + Sync {
    /// Claims every wanted id at `now`, answers in order. Never waits for another claim. An id that is wanted
    /// twice is `New` once and `Pending` after that.
    async fn claim(&self, wanted: &[Wanted], now: Timestamp) -> Result<Vec<Claim>, DedupError>;

    /// Makes claims final: their events are durable.
    async fn confirm(&self, tokens: &[Token]) -> Result<(), DedupError>;

    /// Gives claims back: their events are not durable.
    async fn release(&self, tokens: &[Token]) -> Result<(), DedupError>;

    /// Resolves when no claim on `key` is pending (at once if none is). May never resolve if the holder died:
    /// give it a time limit.
    async fn settled(&self, key: Key);

    /// How many ids are remembered, and how many were forgotten early for want of room, ever.
    fn size(&self) -> (u64, u64);
}

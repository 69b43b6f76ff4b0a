//! Claim → append → confirm: the one way an event gets into the log.
//! Guarantees: nothing is answered before it is durable; all events of a request are one append; an event whose
//! append failed holds no claim, so its retry counts (decisions.md D-2). A request runs to its end even when its
//! client is gone. On crash: what was appended is in the log, what was not was never acknowledged.
//! Never: loses an event because the dedup store is away (it then lets everything pass; later layers are exact).

use std::sync::Arc;

use bytes::Bytes;
use shared::event::{Event, RejectReason, Rejection};
use shared::event_log::{Delivered, EventLog, NewRecord};
use shared::id::EventId;
use shared::telemetry::metric_names::{GATEWAY_DEDUP_ERRORS, GATEWAY_DEDUP_PASSED, GATEWAY_EVENTS};
use shared::time::{Clock, Timestamp};
use shared::verdict::InvalidCode;
use shared::wire::encode_placed_event_to;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::dedup::{Claim, DedupStore, Key, Token, Wanted};
use crate::hot::{HotAds, SaltMap};
use crate::refusals::{Refusal, Refusals};
use crate::settings::Settings;
use crate::to_its_end::ToItsEnd;

/// How often a request waits for other holders of its ids before it gives up.
const MAX_ROUNDS: usize = 16;
/// Bytes that a record mostly fits into.
const USUAL_RECORD_BYTES: usize = 384;

/// One item of a request, judged.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event to capture.
    Event(Box<Event>),
    /// Not an event; under this id, if it gave one.
    Refused(Option<EventId>, Refusal),
    /// Somebody who wants to leave no trace.
    OptedOut,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable, perhaps as invalid traffic.
    Accepted { invalid: Option<InvalidCode> },
    /// An event with this id and payload is durable already; this one is not kept.
    Duplicate { first_seen: Timestamp },
    /// An event with this id and another payload is durable already; this one is kept too, so that batch judges
    /// (contract 2.2): it will not be billed.
    Conflict { first_seen: Timestamp },
    /// It is not an event.
    Refused(Rejection),
    /// It was counted and nothing else.
    OptedOut,
}

impl Outcome {
    fn label(&self) -> &'static str {
        match self {
            Self::Accepted { .. } | Self::Conflict { .. } => "accepted",
            Self::Duplicate { .. } => RejectReason::Duplicate.as_str(),
            Self::Refused(rejection) => rejection.reason.as_str(),
            Self::OptedOut => RejectReason::OptedOut.as_str(),
        }
    }
}

/// An item that is done with: under which id, and what became of it.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) event_id: Option<EventId>,
    pub(crate) outcome: Outcome,
}

/// The request could not be made durable; nothing of it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unavailable(pub(crate) String);

/// The way into the log.
pub(crate) struct Capture {
    pub(crate) events: Arc<dyn EventLog>,
    pub(crate) dedup: Arc<dyn DedupStore>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) hot: HotAds,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) running: TaskTracker,
}

impl Capture {
    /// Captures the items of one request; outcomes in their order.
    pub(crate) async fn submit(self: &Arc<Self>, items: Vec<Item>) -> Result<Vec<Settled>, Unavailable> {
        let count = items.len() as u64;
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            count_event("unavailable", count);
            return Err(Unavailable(format!("{} requests are waiting already", self.settings.max_in_flight)));
        };
        let this = Arc::clone(self);
        let work = async move {
            let result = this.run(items).await;
            match &result {
                Ok(settled) => count_all(settled),
                Err(_) => count_event("unavailable", count),
            }
            drop(slot);
            result
        };
        // A client that hangs up must not stop it between append and confirm.
        match timeout(self.settings.append_timeout.0, ToItsEnd::new(work, &self.running)).await {
            Ok(result) => result,
            Err(_) => Err(Unavailable("the log did not answer in time".to_owned())),
        }
    }

    async fn run(&self, items: Vec<Item>) -> Result<Vec<Settled>, Unavailable> {
        let mut settled: Vec<Option<Settled>> = Vec::with_capacity(items.len());
        let (mut waiting, mut refused) = (Vec::with_capacity(items.len()), Vec::new());
        for (place, item) in items.into_iter().enumerate() {
            settled.push(match item {
                Item::Event(event) => {
                    waiting.push((place, event));
                    None
                }
                Item::Refused(event_id, refusal) => {
                    let outcome = Outcome::Refused(refusal.rejection.clone());
                    refused.push(refusal);
                    Some(Settled { event_id, outcome })
                }
                Item::OptedOut => Some(Settled { event_id: None, outcome: Outcome::OptedOut }),
            });
        }
        self.settle_all(waiting, &mut settled).await?;
        self.refusals.keep(&refused).await.map_err(|e| {
            tracing::warn!(error = %e, "cannot keep refused events: their senders are told to retry");
            Unavailable("the log of refused events is away".to_owned())
        })?;
        let settled: Option<Vec<Settled>> = settled.into_iter().collect();
        let settled = settled.ok_or_else(|| Unavailable("an event was left without an outcome".to_owned()))?;
        let number = |wanted: fn(&Outcome) -> bool| settled.iter().filter(|s| wanted(&s.outcome)).count() as u64;
        self.refusals.count(RejectReason::Duplicate, number(|o| matches!(o, Outcome::Duplicate { .. })));
        self.refusals.count(RejectReason::OptedOut, number(|o| matches!(o, Outcome::OptedOut)));
        Ok(settled)
    }

    /// Rounds of claims: what another request holds is waited for while holding nothing, so that two requests
    /// can never wait for each other.
    async fn settle_all(
        &self,
        mut waiting: Vec<(usize, Box<Event>)>,
        settled: &mut [Option<Settled>],
    ) -> Result<(), Unavailable> {
        for _ in 0..MAX_ROUNDS {
            if waiting.is_empty() {
                return Ok(());
            }
            waiting = self.round(waiting, settled).await?;
            if let Some((_, event)) = waiting.first() {
                let free = self.dedup.settled(Key::of(&event.event_id));
                if timeout(self.settings.append_timeout.0, free).await.is_err() {
                    break;
                }
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        Err(Unavailable("another request with the same event id is not finished".to_owned()))
    }

    /// Claims, appends what is ours, confirms; returns what others hold.
    async fn round(
        &self,
        events: Vec<(usize, Box<Event>)>,
        settled: &mut [Option<Settled>],
    ) -> Result<Vec<(usize, Box<Event>)>, Unavailable> {
        let mut claims = self.claim(&events).await.into_iter();
        let map = self.hot.map();
        self.hot.pass(events.iter().map(|(_, event)| &event.ad_id));
        let (mut tokens, mut times) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        let (mut records, mut held) = (Records::for_events(events.len()), Vec::new());
        for (place, event) in events {
            // Forged events never claim an id (contract 2.2).
            let claim = if is_forged(&event) { None } else { claims.next() };
            let outcome = match claim {
                Some(Claim::Pending) => {
                    held.push((place, event));
                    continue;
                }
                Some(Claim::Seen { first_seen, same_payload: true }) => Outcome::Duplicate { first_seen },
                Some(Claim::Seen { first_seen, same_payload: false }) => Outcome::Conflict { first_seen },
                Some(Claim::New(token)) => {
                    tokens.push(token);
                    Outcome::Accepted { invalid: event.invalid }
                }
                None => Outcome::Accepted { invalid: event.invalid },
            };
            if !matches!(outcome, Outcome::Duplicate { .. }) {
                records.add(&event, &map, self.events.partitions());
                times.push(event.ingest_time);
            }
            if let Some(slot) = settled.get_mut(place) {
                *slot = Some(Settled { event_id: Some(event.event_id), outcome });
            }
        }
        let delivered = self.append(records.all(self.clock.now()), &tokens).await?;
        self.refusals.accepted(&times, &delivered);
        self.hot.appended(&delivered);
        Ok(held)
    }

    /// One claim for every event that is not forged; none at all when the store is away (fail open).
    async fn claim(&self, events: &[(usize, Box<Event>)]) -> Vec<Claim> {
        let wanted: Vec<Wanted> = events
            .iter()
            .filter(|(_, event)| !is_forged(event))
            .map(|(_, event)| Wanted { key: Key::of(&event.event_id), fingerprint: event.fingerprint })
            .collect();
        match self.dedup.claim(&wanted, self.clock.now()).await {
            Ok(claims) => claims,
            Err(error) => {
                // The store says so louder, once.
                tracing::debug!(%error, "dedup store is away: events pass without it");
                metrics::counter!(GATEWAY_DEDUP_ERRORS).increment(1);
                metrics::counter!(GATEWAY_DEDUP_PASSED).increment(wanted.len() as u64);
                Vec::new()
            }
        }
    }

    async fn append(&self, records: Vec<NewRecord>, tokens: &[Token]) -> Result<Vec<Delivered>, Unavailable> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let appended = self.events.append(records).await;
        let settled = match &appended {
            Ok(_) => self.dedup.confirm(tokens).await,
            Err(_) => self.dedup.release(tokens).await,
        };
        if let Err(error) = settled {
            // Not confirmed: a retry passes and later layers drop it. Not released: the lease ends it.
            tracing::debug!(%error, "a dedup claim was not settled");
            metrics::counter!(GATEWAY_DEDUP_ERRORS).increment(1);
        }
        appended.map_err(|error| {
            tracing::warn!(%error, "cannot append: senders are told to retry");
            Unavailable("the event log is away".to_owned())
        })
    }
}

/// The records of one append, in one piece of memory.
struct Records {
    bytes: Vec<u8>,
    /// Of each the partition, and where it ends.
    ends: Vec<(u32, usize)>,
}

impl Records {
    fn for_events(number: usize) -> Self {
        let bytes = number.saturating_mul(USUAL_RECORD_BYTES);
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(number) }
    }

    fn add(&mut self, event: &Event, map: &SaltMap, partitions: u32) {
        encode_placed_event_to(event, map.version(), &mut self.bytes);
        self.ends.push((map.partition_of(event, partitions), self.bytes.len()));
    }

    /// The records, appended at `append_time`.
    fn all(self, append_time: Timestamp) -> Vec<NewRecord> {
        let mut rest = Bytes::from(self.bytes);
        let mut start = 0;
        let record = |(partition, end): (u32, usize)| {
            let payload = rest.split_to(end - start);
            start = end;
            NewRecord { partition, append_time, payload }
        };
        self.ends.into_iter().map(record).collect()
    }
}

fn is_forged(event: &Event) -> bool {
    event.invalid.is_some_and(InvalidCode::is_forged)
}

/// Counts the outcomes of a request: neighbours mostly have the same.
fn count_all(settled: &[Settled]) {
    for same in settled.chunk_by(|one, next| one.outcome.label() == next.outcome.label()) {
        same.first().into_iter().for_each(|first| count_event(first.outcome.label(), same.len() as u64));
    }
}

/// Counts events by outcome.
pub(crate) fn count_event(outcome: &'static str, number: u64) {
    metrics::counter!(GATEWAY_EVENTS, "outcome" => outcome).increment(number);
}

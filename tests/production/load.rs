//! Traffic in batches: honest and dishonest events as NDJSON, sent again until they are answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clickledger::client::Client;
use clickledger::simulate::{Item, Label, Live};
use clickledger::wiring::Parts;
use serde_json::Value;
use shared::time::{Clock, SystemClock};

use crate::kill::{Journal, traffic};

/// How often a connection sends.
const EVERY: Duration = Duration::from_millis(250);

/// What one connection sends at a time, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    items: u64,
}

impl Pace {
    /// The share of one of `connections` in `rate` events a second.
    pub(super) fn of(rate: u64, connections: u64) -> Self {
        let per_second = u64::try_from(Duration::from_secs(1).as_millis() / EVERY.as_millis()).unwrap();
        Self { items: (rate / connections / per_second).max(1) }
    }
}

/// Sends until told to stop; what is on its way then is finished, or its fate is unknown.
pub(super) async fn client(parts: Parts, gateway: SocketAddr, seed: u64, pace: Pace, stop: Arc<AtomicBool>) -> Journal {
    let mut live = Live::new(traffic(seed), parts.event_signer().unwrap());
    let mut connection = Client::new(gateway);
    let clock = SystemClock::default();
    let mut journal = Journal::default();
    let mut due = clock.now();
    while !stop.load(Ordering::Relaxed) {
        let items: Vec<Item> = (0..pace.items).map(|_| live.next_at(clock.now())).collect();
        send(&mut connection, &items, &mut journal, &stop).await;
        due = due.plus(i64::try_from(EVERY.as_micros()).unwrap());
        let early = due.since(clock.now());
        shared::time::sleep(Duration::from_micros(u64::try_from(early).unwrap_or(0))).await;
    }
    journal
}

async fn send(connection: &mut Client, items: &[Item], journal: &mut Journal, stop: &AtomicBool) {
    let honest: BTreeSet<&str> = items
        .iter()
        .filter(|item| !matches!(item.label, Label::Forged | Label::Poison))
        .filter_map(|item| item.event_id.as_deref())
        .collect();
    journal.sent.extend(honest.iter().map(|id| (*id).to_owned()));
    let body = Bytes::from(items.iter().map(|i| i.body.as_slice()).collect::<Vec<_>>().join(&b"\n"[..]));
    let kind = [("content-type", "application/x-ndjson")];
    loop {
        match connection.send("POST", "/v1/events", &kind, body.clone()).await {
            Ok(answer) if answer.status == 202 || answer.status == 207 => {
                let taken = taken(&answer.body);
                let refused: Vec<_> = honest.iter().filter(|id| !taken.contains(**id)).collect();
                assert!(refused.is_empty(), "{refused:?} refused: {}", String::from_utf8_lossy(&answer.body));
                journal.acknowledged.extend(honest.iter().map(|id| (*id).to_owned()));
                return;
            }
            // It may be taken in part: the same again is safe.
            Ok(answer) => assert!(
                answer.status == 503 || answer.status == 429,
                "{}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ),
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
        shared::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ids that are durable: accepted now or before.
fn taken(body: &[u8]) -> BTreeSet<String> {
    let answer: Value = serde_json::from_slice(body).unwrap();
    let results = answer["results"].as_array().cloned().unwrap_or_else(|| vec![answer]);
    let durable = results.iter().filter(|r| r["status"] == 202 || r["status"] == 409);
    durable.filter_map(|r| r["eventId"].as_str().map(str::to_owned)).collect()
}

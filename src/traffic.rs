//! Live traffic over HTTP: sends what the simulator says is sent now, at the asked rate, and tallies the answers.
//! Open loop by the clock: a slow server makes the sender late, not silent; it then catches up.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use shared::config::Span;
use shared::shutdown::Shutdown;

use crate::client::Client;
use crate::simulate::{Item, Live, Settings, Tally};
use crate::wiring::Parts;

/// How many connections send at once.
const CONNECTIONS: usize = 8;
/// How many items may wait for a connection.
const QUEUE_ITEMS: usize = 1_024;

/// What was sent and what came back.
#[derive(Debug, Default)]
pub struct Sent {
    /// Items by what they were meant to be.
    pub items: Tally,
    /// Answers by status; `failed` where no answer came.
    pub answers: BTreeMap<String, u64>,
}

/// Sends traffic to the gateway at `url` for `duration` or until `stop`.
///
/// # Errors
/// When the URL cannot be used; failed requests are tallied, not errors.
pub async fn drive(
    parts: &Parts,
    settings: Settings,
    url: &str,
    duration: Span,
    stop: &Shutdown,
) -> anyhow::Result<Sent> {
    Client::of_url(url).await?;
    let rate = i64::from(settings.rate.max(1));
    let mut live = Live::new(settings, parts.event_signer()?);
    let (queue, items) = tokio::sync::mpsc::channel::<Item>(QUEUE_ITEMS);
    let items = std::sync::Arc::new(tokio::sync::Mutex::new(items));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        senders.spawn(send_all(Client::of_url(url).await?, items.clone()));
    }
    let mut sent = Sent::default();
    let clock = parts.clock();
    let start = clock.now();
    for n in 0_i64.. {
        let due = start.plus(n.saturating_mul(1_000_000) / rate);
        if due.since(start) >= duration.as_micros() || stop.is_requested() {
            break;
        }
        let early = due.since(clock.now());
        if early > 1_000 {
            shared::time::sleep(std::time::Duration::from_micros(early.unsigned_abs())).await;
        }
        let item = live.next_at(clock.now());
        *sent.items.entry(item.label).or_default() += 1;
        queue.send(item).await.context("every connection is gone")?;
    }
    drop(queue);
    while let Some(answers) = senders.join_next().await {
        for (status, n) in answers? {
            *sent.answers.entry(status).or_default() += n;
        }
    }
    Ok(sent)
}

type Queue = std::sync::Arc<tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Item>>>;

async fn send_all(mut client: Client, items: Queue) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    loop {
        let item = items.lock().await.recv().await;
        let Some(item) = item else { return answers };
        let headers = [("content-type", "application/json")];
        let status = match client.send("POST", "/v1/events", &headers, Bytes::from(item.body)).await {
            Ok(answer) => answer.status.as_u16().to_string(),
            Err(e) => {
                tracing::debug!(error = %e, "no answer");
                "failed".to_owned()
            }
        };
        *answers.entry(status).or_default() += 1;
    }
}

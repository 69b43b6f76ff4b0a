//! What every handler shares.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::HeaderMap;
use shared::config::Span;
use shared::directory::{Directory, DirectoryHandle};
use shared::event::{Admission, Event, Rejection, Submission};
use shared::http::Peer;
use shared::id::{EventId, RefId};
use shared::time::{Clock, SECOND, Timestamp};

use crate::body::Budget;
use crate::capture::{Capture, Item, Settled, Unavailable};
use crate::impressions::Issuers;
use crate::intake::{Context, Source, judge};
use crate::ip_hash::{Chance, Salts};
use crate::keys::{KeyRing, SigningKeys};
use crate::rate_limit::RateLimit;
use crate::refusals::Refusals;
use crate::settings::Settings;

/// After a failed append the gateway calls itself not ready for this long, or until one succeeds.
const NOT_READY_FOR: i64 = 5 * SECOND;

pub(crate) struct State {
    pub(crate) settings: Arc<Settings>,
    pub(crate) capture: Arc<Capture>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) directory: Arc<DirectoryHandle>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) salts: Arc<Salts>,
    pub(crate) issuers: Issuers,
    pub(crate) chance: Chance,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) region: RefId,
    pub(crate) limit: RateLimit,
    pub(crate) budget: Budget,
    pub(crate) metrics_text: Arc<dyn Fn() -> String + Send + Sync>,
    pub(crate) failed_at: AtomicI64,
}

impl State {
    /// The address requests are limited by.
    pub(crate) fn client(&self, peer: Option<Peer>, headers: &HeaderMap) -> IpAddr {
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |Peer(address)| address.ip());
        self.settings.trusted_proxies.client(peer, headers)
    }

    /// What the submissions of a request that came just now are judged by.
    pub(crate) fn context<'a>(&'a self, directory: &'a Directory, keys: &'a SigningKeys) -> Context<'a> {
        let max_validity = Span(self.settings.dedup.window.0);
        Context { directory, keys, region: &self.region, now: self.clock.now(), max_validity }
    }

    /// Judges a submission; the id of one that is refused comes back with the reason.
    pub(crate) fn admit(
        &self,
        submission: Submission,
        source: Source,
        context: &Context<'_>,
        traceparent: Option<&str>,
    ) -> Result<Event, (EventId, Rejection)> {
        let admission = match judge(&submission, source, context) {
            Ok(admission) => Admission { traceparent: traceparent.map(str::to_owned), ..admission },
            Err(rejection) => return Err((submission.event_id, rejection)),
        };
        let mut event = submission.admit(admission);
        // Whoever sends a bare address as its hash does not make us keep it.
        let bare = event.details.ip_hash.as_deref().and_then(|hash| hash.trim().parse::<IpAddr>().ok());
        if let Some(address) = bare {
            event.details.ip_hash = self.salts.hash(address, context.now);
        }
        Ok(event)
    }

    /// Captures the items of one request and remembers whether that went well.
    pub(crate) async fn submit(&self, items: Vec<Item>) -> Result<Vec<Settled>, Unavailable> {
        let result = self.capture.submit(items).await;
        let failed_at = if result.is_ok() { i64::MIN } else { self.clock.now().0 };
        self.failed_at.store(failed_at, Ordering::Relaxed);
        result
    }

    /// Whether an event could be made durable, as far as can be told without making one.
    pub(crate) async fn is_ready(&self) -> Result<(), String> {
        let failed_at = Timestamp(self.failed_at.load(Ordering::Relaxed));
        if self.clock.now().since(failed_at) < NOT_READY_FOR {
            return Err("the last event could not be made durable".to_owned());
        }
        self.capture.events.bounds().await.map(|_| ()).map_err(|e| e.to_string())
    }
}

/// Whether the person behind a request asked not to be recorded (`DNT: 1` or `Sec-GPC: 1`).
pub(crate) fn opted_out(headers: &HeaderMap) -> bool {
    ["dnt", "sec-gpc"].iter().any(|name| headers.get(*name).is_some_and(|v| v.as_bytes() == b"1"))
}

/// The request's W3C trace context, where it has the form of one.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let plain = text.len() == 55 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    plain.then_some(text)
}

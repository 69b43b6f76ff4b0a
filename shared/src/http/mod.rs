//! HTTP plumbing of both doors (gateway and serving): how connections are served, how errors look,
//! who is asking.
//! Guarantees: no client can hold a connection by silence, by half a head, by an endless body or by not
//! reading; every answer carries `x-request-id`; on shutdown what was begun is finished, within a limit.
//! Never: knows a route.

pub mod address;
mod measured;
pub mod problem;
mod server;
mod stall;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, Problem as SettingProblem, Span};

pub use server::serve;

/// The header that names a request.
pub const REQUEST_ID: &str = "x-request-id";

/// What one listener allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections open at once; further ones wait in the operating system's queue.
    pub max_connections: u32,
    /// How long a request head may take from the connection's opening or the previous answer.
    pub header_timeout: Span,
    /// How long a request may take from its head to the start of its answer; over it the answer is 408.
    pub request_timeout: Span,
    /// How long a client may leave an answer unread before the connection is cut.
    pub write_timeout: Span,
    /// How long begun requests may still take after shutdown is asked for.
    pub drain_timeout: Span,
    /// The largest request head.
    pub max_head_size: ByteSize,
    /// The most header fields in a head.
    pub max_headers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            header_timeout: Span::secs(5),
            request_timeout: Span::secs(10),
            write_timeout: Span::secs(10),
            drain_timeout: Span::secs(10),
            max_head_size: ByteSize(32 * 1024),
            max_headers: 100,
        }
    }
}

impl Limits {
    /// Everything wrong with these settings; `prefix` is their place in the file.
    #[must_use]
    pub fn problems(&self, prefix: &str) -> Vec<SettingProblem> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(SettingProblem::new(format!("{prefix}.{name}"), why));
            }
        };
        check(self.max_connections > 0, "max_connections", "must be at least 1");
        for (name, span) in [
            ("header_timeout", self.header_timeout),
            ("request_timeout", self.request_timeout),
            ("write_timeout", self.write_timeout),
            ("drain_timeout", self.drain_timeout),
        ] {
            check((Span::millis(1)..=Span::secs(3_600)).contains(&span), name, "must be between 1ms and 1h");
        }
        check(
            (8 * 1024..=1024 * 1024).contains(&self.max_head_size.0),
            "max_head_size",
            "must be between 8KiB and 1MiB",
        );
        check((8..=10_000).contains(&self.max_headers), "max_headers", "must be between 8 and 10000");
        problems
    }
}

/// The address at the other end of the connection, in every request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The route a request matched, put into the *answer's* extensions by the layer, so that metrics have a
/// bounded label. Answers without one are labelled `other`.
#[derive(Debug, Clone)]
pub struct Route(pub Arc<str>);

/// The name of one request: the client's own where it is a short plain word, else ours. In every answer's `x-request-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Names requests: a random word per listener and a running number.
#[derive(Debug)]
struct RequestIds {
    listener: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        // Only a label that tells listeners apart in logs: no decision hangs on it.
        let listener = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0_u8);
        Self { listener, next: AtomicU64::new(0) }
    }

    fn name(&self, headers: &HeaderMap) -> RequestId {
        let given = headers.get(REQUEST_ID).filter(|v| v.to_str().is_ok_and(|v| crate::id::RefId::new(v).is_ok()));
        RequestId(given.cloned().unwrap_or_else(|| {
            let name = format!("{:016x}-{:x}", self.listener, self.next.fetch_add(1, Ordering::Relaxed));
            HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("unnamed"))
        }))
    }
}

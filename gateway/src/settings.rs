//! The gateway's settings: data with defaults, checked all at once. Every limit has a name and a unit.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use shared::config::{ByteSize, Problem, Span};
use shared::directory::check_url;
use shared::http::Limits;
use shared::http::address::TrustedProxies;

use crate::{dedup, hot, ip_hash, rate_limit};

/// What happens to a click or pixel whose signature does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadSignature {
    /// The person is redirected; the event is kept as invalid and never billed.
    #[default]
    Redirect,
    /// 401; the request is kept as refused.
    Deny,
}

/// The gateway's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed, as networks; empty: none.
    pub trusted_proxies: TrustedProxies,
    /// What happens to a click or pixel whose signature does not hold.
    pub bad_signature: OnBadSignature,
    /// Where people reach this gateway, for links it signs (`https://ads.example`); empty: as the caller reached it.
    pub public_url: String,
    /// Where people go whose ad is unknown or does not run; empty: 404.
    pub fallback_url: String,
    /// The largest request body as sent.
    pub max_body_size: ByteSize,
    /// The largest request body once decompressed.
    pub max_decoded_size: ByteSize,
    /// The most events in one request.
    pub max_items: u32,
    /// Memory for request bodies, all together; past it the answer is 503.
    pub max_buffered: ByteSize,
    /// Requests waiting for the log at once; past it the answer is 503.
    pub max_in_flight: u32,
    /// How long a request waits for the log before it is answered 503.
    pub append_timeout: Span,
    /// Bytes of refused requests kept per second; past it they are only counted.
    pub max_refused_per_second: ByteSize,
    /// How often keys and ad directory are looked at for changes.
    pub reload_interval: Span,
    /// Connections and timeouts.
    pub http: Limits,
    /// The memory of event ids.
    pub dedup: dedup::Settings,
    /// Requests per client.
    pub rate_limit: rate_limit::Settings,
    /// Addresses as keyed hashes.
    pub ip_hash: ip_hash::Settings,
    /// Ads that are too much for one partition.
    pub hot_ads: hot::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            trusted_proxies: TrustedProxies::default(),
            bad_signature: OnBadSignature::default(),
            public_url: String::new(),
            fallback_url: String::new(),
            max_body_size: ByteSize::mib(1),
            max_decoded_size: ByteSize::mib(4),
            max_items: 1_000,
            max_buffered: ByteSize::mib(256),
            max_in_flight: 4_096,
            append_timeout: Span::secs(5),
            max_refused_per_second: ByteSize::mib(1),
            reload_interval: Span::secs(2),
            http: Limits::default(),
            dedup: dedup::Settings::default(),
            rate_limit: rate_limit::Settings::default(),
            ip_hash: ip_hash::Settings::default(),
            hot_ads: hot::Settings::default(),
        }
    }
}

impl Settings {
    /// Everything that is wrong with these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(Problem::new(format!("gateway.{name}"), why));
            }
        };
        let sizes = ByteSize(1024)..=ByteSize::mib(256);
        check(sizes.contains(&self.max_body_size), "max_body_size", "must be between 1KiB and 256MiB");
        check(sizes.contains(&self.max_decoded_size), "max_decoded_size", "must be between 1KiB and 256MiB");
        check((1..=100_000).contains(&self.max_items), "max_items", "must be between 1 and 100000");
        check(
            self.max_buffered.0 >= self.max_body_size.0.saturating_add(self.max_decoded_size.0),
            "max_buffered",
            "must have room for one body, as sent and decompressed",
        );
        check(self.max_in_flight > 0, "max_in_flight", "must be at least 1");
        for (name, span) in [("append_timeout", self.append_timeout), ("reload_interval", self.reload_interval)] {
            check((Span::millis(1)..=Span::secs(3_600)).contains(&span), name, "must be between 1ms and 1h");
        }
        check(
            self.append_timeout < self.http.request_timeout,
            "append_timeout",
            "must be shorter than gateway.http.request_timeout, so that a slow log answers 503 and not 408",
        );
        let rates = 1..=u64::from(u32::MAX / 16);
        check(rates.contains(&self.max_refused_per_second.0), "max_refused_per_second", "must be 1B to 256MiB");
        for (name, url) in [("fallback_url", &self.fallback_url), ("public_url", &self.public_url)] {
            if let (false, Err(why)) = (url.is_empty(), check_url(url)) {
                check(false, name, &why);
            }
        }
        problems.extend(self.http.problems("gateway.http"));
        problems.extend(self.dedup.problems("gateway.dedup"));
        problems.extend(self.ip_hash.problems("gateway.ip_hash"));
        problems.extend(self.rate_limit.problems("gateway.rate_limit"));
        problems.extend(self.hot_ads.problems("gateway.hot_ads"));
        problems
    }
}

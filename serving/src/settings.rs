//! Serving's settings: data with defaults, checked all at once.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};
use shared::http::Limits;

use crate::retention;

/// How reports are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the API and the dashboard listen.
    pub listen: SocketAddr,
    /// Whether every request needs an API key. Only a listener on this machine may do without.
    pub require_keys: bool,
    /// How long one answer is shared by all who ask the same; also the pace of the live stream.
    pub tile_ttl: Span,
    /// Provisional numbers are stale when the speed layer is further behind than this.
    pub stale_after: Span,
    /// Live streams open at once; further ones are told to come back.
    pub max_streams: u32,
    /// The freshness promised for provisional numbers (99th percentile, ingest to visible): `/v1/sla`.
    pub freshness_target: Span,
    /// Exact numbers are promised this long after the end of their UTC day: `/v1/sla`.
    pub exact_after: Span,
    /// How long rows are kept.
    pub retention: retention::Settings,
    /// What one listener allows.
    pub http: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            require_keys: true,
            tile_ttl: Span::secs(1),
            stale_after: Span::secs(60),
            max_streams: 256,
            freshness_target: Span::secs(30),
            exact_after: Span::secs(6 * 3_600),
            retention: retention::Settings::default(),
            http: Limits::default(),
        }
    }
}

impl Settings {
    /// All problems of these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.http.problems("serving.http");
        problems.extend(self.retention.problems());
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(Problem::new(format!("serving.{name}"), why));
            }
        };
        check(
            self.require_keys || self.listen.ip().is_loopback(),
            "require_keys",
            "may be false only while serving.listen is an address of this machine (127.0.0.1 or [::1])",
        );
        check((Span::millis(50)..=Span::secs(60)).contains(&self.tile_ttl), "tile_ttl", "must be between 50ms and 60s");
        check(self.stale_after >= Span::secs(1), "stale_after", "must be at least 1s");
        check((1..=100_000).contains(&self.max_streams), "max_streams", "must be between 1 and 100000");
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_switched_off_on_this_machine_only() {
        assert!(Settings::default().problems().is_empty());
        let open = Settings { require_keys: false, ..Settings::default() };
        assert!(open.problems().is_empty());
        let wide = Settings { listen: "0.0.0.0:8081".parse().unwrap(), ..open };
        assert_eq!(wide.problems().first().unwrap().field, "serving.require_keys");
        assert!(Settings { require_keys: true, ..wide }.problems().is_empty());
    }
}

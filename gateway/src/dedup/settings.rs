//! The settings of the memory of event ids: data with defaults. Every limit has a name and a unit.

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};

/// What a store remembers, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long an id is remembered; also how far ahead a signature's `exp` may lie.
    pub window: Span,
    /// The most ids remembered in memory.
    pub max_entries: u64,
    /// After this a claim that was neither confirmed nor released is free again.
    pub lease: Span,
    /// Redis instead of memory, shared by all gateways.
    #[cfg(feature = "redis")]
    pub redis: super::redis::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Span::secs(86_400),
            max_entries: 8_000_000,
            lease: Span::secs(60),
            #[cfg(feature = "redis")]
            redis: super::redis::Settings::default(),
        }
    }
}

impl Settings {
    /// Everything wrong with these settings; `prefix` is their place in the file.
    #[must_use]
    pub fn problems(&self, prefix: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(Span::secs(1)..=Span::secs(30 * 86_400)).contains(&self.window) {
            problems.push(Problem::new(format!("{prefix}.window"), "must be between 1s and 30d"));
        }
        if self.max_entries < 10_000 {
            problems.push(Problem::new(format!("{prefix}.max_entries"), "must be at least 10000"));
        }
        if !(Span::secs(1)..=Span::secs(3_600)).contains(&self.lease) {
            problems.push(Problem::new(format!("{prefix}.lease"), "must be between 1s and 1h"));
        }
        #[cfg(feature = "redis")]
        problems.extend(self.redis.problems(&format!("{prefix}.redis")));
        problems
    }
}

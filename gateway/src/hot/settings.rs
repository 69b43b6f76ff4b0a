//! When an ad is hot: data with defaults. Every limit has a name and a unit.

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};

/// When an ad is spread over partitions, and when no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether ads are spread at all.
    pub enabled: bool,
    /// How long traffic is counted before it is looked at.
    pub window: Span,
    /// An ad is hot from this share on: percent of what one partition carries when all carry the same.
    pub enter_percent: u64,
    /// Below this share it is calm.
    pub leave_percent: u64,
    /// When it has been calm for so long it is hot no more.
    pub leave_after: Span,
    /// Events per second at this gateway below which an ad is never hot.
    pub min_per_second: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Span::secs(5),
            enter_percent: 50,
            leave_percent: 25,
            leave_after: Span::secs(300),
            min_per_second: 1_000,
        }
    }
}

impl Settings {
    /// Everything wrong with these settings; `prefix` is their place in the file.
    #[must_use]
    pub fn problems(&self, prefix: &str) -> Vec<Problem> {
        let spans = Span::secs(1)..=Span::secs(86_400);
        let checks = [
            (spans.contains(&self.window), "window", "must be between 1s and 1d"),
            (spans.contains(&self.leave_after), "leave_after", "must be between 1s and 1d"),
            ((1..=100).contains(&self.enter_percent), "enter_percent", "must be between 1 and 100"),
            (self.leave_percent < self.enter_percent, "leave_percent", "must be below enter_percent"),
            (self.min_per_second > 0, "min_per_second", "must be at least 1"),
        ];
        let wrong = checks.into_iter().filter(|(fine, ..)| !fine);
        wrong.map(|(_, name, why)| Problem::new(format!("{prefix}.{name}"), why)).collect()
    }
}

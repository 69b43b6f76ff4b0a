//! How much traffic, over which time, and which share of it is trouble.

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};
use shared::time::Day;

/// What to generate. Shares are of all items (0 to 1) unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The same seed gives the same items.
    pub seed: u64,
    /// The first day of a history (UTC).
    pub start: Day,
    /// How many days a history has.
    pub days: u32,
    /// How many items a history has.
    pub events: u64,
    /// Items per second that a live sender keeps.
    pub rate: u32,
    /// How many ads there are.
    pub ads: u32,
    /// How many campaigns the ads are spread over.
    pub campaigns: u32,
    /// How many advertisers the campaigns are spread over.
    pub advertisers: u32,
    /// How many people there are.
    pub users: u64,
    /// How uneven the ads are: 0 is even, 1 is what the web does.
    pub zipf: f64,
    /// How many currencies prices come in, 1 to 3.
    pub currencies: u32,
    /// Clicks per impression.
    pub clicks: f64,
    /// Conversions per click.
    pub conversions: f64,
    /// The share sent again with the same payload.
    pub duplicates: f64,
    /// The share sent again with the same payload on another day.
    pub cross_day_duplicates: f64,
    /// The share whose id is sent again with another payload.
    pub conflicts: f64,
    /// The share of clicks that are followed by more clicks on the same impression.
    pub repeat_clicks: f64,
    /// The share sent long after it happened.
    pub late: f64,
    /// The share sent two days after it happened, when its day is closed.
    pub late_after_close: f64,
    /// The share at or beyond the bounds of the billing time.
    pub clamped: f64,
    /// The share at the edge of a minute, hour, day or price.
    pub boundary: f64,
    /// The share whose user agent is a robot's.
    pub bots: f64,
    /// The share with ids that differ from one another by very little.
    pub odd_ids: f64,
    /// The share with a wrong or expired signature.
    pub forged: f64,
    /// The share that is not an event at all.
    pub poison: f64,
    /// The share with the very ingest time of the item before (history only).
    pub ties: f64,
    /// The share that is signed in a history; live traffic always is.
    pub signed: f64,
    /// The share of events that carry their own price although their campaign does not use it.
    pub stray_costs: f64,
    /// The receiver's bound for old events, whose edge is probed.
    pub max_late: Span,
    /// The receiver's bound for events of the future, whose edge is probed.
    pub max_future: Span,
    /// The receiver's distance of repeat clicks, whose edge is probed.
    pub repeat_click: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            start: Day::parse("2026-03-02").unwrap_or(Day(0)),
            days: 3,
            events: 100_000,
            rate: 200,
            ads: 1_000,
            campaigns: 60,
            advertisers: 12,
            users: 20_000,
            zipf: 1.0,
            currencies: 3,
            clicks: 0.3,
            conversions: 0.1,
            duplicates: 0.03,
            cross_day_duplicates: 0.005,
            conflicts: 0.005,
            repeat_clicks: 0.1,
            late: 0.02,
            late_after_close: 0.003,
            clamped: 0.003,
            boundary: 0.01,
            bots: 0.03,
            odd_ids: 0.003,
            forged: 0.01,
            poison: 0.005,
            ties: 0.02,
            signed: 0.3,
            stray_costs: 0.05,
            max_late: Span::secs(7 * 86_400),
            max_future: Span::secs(300),
            repeat_click: Span::secs(86_400),
        }
    }
}

impl Settings {
    /// Everything that is wrong with them.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, share) in self.shares() {
            if !(0.0..=1.0).contains(&share) {
                problems.push(Problem::new(format!("simulate.{name}"), format!("{share} is not between 0 and 1")));
            }
        }
        let counts = [
            ("days", u64::from(self.days), 3_650),
            ("events", self.events, 1 << 40),
            ("rate", u64::from(self.rate), 10_000_000),
            ("ads", u64::from(self.ads), 10_000_000),
            ("campaigns", u64::from(self.campaigns), 10_000_000),
            ("advertisers", u64::from(self.advertisers), 10_000_000),
            ("users", self.users, 1 << 40),
            ("currencies", u64::from(self.currencies), 3),
        ];
        for (name, count, most) in counts {
            if !(1..=most).contains(&count) {
                problems.push(Problem::new(format!("simulate.{name}"), format!("{count} is not between 1 and {most}")));
            }
        }
        if !(0.0..=4.0).contains(&self.zipf) {
            problems.push(Problem::new("simulate.zipf", format!("{} is not between 0 and 4", self.zipf)));
        }
        problems
    }

    fn shares(&self) -> [(&'static str, f64); 17] {
        [
            ("clicks", self.clicks),
            ("conversions", self.conversions),
            ("duplicates", self.duplicates),
            ("cross_day_duplicates", self.cross_day_duplicates),
            ("conflicts", self.conflicts),
            ("repeat_clicks", self.repeat_clicks),
            ("late", self.late),
            ("late_after_close", self.late_after_close),
            ("clamped", self.clamped),
            ("boundary", self.boundary),
            ("bots", self.bots),
            ("odd_ids", self.odd_ids),
            ("forged", self.forged),
            ("poison", self.poison),
            ("ties", self.ties),
            ("signed", self.signed),
            ("stray_costs", self.stray_costs),
        ]
    }

    /// The billing days a history can fill, first and last: events at the bound for old ones bill before its start,
    /// events of the future after its end.
    #[must_use]
    pub fn billing_days(&self) -> (Day, Day) {
        let end = self.start.plus(i32::try_from(self.days).unwrap_or(i32::MAX)).start();
        let first = self.start.start().plus(-self.max_late.as_micros());
        (first.day(), end.plus(self.max_future.as_micros()).day())
    }
}

//! Days of history as NDJSON lines with `ingestTime`, for `import`.

use shared::time::{DAY, Timestamp};

use super::draft::Signer;
use super::settings::Settings;
use super::traffic::{Pace, Traffic};
use super::{Item, World};

/// Exactly `settings.events` items spread evenly over `settings.days` days.
pub struct History {
    traffic: Traffic,
    signer: Signer,
    start: Timestamp,
    span: i64,
    events: u64,
    made: u64,
}

impl History {
    /// A history; `signer` makes the signatures of the signed share.
    #[must_use]
    pub fn new(settings: Settings, signer: Signer) -> Self {
        let start = settings.start.start();
        let span = i64::from(settings.days) * DAY;
        let events = settings.events;
        let traffic = Traffic::new(settings, Pace::History { end: start.plus(span) });
        Self { traffic, signer, start, span, events, made: 0 }
    }

    /// The world of these settings, for `ads.csv` and `prices.csv`.
    #[must_use]
    pub fn world(settings: &Settings) -> World {
        World::new(settings)
    }

    /// The instant at which item number `n` is sent.
    fn slot(&self, n: u64) -> Timestamp {
        let offset = i128::from(self.span) * i128::from(n) / i128::from(self.events.max(1));
        self.start.plus(i64::try_from(offset).unwrap_or(i64::MAX))
    }
}

impl Iterator for History {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.made >= self.events {
            return None;
        }
        let now = self.slot(self.made);
        self.made += 1;
        Some(self.traffic.next(now, &self.signer))
    }
}

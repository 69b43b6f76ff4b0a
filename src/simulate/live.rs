//! Traffic around now: request bodies for `POST /v1/events`, every honest one signed.

use shared::time::Timestamp;

use super::Item;
use super::draft::Signer;
use super::settings::Settings;
use super::traffic::{Pace, Traffic};

/// An endless source of requests.
pub struct Live {
    traffic: Traffic,
    signer: Signer,
}

impl Live {
    /// A source; `signer` makes the signatures.
    #[must_use]
    pub fn new(settings: Settings, signer: Signer) -> Self {
        Self { traffic: Traffic::new(settings, Pace::Live), signer }
    }

    /// What is sent at `now`. The same settings and the same instants give the same items.
    pub fn next_at(&mut self, now: Timestamp) -> Item {
        self.traffic.next(now, &self.signer)
    }
}

//! From click to dashboard: one signed click a second on an ad of its own, and how long until the report counts it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clickledger::client::Client;
use clickledger::wiring::Parts;
use gateway::signature::LinkClaims;
use serde_json::Value;
use shared::time::{Clock, Day, SECOND, SystemClock, Timestamp};

use super::faults::{Addresses, Outage};
use crate::naive::Logged;
use crate::support::Ledger;

const AD: &str = "ad-probe";
/// Probes still unseen after this long at the end are counted as unseen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the ad known.
pub(super) fn furnish(ledger: &Ledger) {
    let ads =
        format!("adId,campaignId,advertiserId,url,status\n{AD},cam-probe,adv-probe,https://shop.example/,active\n");
    std::fs::write(ledger.path().join("probe.csv"), ads).unwrap();
    ledger.ok(&["ads", "import", "probe.csv"]);
}

/// Clicks that were answered, in order, and when the report had counted so many.
#[derive(Default)]
pub(super) struct Probes {
    tried: usize,
    clicked: Vec<Timestamp>,
    seen: Vec<Timestamp>,
}

pub(super) async fn probe(parts: Parts, addresses: Addresses, stop: Arc<AtomicBool>) -> Probes {
    let clock = SystemClock::default();
    let keys = parts.signing_keys().unwrap().current();
    let (mut gateway, mut serving) = (Client::new(addresses.gateways[0]), Client::new(addresses.serving));
    let day = clock.now().day();
    let mut probes = Probes::default();
    let mut stopped_at = None;
    for n in 0.. {
        let now = clock.now();
        if stopped_at.is_none() && stop.load(Ordering::Relaxed) {
            stopped_at = Some(now);
        }
        if stopped_at.is_none() {
            let impression = format!("probe-{n}");
            let claims =
                LinkClaims { ad_id: AD, impression_id: &impression, expires_at: Some(now.plus(3_600 * SECOND)) };
            let path = keys.sign_click_url("", &claims).unwrap();
            probes.tried += 1;
            if gateway.send("GET", &path, &[], Bytes::new()).await.is_ok_and(|a| a.status == 302) {
                probes.clicked.push(now);
            }
        }
        let path = format!("/api/v1/ads/{AD}/aggregates?from={day}&to={}&granularity=day", Day(day.0 + 1));
        if let Ok(answer) = serving.send("GET", &path, &[], Bytes::new()).await {
            probes.count(&answer.body, clock.now());
        }
        let waited = stopped_at.map_or(0, |at: Timestamp| clock.now().since(at));
        let all_seen = probes.seen.len() >= probes.clicked.len();
        if stopped_at.is_some() && (all_seen || waited > i64::try_from(PATIENCE.as_micros()).unwrap()) {
            break;
        }
        shared::time::sleep(Duration::from_secs(1)).await;
    }
    probes
}

impl Probes {
    fn count(&mut self, body: &[u8], now: Timestamp) {
        let report: Value = serde_json::from_slice(body).unwrap_or_default();
        let series = report["series"].as_array().cloned().unwrap_or_default();
        let clicks: u64 = series.iter().filter_map(|point| point["clicks"].as_u64()).sum();
        while (self.seen.len() as u64) < clicks.min(self.clicked.len() as u64) {
            self.seen.push(now);
        }
    }

    /// The ids of these clicks, which the gateway made, out of what is archived: as many as were answered, and none more
    /// than were tried.
    pub(super) fn ids(&self, archived: &[Logged]) -> BTreeSet<String> {
        let ours = archived.iter().filter(|(event, ..)| event.ad_id.as_str() == AD);
        let ids: BTreeSet<String> = ours.map(|(event, ..)| event.event_id.to_string()).collect();
        assert!((self.clicked.len()..=self.tried).contains(&ids.len()), "{} of {} clicks", ids.len(), self.tried);
        ids
    }

    /// Percentiles of the delay, of all and of those that no outage touched.
    pub(super) fn summary(&self, outages: &[Outage]) -> String {
        let delays = self.clicked.iter().zip(&self.seen).map(|(clicked, seen)| (*clicked, seen.since(*clicked)));
        let is_calm = |(clicked, delay): &(Timestamp, i64)| {
            outages.iter().all(|o| clicked.plus(*delay) < o.from || *clicked > o.until)
        };
        let words = |mut delays: Vec<i64>| {
            delays.sort_unstable();
            let at =
                |percent: usize| delays.get((delays.len().saturating_sub(1)) * percent / 100).copied().unwrap_or(0);
            format!("{} clicks, p50 {} ms, p99 {} ms", delays.len(), at(50) / 1_000, at(99) / 1_000)
        };
        let all: Vec<_> = delays.collect();
        format!(
            "click to visible: {}; outside outages {}; {} never seen",
            words(all.iter().map(|(_, d)| *d).collect()),
            words(all.iter().filter(|d| is_calm(d)).map(|(_, d)| *d).collect()),
            self.clicked.len() - self.seen.len()
        )
    }
}

//! The naive recount: the rules of the speed layer once more, with plain maps, no buckets, no bounds, no restarts.

use std::collections::{BTreeMap, BTreeSet};

use shared::event_log::Record;
use shared::price::PriceBook;
use shared::rollup::{Counts, RollupKey};
use shared::time::{HOUR, MINUTE, Timestamp};
use shared::verdict::{IdStanding, Verdict};
use shared::wire::decode_event;

use crate::{Outcome, Settings, Tally};

/// A row's counts and its users.
pub(crate) type Row = (Counts, BTreeSet<String>);

/// What one partition comes to.
#[derive(Debug, Default)]
pub(crate) struct Recount {
    pub(crate) rows: BTreeMap<RollupKey, Row>,
    pub(crate) tally: Tally,
    pub(crate) late_by_hour: BTreeMap<Timestamp, u64>,
    ids: BTreeSet<String>,
    clicks: BTreeMap<String, Timestamp>,
    newest: Timestamp,
}

/// Counts the records of one partition.
pub(crate) fn recount(records: &[Record], settings: &Settings, prices: &PriceBook) -> Recount {
    let mut recount = Recount::default();
    for record in records {
        let outcome = recount.take(record, settings, prices);
        recount.tally.add(outcome);
    }
    recount
}

impl Recount {
    fn take(&mut self, record: &Record, settings: &Settings, prices: &PriceBook) -> Outcome {
        let Ok(event) = decode_event(&record.payload) else { return Outcome::DeadLetter };
        let rules = &settings.counting;
        let invalid = rules.invalid(event.invalid, event.details.user_agent.as_deref());
        if invalid.is_some_and(|code| code.is_forged()) {
            return Outcome::Invalid;
        }
        let id = if self.ids.insert(event.event_id.to_string()) { IdStanding::First } else { IdStanding::Duplicate };
        let at = rules.billing_time(event.event_time, event.ingest_time).at;
        self.newest = self.newest.max(at.min(event.ingest_time));
        let late_before = self.newest.0 - settings.out_of_orderness.as_micros() - settings.allowed_lateness.as_micros();
        let mut repeats = false;
        if rules.chains(event.kind, invalid, id)
            && let Some(key) = chain_key(&event, rules.identical_clicks)
        {
            let before = self.clicks.insert(key, event.ingest_time);
            repeats = before.is_some_and(|before| rules.is_repeat_click(before, event.ingest_time));
        }
        match rules.verdict(invalid, id, repeats) {
            Verdict::Billable => {}
            Verdict::Duplicate | Verdict::Conflict => return Outcome::Duplicate,
            Verdict::RepeatClick => return Outcome::RepeatClick,
            Verdict::Invalid(_) => return Outcome::Invalid,
        }
        if at.0 < late_before {
            *self.late_by_hour.entry(at.floor(HOUR)).or_default() += 1;
            return Outcome::Late;
        }
        let price = prices.in_force(event.campaign_id.as_str(), at);
        let cost = price.cost(event.kind, event.details.cost_micros, event.details.currency).unwrap();
        let (campaign_id, currency) = (event.campaign_id, cost.currency);
        let (minute, hour) = (at.floor(MINUTE), at.floor(HOUR));
        let (country, device_type) = (event.details.country, event.details.device_type);
        let keys = [
            RollupKey::AdMinute { minute, ad_id: event.ad_id, campaign_id: campaign_id.clone(), currency },
            RollupKey::CampaignMinute { minute, campaign_id: campaign_id.clone(), currency },
            RollupKey::CampaignHour { hour, campaign_id, country, device_type, currency },
        ];
        for key in keys {
            let has_users = matches!(key, RollupKey::CampaignHour { .. });
            let row = self.rows.entry(key).or_default();
            row.0 = row.0.merge(&Counts::one(event.kind, cost.nanos)).unwrap();
            row.1.extend(event.details.user_pseudo_id.iter().filter(|_| has_users).map(ToString::to_string));
        }
        Outcome::Counted
    }
}

/// The chain of a click, said again: its impression, or (by policy) person, creative and second.
fn chain_key(event: &shared::event::Event, identical_clicks: bool) -> Option<String> {
    let d = &event.details;
    match (&d.impression_id, &d.user_pseudo_id, &d.creative_id) {
        (Some(impression), ..) => Some(impression.to_string()),
        (None, Some(user), Some(creative)) if identical_clicks => {
            Some(format!("{user} {creative} {}", event.event_time.0.div_euclid(1_000_000)))
        }
        _ => None,
    }
}

//! The naive recount: contract 2 in one screen, one event after the other, everything in memory.
//! It shares no rule with the product, only the words; the DuckDB oracle shares not even those.

use std::collections::{BTreeMap, HashMap};

use shared::event::{Event, EventKind};
use shared::price::{PriceBook, PriceModel};
use shared::time::{MINUTE, Timestamp};
use shared::verdict::{Counting, InvalidCode};

/// An event and where it stands in the log.
pub(crate) type Logged = (Event, u32, u64);

/// (ad, minute, campaign, currency).
pub(crate) type Cell = (String, i64, String, String);

/// Counts by kind (impressions, clicks, conversions) and nanos.
pub(crate) type Sums = (u64, u64, u64, i128);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recount {
    pub(crate) cells: BTreeMap<Cell, Sums>,
    pub(crate) verdicts: BTreeMap<String, u64>,
    /// Verdict by (partition, position).
    pub(crate) by_position: BTreeMap<(u32, u64), String>,
}

pub(crate) fn recount(mut events: Vec<Logged>, rules: &Counting, prices: &PriceBook) -> Recount {
    events.sort_by(|a, b| {
        let key = |e: &Logged| (e.0.ingest_time, e.0.region.to_string(), e.1, e.2);
        key(a).cmp(&key(b))
    });
    let mut winners: HashMap<String, [u8; 16]> = HashMap::new();
    let mut last_click: HashMap<String, i64> = HashMap::new();
    let mut result = Recount::default();
    for (event, partition, position) in events {
        let verdict = judge(&event, rules, &mut winners, &mut last_click);
        *result.verdicts.entry(verdict.clone()).or_default() += 1;
        if verdict == "billable" {
            add(&mut result.cells, &event, rules, prices);
        }
        result.by_position.insert((partition, position), verdict);
    }
    result
}

fn judge(
    e: &Event,
    rules: &Counting,
    winners: &mut HashMap<String, [u8; 16]>,
    last_click: &mut HashMap<String, i64>,
) -> String {
    if let Some(code @ (InvalidCode::BadSignature | InvalidCode::Expired)) = e.invalid {
        return format!("invalid:{}", code.as_str());
    }
    if let Some(winner) = winners.get(e.event_id.as_str()) {
        return if *winner == e.fingerprint.0 { "duplicate" } else { "conflict" }.to_owned();
    }
    winners.insert(e.event_id.to_string(), e.fingerprint.0);
    if let Some(code) = e.invalid {
        return format!("invalid:{}", code.as_str());
    }
    let agent = e.details.user_agent.as_deref().unwrap_or_default().to_ascii_lowercase();
    if rules.known_bots.iter().any(|bot| agent.contains(&bot.to_ascii_lowercase())) {
        return "invalid:known_bot".to_owned();
    }
    let d = &e.details;
    let chain = match (&d.impression_id, &d.user_pseudo_id, &d.creative_id) {
        (Some(impression), ..) => Some(impression.to_string()),
        (None, Some(user), Some(creative)) if rules.identical_clicks => {
            Some(format!("{user} {creative} {}", e.event_time.0.div_euclid(1_000_000)))
        }
        _ => None,
    };
    if let (EventKind::Click, Some(chain)) = (e.kind, chain) {
        let before = last_click.insert(chain, e.ingest_time.0);
        if before.is_some_and(|t| e.ingest_time.0 - t < rules.repeat_click_seconds * 1_000_000) {
            return "repeat_click".to_owned();
        }
    }
    "billable".to_owned()
}

pub(crate) fn billing_time(e: &Event, rules: &Counting) -> Timestamp {
    let late = e.ingest_time.0 - e.event_time.0;
    let fits = late <= rules.max_late_seconds * 1_000_000 && -late <= rules.max_future_seconds * 1_000_000;
    if fits { e.event_time } else { e.ingest_time }
}

fn add(cells: &mut BTreeMap<Cell, Sums>, e: &Event, rules: &Counting, prices: &PriceBook) {
    let at = billing_time(e, rules);
    let price = prices.prices.get(e.campaign_id.as_str()).and_then(|all| all.iter().rfind(|p| p.valid_from <= at));
    let mut currency = price.map_or_else(|| "XXX".to_owned(), |p| p.currency.to_string());
    let nanos: i128 = match price.map(|p| (p.model, i128::from(p.price_micros))) {
        Some((PriceModel::Cpc, micros)) if e.kind == EventKind::Click => micros * 1_000,
        Some((PriceModel::Cpa, micros)) if e.kind == EventKind::Conversion => micros * 1_000,
        Some((PriceModel::Cpm, micros)) if e.kind == EventKind::Impression => micros,
        Some((PriceModel::Reported, _)) => {
            currency = e.details.currency.map_or(currency, |c| c.to_string());
            i128::from(e.details.cost_micros.unwrap_or(0)) * 1_000
        }
        _ => 0,
    };
    let minute = at.0 - at.0.rem_euclid(MINUTE);
    let sums = cells.entry((e.ad_id.to_string(), minute, e.campaign_id.to_string(), currency)).or_default();
    match e.kind {
        EventKind::Impression => sums.0 += 1,
        EventKind::Click => sums.1 += 1,
        EventKind::Conversion => sums.2 += 1,
    }
    sums.3 += nanos;
}

//! A naive recount, written from contract 2: walk the whole archive in order, remember everything.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lake::convert::Archived;
use sha2::{Digest, Sha256};
use shared::event::{EventKind, Fingerprint};
use shared::price::{PriceBook, PriceModel};
use shared::sketch::Sketch;
use shared::time::{DAY, Day, HOUR, MINUTE, Timestamp};
use shared::verdict::{Counting, InvalidCode};

/// What becomes of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) row: Archived,
    pub(crate) verdict: String,
    pub(crate) clamped: bool,
    pub(crate) currency: String,
    pub(crate) model: &'static str,
    pub(crate) version: u32,
    pub(crate) cost: i64,
    /// The click it repeats.
    pub(crate) repeat_of: String,
}

/// Everything about the whole archive.
pub(crate) fn recount(archive: &[Archived], prices: &PriceBook) -> Vec<Judged> {
    recount_with(archive, prices, DAY)
}

/// The same where two clicks closer than `window` microseconds are one.
pub(crate) fn recount_with(archive: &[Archived], prices: &PriceBook, window: i64) -> Vec<Judged> {
    let mut in_order: Vec<&Archived> = archive.iter().collect();
    in_order.sort_by_key(|r| (r.event.ingest_time, r.event.region.to_string(), r.partition, r.position));
    let mut holders: HashMap<String, Fingerprint> = HashMap::new();
    let mut last_click: HashMap<String, (Timestamp, String)> = HashMap::new();
    let mut judged = Vec::new();
    for row in in_order {
        let mut repeated = String::new();
        let verdict = verdict(row, &mut holders, &mut last_click, window, &mut repeated);
        judged.push(Judged { repeat_of: repeated, ..price(row, verdict, prices) });
    }
    judged
}

fn verdict(
    row: &Archived,
    holders: &mut HashMap<String, Fingerprint>,
    last_click: &mut HashMap<String, (Timestamp, String)>,
    window: i64,
    repeated: &mut String,
) -> String {
    let event = &row.event;
    if let Some(code @ (InvalidCode::BadSignature | InvalidCode::Expired)) = event.invalid {
        return format!("invalid:{}", code.as_str());
    }
    match holders.get(event.event_id.as_str()) {
        Some(first) if *first == event.fingerprint => return "duplicate".to_owned(),
        Some(_) => return "conflict".to_owned(),
        None => holders.insert(event.event_id.to_string(), event.fingerprint),
    };
    if let Some(code) = event.invalid {
        return format!("invalid:{}", code.as_str());
    }
    if event.details.user_agent.as_ref().is_some_and(|a| a.to_lowercase().contains("bot")) {
        return "invalid:known_bot".to_owned();
    }
    if let (EventKind::Click, Some(impression)) = (event.kind, &event.details.impression_id) {
        let this = (event.ingest_time, event.event_id.to_string());
        let before = last_click.insert(impression.to_string(), this);
        if let Some((_, id)) = before.filter(|(at, _)| event.ingest_time.0 - at.0 < window) {
            *repeated = id;
            return "repeat_click".to_owned();
        }
    }
    "billable".to_owned()
}

fn price(row: &Archived, verdict: String, prices: &PriceBook) -> Judged {
    let event = &row.event;
    let age = event.ingest_time.0 - event.event_time.0;
    let clamped = !(-5 * MINUTE..=7 * DAY).contains(&age);
    assert_eq!(row.billing_time, if clamped { event.ingest_time } else { event.event_time });
    let in_force = prices
        .prices
        .get(event.campaign_id.as_str())
        .and_then(|list| list.iter().rfind(|p| p.valid_from <= row.billing_time));
    let (model, micros, own, version) = in_force.map_or((PriceModel::Free, 0, "XXX".to_owned(), 0), |p| {
        (p.model, p.price_micros, p.currency.to_string(), p.version)
    });
    let reported = event.details.currency.map(|c| c.to_string());
    let currency = if model == PriceModel::Reported { reported.unwrap_or(own) } else { own };
    let nanos = match (model, event.kind) {
        (PriceModel::Cpc, EventKind::Click) | (PriceModel::Cpa, EventKind::Conversion) => micros * 1_000,
        (PriceModel::Cpm, EventKind::Impression) => micros,
        (PriceModel::Reported, _) => event.details.cost_micros.unwrap_or(0) * 1_000,
        _ => 0,
    };
    let cost = if verdict == "billable" { nanos } else { 0 };
    Judged {
        row: row.clone(),
        verdict,
        clamped,
        currency,
        model: model.as_str(),
        version,
        cost,
        repeat_of: String::new(),
    }
}

/// The silver rows of a day, without order.
pub(crate) fn silver(judged: &[Judged], day: Day) -> BTreeSet<Vec<String>> {
    let text = |o: Option<&str>| o.unwrap_or("").to_owned();
    judged
        .iter()
        .filter(|j| j.row.billing_time.day() == day)
        .map(|j| {
            let e = &j.row.event;
            vec![
                e.event_id.to_string(),
                e.kind.to_string(),
                e.ad_id.to_string(),
                e.campaign_id.to_string(),
                text(e.details.impression_id.as_ref().map(|i| i.as_str())),
                text(e.details.user_pseudo_id.as_ref().map(|i| i.as_str())),
                e.details.country.as_str().to_owned(),
                e.details.device_type.as_str().to_owned(),
                e.event_time.0.to_string(),
                e.ingest_time.0.to_string(),
                j.row.billing_time.0.to_string(),
                j.clamped.to_string(),
                j.verdict.clone(),
                j.currency.clone(),
                j.model.to_owned(),
                j.version.to_string(),
                j.cost.to_string(),
                e.region.to_string(),
                j.row.partition.to_string(),
                j.row.position.to_string(),
                j.repeat_of.clone(),
            ]
        })
        .collect()
}

type Counts = [i128; 4];

fn counts(judged: &Judged) -> Counts {
    let is = |kind| i128::from(judged.verdict == "billable" && judged.row.event.kind == kind);
    [is(EventKind::Impression), is(EventKind::Click), is(EventKind::Conversion), i128::from(judged.cost)]
}

fn add(total: &mut Counts, more: Counts) {
    total.iter_mut().zip(more).for_each(|(t, m)| *t += m);
}

fn words(counts: &Counts) -> impl Iterator<Item = String> + '_ {
    counts.iter().map(i128::to_string)
}

fn billable(judged: &[Judged], day: Day) -> impl Iterator<Item = &Judged> {
    judged.iter().filter(move |j| j.row.billing_time.day() == day && j.verdict == "billable")
}

/// `gold/ad_minute`, in its order.
pub(crate) fn ad_minutes(judged: &[Judged], day: Day) -> Vec<Vec<String>> {
    let mut cells: BTreeMap<(i64, String, String, String), Counts> = BTreeMap::new();
    for j in billable(judged, day) {
        let (minute, e) = (j.row.billing_time.floor(MINUTE).0, &j.row.event);
        let key = (minute, e.ad_id.to_string(), e.campaign_id.to_string(), j.currency.clone());
        add(cells.entry(key).or_default(), counts(j));
    }
    let row = |((minute, ad, campaign, currency), c): ((i64, String, String, String), Counts)| {
        [ad, campaign, minute.to_string(), currency].into_iter().chain(words(&c)).collect()
    };
    cells.into_iter().map(row).collect()
}

/// `gold/campaign_hour`, in its order.
pub(crate) fn campaign_hours(judged: &[Judged], day: Day) -> Vec<Vec<String>> {
    type Key = (i64, String, String, String, String);
    let mut cells: BTreeMap<Key, (Counts, BTreeSet<String>)> = BTreeMap::new();
    for j in billable(judged, day) {
        let (hour, e) = (j.row.billing_time.floor(HOUR).0, &j.row.event);
        let (country, device) = (e.details.country.as_str().to_owned(), e.details.device_type.as_str().to_owned());
        let cell = cells.entry((hour, e.campaign_id.to_string(), country, device, j.currency.clone())).or_default();
        add(&mut cell.0, counts(j));
        cell.1.extend(e.details.user_pseudo_id.as_ref().map(|u| u.to_string()));
    }
    let row = |((hour, campaign, country, device, currency), (c, users)): (Key, (Counts, BTreeSet<String>))| {
        let hashes: BTreeSet<u64> = users.iter().map(|u| Sketch::hash(u)).collect();
        let mut sketch = Sketch::new();
        hashes.into_iter().for_each(|h| sketch.add(h));
        let hex: String = sketch.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let key = [hour.to_string(), campaign, country, device, currency];
        key.into_iter().chain(words(&c)).chain([users.len().to_string(), hex]).collect()
    };
    cells.into_iter().map(row).collect()
}

/// `gold/billing_day`, in its order.
pub(crate) fn billing_lines(judged: &[Judged], day: Day) -> Vec<Vec<String>> {
    const OTHERS: [&str; 9] = [
        "duplicate",
        "conflict",
        "repeat_click",
        "invalid:bad_signature",
        "invalid:expired",
        "invalid:known_bot",
        "invalid:datacenter_ip",
        "invalid:rate",
        "invalid:inactive_ad",
    ];
    type Key = (String, String, String, &'static str, u32);
    let mut cells: BTreeMap<Key, (Counts, [u64; 9])> = BTreeMap::new();
    for j in judged.iter().filter(|j| j.row.billing_time.day() == day) {
        let e = &j.row.event;
        let key = (e.campaign_id.to_string(), e.ad_id.to_string(), j.currency.clone(), j.model, j.version);
        let cell = cells.entry(key).or_default();
        add(&mut cell.0, counts(j));
        OTHERS.iter().zip(&mut cell.1).filter(|(v, _)| **v == j.verdict).for_each(|(_, n)| *n += 1);
    }
    let row = |((campaign, ad, currency, model, version), (c, others)): (Key, (Counts, [u64; 9]))| {
        let key = [campaign, ad, currency, model.to_owned(), version.to_string()];
        key.into_iter().chain(words(&c)).chain(others.iter().map(u64::to_string)).collect()
    };
    cells.into_iter().map(row).collect()
}

/// The Merkle root of the day's billed events and how many they are, by RFC 6962 and the documented leaf.
pub(crate) fn merkle(judged: &[Judged], day: Day) -> (String, u64) {
    let sha256 = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
    let mut leaves: BTreeMap<[u8; 32], [u8; 32]> = BTreeMap::new();
    for j in billable(judged, day) {
        let e = &j.row.event;
        let (at, rules) = (j.row.billing_time.0, Counting::default().rules_version);
        let priced = format!("{}|{}|{}|{}|{rules}", j.currency, j.model, j.version, j.cost);
        let body = format!("v1|billable|{}|{}|{}|{}|{at}|{priced}", e.event_id, e.kind, e.campaign_id, e.ad_id);
        let key = sha256(e.event_id.as_str().as_bytes());
        let leaf = sha256(&[&[0][..], &key, &sha256(body.as_bytes())].concat());
        assert_eq!(leaves.insert(key, leaf), None);
    }
    let root = mth(&leaves.values().copied().collect::<Vec<_>>());
    (root.iter().map(|b| format!("{b:02x}")).collect(), leaves.len() as u64)
}

fn mth(leaves: &[[u8; 32]]) -> [u8; 32] {
    let k = (0..).map(|e| 1 << e).take_while(|k| *k < leaves.len()).last();
    match (leaves, k) {
        ([], _) => Sha256::digest([]).into(),
        (leaves, Some(k)) => Sha256::digest([&[1][..], &mth(&leaves[..k]), &mth(&leaves[k..])].concat()).into(),
        (leaves, None) => leaves[0],
    }
}

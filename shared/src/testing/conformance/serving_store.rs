//! What every serving store must do. [`all`] runs the laws one by one, each on a store of its own; [`same`] drives
//! a store and the model ([`MemoryServingStore`]) with the same random calls and compares every answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::MemoryServingStore;
use crate::event::{Country, DeviceType};
use crate::id::{AdId, CampaignId};
use crate::money::Currency;
use crate::rollup::{Counts, Finality, RollupKey, RollupRow, RowVersion};
use crate::serving_store::{Correction, Flush, ServingStore, StoreError, TopBy, Upserted, WriterStatus};
use crate::sketch::Sketch;
use crate::time::{HOUR, MINUTE, Timestamp};

/// The hour the laws play in.
#[must_use]
pub fn hour() -> Timestamp {
    Timestamp::parse("2026-01-05T10:00:00Z").unwrap()
}

/// One ad's minute, `minutes` after [`hour`].
#[must_use]
pub fn ad_minute(ad: &str, minutes: i64, clicks: u64, cost_nanos: i128) -> RollupRow {
    let key = RollupKey::AdMinute {
        minute: hour().plus(minutes * MINUTE),
        ad_id: AdId::new(ad).unwrap(),
        campaign_id: campaign("c1"),
        currency: eur(),
    };
    row(key, clicks, cost_nanos)
}

/// One campaign's minute, `minutes` after [`hour`].
#[must_use]
pub fn campaign_minute(id: &str, minutes: i64, clicks: u64, cost_nanos: i128) -> RollupRow {
    let minute = hour().plus(minutes * MINUTE);
    row(RollupKey::CampaignMinute { minute, campaign_id: campaign(id), currency: eur() }, clicks, cost_nanos)
}

/// One campaign's hour, `hours` after [`hour`], with these unique users.
#[must_use]
pub fn campaign_hour(id: &str, hours: i64, clicks: u64, users: std::ops::Range<u32>) -> RollupRow {
    let key = RollupKey::CampaignHour {
        hour: hour().plus(hours * HOUR),
        campaign_id: campaign(id),
        country: Country::parse("DE").unwrap(),
        device_type: DeviceType::Mobile,
        currency: eur(),
    };
    let mut sketch = Sketch::new();
    users.for_each(|u| sketch.add(Sketch::hash(&format!("user-{u}"))));
    RollupRow { uniques: Some(sketch), ..row(key, clicks, 0) }
}

/// A flush of `writer` in generation 1.
#[must_use]
pub fn flush(writer: u32, sequence: u64, rows: Vec<RollupRow>) -> Flush {
    Flush { writer, version: RowVersion::speed(1, sequence), rows, status: status(sequence) }
}

fn row(key: RollupKey, clicks: u64, cost_nanos: i128) -> RollupRow {
    RollupRow { key, counts: Counts { clicks, cost_nanos, ..Counts::default() }, uniques: None }
}

fn status(sequence: u64) -> WriterStatus {
    let campaign_p95_ms = BTreeMap::from([(campaign("c1"), 7)]);
    let outcomes = BTreeMap::from([("counted".to_owned(), sequence)]);
    WriterStatus { next_position: sequence, flushed_at: hour(), outcomes, campaign_p95_ms, ..WriterStatus::default() }
}

fn campaign(id: &str) -> CampaignId {
    CampaignId::new(id).unwrap()
}

fn eur() -> Currency {
    Currency::parse("EUR").unwrap()
}

fn exact(run: u64) -> RowVersion {
    RowVersion::reconciled(run)
}

fn set(rows: Vec<RollupRow>) -> Correction {
    Correction { set: rows, remove: Vec::new() }
}

/// Clicks per shown key of an hour, by the key's debug text.
async fn shown(store: &dyn ServingStore, hours: i64) -> Vec<(RollupKey, u64)> {
    let rows = store.read_hour(hour().plus(hours * HOUR)).await.unwrap();
    rows.into_iter().map(|r| (r.key, r.counts.clicks)).collect()
}

async fn ad_clicks(store: &dyn ServingStore, ad: &str) -> Vec<(i64, u64, Finality)> {
    let range = hour().plus(-HOUR)..hour().plus(2 * HOUR);
    let points = store.ad_series(&AdId::new(ad).unwrap(), range).await.unwrap();
    points.into_iter().map(|p| (p.window_start.since(hour()) / MINUTE, p.counts.clicks, p.finality)).collect()
}

/// Runs every law; `make` gives a fresh, empty store each time.
pub async fn all(make: impl AsyncFn() -> Arc<dyn ServingStore>) {
    upserts_are_absolute(&*make().await).await;
    an_older_version_loses(&*make().await).await;
    a_zombie_generation_changes_nothing(&*make().await).await;
    writers_sum(&*make().await).await;
    exact_beats_approximate(&*make().await).await;
    overwriting_twice_changes_nothing(&*make().await).await;
    an_older_run_cannot_take_an_hour_back(&*make().await).await;
    a_correction_stays_in_its_hour(&*make().await).await;
    generations_rise(&*make().await).await;
    ranges_end_before_their_end(&*make().await).await;
    an_hour_shows_all_grains_sorted(&*make().await).await;
    finality_follows_ownership_and_settlement(&*make().await).await;
    tops_are_ordered_and_filtered(&*make().await).await;
    money_is_exact_far_beyond_an_i64(&*make().await).await;
    the_newest_status_stays(&*make().await).await;
    old_rows_are_forgotten_a_few_at_a_time(&*make().await).await;
}

async fn upserts_are_absolute(store: &dyn ServingStore) {
    let first = store.upsert_approximate(flush(0, 1, vec![ad_minute("a", 0, 5, 50)])).await.unwrap();
    assert_eq!(first, Upserted { written: 1, superseded: 0 });
    store.upsert_approximate(flush(0, 2, vec![ad_minute("a", 0, 3, 30)])).await.unwrap();
    assert_eq!(ad_clicks(store, "a").await, [(0, 3, Finality::Provisional)], "the newer value replaces, even downward");
    let again = store.upsert_approximate(flush(0, 2, vec![ad_minute("a", 0, 3, 30)])).await.unwrap();
    assert_eq!(again.written, 0, "a flush repeated after a lost answer writes nothing");
}

async fn an_older_version_loses(store: &dyn ServingStore) {
    store.upsert_approximate(flush(0, 2, vec![ad_minute("a", 0, 3, 0)])).await.unwrap();
    let old = store.upsert_approximate(flush(0, 1, vec![ad_minute("a", 0, 9, 0), ad_minute("b", 0, 1, 0)])).await;
    assert_eq!(old.unwrap().written, 1, "only the row that was not there");
    assert_eq!(ad_clicks(store, "a").await, [(0, 3, Finality::Provisional)]);
    let next = Flush { version: RowVersion::speed(2, 0), ..flush(0, 0, vec![ad_minute("a", 0, 4, 0)]) };
    store.upsert_approximate(next).await.unwrap();
    assert_eq!(ad_clicks(store, "a").await, [(0, 4, Finality::Provisional)], "a new generation beats any sequence");
}

async fn a_zombie_generation_changes_nothing(store: &dyn ServingStore) {
    let old = store.next_generation(0).await.unwrap();
    let new = store.next_generation(0).await.unwrap();
    let by = |generation, sequence| Flush {
        version: RowVersion::speed(generation, sequence),
        ..flush(0, sequence, vec![ad_minute("a", 0, sequence, 0)])
    };
    let zombie = store.upsert_approximate(by(old, 9)).await.unwrap();
    assert_eq!(zombie, Upserted::default());
    assert_eq!(ad_clicks(store, "a").await, []);
    assert!(store.writers().await.unwrap().is_empty());
    assert_eq!(store.upsert_approximate(by(new, 1)).await.unwrap().written, 1);
}

async fn writers_sum(store: &dyn ServingStore) {
    for writer in 0..3 {
        let users = writer * 10..writer * 10 + 20;
        let rows = vec![ad_minute("a", 0, 5, 7), campaign_minute("c1", 0, 5, 7), campaign_hour("c1", 0, 5, users)];
        store.upsert_approximate(flush(writer, 1, rows)).await.unwrap();
    }
    let range = hour()..hour().plus(HOUR);
    assert_eq!(ad_clicks(store, "a").await, [(0, 15, Finality::Provisional)]);
    let minutes = store.campaign_series(&campaign("c1"), range.clone()).await.unwrap();
    assert_eq!(minutes.iter().map(|p| (p.counts.clicks, p.counts.cost_nanos)).collect::<Vec<_>>(), [(15, 21)]);
    let hours = store.campaign_hours(&campaign("c1"), range.clone()).await.unwrap();
    let hours: Vec<_> = hours.iter().map(|h| (h.hour, h.counts.clicks, h.uniques.estimate())).collect();
    assert_eq!(hours, [(hour(), 15, 40)], "users of several writers are counted once");
    let rows = store.read_hour(hour()).await.unwrap();
    assert!(rows.iter().all(|r| r.counts.clicks == 15) && rows.len() == 3, "{rows:?}");
}

async fn exact_beats_approximate(store: &dyn ServingStore) {
    let rows = || vec![ad_minute("a", 0, 5, 0), ad_minute("gone", 1, 1, 0), ad_minute("right", 2, 2, 0)];
    for writer in 0..2 {
        store.upsert_approximate(flush(writer, 1, rows())).await.unwrap();
    }
    let correction = Correction {
        set: vec![ad_minute("a", 0, 9, 0), ad_minute("missing", 3, 4, 0)],
        remove: vec![ad_minute("gone", 1, 0, 0).key],
    };
    assert_eq!(store.overwrite_exact(hour(), correction, exact(1)).await.unwrap(), 3);
    let mut late = rows();
    late.push(ad_minute("new", 9, 1, 0));
    late.push(ad_minute("a", 60, 1, 0));
    let done = store.upsert_approximate(flush(0, 1_000_000, late)).await.unwrap();
    assert_eq!(done, Upserted { written: 1, superseded: 4 });
    assert_eq!(ad_clicks(store, "a").await, [(0, 9, Finality::Reconciled), (60, 1, Finality::Provisional)]);
    assert_eq!(ad_clicks(store, "gone").await, []);
    assert_eq!(ad_clicks(store, "new").await, []);
    assert_eq!(ad_clicks(store, "missing").await, [(3, 4, Finality::Reconciled)]);
    assert_eq!(ad_clicks(store, "right").await, [(2, 4, Finality::Reconciled)], "what was right stays as it is");
}

async fn overwriting_twice_changes_nothing(store: &dyn ServingStore) {
    store.upsert_approximate(flush(0, 1, vec![ad_minute("a", 0, 5, 0), ad_minute("b", 0, 5, 0)])).await.unwrap();
    let correction = Correction {
        set: vec![ad_minute("a", 0, 9, 3), campaign_hour("c1", 0, 9, 0..50)],
        remove: vec![ad_minute("b", 0, 0, 0).key],
    };
    assert_eq!(store.overwrite_exact(hour(), correction.clone(), exact(1)).await.unwrap(), 3);
    let before = format!("{:?}", store.read_hour(hour()).await.unwrap());
    assert_eq!(store.overwrite_exact(hour(), correction.clone(), exact(1)).await.unwrap(), 0);
    assert_eq!(store.overwrite_exact(hour(), correction, exact(2)).await.unwrap(), 0);
    assert_eq!(format!("{:?}", store.read_hour(hour()).await.unwrap()), before);
    let other_users = set(vec![campaign_hour("c1", 0, 9, 50..100)]);
    assert_eq!(store.overwrite_exact(hour(), other_users, exact(3)).await.unwrap(), 1, "other users, same counts");
}

async fn an_older_run_cannot_take_an_hour_back(store: &dyn ServingStore) {
    assert_eq!(store.overwrite_exact(hour(), set(vec![ad_minute("a", 0, 2, 0)]), exact(2)).await.unwrap(), 1);
    assert_eq!(store.overwrite_exact(hour(), set(vec![ad_minute("a", 0, 1, 0)]), exact(1)).await.unwrap(), 0);
    assert_eq!(ad_clicks(store, "a").await, [(0, 2, Finality::Reconciled)]);
    let owned = store.owned_hours(hour()..hour().plus(HOUR)).await.unwrap();
    assert_eq!(owned, BTreeMap::from([(hour(), exact(2))]));
}

async fn a_correction_stays_in_its_hour(store: &dyn ServingStore) {
    let outside = store.overwrite_exact(hour(), set(vec![ad_minute("a", 60, 1, 0)]), exact(1)).await;
    assert!(matches!(outside, Err(StoreError::Corrupt(_))), "{outside:?}");
    assert!(store.owned_hours(Timestamp::MIN..Timestamp::MAX).await.unwrap().is_empty(), "nothing was done");
}

async fn generations_rise(store: &dyn ServingStore) {
    let mut last = 0;
    for _ in 0..5 {
        let next = store.next_generation(3).await.unwrap();
        assert!(next > last);
        last = next;
    }
    assert!(store.next_generation(4).await.unwrap() >= 1, "each writer has its own");
}

async fn ranges_end_before_their_end(store: &dyn ServingStore) {
    let ads = (-1..=60).map(|m| ad_minute("a", m, 1, 0));
    let minutes = (-1..=60).map(|m| campaign_minute("c1", m, 1, 0));
    let hours = (-1..=1).map(|h| campaign_hour("c1", h, 1, 0..1));
    store.upsert_approximate(flush(0, 1, ads.chain(minutes).chain(hours).collect())).await.unwrap();
    let (ad, c) = (AdId::new("a").unwrap(), campaign("c1"));
    let range = hour()..hour().plus(HOUR);
    assert_eq!(store.ad_series(&ad, range.clone()).await.unwrap().len(), 60);
    assert_eq!(store.campaign_series(&c, range.clone()).await.unwrap().len(), 60);
    assert_eq!(store.campaign_hours(&c, range.clone()).await.unwrap().len(), 1);
    assert_eq!(store.top(range, TopBy::Clicks, 9, None).await.unwrap().first().unwrap().counts.clicks, 60);
    let part = hour().plus(10 * MINUTE)..hour().plus(12 * MINUTE);
    let starts: Vec<_> = store.ad_series(&ad, part.clone()).await.unwrap().iter().map(|p| p.window_start).collect();
    assert_eq!(starts, [part.start, part.start.plus(MINUTE)]);
    assert_eq!(store.top(part, TopBy::Clicks, 9, None).await.unwrap().first().unwrap().counts.clicks, 2);
    let none = store.ad_series(&ad, hour()..hour()).await.unwrap();
    assert!(none.is_empty(), "an empty range holds nothing");
    for h in -1..=1 {
        store.overwrite_exact(hour().plus(h * HOUR), Correction::default(), exact(1)).await.unwrap();
    }
    let owned = store.owned_hours(hour()..hour().plus(HOUR)).await.unwrap();
    assert_eq!(owned.into_keys().collect::<Vec<_>>(), [hour()]);
}

async fn an_hour_shows_all_grains_sorted(store: &dyn ServingStore) {
    let rows = vec![
        campaign_hour("c1", 0, 1, 0..1),
        campaign_minute("c2", 59, 2, 0),
        campaign_minute("c1", 59, 3, 0),
        ad_minute("b", 0, 4, 0),
        ad_minute("a", 1, 5, 0),
        ad_minute("a", 60, 6, 0),
        campaign_hour("c1", 1, 7, 0..1),
        campaign_minute("c1", -1, 8, 0),
    ];
    store.upsert_approximate(flush(0, 1, rows)).await.unwrap();
    let shown = shown(store, 0).await;
    assert_eq!(shown.iter().map(|(_, clicks)| *clicks).collect::<Vec<_>>(), [4, 5, 3, 2, 1]);
    assert!(shown.is_sorted());
}

async fn finality_follows_ownership_and_settlement(store: &dyn ServingStore) {
    let finality = async || {
        let hours = store.campaign_hours(&campaign("c1"), hour()..hour().plus(2 * HOUR)).await.unwrap();
        let minutes = ad_clicks(store, "a").await;
        let all: Vec<_> = hours.iter().map(|h| h.finality).chain(minutes.iter().map(|m| m.2)).collect();
        all
    };
    use Finality::{Provisional, Reconciled, Settled};
    let rows = vec![ad_minute("a", 0, 1, 0), campaign_hour("c1", 0, 1, 0..1), campaign_hour("c1", 1, 1, 0..1)];
    store.upsert_approximate(flush(0, 1, rows)).await.unwrap();
    assert_eq!(finality().await, [Provisional, Provisional, Provisional]);
    store.overwrite_exact(hour(), Correction::default(), exact(1)).await.unwrap();
    assert_eq!(finality().await, [Reconciled, Provisional, Reconciled]);
    store.mark_settled(hour().day(), 1).await.unwrap();
    assert_eq!(finality().await, [Settled, Provisional, Settled], "an hour nobody reconciled cannot be settled");
    store.overwrite_exact(hour(), Correction::default(), exact(2)).await.unwrap();
    assert_eq!(finality().await, [Settled, Provisional, Settled], "nothing changed, so it is what was published");
    store.overwrite_exact(hour(), set(vec![ad_minute("a", 0, 2, 0)]), exact(3)).await.unwrap();
    assert_eq!(finality().await, [Reconciled, Provisional, Reconciled], "no longer what was published");
    store.mark_settled(hour().day(), 2).await.unwrap();
    assert_eq!(finality().await, [Settled, Provisional, Settled]);
}

async fn tops_are_ordered_and_filtered(store: &dyn ServingStore) {
    let usd = |r: RollupRow| match r.key {
        RollupKey::CampaignMinute { minute, campaign_id, .. } => {
            let currency = Currency::parse("USD").unwrap();
            RollupRow { key: RollupKey::CampaignMinute { minute, campaign_id, currency }, ..r }
        }
        _ => r,
    };
    let rows = vec![
        campaign_minute("few", 0, 1, 900),
        campaign_minute("many", 0, 5, 10),
        campaign_minute("many", 1, 5, 10),
        campaign_minute("tie-b", 0, 3, 30),
        campaign_minute("tie-a", 0, 3, 40),
        usd(campaign_minute("few", 0, 2, 1)),
        campaign_minute("none", 0, 0, 0),
    ];
    store.upsert_approximate(flush(0, 1, rows)).await.unwrap();
    let top = async |by, n, among: Option<&[CampaignId]>| {
        let lines = store.top(hour()..hour().plus(HOUR), by, n, among).await.unwrap();
        let name = |l: &crate::serving_store::TopCampaign| format!("{} {}", l.campaign_id, l.currency);
        lines.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(top(TopBy::Clicks, 4, None).await, ["many EUR", "tie-a EUR", "tie-b EUR", "few USD"]);
    assert_eq!(top(TopBy::Cost, 2, None).await, ["few EUR", "tie-a EUR", "few USD"], "so many per currency");
    let mine = [campaign("few"), campaign("none"), campaign("unknown")];
    assert_eq!(top(TopBy::Clicks, 9, Some(&mine)).await, ["few USD", "few EUR"]);
    assert_eq!(top(TopBy::Clicks, 9, Some(&[])).await, Vec::<String>::new(), "among nobody there is nobody");
    assert_eq!(top(TopBy::Impressions, 9, None).await, Vec::<String>::new());
    let many: Vec<CampaignId> = (0..500).map(|n| campaign(&format!("c{n}"))).chain([campaign("few")]).collect();
    assert_eq!(top(TopBy::Clicks, 9, Some(&many)).await, ["few USD", "few EUR"], "few or many to choose from");
}

async fn money_is_exact_far_beyond_an_i64(store: &dyn ServingStore) {
    let amounts = [i128::from(i64::MAX) * 1_000 + 7, -1, -(i128::from(i64::MAX) * 3) - 5];
    for (writer, nanos) in (0..).zip(amounts) {
        let rows = vec![ad_minute("a", 0, 1, nanos), campaign_minute("c1", 0, 1, nanos)];
        store.upsert_approximate(flush(writer, 1, rows)).await.unwrap();
    }
    let total: i128 = amounts.iter().sum();
    let range = hour()..hour().plus(HOUR);
    let series = store.ad_series(&AdId::new("a").unwrap(), range.clone()).await.unwrap();
    assert_eq!(series.first().unwrap().counts.cost_nanos, total);
    let top = store.top(range, TopBy::Cost, 1, None).await.unwrap();
    assert_eq!(top.first().unwrap().counts.cost_nanos, total);
    assert!(store.read_hour(hour()).await.unwrap().iter().all(|r| r.counts.cost_nanos == total));
}

async fn the_newest_status_stays(store: &dyn ServingStore) {
    store.upsert_approximate(flush(0, 2, Vec::new())).await.unwrap();
    store.upsert_approximate(flush(0, 1, Vec::new())).await.unwrap();
    store.upsert_approximate(flush(7, 1, Vec::new())).await.unwrap();
    assert_eq!(store.writers().await.unwrap(), BTreeMap::from([(0, status(2)), (7, status(1))]));
}

async fn old_rows_are_forgotten_a_few_at_a_time(store: &dyn ServingStore) {
    let mut rows = Vec::new();
    for h in 0..4 {
        rows.extend([ad_minute("a", h * 60, 1, 0), ad_minute("b", h * 60 + 59, 1, 0)]);
        rows.extend([campaign_minute("c1", h * 60, 1, 0), campaign_hour("c1", h, 1, 0..3)]);
    }
    store.upsert_approximate(flush(0, 1, rows)).await.unwrap();
    store.overwrite_exact(hour(), Correction::default(), exact(1)).await.unwrap();
    let (minutes, hours) = (hour().plus(2 * HOUR), hour().plus(HOUR));
    assert_eq!(store.forget(minutes, hours, 1).await.unwrap(), 3, "one of each grain");
    assert_eq!(shown(store, 0).await.len(), 1, "the oldest goes first");
    let mut rest = 0;
    while let rows @ 1.. = store.forget(minutes, hours, 1).await.unwrap() {
        rest += rows;
    }
    assert_eq!(rest, 2 * 2 + 2 - 2, "four ad minutes and two campaign minutes are old, and one campaign hour");
    for (h, left) in [(0, 0), (1, 1), (2, 4), (3, 4)] {
        assert_eq!(shown(store, h).await.len(), left, "hour {h}");
    }
    let late = flush(0, 2, vec![ad_minute("a", 1, 1, 0)]);
    assert_eq!(store.upsert_approximate(late).await.unwrap().superseded, 1, "a forgotten hour stays owned");
}

/// One random call.
#[derive(Debug, Clone)]
pub enum Call {
    /// A flush.
    Flush(Flush),
    /// A correction of the hour so many hours after [`hour`].
    Overwrite(i64, Correction, RowVersion),
    /// The day is published.
    Settle(u32),
    /// A worker starts.
    Generation(u32),
    /// Minutes and hours before so many hours after [`hour`] are forgotten.
    Forget(i64, i64),
}

fn any_row() -> impl Strategy<Value = RollupRow> {
    let counts = (0..5_u64, 0..5_u64, 0..5_u64, -(1_i128 << 70)..(1_i128 << 70));
    let place = (-1..125_i64, 0..4_u8, prop_oneof![Just("EUR"), Just("USD")]);
    (0..3_u8, place, counts, 0..40_u32).prop_map(|(grain, (minute, name, currency), counts, user)| {
        let (id, currency) = (format!("x{name}"), Currency::parse(currency).unwrap());
        let at = hour().plus(minute * MINUTE);
        let campaign_id = campaign(&id);
        let key = match grain {
            0 => RollupKey::AdMinute { minute: at, ad_id: AdId::new(&id).unwrap(), campaign_id, currency },
            1 => RollupKey::CampaignMinute { minute: at, campaign_id, currency },
            _ => RollupKey::CampaignHour {
                hour: at.floor(HOUR),
                campaign_id,
                country: Country::UNKNOWN,
                device_type: if minute % 2 == 0 { DeviceType::Ctv } else { DeviceType::Other },
                currency,
            },
        };
        let mut users = Sketch::new();
        users.add(Sketch::hash(&user.to_string()));
        let uniques = matches!(key, RollupKey::CampaignHour { .. }).then_some(users);
        let (impressions, clicks, conversions, cost_nanos) = counts;
        RollupRow { key, counts: Counts { impressions, clicks, conversions, cost_nanos }, uniques }
    })
}

fn one_per_key(rows: Vec<RollupRow>) -> BTreeMap<RollupKey, RollupRow> {
    rows.into_iter().map(|r| (r.key.clone(), r)).collect()
}

fn any_flush() -> impl Strategy<Value = Call> {
    (0..3_u32, 1..3_u32, 0..20_u64, prop::collection::vec(any_row(), 0..12)).prop_map(
        |(writer, generation, sequence, rows)| {
            let version = RowVersion::speed(generation, sequence);
            let rows = one_per_key(rows).into_values().collect();
            Call::Flush(Flush { writer, version, rows, status: status(sequence) })
        },
    )
}

fn any_overwrite() -> impl Strategy<Value = Call> {
    let rows = prop::collection::vec((any_row(), any::<bool>()), 0..8);
    (-1..3_i64, rows, 1..4_u64).prop_map(|(hours, rows, run)| {
        let inside = |key: &RollupKey| key.hour() == hour().plus(hours * HOUR);
        let (remove, set): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, remove)| *remove);
        let set = one_per_key(set.into_iter().map(|(r, _)| r).filter(|r| inside(&r.key)).collect());
        let remove = one_per_key(remove.into_iter().map(|(r, _)| r).filter(|r| inside(&r.key)).collect());
        let remove = remove.into_keys().filter(|k| !set.contains_key(k)).collect();
        Call::Overwrite(hours, Correction { set: set.into_values().collect(), remove }, exact(run))
    })
}

/// Random histories for [`same`].
pub fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        6 => any_flush(),
        3 => any_overwrite(),
        1 => (1..4_u32).prop_map(Call::Settle),
        1 => (0..3_u32).prop_map(Call::Generation),
        1 => (-1..2_i64, -1..2_i64).prop_map(|(minutes, hours)| Call::Forget(minutes, hours)),
    ];
    prop::collection::vec(call, 1..30)
}

/// Makes the same calls to `store` and to the model: every answer and every view is the same.
pub async fn same(store: &dyn ServingStore, calls: Vec<Call>) {
    let model = MemoryServingStore::new();
    for call in calls {
        let (a, b) = (answer(store, call.clone()).await, answer(&model, call.clone()).await);
        assert_eq!(a, b, "after {call:?}");
    }
    assert_eq!(view(store).await, view(&model).await);
}

async fn answer(store: &dyn ServingStore, call: Call) -> String {
    match call {
        Call::Flush(flush) => format!("{:?}", store.upsert_approximate(flush).await.unwrap()),
        Call::Overwrite(hours, correction, version) => {
            let at = hour().plus(hours * HOUR);
            format!("{:?}", store.overwrite_exact(at, correction, version).await.unwrap())
        }
        Call::Settle(version) => format!("{:?}", store.mark_settled(hour().day(), version).await.unwrap()),
        Call::Forget(minutes, hours) => {
            let (minutes, hours) = (hour().plus(minutes * HOUR), hour().plus(hours * HOUR));
            format!("{:?}", store.forget(minutes, hours, u64::MAX).await.unwrap())
        }
        Call::Generation(writer) => format!("{:?}", store.next_generation(writer).await.unwrap()),
    }
}

fn sketch_text(sketch: Option<&Sketch>) -> Option<u64> {
    sketch.map(Sketch::estimate)
}

/// Everything a reader can see, as lines of text.
async fn view(store: &dyn ServingStore) -> Vec<String> {
    let mut lines = Vec::new();
    for h in -1..4 {
        for r in store.read_hour(hour().plus(h * HOUR)).await.unwrap() {
            lines.push(format!("{:?} {:?} {:?}", r.key, r.counts, sketch_text(r.uniques.as_ref())));
        }
    }
    let range = hour().plus(-3 * MINUTE)..hour().plus(2 * HOUR + 3 * MINUTE);
    for name in ["x0", "x1", "x2", "x3", "x4"] {
        let (ad, c) = (AdId::new(name).unwrap(), campaign(name));
        lines.push(format!("{:?}", store.ad_series(&ad, range.clone()).await.unwrap()));
        lines.push(format!("{:?}", store.campaign_series(&c, range.clone()).await.unwrap()));
        for p in store.campaign_hours(&c, range.clone()).await.unwrap() {
            let uniques = sketch_text(Some(&p.uniques));
            let dimensions = (p.hour, p.country, p.device_type, p.currency);
            lines.push(format!("{dimensions:?} {:?} {uniques:?} {:?}", p.counts, p.finality));
        }
    }
    for by in [TopBy::Clicks, TopBy::Impressions, TopBy::Conversions, TopBy::Cost] {
        lines.push(format!("{:?}", store.top(range.clone(), by, 3, None).await.unwrap()));
        let among = [campaign("x1"), campaign("x3")];
        lines.push(format!("{:?}", store.top(range.clone(), by, 3, Some(&among)).await.unwrap()));
    }
    lines.push(format!("{:?}", store.owned_hours(Timestamp::MIN..Timestamp::MAX).await.unwrap()));
    lines.push(format!("{:?}", store.writers().await.unwrap()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_every_law() {
        all(async || Arc::new(MemoryServingStore::new()) as Arc<dyn ServingStore>).await;
    }

    #[tokio::test]
    async fn a_store_that_is_away_says_so_and_changes_nothing() {
        let store = MemoryServingStore::new();
        store.set_unavailable(true);
        let error = store.upsert_approximate(flush(0, 1, vec![ad_minute("a", 0, 1, 0)])).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Unavailable);
        store.set_unavailable(false);
        assert!(store.read_hour(hour()).await.unwrap().is_empty());
    }
}

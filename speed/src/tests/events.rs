//! Generated events: every field at random (for decoding), and days of plausible traffic with everything that can
//! go wrong in it (for counting).

use bytes::Bytes;
use proptest::prelude::*;
use shared::event::{Country, Details, DeviceType, Event, EventKind, Fingerprint};
use shared::event_log::NewRecord;
use shared::id::{AdId, AdvertiserId, CampaignId, EventId, ImpressionId, RefId};
use shared::money::{Currency, MAX_MICROS};
use shared::partition::partition_of;
use shared::price::{PriceBook, PriceModel, PriceRow};
use shared::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};
use shared::verdict::InvalidCode;
use shared::wire::encode_event;

/// Where generated traffic begins.
pub(crate) const START: Timestamp = Timestamp(20_000 * DAY + 22 * HOUR);

fn text() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,64}"
}

fn kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![Just(EventKind::Click), Just(EventKind::Impression), Just(EventKind::Conversion)]
}

fn reference() -> impl Strategy<Value = Option<RefId>> {
    prop::option::of(text().prop_map(|t| RefId::new(t).unwrap()))
}

fn details() -> impl Strategy<Value = Details> {
    let references = (reference(), reference(), reference(), reference(), reference());
    let free = prop::option::of("\\PC{0,40}");
    let texts = (free.clone(), free.clone(), free);
    let rest = (
        prop::option::of(text().prop_map(|t| ImpressionId::new(t).unwrap())),
        "[A-Z]{2}".prop_map(|c| Country::parse(&c).unwrap()),
        prop::sample::select(DeviceType::ALL.to_vec()),
        prop::option::of(0..=MAX_MICROS),
        prop::option::of("[A-Z]{3}".prop_map(|c| Currency::parse(&c).unwrap())),
        prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(("[a-z]{1,5}", "[0-9]{1,3}"), 1..3)],
    );
    (references, texts, rest).prop_map(|(references, texts, rest)| Details {
        creative_id: references.0,
        publisher_id: references.1,
        impression_id: rest.0,
        user_pseudo_id: references.2,
        session_id: references.3,
        bid_request_id: references.4,
        country: rest.1,
        device_type: rest.2,
        ip_hash: texts.0,
        user_agent: texts.1,
        url: texts.2,
        cost_micros: rest.3,
        currency: rest.4,
        extra: rest.5.into_iter().collect(),
    })
}

/// Any event the log may hold.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let ids = (text(), text(), text(), prop::option::of(text()), text());
    let invalid = prop::option::of(prop::sample::select(InvalidCode::ALL.to_vec()));
    let ours = (invalid, any::<[u8; 16]>(), prop::option::of("\\PC{0,20}"), 0..=Timestamp::MAX.0, any::<i64>());
    (ids, kind(), details(), ours).prop_map(|(ids, kind, details, ours)| Event {
        event_id: EventId::new(ids.0).unwrap(),
        kind,
        event_time: Timestamp(ours.3),
        ingest_time: Timestamp(ours.4),
        ad_id: AdId::new(ids.1).unwrap(),
        campaign_id: CampaignId::new(ids.2).unwrap(),
        advertiser_id: ids.3.map(|t| AdvertiserId::new(t).unwrap()),
        details,
        region: RefId::new(ids.4).unwrap(),
        invalid: ours.0,
        fingerprint: Fingerprint(ours.1),
        traceparent: ours.2,
    })
}

/// One thing that happens in generated traffic.
#[derive(Debug, Clone)]
pub(crate) struct Happening {
    id: u8,
    ad: u8,
    kind: EventKind,
    /// Seconds since the happening before.
    pause: i64,
    /// Event time minus ingest time, seconds.
    skew: i64,
    impression: Option<u8>,
    user: Option<u8>,
    country: bool,
    device: DeviceType,
    invalid: Option<InvalidCode>,
    is_bot: bool,
    is_junk: bool,
    cost: Option<(i64, bool)>,
}

/// Traffic: mostly in order, with duplicates, stragglers, clock errors, forgeries, bots, junk and quiet hours.
pub(crate) fn traffic(most: usize) -> impl Strategy<Value = Vec<Happening>> {
    let pause = prop_oneof![10 => 0..20_i64, 3 => 20..600_i64, 1 => 600..10_000_i64];
    let skew = prop_oneof![
        12 => -40..=0_i64,
        4 => -5_000..=0_i64,
        2 => 0..=299_i64,
        1 => -800_000..=800_000_i64,
    ];
    let invalid = prop_oneof![8 => Just(None), 1 => prop::sample::select(InvalidCode::ALL.to_vec()).prop_map(Some)];
    let odd = (invalid, prop::bool::weighted(0.05), prop::bool::weighted(0.04));
    let place = (any::<bool>(), prop::sample::select(DeviceType::ALL[..2].to_vec()));
    let cost = prop::option::of((0..5_000_000_i64, any::<bool>()));
    let who = (prop::option::of(0..6_u8), prop::option::of(0..12_u8));
    let one = ((0..80_u8, 0..8_u8, kind()), pause, skew, who, place, odd, cost).prop_map(
        |((id, ad, kind), pause, skew, (impression, user), (country, device), (invalid, is_bot, is_junk), cost)| {
            Happening { id, ad, kind, pause, skew, impression, user, country, device, invalid, is_bot, is_junk, cost }
        },
    );
    prop::collection::vec(one, 1..most)
}

/// The log records of some traffic, in the order they were received, for a log of `partitions`.
pub(crate) fn records(traffic: &[Happening], partitions: u32) -> Vec<NewRecord> {
    let mut now = START;
    traffic
        .iter()
        .map(|h| {
            now = now.plus(h.pause * SECOND);
            let ad = format!("ad-{}", h.ad);
            let payload = if h.is_junk { vec![h.id; 3] } else { encode_event(&event(h, now)) };
            NewRecord { partition: partition_of(&ad, partitions), append_time: now, payload: Bytes::from(payload) }
        })
        .collect()
}

fn event(h: &Happening, ingest_time: Timestamp) -> Event {
    let details = Details {
        impression_id: h.impression.map(|n| ImpressionId::new(format!("imp-{n}")).unwrap()),
        user_pseudo_id: h.user.map(|n| RefId::new(format!("user-{n}")).unwrap()),
        country: Country::parse(if h.country { "DE" } else { "FR" }).unwrap(),
        device_type: h.device,
        user_agent: Some(if h.is_bot { "Examplebot/1" } else { "Firefox" }.to_owned()),
        cost_micros: h.cost.map(|(micros, _)| micros),
        currency: h.cost.filter(|(_, named)| *named).map(|_| Currency::parse("CHF").unwrap()),
        ..Details::default()
    };
    Event {
        event_id: EventId::new(format!("event-{}", h.id)).unwrap(),
        kind: h.kind,
        event_time: Timestamp((ingest_time.0 + h.skew * SECOND).max(0)),
        ingest_time,
        ad_id: AdId::new(format!("ad-{}", h.ad)).unwrap(),
        campaign_id: CampaignId::new(format!("c{}", h.ad % 4)).unwrap(),
        advertiser_id: None,
        details,
        region: RefId::new("eu").unwrap(),
        invalid: h.invalid,
        fingerprint: Fingerprint([h.id; 16]),
        traceparent: None,
    }
}

/// A plain click that counts: `id` on ad 0, received at `ingest_time`, `age` microseconds after it happened.
pub(crate) fn click(id: &str, ingest_time: Timestamp, age: i64) -> Event {
    let happening = Happening {
        id: 0,
        ad: 0,
        kind: EventKind::Click,
        pause: 0,
        skew: 0,
        impression: None,
        user: None,
        country: true,
        device: DeviceType::Mobile,
        invalid: None,
        is_bot: false,
        is_junk: false,
        cost: None,
    };
    let event_time = ingest_time.plus(-age);
    Event { event_id: EventId::new(id).unwrap(), event_time, ..event(&happening, ingest_time) }
}

/// Campaigns c0 (cpc, dearer after two hours), c1 (cpm), c2 (reported); c3 has no price.
pub(crate) fn prices() -> PriceBook {
    let row = |campaign: &str, model, price_micros, currency: &str, valid_from: Timestamp| PriceRow {
        campaign_id: CampaignId::new(campaign).unwrap(),
        model,
        price_micros,
        currency: Currency::parse(currency).unwrap(),
        valid_from: valid_from.to_string(),
    };
    PriceBook::default()
        .import([
            row("c0", PriceModel::Cpc, 250_000, "EUR", Timestamp::MIN),
            row("c0", PriceModel::Cpc, 300_001, "USD", START.plus(2 * HOUR + 7 * MINUTE)),
            row("c1", PriceModel::Cpm, 1_234_567, "USD", Timestamp::MIN),
            row("c2", PriceModel::Reported, 0, "EUR", Timestamp::MIN),
        ])
        .unwrap()
}

//! Traffic of the bench programs: clicks, impressions and conversions of one partition from a seed, in the order of
//! their positions, some of them sent twice.
//! Never: times anything, or gives other events for the same [`Shape`].

use std::collections::VecDeque;

use anyhow::{Context, ensure};
use shared::event::{Country, Details, DeviceType, Event, EventKind, Fingerprint};
use shared::event_log::Record;
use shared::id::{AdId, CampaignId, EventId, ImpressionId, RefId};
use shared::money::Currency;
use shared::price::{PriceBook, PriceModel, PriceRow};
use shared::time::{SECOND, Timestamp};
use shared::wire::encode_event;

use crate::support::Dice;

/// 2026-01-05T10:00:00Z.
const START: Timestamp = Timestamp(1_767_607_200_000_000);
/// One event in so many is a second sending of one of the last [`REMEMBERED`].
const DUPLICATE_EVERY: u64 = 100;
const REMEMBERED: usize = 20_000;
const CAMPAIGNS: u64 = 1_000;
const USERS: u64 = 1_000_000;
const COUNTRIES: [&str; 8] = ["US", "DE", "FR", "GB", "JP", "BR", "IN", "ES"];
const AGENT: &str =
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1";

/// What traffic.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Shape {
    /// Events.
    #[arg(long, default_value_t = 2_000_000)]
    pub(crate) events: u64,
    /// Events in a second of event time.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) rate: u64,
    /// Ads, drawn with the weights 1, 1/2, 1/3, …
    #[arg(long, default_value_t = 100_000)]
    pub(crate) ads: u32,
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// A price for every campaign.
///
/// # Errors
/// None that can happen: the prices are well formed.
pub(crate) fn prices() -> anyhow::Result<PriceBook> {
    let mut rows = Vec::new();
    for campaign in 0..CAMPAIGNS {
        rows.push(PriceRow {
            campaign_id: CampaignId::new(format!("camp-{campaign}"))?,
            model: if campaign % 2 == 0 { PriceModel::Cpm } else { PriceModel::Cpc },
            price_micros: 1_234_567,
            currency: Currency::parse("EUR").context("a currency")?,
            valid_from: "2026-01-01T00:00:00Z".to_owned(),
        });
    }
    Ok(PriceBook::default().import(rows)?)
}

/// The event as a client's JSON, with the ingest time that an import may say.
pub(crate) fn line(event: &Event) -> serde_json::Value {
    let details = &event.details;
    serde_json::json!({
        "eventId": event.event_id.as_str(),
        "eventType": event.kind.as_str(),
        "timestamp": event.event_time.0 / 1_000,
        "adId": event.ad_id.as_str(),
        "campaignId": event.campaign_id.as_str(),
        "creativeId": details.creative_id.as_ref().map(RefId::as_str),
        "publisherId": details.publisher_id.as_ref().map(RefId::as_str),
        "impressionId": details.impression_id.as_ref().map(|id| id.as_str()),
        "userPseudoId": details.user_pseudo_id.as_ref().map(RefId::as_str),
        "country": details.country.as_str(),
        "deviceType": details.device_type.as_str(),
        "userAgent": details.user_agent,
        "ingestTime": event.ingest_time.0 / 1_000,
    })
}

/// Log records of one partition, in the order of their positions.
pub(crate) struct Traffic {
    dice: Dice,
    rate: u64,
    /// Running sums of the ads' weights.
    weights: Vec<u64>,
    made: u64,
    pub(crate) duplicates: u64,
    pub(crate) bytes: u64,
    recent: VecDeque<Event>,
}

impl Traffic {
    /// Traffic of this shape, from its first event.
    ///
    /// # Errors
    /// When a number of the shape is 0.
    pub(crate) fn new(shape: &Shape) -> anyhow::Result<Self> {
        ensure!(shape.events > 0 && shape.rate > 0 && shape.ads > 0, "events, rate and ads must be at least 1");
        let mut sum = 0_u64;
        let weights = (1..=u64::from(shape.ads)).map(|rank| {
            sum += 1_000_000_000 / rank + 1;
            sum
        });
        Ok(Self {
            dice: Dice::new(shape.seed),
            rate: shape.rate,
            weights: weights.collect(),
            made: 0,
            duplicates: 0,
            bytes: 0,
            recent: VecDeque::new(),
        })
    }

    /// Events so far that were sent for the first time.
    pub(crate) fn unique(&self) -> u64 {
        self.made - self.duplicates
    }

    /// The moment of the next event.
    pub(crate) fn now(&self) -> Timestamp {
        START.plus(i64::try_from(self.made * 1_000_000 / self.rate).unwrap_or(i64::MAX))
    }

    /// The next `n` events as log records.
    pub(crate) fn take(&mut self, n: u64) -> anyhow::Result<Vec<Record>> {
        (0..n).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> anyhow::Result<Record> {
        let (position, event) = (self.made, self.next()?);
        let payload = encode_event(&event);
        self.bytes += payload.len() as u64;
        Ok(Record { partition: 0, position, append_time: event.ingest_time, payload: payload.into() })
    }

    /// The next event: a new one, or one of the last ones again.
    pub(crate) fn next(&mut self) -> anyhow::Result<Event> {
        let now = self.now();
        self.made += 1;
        let is_again = self.dice.below(DUPLICATE_EVERY) == 0 && !self.recent.is_empty();
        if is_again {
            self.duplicates += 1;
            let which = usize::try_from(self.dice.below(self.recent.len() as u64))?;
            let first = self.recent.get(which).context("no such event")?;
            return Ok(Event { ingest_time: now, ..first.clone() });
        }
        let event = self.event(now)?;
        self.recent.push_back(event.clone());
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
        Ok(event)
    }

    fn event(&mut self, now: Timestamp) -> anyhow::Result<Event> {
        let dice = &mut self.dice;
        let roll = dice.below(self.weights.last().copied().unwrap_or(1));
        let ad = self.weights.partition_point(|sum| *sum <= roll) as u64;
        let user = dice.below(USERS);
        let kind = match dice.below(1_000) {
            0..920 => EventKind::Impression,
            920..995 => EventKind::Click,
            _ => EventKind::Conversion,
        };
        let country = COUNTRIES.get(usize::try_from(dice.below(8))?).copied().and_then(Country::parse);
        let device = DeviceType::ALL.get(usize::try_from(dice.below(5))?).copied();
        let mut fingerprint = [0; 16];
        fingerprint[..8].copy_from_slice(&dice.bits().to_le_bytes());
        Ok(Event {
            event_id: EventId::new(format!("{:016x}{:016x}", dice.bits(), dice.bits()))?,
            kind,
            event_time: now.plus(-i64::try_from(dice.below(20 * SECOND.unsigned_abs()))?),
            ingest_time: now,
            ad_id: AdId::new(format!("ad-{ad}"))?,
            campaign_id: CampaignId::new(format!("camp-{}", ad % CAMPAIGNS))?,
            advertiser_id: None,
            details: Details {
                creative_id: Some(RefId::new(format!("cr-{}", ad % 7))?),
                publisher_id: Some(RefId::new(format!("pub-{}", user % 50))?),
                impression_id: Some(ImpressionId::new(format!("imp-{:016x}", dice.bits()))?),
                user_pseudo_id: Some(RefId::new(format!("u-{user}"))?),
                country: country.unwrap_or_default(),
                device_type: device.unwrap_or_default(),
                user_agent: Some(AGENT.to_owned()),
                ..Details::default()
            },
            region: RefId::new("local")?,
            invalid: None,
            fingerprint: Fingerprint(fingerprint),
            traceparent: None,
        })
    }
}

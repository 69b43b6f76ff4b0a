//! An event's fields, borrowed from where they are: the bytes of a log record, or an [`Event`].
//!
//! The usual record is read in place, without copying a field. Anything unusual (a field we do not expect on the log,
//! unknown optional fields, an odd encoding, a value near a limit) is left to [`crate::wire::decode_event`], which alone
//! decides what is an event. Guarantee: what is read in place is what the full decoder reads (a property test holds them
//! together). Never: accepts what the full decoder refuses.

use std::collections::BTreeMap;

use crate::event::{Country, DeviceType, Event, EventKind, MAX_TEXT_BYTES, SCHEMA_VERSION};
use crate::id::is_id;
use crate::money::{Currency, MAX_MICROS};
use crate::time::Timestamp;
use crate::verdict::InvalidCode;
use crate::wire::WIRE_VERSION;

/// The fields of an [`Event`], by the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // documented on `Event` and `Details`
pub struct EventView<'a> {
    pub event_id: &'a str,
    pub kind: EventKind,
    pub event_time: Timestamp,
    pub ingest_time: Timestamp,
    pub ad_id: &'a str,
    pub campaign_id: &'a str,
    pub advertiser_id: Option<&'a str>,
    pub creative_id: Option<&'a str>,
    pub publisher_id: Option<&'a str>,
    pub impression_id: Option<&'a str>,
    pub user_pseudo_id: Option<&'a str>,
    pub session_id: Option<&'a str>,
    pub bid_request_id: Option<&'a str>,
    pub country: Country,
    pub device_type: DeviceType,
    pub ip_hash: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub url: Option<&'a str>,
    pub cost_micros: Option<i64>,
    pub currency: Option<Currency>,
    /// `None` when there are none.
    pub extra: Option<&'a BTreeMap<String, String>>,
    pub region: &'a str,
    pub invalid: Option<InvalidCode>,
    pub fingerprint: [u8; 16],
    pub traceparent: Option<&'a str>,
}

impl<'a> EventView<'a> {
    /// The event in the bytes of a log record. `None` is "not sure", never "not an event".
    #[must_use]
    pub fn in_place(payload: &'a [u8]) -> Option<Self> {
        let (version, mut rest) = payload.split_first()?;
        if *version != WIRE_VERSION {
            return None;
        }
        let mut fields = Fields::default();
        while !rest.is_empty() {
            let (key, after) = varint(rest)?;
            rest = match key & 7 {
                0 => {
                    let (value, after) = varint(after)?;
                    fields.number(key >> 3, value)?;
                    after
                }
                2 => {
                    let (length, after) = varint(after)?;
                    let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                    fields.bytes(key >> 3, value)?;
                    after
                }
                _ => return None,
            };
        }
        fields.view()
    }
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        fn text<T: AsRef<str>>(value: &Option<T>) -> Option<&str> {
            value.as_ref().map(AsRef::as_ref)
        }
        let details = &event.details;
        Self {
            event_id: event.event_id.as_str(),
            kind: event.kind,
            event_time: event.event_time,
            ingest_time: event.ingest_time,
            ad_id: event.ad_id.as_str(),
            campaign_id: event.campaign_id.as_str(),
            advertiser_id: text(&event.advertiser_id),
            creative_id: text(&details.creative_id),
            publisher_id: text(&details.publisher_id),
            impression_id: text(&details.impression_id),
            user_pseudo_id: text(&details.user_pseudo_id),
            session_id: text(&details.session_id),
            bid_request_id: text(&details.bid_request_id),
            country: details.country,
            device_type: details.device_type,
            ip_hash: text(&details.ip_hash),
            user_agent: text(&details.user_agent),
            url: text(&details.url),
            cost_micros: details.cost_micros,
            currency: details.currency,
            extra: Some(&details.extra).filter(|extra| !extra.is_empty()),
            region: event.region.as_str(),
            invalid: event.invalid,
            fingerprint: event.fingerprint.0,
            traceparent: text(&event.traceparent),
        }
    }
}

/// The fields as they come; a later one of the same number replaces an earlier one, as protobuf wants.
#[derive(Default)]
struct Fields<'a> {
    event_id: Option<&'a str>,
    kind: Option<EventKind>,
    event_time: Option<i64>,
    ad_id: Option<&'a str>,
    campaign_id: Option<&'a str>,
    advertiser_id: Option<&'a str>,
    creative_id: Option<&'a str>,
    publisher_id: Option<&'a str>,
    impression_id: Option<&'a str>,
    user_pseudo_id: Option<&'a str>,
    session_id: Option<&'a str>,
    bid_request_id: Option<&'a str>,
    country: Option<Country>,
    device_type: Option<DeviceType>,
    ip_hash: Option<&'a str>,
    user_agent: Option<&'a str>,
    url: Option<&'a str>,
    cost_micros: Option<i64>,
    currency: Option<Currency>,
    ingest_time: Option<i64>,
    region: Option<&'a str>,
    invalid: Option<InvalidCode>,
    fingerprint: Option<[u8; 16]>,
    traceparent: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn number(&mut self, tag: u64, value: u64) -> Option<()> {
        let value = i64::try_from(value).ok()?;
        match tag {
            3 => self.event_time = Some(value),
            18 if value <= MAX_MICROS => self.cost_micros = Some(value),
            20 if value <= i64::from(SCHEMA_VERSION) => {}
            32 => self.ingest_time = Some(value),
            37 => {}
            _ => return None,
        }
        Some(())
    }

    fn bytes(&mut self, tag: u64, value: &'a [u8]) -> Option<()> {
        if tag == 35 {
            self.fingerprint = Some(value.try_into().ok()?);
            return Some(());
        }
        let text = std::str::from_utf8(value).ok()?;
        match tag {
            1 => self.event_id = Some(id(text)?),
            2 => self.kind = Some(EventKind::parse(text)?),
            4 => self.ad_id = Some(id(text)?),
            5 => self.campaign_id = Some(id(text)?),
            6 => self.advertiser_id = Some(id(text)?),
            7 => self.creative_id = Some(id(text)?),
            8 => self.publisher_id = Some(id(text)?),
            9 => self.impression_id = Some(id(text)?),
            10 => self.user_pseudo_id = Some(id(text)?),
            11 => self.session_id = Some(id(text)?),
            12 => self.bid_request_id = Some(id(text)?),
            13 => self.country = Some(Country::parse(text)?),
            14 => self.device_type = Some(DeviceType::parse(text)?),
            15 => self.ip_hash = Some(short(text)?),
            16 => self.user_agent = Some(short(text)?),
            17 => self.url = Some(short(text)?),
            19 => self.currency = Some(Currency::parse(text)?),
            33 => self.region = Some(id(text)?),
            34 => self.invalid = Some(InvalidCode::parse(text)?),
            36 => self.traceparent = Some(text),
            _ => return None,
        }
        Some(())
    }

    fn view(self) -> Option<EventView<'a>> {
        let event_time = Timestamp(self.event_time?);
        Some(EventView {
            event_id: self.event_id?,
            kind: self.kind?,
            event_time: (event_time <= Timestamp::MAX).then_some(event_time)?,
            ingest_time: Timestamp(self.ingest_time?),
            ad_id: self.ad_id?,
            campaign_id: self.campaign_id?,
            advertiser_id: self.advertiser_id,
            creative_id: self.creative_id,
            publisher_id: self.publisher_id,
            impression_id: self.impression_id,
            user_pseudo_id: self.user_pseudo_id,
            session_id: self.session_id,
            bid_request_id: self.bid_request_id,
            country: self.country.unwrap_or_default(),
            device_type: self.device_type.unwrap_or_default(),
            ip_hash: self.ip_hash,
            user_agent: self.user_agent,
            url: self.url,
            cost_micros: self.cost_micros,
            currency: self.currency,
            extra: None,
            region: self.region?,
            invalid: self.invalid,
            fingerprint: self.fingerprint?,
            traceparent: self.traceparent,
        })
    }
}

fn id(text: &str) -> Option<&str> {
    is_id(text.as_bytes()).then_some(text)
}

fn short(text: &str) -> Option<&str> {
    (text.len() <= MAX_TEXT_BYTES).then_some(text)
}

/// A protobuf varint of at most nine bytes (a tenth only carries negative numbers, which are unusual here).
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return bytes.get(i + 1..).map(|rest| (value, rest));
        }
    }
    None
}

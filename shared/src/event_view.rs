//! An event's fields, borrowed from where they are: the bytes of a log record, or an [`Event`]. Read by the speed layer,
//! which counts, and by the lake, which keeps.
//!
//! The usual record is read in place, without copying a field; an id's form is judged once, and it stays bytes. Anything unusual (a field we do not expect on the log,
//! unknown optional fields, an odd encoding, a value near a limit) is left to [`crate::wire::decode_event`], which alone
//! decides what is an event. Guarantee: what is read in place is what the full decoder reads (a property test holds them
//! together). Never: accepts what the full decoder refuses.

use std::collections::BTreeMap;

use crate::event::{Country, DeviceType, Event, EventKind, MAX_TEXT_BYTES, SCHEMA_VERSION};
use crate::id::{AdvertiserId, IdRef, ImpressionId, RefId};
use crate::money::{Currency, MAX_MICROS};
use crate::time::Timestamp;
use crate::verdict::InvalidCode;
use crate::wire::WIRE_VERSION;

/// The fields of an [`Event`], by the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // documented on `Event` and `Details`
pub struct EventView<'a> {
    pub event_id: IdRef<'a>,
    pub kind: EventKind,
    pub event_time: Timestamp,
    pub ingest_time: Timestamp,
    pub ad_id: IdRef<'a>,
    pub campaign_id: IdRef<'a>,
    pub advertiser_id: Option<IdRef<'a>>,
    pub creative_id: Option<IdRef<'a>>,
    pub publisher_id: Option<IdRef<'a>>,
    pub impression_id: Option<IdRef<'a>>,
    pub user_pseudo_id: Option<IdRef<'a>>,
    pub session_id: Option<IdRef<'a>>,
    pub bid_request_id: Option<IdRef<'a>>,
    pub country: Country,
    pub device_type: DeviceType,
    pub ip_hash: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub url: Option<&'a str>,
    pub cost_micros: Option<i64>,
    pub currency: Option<Currency>,
    /// `None` when there are none.
    pub extra: Option<&'a BTreeMap<String, String>>,
    pub region: IdRef<'a>,
    pub invalid: Option<InvalidCode>,
    pub fingerprint: [u8; 16],
    pub traceparent: Option<&'a str>,
}

/// The fields every record has, as bits by their numbers.
const REQUIRED: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 32 | 1 << 33 | 1 << 35;

impl<'a> EventView<'a> {
    /// The event in the bytes of a log record. `None` is "not sure", never "not an event".
    #[must_use]
    pub fn in_place(payload: &'a [u8]) -> Option<Self> {
        let mut view = Self::empty();
        view.read(payload).then_some(view)
    }

    /// [`EventView::in_place`] for readers of many: over what was in it, without moving it. Whether it is sure; where it
    /// is not, the fields mean nothing.
    #[must_use]
    pub fn read(&mut self, payload: &'a [u8]) -> bool {
        *self = Self::empty();
        self.fields(payload).is_some_and(|read| read & REQUIRED == REQUIRED) && self.event_time <= Timestamp::MAX
    }

    /// Reads every field; which there were, as bits by their numbers.
    fn fields(&mut self, payload: &'a [u8]) -> Option<u64> {
        let (version, mut rest) = payload.split_first()?;
        if *version != WIRE_VERSION {
            return None;
        }
        let mut read = 0_u64;
        while !rest.is_empty() {
            let (key, after) = varint(rest)?;
            let (value, after) = varint(after)?;
            rest = match key & 7 {
                0 => {
                    self.number(key >> 3, value)?;
                    after
                }
                2 => {
                    let (value, after) = after.split_at_checked(usize::try_from(value).ok()?)?;
                    self.bytes(key >> 3, value)?;
                    after
                }
                _ => return None,
            };
            // Only the numbers below, none beyond 63, come this far.
            read |= 1 << ((key >> 3) & 63);
        }
        Some(read)
    }

    /// What stands in the fields before they are read.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            event_id: IdRef::NONE,
            kind: EventKind::Impression,
            event_time: Timestamp::MIN,
            ingest_time: Timestamp::MIN,
            ad_id: IdRef::NONE,
            campaign_id: IdRef::NONE,
            advertiser_id: None,
            creative_id: None,
            publisher_id: None,
            impression_id: None,
            user_pseudo_id: None,
            session_id: None,
            bid_request_id: None,
            country: Country::UNKNOWN,
            device_type: DeviceType::Other,
            ip_hash: None,
            user_agent: None,
            url: None,
            cost_micros: None,
            currency: None,
            extra: None,
            region: IdRef::NONE,
            invalid: None,
            fingerprint: [0; 16],
            traceparent: None,
        }
    }

    /// A later field replaces an earlier one of the same number, as protobuf wants.
    fn number(&mut self, tag: u64, value: u64) -> Option<()> {
        let value = i64::try_from(value).ok()?;
        match tag {
            3 => self.event_time = Timestamp(value),
            18 if value <= MAX_MICROS => self.cost_micros = Some(value),
            20 if value <= i64::from(SCHEMA_VERSION) => {}
            32 => self.ingest_time = Timestamp(value),
            37 => {}
            _ => return None,
        }
        Some(())
    }

    fn bytes(&mut self, tag: u64, value: &'a [u8]) -> Option<()> {
        match tag {
            1 => self.event_id = IdRef::new(value)?,
            2 => self.kind = one_of(KINDS, value, |kind| kind.as_str())?,
            4 => self.ad_id = IdRef::new(value)?,
            5 => self.campaign_id = IdRef::new(value)?,
            6 => self.advertiser_id = Some(IdRef::new(value)?),
            7 => self.creative_id = Some(IdRef::new(value)?),
            8 => self.publisher_id = Some(IdRef::new(value)?),
            9 => self.impression_id = Some(IdRef::new(value)?),
            10 => self.user_pseudo_id = Some(IdRef::new(value)?),
            11 => self.session_id = Some(IdRef::new(value)?),
            12 => self.bid_request_id = Some(IdRef::new(value)?),
            13 => self.country = Country::of(value.try_into().ok()?)?,
            14 => self.device_type = one_of(DeviceType::ALL, value, |device| device.as_str())?,
            15 => self.ip_hash = Some(short(value)?),
            16 => self.user_agent = Some(short(value)?),
            17 => self.url = Some(short(value)?),
            19 => self.currency = Some(Currency::parse(text(value)?)?),
            33 => self.region = IdRef::new(value)?,
            34 => self.invalid = Some(InvalidCode::parse(text(value)?)?),
            35 => self.fingerprint = value.try_into().ok()?,
            36 => self.traceparent = Some(text(value)?),
            _ => return None,
        }
        Some(())
    }
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        let details = &event.details;
        Self {
            event_id: event.event_id.borrowed(),
            kind: event.kind,
            event_time: event.event_time,
            ingest_time: event.ingest_time,
            ad_id: event.ad_id.borrowed(),
            campaign_id: event.campaign_id.borrowed(),
            advertiser_id: event.advertiser_id.as_ref().map(AdvertiserId::borrowed),
            creative_id: details.creative_id.as_ref().map(RefId::borrowed),
            publisher_id: details.publisher_id.as_ref().map(RefId::borrowed),
            impression_id: details.impression_id.as_ref().map(ImpressionId::borrowed),
            user_pseudo_id: details.user_pseudo_id.as_ref().map(RefId::borrowed),
            session_id: details.session_id.as_ref().map(RefId::borrowed),
            bid_request_id: details.bid_request_id.as_ref().map(RefId::borrowed),
            country: details.country,
            device_type: details.device_type,
            ip_hash: details.ip_hash.as_deref(),
            user_agent: details.user_agent.as_deref(),
            url: details.url.as_deref(),
            cost_micros: details.cost_micros,
            currency: details.currency,
            extra: Some(&details.extra).filter(|extra| !extra.is_empty()),
            region: event.region.borrowed(),
            invalid: event.invalid,
            fingerprint: event.fingerprint.0,
            traceparent: event.traceparent.as_deref(),
        }
    }
}

const KINDS: [EventKind; 3] = [EventKind::Impression, EventKind::Click, EventKind::Conversion];

/// The one whose word these bytes are.
fn one_of<T: Copy, const N: usize>(all: [T; N], value: &[u8], word: impl Fn(&T) -> &'static str) -> Option<T> {
    all.into_iter().find(|one| word(one).as_bytes() == value)
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn short(value: &[u8]) -> Option<&str> {
    (value.len() <= MAX_TEXT_BYTES).then_some(value).and_then(text)
}

/// A protobuf varint of at most nine bytes (a tenth only carries negative numbers, which are unusual here).
#[inline]
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    match bytes {
        [one, rest @ ..] if *one < 0x80 => Some((u64::from(*one), rest)),
        [one, two, rest @ ..] if *two < 0x80 => Some((u64::from(one & 0x7F) | u64::from(*two) << 7, rest)),
        _ => long_varint(bytes),
    }
}

fn long_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return bytes.get(i + 1..).map(|rest| (value, rest));
        }
    }
    None
}

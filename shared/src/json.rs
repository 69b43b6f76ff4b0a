//! JSON in: one object to [`Fields`] that borrow from it, in one pass, without building a tree. What is plain (`plain`) is
//! read by hand, everything else and every error is serde's.
//! Unknown fields are kept as JSON text in `extra`; `null` is the same as absent; a field sent twice is refused.

mod plain;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::event::{MAX_EXTRA_FIELDS, RejectReason, Rejection};
use crate::fields::{self, Fields};
use crate::time::Timestamp;

/// Reads one JSON object with nothing after it.
pub(crate) fn read(bytes: &[u8]) -> Result<Fields<'_>, Rejection> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Rejection::new(RejectReason::Malformed, "not a JSON object"));
    }
    // Text that is whole UTF-8 need not be looked at again string by string; other bytes get the reader's own words.
    let object = match std::str::from_utf8(bytes) {
        Ok(text) => match plain::read(text) {
            Some(fields) => return Ok(fields),
            None => serde_json::from_str::<Object<'_>>(text),
        },
        Err(_) => serde_json::from_slice(bytes),
    };
    object.map(|o| o.0).map_err(|e| {
        let reason = if e.is_data() { RejectReason::BadValue } else { RejectReason::Malformed };
        Rejection::new(reason, e.to_string())
    })
}

/// Where the value of a field goes.
enum Slot<'s, 'a> {
    Text(&'s mut fields::Text<'a>),
    Time(&'s mut Option<i64>),
    Whole(&'s mut Option<i64>),
    Version(&'s mut Option<u32>),
}

impl<'s, 'a> Slot<'s, 'a> {
    /// The place of the field that JSON calls `name`; `None` when we know no such field.
    fn of(fields: &'s mut Fields<'a>, name: &str) -> Option<Self> {
        let p = &mut fields.payload;
        Some(match name {
            "eventId" | "clickId" => Self::Text(&mut p.event_id),
            "eventType" => Self::Text(&mut p.event_type),
            "timestamp" => Self::Time(&mut p.event_time),
            "adId" => Self::Text(&mut p.ad_id),
            "campaignId" => Self::Text(&mut p.campaign_id),
            "advertiserId" => Self::Text(&mut p.advertiser_id),
            "creativeId" => Self::Text(&mut p.creative_id),
            "publisherId" => Self::Text(&mut p.publisher_id),
            "impressionId" => Self::Text(&mut p.impression_id),
            "userPseudoId" => Self::Text(&mut p.user_pseudo_id),
            "sessionId" => Self::Text(&mut p.session_id),
            "bidRequestId" => Self::Text(&mut p.bid_request_id),
            "country" => Self::Text(&mut p.country),
            "deviceType" => Self::Text(&mut p.device_type),
            "ipHash" => Self::Text(&mut p.ip_hash),
            "userAgent" => Self::Text(&mut p.user_agent),
            "url" => Self::Text(&mut p.url),
            "costMicros" => Self::Whole(&mut p.cost_micros),
            "currency" => Self::Text(&mut p.currency),
            "schemaVersion" => Self::Version(&mut p.schema_version),
            "signature" => Self::Text(&mut fields.signature),
            "keyId" => Self::Text(&mut fields.key_id),
            "expiresAt" => Self::Time(&mut fields.expires_at),
            "nonce" => Self::Text(&mut fields.nonce),
            "ingestTime" => Self::Time(&mut fields.ingest_time),
            _ => return None,
        })
    }
}

struct Object<'a>(Fields<'a>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

/// Takes the next value into `slot`; a second value for the same field is an error.
fn put<'de, A: MapAccess<'de>, T: Deserialize<'de>, U>(
    map: &mut A,
    key: &str,
    slot: &mut Option<U>,
    plain: impl FnOnce(T) -> U,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        if slot.is_some() {
            return Err(de::Error::custom(format!("{key} is given twice")));
        }
        *slot = Some(plain(value));
    }
    Ok(())
}

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with the fields of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            let key = key.as_ref();
            match Slot::of(&mut fields, key) {
                Some(Slot::Text(slot)) => put(&mut map, key, slot, |Text(v)| v)?,
                Some(Slot::Time(slot)) => put(&mut map, key, slot, |Time(t)| t)?,
                Some(Slot::Whole(slot)) => put(&mut map, key, slot, |n| n)?,
                Some(Slot::Version(slot)) => put(&mut map, key, slot, |n| n)?,
                None => {
                    let value: serde_json::Value = map.next_value()?;
                    if value.is_null() {
                        continue;
                    }
                    let extra = fields.payload.extra.to_mut();
                    if extra.len() == MAX_EXTRA_FIELDS {
                        return Err(de::Error::custom(format!("more than {MAX_EXTRA_FIELDS} unknown fields")));
                    }
                    if extra.insert(key.to_owned(), canonical(&value)).is_some() {
                        return Err(de::Error::custom(format!("{key} is given twice")));
                    }
                }
            }
        }
        Ok(Object(fields))
    }
}

/// JSON text with sorted object keys, so that equal values are equal text.
fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let sorted: std::collections::BTreeMap<_, _> = fields.iter().collect();
            let pairs = sorted.into_iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), canonical(v)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(TextVisitor)
    }
}

/// RFC 3339 text or integer epoch milliseconds, as UTC microseconds.
struct Time(i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct TimeVisitor;
        impl Visitor<'_> for TimeVisitor {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time or integer epoch milliseconds")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Time, E> {
                Timestamp::parse(v).map(|t| Time(t.0)).ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Time, E> {
                Timestamp::from_millis(v)
                    .map(|t| Time(t.0))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(v), &self))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Time, E> {
                i64::try_from(v)
                    .ok()
                    .and_then(Timestamp::from_millis)
                    .map(|t| Time(t.0))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(v), &self))
            }
        }
        d.deserialize_any(TimeVisitor)
    }
}

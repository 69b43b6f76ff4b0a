//! JSON in: one object to an [`EventMessage`], in one pass, without building a tree.
//! Unknown fields are kept as JSON text in `extra`; `null` is the same as absent; a field sent twice is refused.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::event::{MAX_EXTRA_FIELDS, RejectReason, Rejection};
use crate::time::Timestamp;
use crate::wire::EventMessage;

/// Reads one JSON object with nothing after it.
pub(crate) fn read(bytes: &[u8]) -> Result<EventMessage, Rejection> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Rejection::new(RejectReason::Malformed, "not a JSON object"));
    }
    serde_json::from_slice::<Object>(bytes).map(|o| o.0).map_err(|e| {
        let reason = if e.is_data() { RejectReason::BadValue } else { RejectReason::Malformed };
        Rejection::new(reason, e.to_string())
    })
}

struct Object(EventMessage);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

/// Takes the next value into `slot`; a second value for the same field is an error.
fn put<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    key: &str,
    slot: &mut Option<T>,
) -> Result<(), A::Error> {
    if let Some(value) = map.next_value::<Option<T>>()? {
        if slot.is_some() {
            return Err(de::Error::custom(format!("{key} is given twice")));
        }
        *slot = Some(value);
    }
    Ok(())
}

fn put_time<'de, A: MapAccess<'de>>(map: &mut A, key: &str, slot: &mut Option<i64>) -> Result<(), A::Error> {
    let mut time: Option<Time> = None;
    put(map, key, &mut time)?;
    match (time, slot.is_some()) {
        (Some(_), true) => Err(de::Error::custom(format!("{key} is given twice"))),
        (Some(t), false) => {
            *slot = Some(t.0);
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with the fields of an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut m = EventMessage::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let key = key.as_ref();
            match key {
                "eventId" | "clickId" => put(&mut map, key, &mut m.event_id)?,
                "eventType" => put(&mut map, key, &mut m.event_type)?,
                "timestamp" => put_time(&mut map, key, &mut m.event_time)?,
                "adId" => put(&mut map, key, &mut m.ad_id)?,
                "campaignId" => put(&mut map, key, &mut m.campaign_id)?,
                "advertiserId" => put(&mut map, key, &mut m.advertiser_id)?,
                "creativeId" => put(&mut map, key, &mut m.creative_id)?,
                "publisherId" => put(&mut map, key, &mut m.publisher_id)?,
                "impressionId" => put(&mut map, key, &mut m.impression_id)?,
                "userPseudoId" => put(&mut map, key, &mut m.user_pseudo_id)?,
                "sessionId" => put(&mut map, key, &mut m.session_id)?,
                "bidRequestId" => put(&mut map, key, &mut m.bid_request_id)?,
                "country" => put(&mut map, key, &mut m.country)?,
                "deviceType" => put(&mut map, key, &mut m.device_type)?,
                "ipHash" => put(&mut map, key, &mut m.ip_hash)?,
                "userAgent" => put(&mut map, key, &mut m.user_agent)?,
                "url" => put(&mut map, key, &mut m.url)?,
                "costMicros" => put(&mut map, key, &mut m.cost_micros)?,
                "currency" => put(&mut map, key, &mut m.currency)?,
                "schemaVersion" => put(&mut map, key, &mut m.schema_version)?,
                "signature" => put(&mut map, key, &mut m.signature)?,
                "keyId" => put(&mut map, key, &mut m.key_id)?,
                "expiresAt" => put_time(&mut map, key, &mut m.expires_at)?,
                "nonce" => put(&mut map, key, &mut m.nonce)?,
                "ingestTime" => put_time(&mut map, key, &mut m.ingest_time)?,
                _ => {
                    let value: serde_json::Value = map.next_value()?;
                    if value.is_null() {
                        continue;
                    }
                    if m.extra.len() == MAX_EXTRA_FIELDS {
                        return Err(de::Error::custom(format!("more than {MAX_EXTRA_FIELDS} unknown fields")));
                    }
                    if m.extra.insert(key.to_owned(), canonical(&value)).is_some() {
                        return Err(de::Error::custom(format!("{key} is given twice")));
                    }
                }
            }
        }
        Ok(Object(m))
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

/// A key, borrowed where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(KeyVisitor)
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

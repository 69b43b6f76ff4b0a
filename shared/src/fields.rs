//! The fields of an event as text borrowed from where they came from: a client's JSON, a protobuf message, or a typed
//! event on its way to the log.
//! Owns: the canonical bytes of a payload, which its fingerprint is taken of, and with what capture adds, the record.
//! Guarantees: they are the bytes that `prost` makes of an [`EventMessage`] with the same fields (a property test says
//! so), in the order of the tags, whatever order a client chose. Never: judges a field.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::event::{Event, Fingerprint, SCHEMA_VERSION};
use crate::wire::EventMessage;

/// Bytes that a payload mostly fits into.
const USUAL_BYTES: usize = 512;

/// A text that may not be there.
pub(crate) type Text<'a> = Option<Cow<'a, str>>;

/// What a client says of an event: tags 1 to 21 of [`EventMessage`], the part that a fingerprint covers (contract 2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload<'a> {
    pub(crate) event_id: Text<'a>,
    pub(crate) event_type: Text<'a>,
    pub(crate) event_time: Option<i64>,
    pub(crate) ad_id: Text<'a>,
    pub(crate) campaign_id: Text<'a>,
    pub(crate) advertiser_id: Text<'a>,
    pub(crate) creative_id: Text<'a>,
    pub(crate) publisher_id: Text<'a>,
    pub(crate) impression_id: Text<'a>,
    pub(crate) user_pseudo_id: Text<'a>,
    pub(crate) session_id: Text<'a>,
    pub(crate) bid_request_id: Text<'a>,
    pub(crate) country: Text<'a>,
    pub(crate) device_type: Text<'a>,
    pub(crate) ip_hash: Text<'a>,
    pub(crate) user_agent: Text<'a>,
    pub(crate) url: Text<'a>,
    pub(crate) cost_micros: Option<i64>,
    pub(crate) currency: Text<'a>,
    pub(crate) schema_version: Option<u32>,
    pub(crate) extra: Cow<'a, BTreeMap<String, String>>,
}

/// A payload with its proof, and the time that only trusted history may state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields<'a> {
    pub(crate) payload: Payload<'a>,
    pub(crate) signature: Text<'a>,
    pub(crate) key_id: Text<'a>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) nonce: Text<'a>,
    pub(crate) ingest_time: Option<i64>,
}

impl<'a> Payload<'a> {
    /// The payload of an admitted event.
    pub(crate) fn of(event: &'a Event) -> Self {
        let d = &event.details;
        fn text<T: AsRef<str>>(value: Option<&T>) -> Text<'_> {
            value.map(|v| Cow::Borrowed(v.as_ref()))
        }
        Self {
            event_id: text(Some(&event.event_id)),
            event_type: Some(event.kind.as_str().into()),
            event_time: Some(event.event_time.0),
            ad_id: text(Some(&event.ad_id)),
            campaign_id: text(Some(&event.campaign_id)),
            advertiser_id: text(event.advertiser_id.as_ref()),
            creative_id: text(d.creative_id.as_ref()),
            publisher_id: text(d.publisher_id.as_ref()),
            impression_id: text(d.impression_id.as_ref()),
            user_pseudo_id: text(d.user_pseudo_id.as_ref()),
            session_id: text(d.session_id.as_ref()),
            bid_request_id: text(d.bid_request_id.as_ref()),
            country: Some(d.country.as_str().into()),
            device_type: Some(d.device_type.as_str().into()),
            ip_hash: text(d.ip_hash.as_ref()),
            user_agent: text(d.user_agent.as_ref()),
            url: text(d.url.as_ref()),
            cost_micros: d.cost_micros,
            currency: d.currency.as_ref().map(|c| c.as_str().into()),
            schema_version: Some(SCHEMA_VERSION),
            extra: Cow::Borrowed(&d.extra),
        }
    }

    /// The canonical bytes, to the end of `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut out = Writer(out);
        out.text(1, &self.event_id);
        out.text(2, &self.event_type);
        out.int(3, self.event_time);
        out.text(4, &self.ad_id);
        out.text(5, &self.campaign_id);
        out.text(6, &self.advertiser_id);
        out.text(7, &self.creative_id);
        out.text(8, &self.publisher_id);
        out.text(9, &self.impression_id);
        out.text(10, &self.user_pseudo_id);
        out.text(11, &self.session_id);
        out.text(12, &self.bid_request_id);
        out.text(13, &self.country);
        out.text(14, &self.device_type);
        out.text(15, &self.ip_hash);
        out.text(16, &self.user_agent);
        out.text(17, &self.url);
        out.int(18, self.cost_micros);
        out.text(19, &self.currency);
        out.int(20, self.schema_version.map(i64::from));
        out.map(21, &self.extra);
    }

    /// The identity of the payload.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        self.write(&mut bytes);
        let digest = Sha256::digest(&bytes);
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Fingerprint(first)
    }
}

/// An admitted event's record: its payload and what capture adds (tags 32 and up).
pub(crate) fn write_record(event: &Event, salt_map_version: Option<u64>, out: &mut Vec<u8>) {
    Payload::of(event).write(out);
    let mut out = Writer(out);
    out.int(32, Some(event.ingest_time.0));
    out.bytes(33, event.region.as_str().as_bytes());
    if let Some(invalid) = event.invalid {
        out.bytes(34, invalid.as_str().as_bytes());
    }
    out.bytes(35, &event.fingerprint.0);
    if let Some(traceparent) = &event.traceparent {
        out.bytes(36, traceparent.as_bytes());
    }
    if let Some(version) = salt_map_version {
        out.key(37, VARINT);
        out.varint(version);
    }
}

impl<'a> From<&'a EventMessage> for Fields<'a> {
    fn from(m: &'a EventMessage) -> Self {
        fn text(value: &Option<String>) -> Text<'_> {
            value.as_deref().map(Cow::Borrowed)
        }
        Self {
            payload: Payload {
                event_id: text(&m.event_id),
                event_type: text(&m.event_type),
                event_time: m.event_time,
                ad_id: text(&m.ad_id),
                campaign_id: text(&m.campaign_id),
                advertiser_id: text(&m.advertiser_id),
                creative_id: text(&m.creative_id),
                publisher_id: text(&m.publisher_id),
                impression_id: text(&m.impression_id),
                user_pseudo_id: text(&m.user_pseudo_id),
                session_id: text(&m.session_id),
                bid_request_id: text(&m.bid_request_id),
                country: text(&m.country),
                device_type: text(&m.device_type),
                ip_hash: text(&m.ip_hash),
                user_agent: text(&m.user_agent),
                url: text(&m.url),
                cost_micros: m.cost_micros,
                currency: text(&m.currency),
                schema_version: m.schema_version,
                extra: Cow::Borrowed(&m.extra),
            },
            signature: text(&m.signature),
            key_id: text(&m.key_id),
            expires_at: m.expires_at,
            nonce: text(&m.nonce),
            ingest_time: m.ingest_time,
        }
    }
}

/// Protobuf's wire types.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// Protobuf fields to the end of a buffer.
struct Writer<'o>(&'o mut Vec<u8>);

impl Writer<'_> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn key(&mut self, tag: u8, wire_type: u8) {
        self.varint(u64::from(tag) << 3 | u64::from(wire_type));
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.key(tag, LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, tag: u8, text: &Text<'_>) {
        if let Some(text) = text {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn int(&mut self, tag: u8, value: Option<i64>) {
        if let Some(value) = value {
            self.key(tag, VARINT);
            self.varint(value.cast_unsigned()); // as protobuf's int64: two's complement
        }
    }

    /// Entries are messages of their own, in the order of their keys; what is empty is left out of them.
    fn map(&mut self, tag: u8, map: &BTreeMap<String, String>) {
        let mut entry = Vec::new();
        for (key, value) in map {
            let mut fields = Writer(&mut entry);
            if !key.is_empty() {
                fields.bytes(1, key.as_bytes());
            }
            if !value.is_empty() {
                fields.bytes(2, value.as_bytes());
            }
            self.bytes(tag, &entry);
            entry.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(prop_oneof![".{0,20}", "[a-z]{120,140}"])
    }

    prop_compose! {
        fn message()(
            texts in proptest::collection::vec(text(), 17),
            times in any::<[Option<i64>; 2]>(),
            schema_version in any::<Option<u32>>(),
            extra in proptest::collection::btree_map(".{0,6}", ".{0,6}", 0..4),
        ) -> EventMessage {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            EventMessage {
                event_id: next(),
                event_type: next(),
                event_time: times[0],
                ad_id: next(),
                campaign_id: next(),
                advertiser_id: next(),
                creative_id: next(),
                publisher_id: next(),
                impression_id: next(),
                user_pseudo_id: next(),
                session_id: next(),
                bid_request_id: next(),
                country: next(),
                device_type: next(),
                ip_hash: next(),
                user_agent: next(),
                url: next(),
                cost_micros: times[1],
                currency: next(),
                schema_version,
                extra,
                ..EventMessage::default()
            }
        }
    }

    proptest! {
        #[test]
        fn a_payloads_bytes_are_those_that_prost_makes(message in message()) {
            let mut bytes = Vec::new();
            Fields::from(&message).payload.write(&mut bytes);
            prop_assert_eq!(bytes, message.encode_to_vec());
        }

        #[test]
        fn neither_the_proof_nor_what_capture_adds_is_in_a_fingerprint(message in message(), said in text(), at in any::<i64>()) {
            let proven = EventMessage {
                signature: said.clone(),
                key_id: said.clone(),
                expires_at: Some(at),
                nonce: said.clone(),
                ingest_time: Some(at),
                region: said.clone(),
                invalid: said.clone(),
                fingerprint: Some(vec![7]),
                traceparent: said,
                salt_map_version: Some(7),
                ..message.clone()
            };
            prop_assert_eq!(Fields::from(&proven).payload.fingerprint(), Fields::from(&message).payload.fingerprint());
        }
    }
}

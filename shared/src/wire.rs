//! The wire form of an event: protobuf, on the log and (for clients that like it) at the edge.
//! `proto/event.proto` is the same message for other languages; a test keeps the two equal.
//! On the log a record is one version byte and the message. Old versions stay readable for ever.

use std::collections::BTreeMap;

use prost::Message;

use crate::event::{Event, Fingerprint, RejectReason, Rejection, Submission};
use crate::fields;
use crate::id::{CampaignId, RefId};
use crate::time::Timestamp;
use crate::verdict::InvalidCode;

/// The version byte of today's records.
pub const WIRE_VERSION: u8 = 1;
/// Bytes that a record mostly fits into.
const USUAL_BYTES: usize = 512;

/// An event as bytes: what a client sends (1 to 31) and what capture adds (32 and up).
/// Times are UTC microseconds.
#[derive(Clone, PartialEq, Eq, Message)]
#[allow(missing_docs)] // the fields are those of contract 1, documented on `Event`
pub struct EventMessage {
    #[prost(string, optional, tag = "1")]
    pub event_id: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub event_type: Option<String>,
    #[prost(int64, optional, tag = "3")]
    pub event_time: Option<i64>,
    #[prost(string, optional, tag = "4")]
    pub ad_id: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub campaign_id: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub advertiser_id: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub creative_id: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub publisher_id: Option<String>,
    #[prost(string, optional, tag = "9")]
    pub impression_id: Option<String>,
    #[prost(string, optional, tag = "10")]
    pub user_pseudo_id: Option<String>,
    #[prost(string, optional, tag = "11")]
    pub session_id: Option<String>,
    #[prost(string, optional, tag = "12")]
    pub bid_request_id: Option<String>,
    #[prost(string, optional, tag = "13")]
    pub country: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub device_type: Option<String>,
    #[prost(string, optional, tag = "15")]
    pub ip_hash: Option<String>,
    #[prost(string, optional, tag = "16")]
    pub user_agent: Option<String>,
    #[prost(string, optional, tag = "17")]
    pub url: Option<String>,
    #[prost(int64, optional, tag = "18")]
    pub cost_micros: Option<i64>,
    #[prost(string, optional, tag = "19")]
    pub currency: Option<String>,
    #[prost(uint32, optional, tag = "20")]
    pub schema_version: Option<u32>,
    #[prost(btree_map = "string, string", tag = "21")]
    pub extra: BTreeMap<String, String>,
    #[prost(string, optional, tag = "22")]
    pub signature: Option<String>,
    #[prost(string, optional, tag = "23")]
    pub key_id: Option<String>,
    #[prost(int64, optional, tag = "24")]
    pub expires_at: Option<i64>,
    #[prost(string, optional, tag = "25")]
    pub nonce: Option<String>,
    #[prost(int64, optional, tag = "32")]
    pub ingest_time: Option<i64>,
    #[prost(string, optional, tag = "33")]
    pub region: Option<String>,
    #[prost(string, optional, tag = "34")]
    pub invalid: Option<String>,
    #[prost(bytes = "vec", optional, tag = "35")]
    pub fingerprint: Option<Vec<u8>>,
    #[prost(string, optional, tag = "36")]
    pub traceparent: Option<String>,
    #[prost(uint64, optional, tag = "37")]
    pub salt_map_version: Option<u64>,
}

/// The one field of an [`EventMessage`] that says by which salt map the record was placed.
#[derive(Clone, PartialEq, Eq, Message)]
struct Placed {
    #[prost(uint64, optional, tag = "37")]
    salt_map_version: Option<u64>,
}

/// Several events in one request body (`application/x-protobuf`).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EventBatch {
    /// The events, in order.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<EventMessage>,
}

/// Something that is not an event, as the dead-letter topic carries it: one refusal with its bytes,
/// or a count of refusals that leave no bytes (duplicates at the edge, opt-outs, limits).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BadRecord {
    /// A [`RejectReason`] code.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// What was wrong, for a person.
    #[prost(string, tag = "2")]
    pub detail: String,
    /// Which stage refused it: gateway, import, lake.
    #[prost(string, tag = "3")]
    pub stage: String,
    /// The bytes as they came, cut to [`MAX_BAD_BYTES`]; empty for counts.
    #[prost(bytes = "vec", tag = "4")]
    pub raw: Vec<u8>,
    /// How many refusals this stands for (1 with bytes).
    #[prost(uint64, tag = "5")]
    pub count: u64,
    /// When, UTC microseconds.
    #[prost(int64, tag = "6")]
    pub ingest_time: i64,
    /// The region that refused it.
    #[prost(string, tag = "7")]
    pub region: String,
}

/// The most bytes of a refused body that are kept.
pub const MAX_BAD_BYTES: usize = 64 * 1024;

impl BadRecord {
    /// The record as log bytes (version byte and message).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        versioned(self)
    }

    /// From log bytes.
    ///
    /// # Errors
    /// [`Rejection`] `undecodable` when the bytes are not such a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        Message::decode(body(bytes)?).map_err(undecodable)
    }
}

/// An event as log bytes (version byte and message).
#[must_use]
pub fn encode_event(event: &Event) -> Vec<u8> {
    encode_placed_event(event, 0)
}

/// An event as log bytes, with the version of the salt map that chose its partition (0: none did).
#[must_use]
pub fn encode_placed_event(event: &Event, salt_map_version: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    encode_placed_event_to(event, salt_map_version, &mut bytes);
    bytes
}

/// The same to the end of `out`, for callers with several records.
pub fn encode_placed_event_to(event: &Event, salt_map_version: u64, out: &mut Vec<u8>) {
    out.push(WIRE_VERSION);
    fields::write_record(event, (salt_map_version > 0).then_some(salt_map_version), out);
}

/// The version of the salt map that chose a record's partition; `None` when none did.
#[must_use]
pub fn salt_map_version(bytes: &[u8]) -> Option<u64> {
    Placed::decode(body(bytes).ok()?).ok()?.salt_map_version
}

/// An event from log bytes.
///
/// # Errors
/// [`Rejection`] `undecodable`, or the rule a field breaks: the bytes belong in the bad-event table.
pub fn decode_event(bytes: &[u8]) -> Result<Event, Rejection> {
    let mut m = EventMessage::decode(body(bytes)?).map_err(undecodable)?;
    let missing = |field: &str| Rejection::new(RejectReason::Undecodable, format!("the record has no {field}"));
    let fingerprint: [u8; 16] =
        m.fingerprint.take().and_then(|f| f.try_into().ok()).ok_or_else(|| missing("fingerprint of 16 bytes"))?;
    let ingest_time = Timestamp(m.ingest_time.take().ok_or_else(|| missing("ingest time"))?);
    let region = RefId::new(m.region.take().ok_or_else(|| missing("region"))?).map_err(undecodable)?;
    let invalid = match m.invalid.take() {
        Some(code) => Some(InvalidCode::parse(&code).ok_or_else(|| missing("known invalid code"))?),
        None => None,
    };
    let traceparent = m.traceparent.take();
    let submission = Submission::of((&m).into(), Fingerprint(fingerprint))?;
    let campaign_id: CampaignId = submission.campaign_id.clone().ok_or_else(|| missing("campaign"))?;
    let advertiser_id = submission.advertiser_id.clone();
    Ok(submission.admit(crate::event::Admission {
        ingest_time,
        region,
        campaign_id,
        advertiser_id,
        invalid,
        traceparent,
    }))
}

fn versioned(message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(WIRE_VERSION);
    bytes.extend(message.encode_to_vec());
    bytes
}

fn body(bytes: &[u8]) -> Result<&[u8], Rejection> {
    match bytes.split_first() {
        Some((&WIRE_VERSION, rest)) => Ok(rest),
        Some((other, _)) => Err(undecodable(format!("record version {other} is not {WIRE_VERSION}"))),
        None => Err(undecodable("the record is empty")),
    }
}

fn undecodable(why: impl std::fmt::Display) -> Rejection {
    Rejection::new(RejectReason::Undecodable, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Admission, FIELDS};

    type Fields = Vec<(String, String)>;

    /// Name and tag of every field of a message, from this file and from the .proto file.
    fn fields(message: &str) -> (Fields, Fields) {
        let block = |text: &str, start: String| {
            let from = text.find(&start).unwrap() + start.len();
            text[from..from + text[from..].find("\n}").unwrap()].to_owned()
        };
        let tag_of = |line: &str| line.split("tag = \"").nth(1).and_then(|t| t.split('"').next()).map(str::to_owned);
        let (mut ours, mut tag) = (Vec::new(), None);
        for line in block(include_str!("wire.rs"), format!("pub struct {message} {{")).lines() {
            tag = tag_of(line).or(tag);
            if let Some(name) = line.trim().strip_prefix("pub ").and_then(|l| l.split(':').next()) {
                ours.push((name.to_owned(), tag.take().unwrap()));
            }
        }
        let theirs = block(include_str!("../proto/event.proto"), format!("message {message} {{"));
        let field = |l: &str| {
            l.trim()
                .trim_end_matches(';')
                .split_once(" = ")
                .map(|(n, t)| (n.rsplit(' ').next().unwrap().to_owned(), t.to_owned()))
        };
        (ours, theirs.lines().filter_map(field).collect())
    }

    #[test]
    fn the_proto_file_says_what_the_code_does() {
        for message in ["EventMessage", "EventBatch", "BadRecord"] {
            let (ours, theirs) = fields(message);
            assert!(!ours.is_empty());
            assert_eq!(ours, theirs, "{message}");
        }
        let (ours, _) = fields("EventMessage");
        for (_, column, _) in FIELDS {
            assert!(ours.iter().any(|(name, _)| name == column), "{column} is not in the message");
        }
    }

    fn full() -> Submission {
        let json = br#"{"eventId":"e1","eventType":"click","timestamp":"2026-01-05T10:00:00.123Z","adId":"a","campaignId":"c",
            "advertiserId":"v","creativeId":"cr","publisherId":"p","impressionId":"i","userPseudoId":"u","sessionId":"s",
            "bidRequestId":"b","country":"DE","deviceType":"mobile","ipHash":"h","userAgent":"ua","url":"https://x.example/",
            "costMicros":7,"currency":"EUR","schemaVersion":1,"more":{"b":1,"a":[null]}}"#;
        Submission::from_json(json).unwrap()
    }

    #[test]
    fn every_json_field_survives_the_log() {
        let submission = full();
        let event = submission.admit(Admission {
            ingest_time: Timestamp(1_767_607_200_000_001),
            region: RefId::new("eu").unwrap(),
            campaign_id: CampaignId::new("c").unwrap(),
            advertiser_id: Some(crate::id::AdvertiserId::new("v").unwrap()),
            invalid: Some(InvalidCode::Expired),
            traceparent: Some("00-1-2-01".to_owned()),
        });
        assert_eq!(decode_event(&encode_event(&event)).unwrap(), event);
        assert_eq!(salt_map_version(&encode_event(&event)), None);
        let placed = encode_placed_event(&event, 7);
        assert_eq!((decode_event(&placed).unwrap(), salt_map_version(&placed)), (event.clone(), Some(7)));
        assert_eq!(event.details.extra["more"], r#"{"a":[null],"b":1}"#);
    }

    #[test]
    fn each_client_field_is_part_of_the_payload_and_the_proof_is_not() {
        let whole: serde_json::Value = serde_json::json!({
            "eventId": "e1", "eventType": "click", "timestamp": 1_767_607_200_123_i64, "adId": "a", "campaignId": "c",
            "advertiserId": "v", "creativeId": "cr", "publisherId": "p", "impressionId": "i", "userPseudoId": "u",
            "sessionId": "s", "bidRequestId": "b", "country": "DE", "deviceType": "mobile", "ipHash": "h",
            "userAgent": "ua", "url": "https://x.example/", "costMicros": 7, "currency": "EUR", "schemaVersion": 1, "extra1": 1,
        });
        let read = |v: &serde_json::Value| Submission::from_json(v.to_string().as_bytes()).unwrap().fingerprint;
        let required = ["eventId", "eventType", "timestamp", "adId"];
        for name in whole.as_object().unwrap().keys().filter(|k| !required.contains(&k.as_str())) {
            let mut without = whole.clone();
            without.as_object_mut().unwrap().remove(name);
            assert_ne!(read(&without), read(&whole), "{name} is not part of the payload");
            without[name] = serde_json::Value::Null;
            assert_ne!(read(&without), read(&whole));
        }
        let mut proven = whole.clone();
        for (name, value) in [
            ("signature", "s"),
            ("keyId", "k"),
            ("nonce", "n"),
            ("expiresAt", "2026-01-06T00:00:00Z"),
            ("ingestTime", "2026-01-06T00:00:00Z"),
        ] {
            proven[name] = value.into();
        }
        assert_eq!(read(&proven), read(&whole));
        let mut same_instant = whole.clone();
        same_instant["timestamp"] = "2026-01-05T11:00:00.123+01:00".into();
        assert_eq!(read(&same_instant), read(&whole));
    }
}

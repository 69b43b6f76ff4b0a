//! Bytes that are not an event, each with exactly one fault, and why they must be refused.

use shared::event::{MAX_EVENT_BYTES, MAX_EXTRA_FIELDS, MAX_TEXT_BYTES, RejectReason};

use super::dice::Dice;

/// A kind of poison: its fault and the code it must be refused with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poison {
    fault: Fault,
    #[cfg_attr(not(test), allow(dead_code))] // the tests hold the edge to it
    pub(super) reason: RejectReason,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// These very bytes.
    Bytes(&'static [u8]),
    /// A good event without this field.
    Without(&'static str),
    /// A good event with this field set (again) to this JSON text.
    With(&'static str, &'static str),
    /// A good event with this text field of this many bytes.
    Long(&'static str, usize),
    /// A good event with too many unknown fields.
    Crowd,
    /// A good event with a value nested this deep.
    Deep(usize),
}

const fn malformed(bytes: &'static [u8]) -> Poison {
    Poison { fault: Fault::Bytes(bytes), reason: RejectReason::Malformed }
}

const fn without(field: &'static str) -> Poison {
    Poison { fault: Fault::Without(field), reason: RejectReason::MissingField }
}

const fn with(field: &'static str, value: &'static str) -> Poison {
    Poison { fault: Fault::With(field, value), reason: RejectReason::BadValue }
}

const fn poison(fault: Fault, reason: RejectReason) -> Poison {
    Poison { fault, reason }
}

pub(super) const ALL: &[Poison] = &[
    malformed(b"not json at all"),
    malformed(b"{\"eventId\":\"cut-in-the-mi"),
    malformed(b"{\"eventId\":\"a\",}"),
    malformed(b"{\"eventId\":\"two\"}{\"eventId\":\"objects\"}"),
    malformed(b"\x00\x01\xff\xfe\x80binary"),
    malformed(b"{\"eventId\":\"bad-utf8\",\"url\":\"\xc3\x28\"}"),
    malformed(b"{\"eventId\":\"lone-surrogate\",\"url\":\"\\ud800\"}"),
    malformed(b"{\"eventId\":\"not-a-number\",\"costMicros\":NaN}"),
    malformed(b"{'eventId':'single-quotes'}"),
    malformed(b"}"),
    malformed(b"[{\"eventId\":\"in-an-array\"}]"),
    malformed(b"\"text\""),
    malformed(b"42"),
    malformed(b"null"),
    poison(Fault::Deep(200), RejectReason::Malformed),
    poison(Fault::Bytes(b"{}"), RejectReason::MissingField),
    without("eventId"),
    without("eventType"),
    without("timestamp"),
    without("adId"),
    with("eventId", "\"given-twice\""),
    with("clickId", "\"an-alias-beside-the-id\""),
    with("adId", "\"given-twice\""),
    with("timestamp", "1700000000000"),
    with("creativeId", "\"has blanks\""),
    with("creativeId", "\"\""),
    with("creativeId", "\"caf\\u00e9\""),
    with("creativeId", "\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff12345\""),
    with("creativeId", "7"),
    with("country", "\"de\""),
    with("country", "\"DEU\""),
    with("deviceType", "\"toaster\""),
    with("costMicros", "-1"),
    with("costMicros", "9223372036854776"),
    with("costMicros", "9223372036854775808"),
    with("costMicros", "1.5"),
    with("costMicros", "\"5\""),
    with("currency", "\"eur\""),
    with("expiresAt", "\"tomorrow\""),
    with("schemaVersion", "-1"),
    poison(Fault::With("schemaVersion", "2"), RejectReason::UnsupportedSchemaVersion),
    poison(Fault::Long("url", MAX_TEXT_BYTES + 1), RejectReason::BadValue),
    poison(Fault::Long("userAgent", MAX_TEXT_BYTES + 1), RejectReason::BadValue),
    poison(Fault::Crowd, RejectReason::BadValue),
    poison(Fault::Long("padding", MAX_EVENT_BYTES), RejectReason::TooLarge),
];

/// Fields of an event that is good but for what is done to it: nothing here may be missing for another fault to show.
const GOOD: [(&str, &str); 5] = [
    ("eventId", "\"poison\""),
    ("eventType", "\"click\""),
    ("timestamp", "\"2026-03-02T10:00:00Z\""),
    ("adId", "\"ad-0\""),
    ("campaignId", "\"camp-0\""),
];

/// One of the poisons; no byte of it is a line end.
pub(super) fn draw(dice: &mut Dice) -> Vec<u8> {
    let i = usize::try_from(dice.below(ALL.len() as u64)).unwrap_or(0);
    ALL.get(i).map_or_else(Vec::new, |p| p.bytes())
}

impl Poison {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut fields: Vec<(String, String)> =
            GOOD.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        match self.fault {
            Fault::Bytes(bytes) => return bytes.to_vec(),
            Fault::Without(field) => fields.retain(|(name, _)| name != field),
            Fault::With(field, value) => fields.push((field.to_owned(), value.to_owned())),
            Fault::Long(field, length) => fields.push((field.to_owned(), format!("\"{}\"", "x".repeat(length)))),
            Fault::Crowd => fields.extend((0..=MAX_EXTRA_FIELDS).map(|i| (format!("extra{i}"), i.to_string()))),
            Fault::Deep(depth) => {
                fields.push(("deep".to_owned(), format!("{}{}", "[".repeat(depth), "]".repeat(depth))));
            }
        }
        let pairs: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", pairs.join(",")).into_bytes()
    }
}

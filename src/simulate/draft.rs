//! An event before it is signed, and the many ways a client may write the same one as JSON.
//! Guarantees: two styles of one draft are the same payload (contract 2.2), byte by byte different as they are.

use shared::event::EventKind;
use shared::time::{HOUR, Timestamp};

/// An event before it is signed: what a signer may put under its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The idempotency key.
    pub event_id: String,
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub event_time: Timestamp,
    /// The ad.
    pub ad_id: String,
    /// Its campaign.
    pub campaign_id: String,
    /// Its advertiser.
    pub advertiser_id: Option<String>,
    /// The creative.
    pub creative_id: Option<String>,
    /// The publisher.
    pub publisher_id: Option<String>,
    /// The served impression.
    pub impression_id: Option<String>,
    /// The person's pseudonym.
    pub user_pseudo_id: Option<String>,
    /// The visit.
    pub session_id: Option<String>,
    /// The country.
    pub country: Option<&'static str>,
    /// The device.
    pub device_type: Option<&'static str>,
    /// The client software.
    pub user_agent: Option<&'static str>,
    /// The page.
    pub url: Option<&'static str>,
    /// The price agreed at serving, micros.
    pub cost_micros: Option<i64>,
    /// Its currency.
    pub currency: Option<&'static str>,
    /// The schema version, if the client says it.
    pub schema_version: Option<u32>,
    /// A number used once.
    pub nonce: Option<String>,
    /// The ad's number in the world.
    pub(super) ad: u32,
    /// A field we do not know.
    pub(super) extra: Option<Extra>,
}

/// An unknown field: its name, its value, and the same value written in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extra {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) again: &'static str,
}

/// Proof of where an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Which key made it.
    pub key_id: Option<String>,
    /// Unpadded base64url.
    pub signature: String,
}

/// Signs a draft that expires at the given instant (always a whole second).
pub type Signer = Box<dyn Fn(&Draft, Timestamp) -> Proof + Send>;

/// How a draft is written. Each bit is one freedom a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Style(pub(super) u64);

impl Style {
    fn is(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }
    /// `clickId` for `eventId`.
    fn click_id(self) -> bool {
        self.is(0)
    }
    /// Times as epoch milliseconds where they are whole ones.
    fn millis(self) -> bool {
        self.is(1)
    }
    /// Times with an offset.
    fn offset(self) -> bool {
        self.is(2)
    }
    /// `null` for what is absent.
    fn nulls(self) -> bool {
        self.is(3)
    }
    /// Fields from last to first.
    fn reversed(self) -> bool {
        self.is(4)
    }
    /// Blanks around everything.
    fn spaced(self) -> bool {
        self.is(5)
    }
    /// `\u` escapes for what is not ASCII.
    fn escaped(self) -> bool {
        self.is(6)
    }
}

enum Value<'a> {
    Text(&'a str),
    Raw(&'a str),
    Integer(i64),
    Time(Timestamp),
    Null,
}

impl Draft {
    /// The event as one JSON object. `ingest` is for the trusted import only.
    pub(super) fn write(&self, style: Style, proof: Option<(&Proof, Timestamp)>, ingest: Option<Timestamp>) -> Vec<u8> {
        let mut fields = self.fields(style);
        if let Some((proof, expires_at)) = proof {
            fields.push(("signature", Value::Text(&proof.signature)));
            fields.push(("keyId", optional(proof.key_id.as_deref())));
            fields.push(("expiresAt", Value::Time(expires_at)));
        }
        if let Some(at) = ingest {
            // The microseconds of an ingest time are what breaks ties, so it is never cut to milliseconds.
            fields.push(("ingestTime", Value::Time(at)));
        }
        if style.reversed() {
            fields.reverse();
        }
        let mut out = String::with_capacity(640);
        out.push_str(if style.spaced() { " { " } else { "{" });
        let mut first = true;
        for (name, value) in fields {
            if matches!(value, Value::Null) && !style.nulls() {
                continue;
            }
            if !first {
                out.push_str(if style.spaced() { " ,\t" } else { "," });
            }
            first = false;
            out.push('"');
            out.push_str(name);
            out.push_str(if style.spaced() { "\" : " } else { "\":" });
            push_value(&mut out, value, style);
        }
        out.push_str(if style.spaced() { " } " } else { "}" });
        out.into_bytes()
    }

    fn fields(&self, style: Style) -> Vec<(&'static str, Value<'_>)> {
        let mut fields = Vec::with_capacity(28);
        fields.extend([
            (if style.click_id() { "clickId" } else { "eventId" }, Value::Text(&self.event_id)),
            ("eventType", Value::Text(self.kind.as_str())),
            ("timestamp", Value::Time(self.event_time)),
            ("adId", Value::Text(&self.ad_id)),
            ("campaignId", Value::Text(&self.campaign_id)),
            ("advertiserId", optional(self.advertiser_id.as_deref())),
            ("creativeId", optional(self.creative_id.as_deref())),
            ("publisherId", optional(self.publisher_id.as_deref())),
            ("impressionId", optional(self.impression_id.as_deref())),
            ("userPseudoId", optional(self.user_pseudo_id.as_deref())),
            ("sessionId", optional(self.session_id.as_deref())),
            ("bidRequestId", Value::Null),
            ("country", optional(self.country)),
            ("deviceType", optional(self.device_type)),
            ("userAgent", optional(self.user_agent)),
            ("url", optional(self.url)),
            ("costMicros", self.cost_micros.map_or(Value::Null, Value::Integer)),
            ("currency", optional(self.currency)),
            ("schemaVersion", self.schema_version.map_or(Value::Null, |v| Value::Integer(i64::from(v)))),
            ("nonce", optional(self.nonce.as_deref())),
            ("unknownAndEmpty", Value::Null),
        ]);
        if let Some(extra) = self.extra {
            fields.push((extra.name, Value::Raw(if style.reversed() { extra.again } else { extra.text })));
        }
        fields
    }
}

fn optional(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::Text)
}

fn push_value(out: &mut String, value: Value<'_>, style: Style) {
    match value {
        Value::Text(text) => push_text(out, text, style.escaped()),
        Value::Raw(text) => out.push_str(text),
        Value::Integer(n) => out.push_str(&n.to_string()),
        Value::Time(t) => push_time(out, t, style),
        Value::Null => out.push_str("null"),
    }
}

fn push_time(out: &mut String, t: Timestamp, style: Style) {
    if style.millis() && t.0 % 1_000 == 0 {
        out.push_str(&t.as_millis().to_string());
    } else if style.offset() {
        let there = t.plus(5 * HOUR + HOUR / 2).to_string();
        out.push('"');
        out.push_str(there.strip_suffix('Z').unwrap_or(&there));
        out.push_str("+05:30\"");
    } else {
        out.push('"');
        out.push_str(&t.to_string());
        out.push('"');
    }
}

fn push_text(out: &mut String, text: &str, escaped: bool) {
    out.push('"');
    if text.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\') {
        out.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if c < ' ' || (escaped && !c.is_ascii()) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
    }
    out.push('"');
}

//! The event: one click, impression or conversion, from JSON or protobuf at the edge to a typed record.
//! Owns: the field list ([`FIELDS`]), the validation rules of contract 1, the payload fingerprint.
//! Never: reads a clock or a network; what the client sent is judged, never repaired.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::fields::{Fields, Text};
use crate::id::{AdId, AdvertiserId, BadId, CampaignId, EventId, ImpressionId, RefId};
use crate::money::{Currency, MAX_MICROS};
use crate::time::Timestamp;
use crate::verdict::InvalidCode;
use crate::wire::EventMessage;

/// The longest free text field (url, userAgent, ipHash) in bytes.
pub const MAX_TEXT_BYTES: usize = 2_048;
/// The most unknown fields kept in `extra`.
pub const MAX_EXTRA_FIELDS: usize = 32;
/// The largest event as sent, in bytes.
pub const MAX_EVENT_BYTES: usize = 32 * 1024;
/// The newest schema version understood.
pub const SCHEMA_VERSION: u32 = 1;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// An ad was shown.
    Impression,
    /// An ad was clicked.
    Click,
    /// A click led to a result.
    Conversion,
}

impl EventKind {
    /// The word used in JSON, SQL and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Impression => "impression",
            Self::Click => "click",
            Self::Conversion => "conversion",
        }
    }

    /// From its word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Impression, Self::Click, Self::Conversion].into_iter().find(|k| k.as_str() == text)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The device an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum DeviceType {
    /// A desktop or laptop computer.
    Desktop,
    /// A phone.
    Mobile,
    /// A tablet.
    Tablet,
    /// A television.
    Ctv,
    /// Anything else, or unknown.
    #[default]
    Other,
}

impl DeviceType {
    /// Every device type.
    pub const ALL: [Self; 5] = [Self::Desktop, Self::Mobile, Self::Tablet, Self::Ctv, Self::Other];

    /// The word used in JSON and SQL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Desktop => "desktop",
            Self::Mobile => "mobile",
            Self::Tablet => "tablet",
            Self::Ctv => "ctv",
            Self::Other => "other",
        }
    }

    /// From its word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.as_str() == text)
    }
}

/// ISO 3166-1 alpha-2; `ZZ` is unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Unknown.
    pub const UNKNOWN: Self = Self(*b"ZZ");

    /// Two upper-case letters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(text.as_bytes().try_into().ok()?)
    }

    /// From its two upper-case letters.
    #[must_use]
    #[inline]
    pub fn of(letters: [u8; 2]) -> Option<Self> {
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("ZZ")
    }

    /// The code's two letters.
    #[must_use]
    #[inline]
    pub fn letters(self) -> [u8; 2] {
        self.0
    }
}

impl Default for Country {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fields a client may send: JSON name, column name, whether it is personal data.
/// JSON, protobuf ([`EventMessage`]) and the lake's Arrow schema are each tested against this list.
pub const FIELDS: &[(&str, &str, bool)] = &[
    ("eventId", "event_id", false),
    ("eventType", "event_type", false),
    ("timestamp", "event_time", false),
    ("adId", "ad_id", false),
    ("campaignId", "campaign_id", false),
    ("advertiserId", "advertiser_id", false),
    ("creativeId", "creative_id", false),
    ("publisherId", "publisher_id", false),
    ("impressionId", "impression_id", false),
    ("userPseudoId", "user_pseudo_id", true),
    ("sessionId", "session_id", true),
    ("bidRequestId", "bid_request_id", false),
    ("country", "country", false),
    ("deviceType", "device_type", false),
    ("ipHash", "ip_hash", true),
    ("userAgent", "user_agent", true),
    ("url", "url", true),
    ("costMicros", "cost_micros", false),
    ("currency", "currency", false),
    ("schemaVersion", "schema_version", false),
];

/// Why something a client sent is not an event. The code is a metric label and a column, so the set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// Not JSON, not protobuf, or not an object.
    Malformed,
    /// A required field is absent.
    MissingField,
    /// A field has a value outside its rule.
    BadValue,
    /// A schema version newer than ours.
    UnsupportedSchemaVersion,
    /// Larger than a named limit.
    TooLarge,
    /// No signature, or a wrong or expired one, where one is required.
    Unauthorized,
    /// The ad is not in the directory and the event names no campaign.
    UnknownAd,
    /// The id was captured before; the first one counts.
    Duplicate,
    /// The client asked not to be recorded.
    OptedOut,
    /// The client sent too much in too little time.
    Limited,
    /// The log holds bytes that do not decode.
    Undecodable,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::MissingField,
        Self::BadValue,
        Self::UnsupportedSchemaVersion,
        Self::TooLarge,
        Self::Unauthorized,
        Self::UnknownAd,
        Self::Duplicate,
        Self::OptedOut,
        Self::Limited,
        Self::Undecodable,
    ];

    /// The code used in answers, tables and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::MissingField => "missing_field",
            Self::BadValue => "bad_value",
            Self::UnsupportedSchemaVersion => "unsupported_schema_version",
            Self::TooLarge => "too_large",
            Self::Unauthorized => "unauthorized",
            Self::UnknownAd => "unknown_ad",
            Self::Duplicate => "duplicate",
            Self::OptedOut => "opted_out",
            Self::Limited => "limited",
            Self::Undecodable => "undecodable",
        }
    }

    /// From its code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// A refusal with a sentence that says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Rejection {
    /// The closed code.
    pub reason: RejectReason,
    /// What is wrong, for a person.
    pub detail: String,
}

impl Rejection {
    /// A refusal.
    pub fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

/// The 16-byte identity of what a client sent: two events with one id and one fingerprint are a
/// duplicate, with two fingerprints a conflict (contract 2.2). The first 16 bytes of a SHA-256, so
/// that nobody can make two payloads collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// How a client proves where an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// HMAC-SHA256 in unpadded base64url.
    pub signature: String,
    /// Which key made it; absent means the default key.
    pub key_id: Option<String>,
    /// When it stops being valid.
    pub expires_at: Option<Timestamp>,
    /// A number used once, if the client sent one.
    pub nonce: Option<String>,
}

/// An event as a client sent it: valid in form, not yet admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The client's fields; `ingest_time`, `region` and `invalid` are still unset and `campaign_id`
    /// stands in [`Submission::campaign_id`].
    pub event_id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When it happened, by the client.
    pub event_time: Timestamp,
    /// The ad.
    pub ad_id: AdId,
    /// The campaign, if the client named it.
    pub campaign_id: Option<CampaignId>,
    /// The advertiser, if the client named it.
    pub advertiser_id: Option<AdvertiserId>,
    /// The optional rest.
    pub details: Details,
    /// The proof, if any.
    pub auth: Option<Auth>,
    /// `ingestTime`, which only the trusted import path may use.
    pub ingest_time: Option<Timestamp>,
    /// The payload's identity.
    pub fingerprint: Fingerprint,
}

/// The optional fields of an event, carried but (but for the impression and the price) not interpreted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The creative shown.
    pub creative_id: Option<RefId>,
    /// The publisher it was shown at.
    pub publisher_id: Option<RefId>,
    /// The served impression.
    pub impression_id: Option<ImpressionId>,
    /// A pseudonym of the person (personal data).
    pub user_pseudo_id: Option<RefId>,
    /// A visit (personal data).
    pub session_id: Option<RefId>,
    /// The bid it came from.
    pub bid_request_id: Option<RefId>,
    /// Where the device was.
    pub country: Country,
    /// What the device was.
    pub device_type: DeviceType,
    /// A keyed hash of the address (personal data).
    pub ip_hash: Option<String>,
    /// The client software (personal data).
    pub user_agent: Option<String>,
    /// The page (personal data).
    pub url: Option<String>,
    /// The price agreed at serving, in micros of `currency`; used by the price model `reported`.
    pub cost_micros: Option<i64>,
    /// The currency of `cost_micros`.
    pub currency: Option<Currency>,
    /// Unknown optional fields: name to JSON text.
    pub extra: BTreeMap<String, String>,
}

/// The one record that travels: an admitted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The idempotency key.
    pub event_id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When it happened, by the client.
    pub event_time: Timestamp,
    /// When we accepted it.
    pub ingest_time: Timestamp,
    /// The ad.
    pub ad_id: AdId,
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The advertiser, where known.
    pub advertiser_id: Option<AdvertiserId>,
    /// The optional rest.
    pub details: Details,
    /// The region that accepted it.
    pub region: RefId,
    /// What capture already knows to be invalid.
    pub invalid: Option<InvalidCode>,
    /// The payload's identity.
    pub fingerprint: Fingerprint,
    /// W3C trace context, if the request carried one.
    pub traceparent: Option<String>,
}

/// What the capturing side adds to a submission.
#[derive(Debug, Clone)]
pub struct Admission {
    /// Now, or the trusted row's own time.
    pub ingest_time: Timestamp,
    /// Our region.
    pub region: RefId,
    /// The campaign by the ad directory or the client.
    pub campaign_id: CampaignId,
    /// The advertiser by the ad directory or the client.
    pub advertiser_id: Option<AdvertiserId>,
    /// What is already known to be invalid.
    pub invalid: Option<InvalidCode>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Submission {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the rule.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Rejection> {
        if bytes.len() > MAX_EVENT_BYTES {
            let detail = format!("the event has {} bytes, the limit is {MAX_EVENT_BYTES}", bytes.len());
            return Err(Rejection::new(RejectReason::TooLarge, detail));
        }
        let fields = crate::json::read(bytes)?;
        let fingerprint = fields.payload.fingerprint();
        Self::of(fields, fingerprint)
    }

    /// Judges a message from a client.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the rule.
    pub fn from_message(message: &EventMessage) -> Result<Self, Rejection> {
        Self::with_fingerprint(message, fingerprint(message))
    }

    /// Judges a message whose identity is that of another payload.
    ///
    /// # Errors
    /// A [`Rejection`] that names the field and the rule.
    pub fn with_fingerprint(message: &EventMessage, fingerprint: Fingerprint) -> Result<Self, Rejection> {
        Self::of(message.into(), fingerprint)
    }

    /// Judges fields, wherever they came from.
    pub(crate) fn of(
        Fields { payload: p, signature, key_id, expires_at, nonce, ingest_time }: Fields<'_>,
        fingerprint: Fingerprint,
    ) -> Result<Self, Rejection> {
        if p.schema_version.unwrap_or(SCHEMA_VERSION) > SCHEMA_VERSION {
            let detail = format!("schemaVersion {} is newer than {SCHEMA_VERSION}", p.schema_version.unwrap_or(0));
            return Err(Rejection::new(RejectReason::UnsupportedSchemaVersion, detail));
        }
        let details = Details {
            creative_id: id("creativeId", p.creative_id, RefId::new)?,
            publisher_id: id("publisherId", p.publisher_id, RefId::new)?,
            impression_id: id("impressionId", p.impression_id, ImpressionId::new)?,
            user_pseudo_id: id("userPseudoId", p.user_pseudo_id, RefId::new)?,
            session_id: id("sessionId", p.session_id, RefId::new)?,
            bid_request_id: id("bidRequestId", p.bid_request_id, RefId::new)?,
            country: word("country", p.country, "two upper-case letters (ISO 3166-1)", Country::parse)?
                .unwrap_or_default(),
            device_type: word("deviceType", p.device_type, "desktop, mobile, tablet, ctv or other", DeviceType::parse)?
                .unwrap_or_default(),
            ip_hash: text("ipHash", p.ip_hash)?,
            user_agent: text("userAgent", p.user_agent)?,
            url: text("url", p.url)?,
            cost_micros: cost(p.cost_micros)?,
            currency: word("currency", p.currency, "three upper-case letters (ISO 4217)", Currency::parse)?,
            extra: p.extra.into_owned(),
        };
        let auth = text("signature", signature)?;
        Ok(Self {
            event_id: required("eventId", id("eventId", p.event_id, EventId::new)?)?,
            kind: required(
                "eventType",
                word("eventType", p.event_type, "impression, click or conversion", EventKind::parse)?,
            )?,
            event_time: time("timestamp", required("timestamp", p.event_time)?)?,
            ad_id: required("adId", id("adId", p.ad_id, AdId::new)?)?,
            campaign_id: id("campaignId", p.campaign_id, CampaignId::new)?,
            advertiser_id: id("advertiserId", p.advertiser_id, AdvertiserId::new)?,
            details,
            auth: match auth {
                Some(signature) => Some(Auth {
                    signature,
                    key_id: text("keyId", key_id)?,
                    expires_at: expires_at.map(|t| time("expiresAt", t)).transpose()?,
                    nonce: text("nonce", nonce)?,
                }),
                None => None,
            },
            ingest_time: ingest_time.map(|t| time("ingestTime", t)).transpose()?,
            fingerprint,
        })
    }

    /// The event this submission becomes once it is admitted.
    #[must_use]
    pub fn admit(self, admission: Admission) -> Event {
        Event {
            event_id: self.event_id,
            kind: self.kind,
            event_time: self.event_time,
            ingest_time: admission.ingest_time,
            ad_id: self.ad_id,
            campaign_id: admission.campaign_id,
            advertiser_id: admission.advertiser_id,
            details: self.details,
            region: admission.region,
            invalid: admission.invalid,
            fingerprint: self.fingerprint,
            traceparent: admission.traceparent,
        }
    }
}

/// The identity of a payload: every field the client sent except the proof and our own (contract 2.2).
/// Protobuf's field order and sorted map make the bytes canonical.
#[must_use]
pub fn fingerprint(message: &EventMessage) -> Fingerprint {
    Fields::from(message).payload.fingerprint()
}

fn bad(field: &str, detail: impl fmt::Display) -> Rejection {
    Rejection::new(RejectReason::BadValue, format!("{field}: {detail}"))
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Rejection> {
    value.ok_or_else(|| Rejection::new(RejectReason::MissingField, format!("{field} is required")))
}

fn id<'a, T>(
    field: &str,
    value: Text<'a>,
    parse: impl Fn(Cow<'a, str>) -> Result<T, BadId>,
) -> Result<Option<T>, Rejection> {
    value.map(|v| parse(v).map_err(|e| bad(field, e))).transpose()
}

fn word<T>(
    field: &str,
    value: Text<'_>,
    rule: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Rejection> {
    value
        .map(|v| {
            parse(&v).ok_or_else(|| bad(field, format!("{:?} is not {rule}", v.chars().take(40).collect::<String>())))
        })
        .transpose()
}

fn text(field: &str, value: Text<'_>) -> Result<Option<String>, Rejection> {
    match value {
        Some(v) if v.len() > MAX_TEXT_BYTES => {
            Err(bad(field, format!("{} bytes, the limit is {MAX_TEXT_BYTES}", v.len())))
        }
        other => Ok(other.map(Cow::into_owned)),
    }
}

fn time(field: &str, micros: i64) -> Result<Timestamp, Rejection> {
    let t = Timestamp(micros);
    if (Timestamp::MIN..=Timestamp::MAX).contains(&t) {
        Ok(t)
    } else {
        Err(bad(field, "outside the years 1970 to 9999"))
    }
}

fn cost(micros: Option<i64>) -> Result<Option<i64>, Rejection> {
    match micros {
        Some(c) if !(0..=MAX_MICROS).contains(&c) => Err(bad("costMicros", format!("{c} is not in 0..={MAX_MICROS}"))),
        other => Ok(other),
    }
}

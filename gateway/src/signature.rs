//! Proof of origin: what is signed, with which key, and whether a signature holds.
//! The canonical strings are the contract with everybody who signs:
//! - links (`GET /click`, `GET /impression.gif`, `POST /v1/clicks`): `v1|keyId|adId|impressionId|exp`
//! - events (`POST /v1/events`):
//!   `v1|keyId|eventId|eventType|timestampMillis|adId|campaignId|impressionId|costMicros|currency|exp|nonce`
//!
//! Each is signed with HMAC-SHA256 and written in unpadded base64url. `exp` is in epoch seconds (rounded down),
//! `timestampMillis` in epoch milliseconds (rounded down); what is absent is empty. Everything that decides about
//! money is in there. No field but the last can contain a `|`, so no two claims have one string.
//! Guarantees: constant-time comparison; one encoding only (no padding, no stray bits); retired keys sign nothing.
//! Never: prints a secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use shared::event::{EventKind, Submission};
use shared::money::Currency;
use shared::time::{SECOND, Timestamp};

use crate::keys::{KeyStatus, SigningKeys};

/// Bytes that a signed text mostly fits into.
const USUAL_BYTES: usize = 256;
/// Room for a decoded signature, which has 32 bytes: what does not fit is none.
const TAG_ROOM: usize = 48;

/// What a link signature speaks for.
#[derive(Debug, Clone, Copy)]
pub struct LinkClaims<'a> {
    /// The ad.
    pub ad_id: &'a str,
    /// The served impression.
    pub impression_id: &'a str,
    /// When the link stops counting.
    pub expires_at: Option<Timestamp>,
}

impl LinkClaims<'_> {
    /// The string that is signed.
    #[must_use]
    pub fn canonical(&self, key_id: &str) -> String {
        let mut text = String::with_capacity(USUAL_BYTES);
        for part in ["v1", key_id, self.ad_id, self.impression_id] {
            text.push_str(part);
            text.push('|');
        }
        push_seconds(&mut text, self.expires_at);
        text
    }
}

/// What an event signature speaks for. Fields are as the client sent them; `None` is absent.
#[derive(Debug, Clone, Copy)]
pub struct EventClaims<'a> {
    /// The event's id.
    pub event_id: &'a str,
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub event_time: Timestamp,
    /// The ad.
    pub ad_id: &'a str,
    /// The campaign, where the client names one.
    pub campaign_id: Option<&'a str>,
    /// The served impression.
    pub impression_id: Option<&'a str>,
    /// The reported price.
    pub cost_micros: Option<i64>,
    /// The reported price's currency.
    pub currency: Option<Currency>,
    /// When the signature stops counting.
    pub expires_at: Option<Timestamp>,
    /// A number used once.
    pub nonce: Option<&'a str>,
}

impl<'a> EventClaims<'a> {
    /// The claims of a submission.
    #[must_use]
    pub fn of(s: &'a Submission) -> Self {
        Self {
            event_id: s.event_id.as_str(),
            kind: s.kind,
            event_time: s.event_time,
            ad_id: s.ad_id.as_str(),
            campaign_id: s.campaign_id.as_ref().map(|c| c.as_str()),
            impression_id: s.details.impression_id.as_ref().map(|i| i.as_str()),
            cost_micros: s.details.cost_micros,
            currency: s.details.currency,
            expires_at: s.auth.as_ref().and_then(|a| a.expires_at),
            nonce: s.auth.as_ref().and_then(|a| a.nonce.as_deref()),
        }
    }

    /// The string that is signed.
    #[must_use]
    pub fn canonical(&self, key_id: &str) -> String {
        let mut text = String::with_capacity(USUAL_BYTES);
        let mut number = itoa::Buffer::new();
        let mut next = |part: &str| {
            text.push_str(part);
            text.push('|');
        };
        ["v1", key_id, self.event_id, self.kind.as_str()].into_iter().for_each(&mut next);
        next(number.format(self.event_time.as_millis()));
        next(self.ad_id);
        next(self.campaign_id.unwrap_or_default());
        next(self.impression_id.unwrap_or_default());
        next(self.cost_micros.map_or("", |cost| number.format(cost)));
        next(self.currency.as_ref().map_or("", Currency::as_str));
        push_seconds(&mut text, self.expires_at);
        text.push('|');
        text.push_str(self.nonce.unwrap_or_default());
        text
    }
}

/// A signature and the key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// `keyId`.
    pub key_id: String,
    /// `signature`.
    pub signature: String,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is none.
    #[error("there is no signature")]
    Missing,
    /// The key is unknown or retired.
    #[error("keyId names no active key")]
    UnknownKey,
    /// It was not made by that key over these fields.
    #[error("the signature does not fit the fields it signs")]
    Mismatch,
    /// It speaks for longer than duplicates are remembered.
    #[error("exp is too far in the future: sign for a shorter time")]
    TooLong,
    /// It held once.
    #[error("the signature has expired")]
    Expired,
}

/// The instant a signature is judged at, and how far ahead of it `exp` may lie.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// Now (for history: when the row was ingested).
    pub now: Timestamp,
    /// The farthest `exp`, in microseconds from `now`: as long as duplicates are remembered.
    pub max_ahead: i64,
}

impl Validity {
    fn check(&self, expires_at: Option<Timestamp>) -> Result<(), Fault> {
        match expires_at.map(|t| t.floor(SECOND)) {
            Some(exp) if exp <= self.now => Err(Fault::Expired),
            Some(exp) if exp.since(self.now) > self.max_ahead => Err(Fault::TooLong),
            _ => Ok(()),
        }
    }
}

impl SigningKeys {
    /// Whether `signature` was made by the active key `key_id` over the string that `canonical` builds from that
    /// key id. Without a key id every active key is tried, over a string with an empty key id.
    ///
    /// # Errors
    /// The [`Fault`], judged in the order key, signature, time: a forged signature is never "expired".
    pub fn verify(
        &self,
        signature: Option<&str>,
        key_id: Option<&str>,
        canonical: impl FnOnce(&str) -> String,
        expires_at: Option<Timestamp>,
        validity: Validity,
    ) -> Result<(), Fault> {
        let signature = signature.ok_or(Fault::Missing)?;
        let mut keys = self.active().filter(|key| key_id.is_none_or(|id| key.id.as_str() == id)).peekable();
        if keys.peek().is_none() {
            return Err(Fault::UnknownKey);
        }
        let mut room = [0; TAG_ROOM];
        let tag = URL_SAFE_NO_PAD.decode_slice(signature, &mut room).ok().and_then(|length| room.get(..length));
        let tag = tag.ok_or(Fault::Mismatch)?;
        let text = canonical(key_id.unwrap_or_default());
        let holds = keys.any(|key| {
            let mut mac = key.mac();
            mac.update(text.as_bytes());
            mac.verify_slice(tag).is_ok()
        });
        if holds { validity.check(expires_at) } else { Err(Fault::Mismatch) }
    }

    /// Signs a link with the newest active key; `None` when there is no active key.
    #[must_use]
    pub fn sign_link(&self, claims: &LinkClaims<'_>) -> Option<Signed> {
        self.sign(|key_id| claims.canonical(key_id))
    }

    /// Signs an event with the newest active key; `None` when there is no active key.
    #[must_use]
    pub fn sign_event(&self, claims: &EventClaims<'_>) -> Option<Signed> {
        self.sign(|key_id| claims.canonical(key_id))
    }

    /// Signs a statement of ours, such as an adjustment, with the newest active key; `statement` makes its text from
    /// the key's id and must begin with what it is, so that it can never pass for a link or an event.
    #[must_use]
    pub fn sign_statement(&self, statement: impl FnOnce(&str) -> String) -> Option<Signed> {
        self.sign(statement)
    }

    /// Whether `key_id` signed the statement; `None` when that key is unknown. A retired key's word still holds.
    #[must_use]
    pub fn holds(&self, key_id: &str, signature: &str, statement: &str) -> Option<bool> {
        let key = self.keys().iter().find(|key| key.id.as_str() == key_id)?;
        let mut mac = key.mac();
        mac.update(statement.as_bytes());
        Some(URL_SAFE_NO_PAD.decode(signature).is_ok_and(|bytes| mac.verify_slice(&bytes).is_ok()))
    }

    /// A signed click URL under `base` (such as `https://ads.example`).
    #[must_use]
    pub fn sign_click_url(&self, base: &str, claims: &LinkClaims<'_>) -> Option<String> {
        self.sign_url(base, "click", claims)
    }

    /// A signed impression pixel URL under `base`.
    #[must_use]
    pub fn sign_pixel_url(&self, base: &str, claims: &LinkClaims<'_>) -> Option<String> {
        self.sign_url(base, "impression.gif", claims)
    }

    fn sign_url(&self, base: &str, path: &str, claims: &LinkClaims<'_>) -> Option<String> {
        let Signed { key_id, signature } = self.sign_link(claims)?;
        let exp = claims.expires_at.map(|t| format!("&exp={}", t.0.div_euclid(SECOND))).unwrap_or_default();
        let (base, ad, impression) = (base.trim_end_matches('/'), claims.ad_id, claims.impression_id);
        Some(format!("{base}/{path}?adId={ad}&impressionId={impression}&keyId={key_id}{exp}&signature={signature}"))
    }

    fn sign(&self, canonical: impl FnOnce(&str) -> String) -> Option<Signed> {
        let key = self.active().last()?;
        let mut mac = key.mac();
        mac.update(canonical(key.id.as_str()).as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        Some(Signed { key_id: key.id.to_string(), signature })
    }

    fn active(&self) -> impl Iterator<Item = &crate::keys::SigningKey> {
        self.keys().iter().filter(|key| key.status == KeyStatus::Active)
    }
}

/// Epoch seconds, rounded down; nothing when there is no time.
fn push_seconds(text: &mut String, time: Option<Timestamp>) {
    if let Some(time) = time {
        text.push_str(itoa::Buffer::new().format(time.0.div_euclid(SECOND)));
    }
}

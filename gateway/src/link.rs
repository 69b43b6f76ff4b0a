//! Reading links: the query of `/click` and `/impression.gif` → a submission.
//! Owns: which parameters there are and the event id of a link (the first 16 bytes of
//! SHA-256(`kind|adId|impressionId`) in hex), so that every request for one served impression is one event.
//! The fingerprint covers what the link says, not when or by which browser it was asked for.
//! Parameters we do not know are ignored (ad servers and mail clients add their own); a known one given twice is refused.

use sha2::{Digest, Sha256};
use shared::event::{EventKind, MAX_TEXT_BYTES, RejectReason, Rejection, Submission, fingerprint};
use shared::time::{SECOND, Timestamp};
use shared::wire::EventMessage;

/// The event id of a click or impression made by a link, or by `POST /v1/clicks`.
#[must_use]
pub fn link_event_id(kind: EventKind, ad_id: &str, impression_id: &str) -> String {
    let digest = Sha256::digest(format!("{kind}|{ad_id}|{impression_id}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A link's query, taken apart but not judged.
#[derive(Debug, Default)]
pub(crate) struct LinkQuery {
    message: EventMessage,
    exp: Option<String>,
    pub(crate) opted_out: bool,
}

impl LinkQuery {
    /// Takes a query apart.
    pub(crate) fn parse(query: &str) -> Result<Self, Rejection> {
        let mut link = Self::default();
        let mut opt_out = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Ok(name) = decode(name) else { continue };
            let m = &mut link.message;
            let slot = match name.as_str() {
                "adId" => &mut m.ad_id,
                "impressionId" => &mut m.impression_id,
                "signature" => &mut m.signature,
                "keyId" => &mut m.key_id,
                "exp" => &mut link.exp,
                "optOut" => &mut opt_out,
                "creativeId" => &mut m.creative_id,
                "publisherId" => &mut m.publisher_id,
                "userPseudoId" => &mut m.user_pseudo_id,
                "sessionId" => &mut m.session_id,
                "bidRequestId" => &mut m.bid_request_id,
                "country" => &mut m.country,
                "deviceType" => &mut m.device_type,
                _ => continue,
            };
            if slot.replace(decode(value)?).is_some() {
                return Err(Rejection::new(RejectReason::Malformed, format!("{name} is given twice")));
            }
        }
        link.opted_out = opt_out.is_some_and(|v| v == "1" || v == "true");
        Ok(link)
    }

    /// The ad the link names, if it names one that can be one.
    pub(crate) fn ad_id(&self) -> Option<shared::id::AdId> {
        shared::id::AdId::new(self.message.ad_id.as_deref()?).ok()
    }

    /// The submission the link is, at `now`, asked for by `user_agent`.
    pub(crate) fn submission(
        self,
        kind: EventKind,
        now: Timestamp,
        user_agent: Option<&str>,
    ) -> Result<Submission, Rejection> {
        let mut message = self.message;
        let missing = |field: &str| Rejection::new(RejectReason::MissingField, format!("{field} is required"));
        let ad_id = message.ad_id.as_deref().ok_or_else(|| missing("adId"))?;
        let impression_id = message.impression_id.as_deref().ok_or_else(|| missing("impressionId"))?;
        message.event_id = Some(link_event_id(kind, ad_id, impression_id));
        message.event_type = Some(kind.as_str().to_owned());
        message.expires_at = self.exp.as_deref().map(epoch_seconds).transpose()?;
        let said = fingerprint(&message);
        message.event_time = Some(now.0);
        message.user_agent = user_agent.map(cut);
        Submission::with_fingerprint(&message, said)
    }
}

/// Epoch seconds in their one decimal form, as microseconds.
fn epoch_seconds(text: &str) -> Result<i64, Rejection> {
    let number = text.parse::<i64>().ok().filter(|n| n.to_string() == text);
    number
        .and_then(|n| n.checked_mul(SECOND))
        .ok_or_else(|| Rejection::new(RejectReason::BadValue, "exp: not a whole number of epoch seconds"))
}

/// A browser's name for itself, cut to what an event may carry.
fn cut(user_agent: &str) -> String {
    user_agent
        .chars()
        .scan(0, |bytes, c| {
            *bytes += c.len_utf8();
            (*bytes <= MAX_TEXT_BYTES).then_some(c)
        })
        .collect()
}

/// Percent-decoding of one query component.
fn decode(text: &str) -> Result<String, Rejection> {
    let bad = || Rejection::new(RejectReason::Malformed, "the query is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = rest.next().zip(rest.next()).and_then(|(high, low)| {
                    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                    Some(digit(high)? << 4 | digit(low)?)
                });
                digits.ok_or_else(bad)?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

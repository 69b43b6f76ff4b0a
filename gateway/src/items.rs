//! Bodies → submissions: which form a body has, where its items begin and end. Pure.
//! Each item keeps its own bytes, so that a refused one can be shown and replayed alone.

use axum::http::HeaderValue;
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::event::{EventKind, RejectReason, Rejection, Submission};
use shared::wire::{EventBatch, EventMessage};

use crate::link::link_event_id;
use crate::settings::Settings;

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One object or an array of them.
    Json,
    /// One object a line.
    Ndjson,
    /// An `EventBatch`.
    Protobuf,
}

impl Form {
    /// By content type; JSON when there is none. `text/plain` is what a browser's beacon sends.
    pub(crate) fn of(content_type: Option<&HeaderValue>) -> Option<Self> {
        let Some(value) = content_type else { return Some(Self::Json) };
        let essence = value.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" | "text/plain" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" => Some(Self::Ndjson),
            "application/x-protobuf" | "application/protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// One item of a body, not read yet.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    /// A JSON object of `POST /v1/events`.
    Event(&'a [u8]),
    /// A message of a batch.
    Message(Box<EventMessage>),
    /// The body of `POST /v1/clicks`.
    Click(&'a [u8]),
}

impl Part<'_> {
    /// What the item says.
    pub(crate) fn submission(&self) -> Result<Submission, Rejection> {
        match self {
            Self::Event(json) => Submission::from_json(json),
            Self::Message(message) => Submission::from_message(message),
            Self::Click(json) => click(json),
        }
    }

    /// The item's own bytes; `body` is what it was split from.
    pub(crate) fn raw(&self, body: &Bytes) -> Bytes {
        match self {
            Self::Event(json) | Self::Click(json) => body.slice_ref(json),
            Self::Message(message) => message.encode_to_vec().into(),
        }
    }
}

/// The items of a body, and whether it was one object (and so wants one answer).
pub(crate) fn split<'a>(form: Form, body: &'a Bytes, settings: &Settings) -> Result<(Vec<Part<'a>>, bool), Rejection> {
    let most = usize::try_from(settings.max_items).unwrap_or(usize::MAX);
    let parts: Vec<Part<'a>> = match form {
        Form::Json if body.trim_ascii_start().starts_with(b"[") => {
            let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(malformed)?;
            items.into_iter().map(|item| Part::Event(item.get().as_bytes())).collect()
        }
        Form::Json => return Ok((vec![Part::Event(body)], true)),
        Form::Ndjson => lines(body).take(most.saturating_add(1)).map(Part::Event).collect(),
        Form::Protobuf => {
            let batch = EventBatch::decode(body.clone()).map_err(malformed)?;
            if batch.events.len() > most {
                return Err(too_many(most));
            }
            batch.events.into_iter().map(|message| Part::Message(Box::new(message))).collect()
        }
    };
    if parts.len() > most { Err(too_many(most)) } else { Ok((parts, false)) }
}

/// The lines of a body that are not empty, without the space around them.
fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', body).chain(std::iter::once(body.len()));
    let whole = ends.scan(0, |start, end| {
        let line = body.get(*start..end);
        *start = end + 1;
        line
    });
    whole.map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// The body of `POST /v1/clicks`: `ad_id, user_id, impression_id, timestamp, signature` (and `key_id`, `exp`). It is
/// the click that the link with the same ad and impression is, and is signed like that link.
fn click(body: &[u8]) -> Result<Submission, Rejection> {
    let given: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(malformed)?;
    let mut event = serde_json::Map::new();
    for (name, value) in given {
        let field = match name.as_str() {
            "ad_id" => "adId",
            "user_id" => "userPseudoId",
            "impression_id" => "impressionId",
            "timestamp" => "timestamp",
            "signature" => "signature",
            "key_id" => "keyId",
            "exp" => "expiresAt",
            _ => return Err(Rejection::new(RejectReason::BadValue, format!("{name:?} is not a field of a click"))),
        };
        let value = if field == "expiresAt" { millis_of_seconds(&value)? } else { value };
        event.insert(field.to_owned(), value);
    }
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("impressionId").is_empty() {
        return Err(Rejection::new(RejectReason::MissingField, "impression_id is required"));
    }
    let id = link_event_id(EventKind::Click, text("adId"), text("impressionId"));
    event.insert("eventId".to_owned(), id.into());
    event.insert("eventType".to_owned(), EventKind::Click.as_str().into());
    Submission::from_json(Value::Object(event).to_string().as_bytes())
}

fn millis_of_seconds(value: &Value) -> Result<Value, Rejection> {
    let millis = value.as_i64().and_then(|s| s.checked_mul(1_000));
    let bad = || Rejection::new(RejectReason::BadValue, "exp: not a whole number of epoch seconds");
    millis.map(Value::from).ok_or_else(bad)
}

/// Whether an event carries its sender's wish not to be recorded (`"optOut": true`).
pub(crate) fn is_opted_out(submission: &Submission) -> bool {
    let wish = submission.details.extra.get("optOut").map(String::as_str);
    matches!(wish, Some("true" | "1" | "\"1\"" | "\"true\""))
}

fn malformed(error: impl std::fmt::Display) -> Rejection {
    Rejection::new(RejectReason::Malformed, error.to_string())
}

fn too_many(most: usize) -> Rejection {
    Rejection::new(RejectReason::TooLarge, format!("more than {most} events in one request"))
}

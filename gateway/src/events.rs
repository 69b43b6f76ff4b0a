//! `POST /v1/events` and `POST /v1/clicks`: bodies → items → outcomes, one result per item.
//! Guarantees: all accepted events of a request are durable, in one append, before any of it is answered; a bad item
//! does not hurt its neighbours; what is refused is kept with its own bytes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use shared::event::{RejectReason, Rejection};
use shared::http::problem::Problem;

use crate::answer;
use crate::body::{self, BodyFault, Raw};
use crate::capture::{Item, Unavailable};
use crate::intake::Source;
use crate::items::{self, Form, Part};
use crate::refusals::Refusal;
use crate::state::{State, opted_out, traceparent};

/// `POST /v1/events`.
pub(crate) async fn events(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Body) -> Response {
    let Some(form) = Form::of(headers.get(CONTENT_TYPE)) else {
        return refuse_type(&state, &headers, body).await;
    };
    match receive(&state, &headers, body).await {
        Ok((raw, decoded)) => {
            let answer = match items::split(form, &decoded, &state.settings) {
                Ok((parts, single)) => take(&state, &headers, &decoded, parts, single, Source::Api).await,
                Err(rejection) => refuse_body(&state, &headers, rejection, raw.bytes.clone()).await,
            };
            drop(raw);
            answer
        }
        Err(answer) => answer,
    }
}

/// `POST /v1/clicks`.
pub(crate) async fn clicks(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Body) -> Response {
    match receive(&state, &headers, body).await {
        Ok((raw, decoded)) => {
            let parts = vec![Part::Click(&decoded)];
            let answer = take(&state, &headers, &decoded, parts, true, Source::SignedLink).await;
            drop(raw);
            answer
        }
        Err(answer) => answer,
    }
}

/// The body, as sent (with its share of the memory budget) and decompressed.
async fn receive(state: &State, headers: &HeaderMap, body: Body) -> Result<(Raw, Bytes), Response> {
    let read = body::read(body, headers, &state.settings, &state.budget).await;
    let decoded = read.and_then(|mut raw| {
        let decoded = body::decode(&mut raw, headers, &state.settings, &state.budget)?;
        Ok((raw, decoded))
    });
    match decoded {
        Ok(both) => Ok(both),
        Err(BodyFault::NoMemory) => {
            crate::capture::count_event("unavailable", 1);
            Err(answer::unavailable(&Unavailable("too much is being received at once".to_owned())).into_response())
        }
        Err(BodyFault::Refused(rejection, bytes)) => Err(refuse_body(state, headers, rejection, bytes).await),
        Err(BodyFault::UnknownEncoding) => {
            let rejection = Rejection::new(RejectReason::Malformed, "content-encoding is not gzip, zstd or identity");
            Err(unsupported(
                refuse_body(state, headers, rejection, Bytes::new()).await,
                "Content-Encoding: gzip or zstd",
            ))
        }
    }
}

/// Judges and captures the parts of one request with this body.
async fn take(
    state: &State,
    headers: &HeaderMap,
    body: &Bytes,
    parts: Vec<Part<'_>>,
    single: bool,
    source: Source,
) -> Response {
    let judged = {
        let (directory, keys) = (state.directory.current(), state.keys.current());
        let (context, trace) = (state.context(&directory, &keys), traceparent(headers));
        let everyone_opted_out = opted_out(headers);
        let judge = |part: &Part<'_>| {
            let submission = match part.submission() {
                _ if everyone_opted_out => return Item::OptedOut,
                Ok(submission) if items::is_opted_out(&submission) => return Item::OptedOut,
                Ok(submission) => submission,
                Err(rejection) => return Item::Refused(None, Refusal { rejection, raw: part.raw(body) }),
            };
            match state.admit(submission, source, &context, trace) {
                Ok(event) => Item::Event(Box::new(event)),
                Err((id, rejection)) => Item::Refused(Some(id), Refusal { rejection, raw: part.raw(body) }),
            }
        };
        parts.iter().map(judge).collect()
    };
    match state.submit(judged).await {
        Err(unavailable) => answer::unavailable(&unavailable).into_response(),
        Ok(results) => match (single, results.as_slice()) {
            (true, [result]) => answer::one(result),
            _ => answer::several(&results),
        },
    }
}

/// Refuses a body as a whole, and keeps it.
async fn refuse_body(state: &State, headers: &HeaderMap, rejection: Rejection, raw: Bytes) -> Response {
    let item = if opted_out(headers) {
        Item::OptedOut
    } else {
        Item::Refused(None, Refusal { rejection: rejection.clone(), raw })
    };
    match state.submit(vec![item]).await {
        Ok(_) => answer::refused(&rejection).into_response(),
        Err(unavailable) => answer::unavailable(&unavailable).into_response(),
    }
}

async fn refuse_type(state: &State, headers: &HeaderMap, body: Body) -> Response {
    match body::read(body, headers, &state.settings, &state.budget).await {
        Err(BodyFault::NoMemory) => {
            crate::capture::count_event("unavailable", 1);
            answer::unavailable(&Unavailable("too much is being received at once".to_owned())).into_response()
        }
        Err(BodyFault::Refused(rejection, bytes)) => refuse_body(state, headers, rejection, bytes).await,
        read => {
            let bytes = read.map_or_else(|_| Bytes::new(), |raw| raw.bytes);
            let rejection = Rejection::new(RejectReason::Malformed, "the content type is not one we read");
            let fix = "Content-Type: application/json, application/x-ndjson or application/x-protobuf";
            unsupported(refuse_body(state, headers, rejection, bytes).await, fix)
        }
    }
}

/// Turns the answer to a refused body into 415, unless it could not be kept.
fn unsupported(answer: Response, send: &str) -> Response {
    if answer.status() != StatusCode::BAD_REQUEST {
        return answer;
    }
    let detail = "the body is in a form we do not read";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", detail, format!("send {send}")).into_response()
}

//! Outcomes as HTTP answers (contract 4): one item has the status of its outcome; several items have 202 when all
//! were accepted, else 207, with one result per item in order.

use axum::Json;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::event::{RejectReason, Rejection};
use shared::http::problem::Problem;
use shared::id::EventId;
use shared::time::Timestamp;
use shared::verdict::InvalidCode;

use crate::capture::{Outcome, Settled, Unavailable};

/// Bytes that one result mostly fits into.
const USUAL_RESULT_BYTES: usize = 96;

/// The answer to a request with one item.
pub(crate) fn one(Settled { event_id, outcome }: &Settled) -> Response {
    let event_id = event_id.as_ref();
    match outcome {
        Outcome::Accepted { .. } | Outcome::OptedOut => {
            (StatusCode::ACCEPTED, Json(result(event_id, outcome))).into_response()
        }
        Outcome::Duplicate { first_seen } => taken("duplicate", event_id, *first_seen).into_response(),
        Outcome::Conflict { first_seen } => taken("conflict", event_id, *first_seen).into_response(),
        Outcome::Refused(rejection) => {
            let problem = refused(rejection);
            match event_id {
                Some(id) => problem.with("eventId", id.as_str()),
                None => problem,
            }
            .into_response()
        }
    }
}

/// The answer to a request with several items.
pub(crate) fn several(results: &[Settled]) -> Response {
    let fine = results.iter().all(|s| matches!(s.outcome, Outcome::Accepted { .. } | Outcome::OptedOut));
    let status = if fine { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    let mut body = Vec::with_capacity(results.len().saturating_mul(USUAL_RESULT_BYTES));
    match write_results(results, &mut body) {
        Ok(()) => (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
        // Texts and numbers in memory: there is nothing that could fail.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `{"results":[…]}`, item by item.
fn write_results(results: &[Settled], out: &mut Vec<u8>) -> serde_json::Result<()> {
    out.extend_from_slice(b"{\"results\":[");
    for (number, Settled { event_id, outcome }) in results.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        match (event_id, outcome) {
            // Nearly all of them; an id has nothing to escape.
            (Some(id), Outcome::Accepted { invalid: None }) => {
                out.extend_from_slice(b"{\"eventId\":\"");
                out.extend_from_slice(id.as_str().as_bytes());
                out.extend_from_slice(b"\",\"outcome\":\"accepted\",\"status\":202}");
            }
            _ => serde_json::to_writer(&mut *out, &result(event_id.as_ref(), outcome))?,
        }
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// What became of one item.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid: Option<&'static str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    status: u16,
}

fn result<'a>(event_id: Option<&'a EventId>, outcome: &'a Outcome) -> ItemResult<'a> {
    let of = |status: StatusCode, outcome: &'static str| ItemResult {
        event_id: event_id.map(EventId::as_str),
        outcome,
        status: status.as_u16(),
        ..ItemResult::default()
    };
    match outcome {
        Outcome::Accepted { invalid } => {
            ItemResult { invalid: invalid.map(InvalidCode::as_str), ..of(StatusCode::ACCEPTED, "accepted") }
        }
        Outcome::OptedOut => ItemResult { event_id: None, ..of(StatusCode::ACCEPTED, "opted_out") },
        Outcome::Duplicate { first_seen } => {
            ItemResult { first_seen: Some(first_seen.to_string()), ..of(StatusCode::CONFLICT, "duplicate") }
        }
        Outcome::Conflict { first_seen } => {
            ItemResult { first_seen: Some(first_seen.to_string()), ..of(StatusCode::CONFLICT, "conflict") }
        }
        Outcome::Refused(rejection) => ItemResult {
            detail: Some(&rejection.detail),
            reason: Some(rejection.reason.as_str()),
            ..of(status_of(rejection.reason), "rejected")
        },
    }
}

fn taken(code: &'static str, event_id: Option<&EventId>, first_seen: Timestamp) -> Problem {
    let (detail, fix) = if code == "duplicate" {
        ("this event was captured before; this copy is ignored", "nothing: it counts once")
    } else {
        (
            "another event with this id and other content was captured before; this one will not be billed",
            "give every event an id of its own, and repeat an event with its content unchanged",
        )
    };
    Problem::new(StatusCode::CONFLICT, code, detail, fix)
        .with("duplicateOf", event_id.map_or("", EventId::as_str))
        .with("firstSeen", first_seen.to_string())
}

/// A refusal as a problem.
pub(crate) fn refused(rejection: &Rejection) -> Problem {
    let fix = match rejection.reason {
        RejectReason::Malformed => "send one JSON object, an array of them, NDJSON, or a protobuf EventBatch",
        RejectReason::MissingField | RejectReason::BadValue => "correct the field named in detail",
        RejectReason::UnsupportedSchemaVersion => "send schemaVersion 1",
        RejectReason::TooLarge => "send fewer or smaller events per request",
        RejectReason::Unauthorized => "sign the event with an active key; see keyId, signature and expiresAt",
        RejectReason::UnknownAd => "name the campaignId, or import the ad with `clickledger ads import`",
        RejectReason::Limited => "send less often; see Retry-After",
        RejectReason::Duplicate | RejectReason::OptedOut | RejectReason::Undecodable => "nothing",
    };
    Problem::new(status_of(rejection.reason), rejection.reason.as_str(), rejection.detail.clone(), fix)
}

fn status_of(reason: RejectReason) -> StatusCode {
    match reason {
        RejectReason::Malformed
        | RejectReason::MissingField
        | RejectReason::BadValue
        | RejectReason::UnsupportedSchemaVersion
        | RejectReason::UnknownAd
        | RejectReason::Undecodable => StatusCode::BAD_REQUEST,
        RejectReason::Unauthorized => StatusCode::UNAUTHORIZED,
        RejectReason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RejectReason::Duplicate => StatusCode::CONFLICT,
        RejectReason::OptedOut => StatusCode::ACCEPTED,
        RejectReason::Limited => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// There is no such ad, or not for whoever asks.
pub(crate) fn unknown_ad() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_ad",
        "this ad is not known or does not run any more",
        "check adId; import the ad with `clickledger ads import`",
    )
}

/// Nothing of the request was acknowledged: try again.
pub(crate) fn unavailable(unavailable: &Unavailable) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        format!("nothing was acknowledged: {}", unavailable.0),
        "send the same request again, with the same event ids, after Retry-After seconds",
    )
    .retry_after(1)
}

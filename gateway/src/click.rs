//! `GET /click` and `GET /impression.gif`: verify → look up → claim → append → redirect (or pixel).
//! Guarantees: 302 and `no-store`, never 301 (a cached redirect would hide clicks); the target is the ad directory's
//! and nothing a client sends; the answer comes after the event is durable. A person who asked not to be recorded is
//! redirected and counted, no more. If the log is away the answer is 503 with a page that still leads on: such a
//! click is not counted, and says so.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use shared::directory::{AdStatus, Directory};
use shared::event::{EventKind, RejectReason, Rejection};
use shared::http::Peer;
use shared::http::problem::Problem;

use crate::answer;
use crate::capture::{Item, Outcome, Unavailable};
use crate::intake::Source;
use crate::link::LinkQuery;
use crate::refusals::Refusal;
use crate::settings::OnBadSignature;
use crate::state::{State, opted_out, traceparent};

/// A transparent pixel.
const GIF: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00\x21\xf9\x04\x01\x00\x00\x00\x00\
\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";

/// The path of a click.
pub(crate) const CLICK: &str = "/click";
/// The path of an impression.
pub(crate) const PIXEL: &str = "/impression.gif";

/// `GET /click`.
pub(crate) async fn click(state: &State, asked: &Asked<'_>) -> Response {
    let directory = state.directory.current();
    let (outcome, target) = capture(state, EventKind::Click, asked, &directory).await;
    match (outcome, target) {
        (Err(unavailable), Some(target)) => lead_on(&unavailable, &target),
        (Err(unavailable), None) => answer::unavailable(&unavailable).into_response(),
        (Ok(Outcome::Refused(rejection)), _) if rejection.reason != RejectReason::UnknownAd => {
            answer::refused(&rejection).into_response()
        }
        (Ok(_), Some(target)) => redirect(&target),
        (Ok(_), None) => answer::unknown_ad().into_response(),
    }
}

/// `GET /impression.gif`.
pub(crate) async fn pixel(state: &State, asked: &Asked<'_>) -> Response {
    let directory = state.directory.current();
    match capture(state, EventKind::Impression, asked, &directory).await.0 {
        Err(unavailable) => answer::unavailable(&unavailable).into_response(),
        Ok(Outcome::Refused(rejection)) if rejection.reason == RejectReason::UnknownAd => {
            answer::unknown_ad().into_response()
        }
        Ok(Outcome::Refused(rejection)) => answer::refused(&rejection).into_response(),
        Ok(_) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("image/gif")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, GIF).into_response()
        }
    }
}

/// One request for a link.
pub(crate) struct Asked<'a> {
    pub(crate) peer: Option<Peer>,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
}

/// Captures what the link stands for; also where it leads.
async fn capture(
    state: &State,
    kind: EventKind,
    asked: &Asked<'_>,
    directory: &Directory,
) -> (Result<Outcome, Unavailable>, Option<String>) {
    let link = LinkQuery::parse(asked.uri.query().unwrap_or_default());
    let target = link.as_ref().ok().and_then(|link| target(state, link, directory));
    let item = if opted_out(asked.headers) || link.as_ref().is_ok_and(|link| link.opted_out) {
        Item::OptedOut
    } else {
        judge(state, kind, asked, link, directory).unwrap_or_else(|rejection| {
            let raw = Bytes::from(asked.uri.path_and_query().map_or("", |p| p.as_str()).to_owned());
            Item::Refused(None, Refusal { rejection, raw })
        })
    };
    let outcome = state.submit(vec![item]).await.and_then(|settled| {
        let only = settled.into_iter().next().map(|settled| settled.outcome);
        only.ok_or_else(|| Unavailable("the request has no outcome".to_owned()))
    });
    (outcome, target)
}

fn judge(
    state: &State,
    kind: EventKind,
    asked: &Asked<'_>,
    link: Result<LinkQuery, Rejection>,
    directory: &Directory,
) -> Result<Item, Rejection> {
    let (keys, headers) = (state.keys.current(), asked.headers);
    let context = state.context(directory, &keys);
    let now = context.now;
    let user_agent = headers.get(USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let mut submission = link?.submission(kind, now, user_agent.as_deref())?;
    // The person's own browser asks for a link, so the address is theirs; a POST may come from any server.
    submission.details.ip_hash = state.salts.hash(state.client(asked.peer, headers), now);
    let source = match state.settings.bad_signature {
        OnBadSignature::Redirect => Source::Link,
        OnBadSignature::Deny => Source::SignedLink,
    };
    let admitted = state.admit(submission, source, &context, traceparent(headers));
    admitted.map(|event| Item::Event(Box::new(event))).map_err(|(_, rejection)| rejection)
}

/// Where a link leads: to its ad's URL if the ad runs, else to the fallback if there is one.
fn target(state: &State, link: &LinkQuery, directory: &Directory) -> Option<String> {
    let ad = link.ad_id().and_then(|id| directory.lookup(&id).filter(|ad| ad.status == AdStatus::Active));
    match ad {
        Some(ad) => Some(ad.url.to_owned()),
        None => Some(state.settings.fallback_url.clone()).filter(|url| !url.is_empty()),
    }
}

fn redirect(target: &str) -> Response {
    match HeaderValue::from_str(target) {
        Ok(location) => {
            let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (StatusCode::FOUND, headers).into_response()
        }
        // The directory takes visible ASCII only.
        Err(_) => answer::unknown_ad().into_response(),
    }
}

/// 503 for machines, a page that leads on for people.
fn lead_on(unavailable: &Unavailable, target: &str) -> Response {
    let mut response = answer::unavailable(unavailable).into_response();
    // Directory URLs have no quotes or angle brackets; `&` is what is left to escape.
    let url = target.replace('&', "&amp;");
    let page = format!(
        "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=\"0;url={url}\"><a href=\"{url}\">Go on</a>"
    );
    response.extensions_mut().remove::<Problem>();
    *response.body_mut() = page.into();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    response
}

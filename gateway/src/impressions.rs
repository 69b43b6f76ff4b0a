//! `POST /v1/impressions`: an ad server asks for an impression and gets its id with the signed click and pixel URLs.
//! Guarantees: only an API key with the scope `sign` gets links, and an advertiser's only for its own ads; an id is
//! 128 random bits; a link holds no longer than duplicates are remembered. Nothing is counted here: the pixel counts
//! the impression when it is shown. On crash: nothing was kept, the caller asks again.
//! Never: shows a signing key, or tells an unknown ad from another advertiser's.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use shared::directory::AdStatus;
use shared::http::problem::Problem;
use shared::id::{AdId, AdvertiserId};
use shared::time::SECOND;

use crate::answer;
use crate::body;
use crate::signature::LinkClaims;
use crate::state::State;

/// Whose ads a caller may sign links for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issuer {
    /// Everybody's.
    Operator,
    /// One advertiser's.
    Advertiser(AdvertiserId),
}

/// Who the holder of an API key is, where the key may sign links.
pub type Issuers = Arc<dyn Fn(&str) -> Option<Issuer> + Send + Sync>;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    ad_id: AdId,
    /// How long the links count; as long as duplicates are remembered where absent.
    valid_seconds: Option<i64>,
}

/// `POST /v1/impressions`.
pub(crate) async fn impressions(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Body) -> Response {
    let Some(issuer) = bearer(&headers).and_then(|key| (state.issuers)(key)) else {
        let fix =
            "send Authorization: Bearer KEY with a key of the scope sign: clickledger keys create api --scopes sign";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "no API key that may sign links", fix);
        return problem.into_response();
    };
    let read = body::read(body, &headers, &state.settings, &state.budget).await;
    let bytes = match read {
        Ok(raw) => raw.bytes.clone(),
        Err(_) => return invalid("the body is too large or did not come").into_response(),
    };
    match serde_json::from_slice(&bytes) {
        Ok(asked) => issue(&state, &headers, &issuer, &asked).unwrap_or_else(IntoResponse::into_response),
        Err(error) => invalid(error.to_string()).into_response(),
    }
}

fn issue(state: &State, headers: &HeaderMap, issuer: &Issuer, asked: &Asked) -> Result<Response, Problem> {
    let directory = state.directory.current();
    let ad = directory.lookup(&asked.ad_id).filter(|ad| ad.status == AdStatus::Active);
    ad.filter(|ad| match issuer {
        Issuer::Operator => true,
        Issuer::Advertiser(advertiser) => ad.advertiser_id == advertiser,
    })
    .ok_or_else(answer::unknown_ad)?;
    let longest = state.settings.dedup.window.as_micros() / SECOND;
    let seconds = asked.valid_seconds.unwrap_or(longest);
    if !(1..=longest).contains(&seconds) {
        return Err(invalid(format!("validSeconds {seconds} is not between 1 and {longest}")));
    }
    let mut random = [0_u8; 16];
    (state.chance)(&mut random).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        unavailable("no impression id can be drawn")
    })?;
    let impression_id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let expires_at = state.clock.now().floor(SECOND).plus(seconds.saturating_mul(SECOND));
    let claims =
        LinkClaims { ad_id: asked.ad_id.as_str(), impression_id: &impression_id, expires_at: Some(expires_at) };
    let (keys, base) = (state.keys.current(), base(state, headers));
    let urls = keys.sign_click_url(&base, &claims).zip(keys.sign_pixel_url(&base, &claims));
    let (click, pixel) = urls.ok_or_else(|| unavailable("there is no signing key"))?;
    let body = json!({
        "impressionId": impression_id,
        "clickUrl": click,
        "pixelUrl": pixel,
        "expiresAt": expires_at.to_string(),
    });
    let private = (CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok((StatusCode::CREATED, [private], Json(body)).into_response())
}

/// Where people reach this gateway: as set, else as the caller reached it.
fn base(state: &State, headers: &HeaderMap) -> String {
    let set = &state.settings.public_url;
    if !set.is_empty() {
        return set.clone();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    host.map(|host| format!("http://{host}")).unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn invalid(detail: impl Into<String>) -> Problem {
    let fix = "send {\"adId\": \"…\"} and, if links must end sooner, \"validSeconds\"";
    Problem::new(StatusCode::BAD_REQUEST, "invalid", detail, fix)
}

fn unavailable(detail: &str) -> Problem {
    let fix = "make a signing key with `clickledger keys create signing`, or ask again later";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, fix).retry_after(1)
}

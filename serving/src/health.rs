//! `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use shared::http::Peer;
use shared::http::problem::Problem;

use crate::access::{self, Caller};
use crate::api_keys::Scope;
use crate::context::Context;
use crate::problems::ReportError;

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "Alive", body = String)))]
pub(crate) async fn livez() -> &'static str {
    "alive\n"
}

/// The serving store can be read.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Ready", body = String), (status = 503, description = "The store is away")),
)]
pub(crate) async fn readyz(State(context): State<Arc<Context>>) -> Result<&'static str, Problem> {
    context.store.writers().await.map_err(ReportError::from)?;
    Ok("ready\n")
}

/// The metrics of this process, for Prometheus. Open to this machine; others need a key with the scope ops.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses(
        (status = 200, description = "Prometheus text", body = String),
        (status = 401, description = "Not from this machine and no valid API key"),
    ),
)]
pub(crate) async fn metrics(
    State(context): State<Arc<Context>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let is_near = peer.is_some_and(|Extension(Peer(address))| address.ip().to_canonical().is_loopback());
    // What a proxy on this machine passes on comes from elsewhere.
    let is_passed_on = headers.contains_key("x-forwarded-for") || headers.contains_key("forwarded");
    if !is_near || is_passed_on {
        let caller = Caller::of(&headers, &context).ok_or_else(access::unauthorized)?;
        let allowed = caller.needs(Scope::Ops).and_then(|()| caller.needs_operator());
        allowed.map_err(IntoResponse::into_response)?;
    }
    let text = (context.metrics_text)();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

//! The route table, and what applies to every route: a metrics label, and for whatever captures, the rate limit.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use shared::event::{RejectReason, Rejection};
use shared::http::problem::Problem;
use shared::http::{Peer, Route};

use crate::capture::count_event;
use crate::state::State;
use crate::{answer, click, events, impressions};

pub(crate) fn router(state: Arc<State>) -> Router {
    let capturing = Router::new()
        // GET is served before the router (`front`). A HEAD request is a look, not a click.
        .route(click::CLICK, get(wrong_method).head(wrong_method))
        .route(click::PIXEL, get(wrong_method).head(wrong_method))
        .route("/v1/events", post(events::events))
        .route("/v1/clicks", post(events::clicks))
        .route("/v1/impressions", post(impressions::impressions))
        .layer(from_fn_with_state(Arc::clone(&state), limit));
    Router::new()
        .merge(capturing)
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(label))
        .fallback(unknown_path)
        .with_state(state)
}

async fn limit(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match limited(&state, peer, request.headers()) {
        None => next.run(request).await,
        Some(answer) => answer,
    }
}

/// The answer to a client who asks too often; counts it.
pub(crate) fn limited(state: &State, peer: Option<Peer>, headers: &HeaderMap) -> Option<Response> {
    let limited = state.limit.check(state.client(peer, headers)).err()?;
    count_event(RejectReason::Limited.as_str(), 1);
    state.refusals.count(RejectReason::Limited, 1);
    let rejection = Rejection::new(RejectReason::Limited, "too many requests from this address");
    Some(answer::refused(&rejection).retry_after(limited.retry_after).into_response())
}

async fn label(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| Route(path.as_str().into()));
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

async fn ready(Shared(state): Shared<Arc<State>>) -> Response {
    match state.is_ready().await {
        Ok(()) => match state.directory.stale_since() {
            None => "ready\n".into_response(),
            Some(since) => {
                format!("ready\nthe ad directory may be stale: its source is away since {since}\n").into_response()
            }
        },
        Err(why) => {
            let fix = "send events elsewhere, or again later; see the log of this process";
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why, fix);
            problem.retry_after(1).into_response()
        }
    }
}

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, plain)], (state.metrics_text)()).into_response()
}

async fn wrong_method() -> Problem {
    let fix = "GET /click and /impression.gif, POST /v1/events, /v1/clicks and /v1/impressions";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this path does not take this method", fix)
}

async fn unknown_path() -> Problem {
    let fix = "GET /click, GET /impression.gif, POST /v1/events, /v1/clicks or /v1/impressions";
    Problem::new(StatusCode::NOT_FOUND, "unknown_path", "there is nothing here", fix)
}

//! The route table. API routes are registered once, for the router and the OpenAPI document alike.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use shared::http::Route;
use shared::http::problem::Problem;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::context::Context;
use crate::problems::not_found;
use crate::{ads, campaigns, dashboard, docs, drift, explain, health, pipeline, settlement, stream, top};

/// No route takes a larger body, bytes: only the sign-in form has one.
const MAX_BODY_BYTES: usize = 4 * 1024;

/// The API's routes with their document.
fn api() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(docs::Document::openapi())
        .routes(routes!(ads::aggregates))
        .routes(routes!(campaigns::hourly))
        .routes(routes!(top::top))
        .routes(routes!(drift::report))
        .routes(routes!(explain::event))
        .routes(routes!(explain::campaign))
        .routes(routes!(settlement::files))
        .routes(routes!(settlement::download))
        .routes(routes!(pipeline::latency))
        .routes(routes!(pipeline::sla))
        .routes(routes!(pipeline::status))
        .routes(routes!(stream::stream))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

/// The whole router.
pub(crate) fn router(context: Arc<Context>) -> Result<Router, serde_json::Error> {
    let (api, document) = api().split_for_parts();
    let document = serde_json::to_value(docs::with_security(document))?;
    let page = docs::page(&document);
    let document = document.to_string();
    Ok(api
        .route("/", get(dashboard::page))
        .route("/session", post(dashboard::sign_in))
        .route("/session/end", post(dashboard::sign_out))
        .route("/dashboard/app.js", get(dashboard::script))
        .route("/dashboard/style.css", get(dashboard::style))
        .route("/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document)))
        .route("/docs", get(async move || ([(CONTENT_SECURITY_POLICY, dashboard::CSP)], Html(page))))
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(label))
        .with_state(context))
}

async fn nowhere() -> Problem {
    not_found("there is nothing at this address", "see /docs for what there is")
}

async fn wrong_method() -> Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this address does not take this method",
        "reports are read with GET",
    );
    let mut response = problem.into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// Names the route for the metrics and forbids browsers to guess types or to keep what they were not told to.
async fn label(matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(Route(matched.as_str().into()));
    }
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

//! The dashboard page and signing in to it.
//! Guarantees: everything is in the binary, nothing comes from elsewhere (strict CSP); the key lives in a cookie that
//! scripts cannot read and other sites cannot send. Never: writes data into HTML (the page builds it as text nodes).

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::response::{Html, IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use shared::http::problem::Problem;

use crate::access::{COOKIE_NAME, Caller};
use crate::context::Context;
use crate::params::Params;

const PAGE: &str = include_str!("dashboard/index.html");
const SIGN_IN: &str = include_str!("dashboard/sign_in.html");
const SCRIPT: &str = include_str!("dashboard/app.js");
const STYLE: &str = include_str!("dashboard/style.css");

/// Nothing but our own files, no frames, no inline code.
pub(crate) const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How long a browser stays signed in, seconds.
const COOKIE_SECONDS: u32 = 7 * 86_400;

/// A key, to be exchanged for the cookie.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KeyParams {
    key: Option<String>,
}

/// The page; with `?key=` it signs in first, so that a printed link works and the key leaves the address bar.
pub(crate) async fn page(
    State(context): State<Arc<Context>>,
    Params(given): Params<KeyParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(key) = given.key {
        return Ok(sign_in_with(&context, &key));
    }
    Ok(match Caller::of(&headers, &context) {
        Some(_) => html(StatusCode::OK, PAGE),
        None => html(StatusCode::UNAUTHORIZED, SIGN_IN),
    })
}

/// Signs in from the sign-in page's form.
pub(crate) async fn sign_in(
    State(context): State<Arc<Context>>,
    form: Result<Form<KeyParams>, FormRejection>,
) -> Response {
    let key = form.ok().and_then(|Form(given)| given.key).unwrap_or_default();
    sign_in_with(&context, key.trim())
}

/// Signs out.
pub(crate) async fn sign_out(State(context): State<Arc<Context>>) -> Response {
    to_page(&context, "", 0)
}

fn sign_in_with(context: &Context, key: &str) -> Response {
    if !context.settings.require_keys {
        return to_page(context, "", 0);
    }
    match context.keys.verify(key) {
        Some(_) => to_page(context, key, COOKIE_SECONDS),
        None => html(StatusCode::UNAUTHORIZED, SIGN_IN),
    }
}

fn to_page(context: &Context, key: &str, seconds: u32) -> Response {
    let secure = if context.is_loopback { "" } else { "; Secure" };
    let cookie = format!("{COOKIE_NAME}={key}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let mut response = html(StatusCode::SEE_OTHER, "");
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_static("/"));
    // A verified key is plain ASCII.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// An HTML page of ours, with its policy.
pub(crate) fn html(status: StatusCode, page: &'static str) -> Response {
    let headers = [
        (CONTENT_SECURITY_POLICY, CSP),
        (CACHE_CONTROL, "no-store"),
        // The address may have held a key.
        (REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, Html(page)).into_response()
}

/// The script.
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// The style sheet.
pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
}

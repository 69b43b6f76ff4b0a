//! Errors as clients see them: RFC 9457 problem+json with a sentence that says what to do.
//! A problem becomes an answer anywhere; [`crate::http::serve`] adds the `requestId` on the way out.
//! Never: carries a secret or an inner error's text that the caller did not choose to show.

use std::collections::BTreeMap;

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

use super::RequestId;
use crate::error::ErrorKind;

/// The media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not done, and what the client can do about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    fix: String,
    retry_after: Option<u32>,
    more: BTreeMap<&'static str, Value>,
}

impl Problem {
    /// A problem: `code` is a stable word (the end of `type`), `detail` says what is wrong, `fix` what to do.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), fix: fix.into(), retry_after: None, more: BTreeMap::new() }
    }

    /// The problem an error of `kind` is to a client.
    pub fn of_kind(kind: ErrorKind, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = match kind {
            ErrorKind::Invalid => "invalid",
            ErrorKind::Unauthorized => "unauthorized",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Conflict | ErrorKind::Corrupt | ErrorKind::Internal => "internal",
        };
        Self::new(status, code, detail, fix)
    }

    /// With a `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With one more member in the body.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.more.insert(name, value.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body: `type`, `title`, `status`, `detail`, `fix`, `requestId` and whatever was added.
    #[must_use]
    pub fn body(&self, id: Option<&RequestId>) -> Vec<u8> {
        let mut body = serde_json::Map::new();
        body.insert("type".to_owned(), format!("urn:clickledger:problem:{}", self.code).into());
        body.insert("title".to_owned(), self.status.canonical_reason().unwrap_or("Error").into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("detail".to_owned(), self.detail.as_str().into());
        body.insert("fix".to_owned(), self.fix.as_str().into());
        body.extend(self.more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        if let Some(id) = id {
            body.insert("requestId".to_owned(), id.as_str().into());
        }
        Value::Object(body).to_string().into_bytes()
    }

    /// The headers that go with it.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        [(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON)), (CACHE_CONTROL, HeaderValue::from_static("no-store"))]
            .into_iter()
            .chain(self.retry_after.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body(None)));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers());
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_is_wrong_and_what_to_do() {
        let problem =
            Problem::of_kind(ErrorKind::Unavailable, "the log is away", "send it again").retry_after(2).with("n", 7);
        let body: Value = serde_json::from_slice(&problem.body(None)).unwrap();
        assert_eq!(body["type"], "urn:clickledger:problem:unavailable");
        assert_eq!(body["status"], 503);
        assert_eq!(body["fix"], "send it again");
        assert_eq!(body["n"], 7);
        let response = problem.into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }
}

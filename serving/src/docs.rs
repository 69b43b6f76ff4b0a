//! `/openapi.json`, generated from the routes, and `/docs`, the same for people: one page without scripts.

use std::fmt::Write as _;

use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};

use crate::access::COOKIE_NAME;

/// What the generated document says about the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "clickledger reports",
        description = "Ad-event reports: provisional numbers within seconds, exact ones at T+1. Every row carries \
            `finality` (provisional, reconciled, settled), every report `asOf`. Errors are RFC 9457 problem+json with \
            a `fix` and the `requestId`. Times are UTC. Amounts are integer micros of the named currency.",
    ),
    tags(
        (name = "reports", description = "Counts, cost, unique users, drift"),
        (name = "explain", description = "Where a number comes from"),
        (name = "settlement", description = "Published settlement files"),
        (name = "pipeline", description = "How fresh, what is promised"),
        (name = "health", description = "For machines that watch"),
    ),
)]
pub(crate) struct Document;

/// Adds how to authenticate.
pub(crate) fn with_security(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key: cl_<id>_<secret>"));
    components.add_security_scheme("key", SecurityScheme::Http(bearer.build()));
    let cookie = ApiKeyValue::with_description(COOKIE_NAME, "The dashboard's cookie");
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let none: [&str; 0] = [];
    document.security = Some(vec![SecurityRequirement::new("key", none), SecurityRequirement::new("cookie", none)]);
    document
}

/// The page for people.
pub(crate) fn page(document: &Value) -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>clickledger reports: API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/dashboard/style.css\">\
         </head><body class=\"docs\"><main><h1>clickledger reports</h1>",
    );
    let info = document.pointer("/info/description").and_then(Value::as_str).unwrap_or_default();
    push(
        &mut html,
        format_args!("<p>{}</p><p>Machine-readable: <a href=\"/openapi.json\">openapi.json</a></p>", Text(info)),
    );
    for (path, operations) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            describe(&mut html, path, method, operation);
        }
    }
    html.push_str("</main></body></html>");
    html
}

fn describe(html: &mut String, path: &str, method: &str, operation: &Value) {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).unwrap_or_default();
    let method = method.to_uppercase();
    push(html, format_args!("<section><h2><code>{} {}</code></h2>", Text(&method), Text(path)));
    push(html, format_args!("<p>{} {}</p>", Text(text("summary")), Text(text("description"))));
    let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
    html.push_str("<dl>");
    for parameter in parameters {
        let text = |name: &str| parameter.get(name).and_then(Value::as_str).unwrap_or_default();
        push(html, format_args!("<dt><code>{}</code> ({})</dt>", Text(text("name")), Text(text("in"))));
        push(html, format_args!("<dd>{}</dd>", Text(text("description"))));
    }
    html.push_str("</dl><ul>");
    for (status, response) in operation.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let about = response.get("description").and_then(Value::as_str).unwrap_or_default();
        push(html, format_args!("<li>{}: {}</li>", Text(status), Text(about)));
    }
    html.push_str("</ul></section>");
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    if html.write_fmt(text).is_err() {
        tracing::debug!("a string cannot be written to");
    }
}

/// Text inside HTML.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            c => f.write_char(c),
        })
    }
}

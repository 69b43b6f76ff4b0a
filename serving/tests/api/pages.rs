//! The pages: sign-in, dashboard, docs, OpenAPI.

use super::*;

#[tokio::test]
async fn the_document_lists_exactly_the_routes() {
    let api = Api::start().await;
    let document = api.send(Method::GET, "/openapi.json", &[], "").await.json();
    let listed: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/api/v1/ads/{adId}/aggregates",
        "/livez",
        "/metrics",
        "/readyz",
        "/v1/drift/{date}",
        "/v1/explain/campaigns/{id}",
        "/v1/explain/events/{id}",
        "/v1/metrics/campaigns/{id}/latency",
        "/v1/reports/campaigns/{id}/hourly",
        "/v1/reports/reconcile/{date}/files",
        "/v1/reports/reconcile/{date}/files/{version}/{name}",
        "/v1/reports/top",
        "/v1/sla",
        "/v1/status",
        "/v1/stream",
    ];
    assert_eq!(listed, expected);
    for path in &expected {
        let real = path.replace("{adId}", "a1").replace("{id}", "c1").replace("{date}", "2026-01-04");
        let real = real.replace("{version}", "1").replace("{name}", "x");
        let response = api.begin(Method::GET, &real, &[], "").await;
        assert_ne!(response.status(), 404, "{path} is documented but not routed");
        let operation = &document["paths"][*path]["get"];
        assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{path} says what it is");
    }
}

/// What is wrong with `value` by the document's schema; nothing if it conforms.
fn faults(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return faults(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value, place);
    }
    // What may be absent is described as null or the thing itself.
    let thing = schema["oneOf"].as_array().and_then(|all| all.iter().find(|one| one["$ref"].is_string()));
    if let Some(thing) = thing.filter(|_| !value.is_null()) {
        return faults(document, thing, value, place);
    }
    let parts: Vec<&Value> = schema["allOf"].as_array().map_or(vec![schema], |all| all.iter().collect());
    let resolve = |part: &Value| match part["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap().clone(),
        None => part.clone(),
    };
    let parts: Vec<Value> = parts.into_iter().map(resolve).collect();
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            for required in parts.iter().flat_map(|p| p["required"].as_array().into_iter().flatten()) {
                if !fields.contains_key(required.as_str().unwrap()) {
                    found.push(format!("{place} lacks {required}"));
                }
            }
            for (name, field) in fields {
                let described = parts.iter().find_map(|p| p["properties"].get(name));
                let more = parts.iter().find_map(|p| p.get("additionalProperties"));
                match described.or(more) {
                    Some(schema) => found.extend(faults(document, schema, field, &format!("{place}.{name}"))),
                    None => found.push(format!("{place}.{name} is not described")),
                }
            }
        }
        Value::Array(items) => {
            let items = items.iter().take(3);
            found.extend(items.flat_map(|item| faults(document, &schema["items"], item, &format!("{place}[]"))));
        }
        _ => {
            let kind = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(_) => "integer",
                _ => "string",
            };
            if !schema["type"].to_string().contains(kind) && !schema.to_string().contains("\"null\"") {
                found.push(format!("{place} is a {kind}, not {}", schema["type"]));
            }
        }
    }
    found
}

#[tokio::test]
async fn what_is_answered_is_what_the_document_describes() {
    let api = Api::start().await;
    let rows = vec![
        laws::ad_minute("a1", 1, 5, 7),
        laws::campaign_minute("c1", 1, 5, 7),
        laws::campaign_hour("c1", 0, 5, 0..9),
    ];
    api.flush(1, rows).await;
    let manifest = "{\"files\":[{\"path\":\"x.csv.gz\",\"sha256\":\"ab\",\"bytes\":1,\"rowCount\":1}]}";
    api.put("settlement/day=2026-01-04/v=1/manifest.json", manifest).await;
    let document = api.send(Method::GET, "/openapi.json", &[], "").await.json();
    for (route, path) in [
        ("/api/v1/ads/{adId}/aggregates", "/api/v1/ads/a1/aggregates"),
        ("/v1/reports/campaigns/{id}/hourly", "/v1/reports/campaigns/c1/hourly?groupBy=country,deviceType"),
        ("/v1/reports/top", "/v1/reports/top"),
        ("/v1/metrics/campaigns/{id}/latency", "/v1/metrics/campaigns/c1/latency"),
        ("/v1/sla", "/v1/sla"),
        ("/v1/status", "/v1/status"),
        ("/v1/reports/reconcile/{date}/files", "/v1/reports/reconcile/2026-01-04/files"),
    ] {
        let answer = api.get(path, &api.operator).await.json();
        let schema = &document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{route} describes its answer");
        assert_eq!(faults(&document, schema, &answer, route), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_docs_page_names_every_operation_and_runs_no_script() {
    let api = Api::start().await;
    let page = api.send(Method::GET, "/docs", &[], "").await;
    assert!(page.header("content-type").starts_with("text/html"));
    for part in ["GET /v1/reports/top", "GET /v1/reports/reconcile/{date}/files", "groupBy"] {
        assert!(page.text().contains(part), "{part}");
    }
    assert!(!page.text().contains("<script"));
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_run_nothing_inline() {
    let api = Api::start().await;
    let bearer = format!("Bearer {}", api.operator);
    let signed_in = [("authorization", bearer.as_str())];
    let pages =
        [("/", &signed_in[..]), ("/", &[]), ("/docs", &[]), ("/dashboard/app.js", &[]), ("/dashboard/style.css", &[])];
    for (path, headers) in pages {
        let page = api.send(Method::GET, path, headers, "").await;
        let text = page.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("//cdn"), "{path}");
        for dangerous in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " onclick=", " style="]
        {
            assert!(!text.contains(dangerous), "{path} has {dangerous}");
        }
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        if page.header("content-type").starts_with("text/html") {
            let policy = page.header("content-security-policy");
            assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
            assert!(!text.contains("<script>") && !text.contains("<style"), "{path}");
        }
    }
}

#[tokio::test]
async fn signing_in_trades_the_key_for_a_cookie_that_scripts_and_other_sites_cannot_use() {
    let api = Api::start().await;
    let nobody = api.send(Method::GET, "/", &[], "").await;
    assert_eq!(nobody.status, 401);
    assert!(nobody.text().contains("<form"), "{}", nobody.text());
    let by_link = api.send(Method::GET, &format!("/?key={}", api.tenant), &[], "").await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let by_form = api.send(Method::POST, "/session", &form, &format!("key={}", api.tenant)).await;
    for signed_in in [&by_link, &by_form] {
        assert_eq!(
            (signed_in.status.as_u16(), signed_in.header("location")),
            (303, "/"),
            "the key leaves the address bar"
        );
        let cookie = signed_in.header("set-cookie");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    }
    let cookie = by_link.header("set-cookie").split(';').next().unwrap().to_owned();
    let page = api.send(Method::GET, "/", &[("cookie", &cookie)], "").await;
    assert_eq!(page.status, 200);
    let report = api.send(Method::GET, "/v1/reports/campaigns/c1/hourly", &[("cookie", &cookie)], "").await;
    assert_eq!(report.status, 200);
    let theirs = api.send(Method::GET, "/v1/reports/campaigns/c2/hourly", &[("cookie", &cookie)], "").await;
    assert_eq!(theirs.status, 404);
    let wrong = api.send(Method::GET, "/?key=cl_x_y", &[], "").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("set-cookie")), (401, ""));
    let out = api.send(Method::POST, "/session/end", &[("cookie", &cookie)], "").await;
    assert!(out.header("set-cookie").contains("Max-Age=0"));
}

#[tokio::test]
async fn a_giant_form_is_refused() {
    let api = Api::start().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = api.send(Method::POST, "/session", &form, &format!("key={}", "x".repeat(100_000))).await;
    assert_eq!((answer.status.as_u16(), answer.header("set-cookie")), (401, ""));
}

//! Who may see what: every route against every caller.

use super::*;

/// Every route with an example, who gets what: operator, the owner, another tenant, nobody.
const MATRIX: &[(&str, [u16; 4])] = &[
    ("/api/v1/ads/a1/aggregates", [200, 200, 404, 401]),
    ("/v1/reports/campaigns/c1/hourly", [200, 200, 404, 401]),
    ("/v1/metrics/campaigns/c1/latency", [200, 200, 404, 401]),
    ("/v1/reports/top", [200, 200, 200, 401]),
    ("/v1/drift/2026-01-04", [200, 200, 200, 401]),
    ("/v1/sla", [200, 200, 200, 401]),
    ("/v1/status", [200, 403, 403, 401]),
    ("/v1/reports/reconcile/2026-01-04/files", [200, 403, 403, 401]),
    ("/v1/reports/reconcile/2026-01-04/files/1/manifest.json", [200, 403, 403, 401]),
    ("/v1/stream", [200, 200, 200, 401]),
    ("/v1/stream?campaign=c1", [200, 200, 404, 401]),
    ("/v1/explain/events/e1", [200, 200, 404, 401]),
    ("/v1/explain/events/none", [404, 404, 404, 401]),
    ("/v1/explain/campaigns/c1?date=2026-01-04", [200, 200, 404, 401]),
    ("/v1/explain/campaigns/c1?date=2026-01-03", [404, 404, 404, 401]),
    ("/livez", [200, 200, 200, 200]),
    ("/readyz", [200, 200, 200, 200]),
    ("/metrics", [200, 200, 200, 200]),
    ("/openapi.json", [200, 200, 200, 200]),
    ("/docs", [200, 200, 200, 200]),
];

async fn status(api: &Api, path: &str, key: &str) -> u16 {
    api.clock.advance(2 * SECOND);
    let bearer = format!("Bearer {key}");
    let headers: &[(&str, &str)] = if key.is_empty() { &[] } else { &[("authorization", &bearer)] };
    // The head is enough: a stream never ends by itself.
    api.begin(Method::GET, path, headers, "").await.status().as_u16()
}

#[tokio::test]
async fn every_route_answers_each_caller_as_it_should() {
    let api = Api::start().await;
    api.put("reports/drift/day=2026-01-04.json", "{\"day\":\"2026-01-04\",\"hours\":[]}").await;
    api.put("settlement/day=2026-01-04/v=1/manifest.json", "{\"files\":[]}").await;
    let other = api.key(7, "adv-2".parse().unwrap(), &Scope::ALL).await;
    for (path, expected) in MATRIX {
        let mut seen = [0; 4];
        for (place, key) in seen.iter_mut().zip([&api.operator, &api.tenant, &other, &String::new()]) {
            *place = status(&api, path, key).await;
        }
        assert_eq!(&seen, expected, "{path}: operator, owner, other tenant, nobody");
    }
}

#[tokio::test]
async fn an_explained_event_shows_a_tenant_its_own_occurrences_only() {
    let api = Api::start().await;
    let all = api.get("/v1/explain/events/both", &api.operator).await.json();
    let own = api.get("/v1/explain/events/both", &api.tenant).await.json();
    assert_eq!(all["occurrences"].as_array().unwrap().len(), 2);
    assert_eq!(own["occurrences"].as_array().unwrap().len(), 1);
    assert_eq!(own["occurrences"][0]["campaignId"], "c1");
    assert_problem(&api.get("/v1/explain/campaigns/c1", &api.tenant).await, 400);
}

#[tokio::test]
async fn another_tenants_object_answers_exactly_like_one_that_does_not_exist() {
    let api = Api::start().await;
    api.flush(1, vec![laws::campaign_minute("c2", 0, 5, 0), laws::campaign_hour("c2", 0, 5, 0..9)]).await;
    for (theirs, nobodys) in [
        ("/api/v1/ads/a2/aggregates", "/api/v1/ads/zz/aggregates"),
        ("/v1/reports/campaigns/c2/hourly", "/v1/reports/campaigns/zz/hourly"),
        ("/v1/metrics/campaigns/c2/latency", "/v1/metrics/campaigns/zz/latency"),
        ("/v1/stream?campaign=c2", "/v1/stream?campaign=zz"),
        ("/v1/explain/campaigns/c2?date=2026-01-04", "/v1/explain/campaigns/zz?date=2026-01-04"),
    ] {
        let (theirs, nobodys) = (api.get(theirs, &api.tenant).await, api.get(nobodys, &api.tenant).await);
        assert_problem(&theirs, 404);
        let without_name = |a: &Answer| {
            let mut body = a.json();
            body.as_object_mut().unwrap().remove("requestId");
            body
        };
        assert_eq!(without_name(&theirs), without_name(&nobodys));
        let names = |a: &Answer| a.headers.keys().map(|n| n.as_str().to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(names(&theirs), names(&nobodys));
    }
}

#[tokio::test]
async fn a_key_without_the_scope_is_told_so() {
    let api = Api::start().await;
    let reports = api.key(3, Tenant::Operator, &[Scope::Reports]).await;
    let ops = make_key(&api.keys, 4, Tenant::Operator, &[Scope::Ops]);
    while api.get("/v1/status", &ops).await.status == StatusCode::UNAUTHORIZED {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&api, "/v1/reports/top", &reports).await, 200);
    for (path, key) in [
        ("/v1/status", &reports),
        ("/v1/reports/reconcile/2026-01-04/files", &reports),
        ("/v1/reports/reconcile/2026-01-04/files/1/x", &reports),
        ("/api/v1/ads/a1/aggregates", &ops),
        ("/v1/reports/campaigns/c1/hourly", &ops),
        ("/v1/reports/top", &ops),
        ("/v1/drift/2026-01-04", &ops),
        ("/v1/sla", &ops),
        ("/v1/metrics/campaigns/c1/latency", &ops),
        ("/v1/stream", &ops),
    ] {
        assert_problem(&api.get(path, key).await, 403);
    }
}

#[tokio::test]
async fn wrong_keys_are_refused_without_a_reason() {
    let api = Api::start().await;
    let id_only = api.operator.rsplit_once('_').unwrap().0.to_owned();
    for key in ["", "x", "cl_", "cl__", id_only.as_str(), &format!("{}x", api.operator), &api.operator.to_uppercase()] {
        let answer = api.get("/v1/sla", key).await;
        assert_problem(&answer, 401);
        assert!(answer.header("www-authenticate").starts_with("Bearer"));
    }
    let basic = api.send(Method::GET, "/v1/sla", &[("authorization", "Basic eDp5")], "").await;
    assert_problem(&basic, 401);
}

#[tokio::test]
async fn a_revoked_key_stops_working_while_the_server_runs() {
    let api = Api::start().await;
    assert_eq!(status(&api, "/v1/sla", &api.tenant).await, 200);
    let id = api.tenant.split('_').nth(1).unwrap().to_owned();
    assert!(api.keys.edit(|keys| keys.revoke(&id)).unwrap());
    while status(&api, "/v1/sla", &api.tenant).await != 401 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&api, "/v1/sla", &api.operator).await, 200);
}

#[tokio::test]
async fn metrics_are_open_to_this_machine_and_need_a_key_through_a_proxy() {
    let api = Api::start().await;
    let near = api.send(Method::GET, "/metrics", &[], "").await;
    assert_eq!((near.status.as_u16(), near.text()), (200, "clickledger_test_total 1\n"));
    let far = [("x-forwarded-for", "203.0.113.7")];
    assert_problem(&api.send(Method::GET, "/metrics", &far, "").await, 401);
    let bearer = format!("Bearer {}", api.operator);
    let with_key = [far[0], ("authorization", bearer.as_str())];
    assert_eq!(api.send(Method::GET, "/metrics", &with_key, "").await.status, 200);
    let bearer = format!("Bearer {}", api.tenant);
    let tenants = [far[0], ("authorization", bearer.as_str())];
    assert_problem(&api.send(Method::GET, "/metrics", &tenants, "").await, 403);
}

#[tokio::test]
async fn without_keys_only_this_machine_by_its_own_names_is_served() {
    let api = Api::start_with(|s| s.require_keys = false).await;
    assert_eq!(status(&api, "/v1/status", "").await, 200);
    // A page elsewhere that points its own name at 127.0.0.1 sends that name.
    let rebound = api.send(Method::GET, "/v1/status", &[("host", "evil.example")], "").await;
    assert_problem(&rebound, 401);
    assert_eq!(api.send(Method::GET, "/v1/status", &[("host", "localhost:1")], "").await.status, 200);
}

#[tokio::test]
async fn the_door_does_not_open_to_others_without_keys() {
    let api = Api::start().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let deps = Deps {
        store: Arc::new(api.store.clone()),
        objects: Arc::clone(&api.objects) as Arc<dyn ObjectStore>,
        explainer: Arc::new(OfC1),
        tenants: Arc::new(Two),
        keys: api.keys.clone(),
        clock: Arc::new(api.clock.clone()),
        metrics_text: Arc::new(String::new),
    };
    let open = Settings { require_keys: false, ..Settings::default() };
    let refused = Serving::new(open, deps).run(listener, Shutdown::new()).await.unwrap_err();
    assert!(matches!(refused, Error::OpenDoor(_)), "{refused}");
    assert_eq!(refused.kind().exit_code(), 2);
}

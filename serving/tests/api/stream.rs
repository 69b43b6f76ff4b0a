//! The live stream: what comes first, when it comes again, when it ends.

use shared::testing::conformance::serving_store as laws;

use super::files::drift_report;
use super::*;

struct Events {
    body: Incoming,
    buffer: String,
}

impl Events {
    async fn open(api: &Api, path: &str, key: &str) -> Self {
        let response = api.begin(Method::GET, path, &[("authorization", &format!("Bearer {key}"))], "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), buffer: String::new() }
    }

    /// The next event's name and data; `None` when the stream ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    return Some((name, serde_json::from_str(&data).unwrap()));
                }
                continue;
            }
            let frame = self.body.frame().await?.unwrap();
            self.buffer.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    async fn next_named(&mut self, wanted: &str) -> Option<Value> {
        loop {
            let (name, data) = self.next().await?;
            if name == wanted {
                return Some(data);
            }
        }
    }
}

#[tokio::test]
async fn the_first_event_is_the_whole_picture_and_the_next_one_comes_when_it_changed() {
    let api = Api::start_with(|s| s.tile_ttl = shared::config::Span::millis(50)).await;
    api.put("reports/drift/day=2026-01-04.json", drift_report().to_string()).await;
    api.put("settlement/day=2026-01-04/v=2/manifest.json", "{\"files\":[]}").await;
    api.flush(1, vec![laws::campaign_minute("c1", 3, 5, 1_500), laws::campaign_minute("c2", 4, 9, 0)]).await;
    let mut events = Events::open(&api, "/v1/stream", &api.operator).await;
    let (name, live) = events.next().await.unwrap();
    assert_eq!(name, "live");
    assert_eq!((&live["from"], &live["to"]), (&"2026-01-05T09:05:00Z".into(), &"2026-01-05T10:05:00Z".into()));
    let ids: Vec<_> = live["campaigns"].as_array().unwrap().iter().map(|c| c["campaignId"].clone()).collect();
    assert_eq!(ids, ["c2", "c1"], "busiest first");
    let bar = &live["campaigns"][1]["minutes"][0];
    assert_eq!((&bar["offset"], &bar["clicks"], &bar["finality"]), (&58.into(), &5.into(), &"provisional".into()));
    assert_eq!(live["campaigns"][1]["costMicros"]["EUR"], 2);
    assert_eq!(live["top"][0]["campaignId"], "c2");
    assert_eq!(live["outcomes"], serde_json::json!({}), "the operator sees outcomes");
    let day = &live["days"][0];
    assert_eq!((&day["day"], &day["settlementVersion"]), (&"2026-01-04".into(), &2.into()));
    assert_eq!(day["before"][0]["clicks"], serde_json::json!([12, 10]));
    assert_eq!(day["after"][0]["clicks"], serde_json::json!([10, 10]));
    assert_eq!(events.next().await.unwrap().0, "tick");
    assert_eq!(events.next().await.unwrap().0, "tick", "nothing changed: no second picture");
    api.flush(2, vec![laws::campaign_minute("c1", 3, 6, 0)]).await;
    api.clock.advance(SECOND);
    let changed = events.next_named("live").await.unwrap();
    assert_eq!(changed["campaigns"][1]["minutes"][0]["clicks"], 6);
    api.put("settlement/day=2026-01-04/v=3/manifest.json", "{\"files\":[]}").await;
    api.clock.advance(10 * SECOND);
    let changed = events.next_named("live").await.unwrap();
    assert_eq!(changed["days"][0]["settlementVersion"], 3, "a restatement shows by itself");
}

#[tokio::test]
async fn a_tenants_picture_holds_nothing_of_others() {
    let api = Api::start().await;
    api.put("reports/drift/day=2026-01-04.json", drift_report().to_string()).await;
    api.flush(1, vec![laws::campaign_minute("c1", 3, 5, 0), laws::campaign_minute("c2", 4, 9, 0)]).await;
    let live = Events::open(&api, "/v1/stream", &api.tenant).await.next_named("live").await.unwrap();
    assert!(!live.to_string().contains("c2"), "{live}");
    assert_eq!((live["campaigns"].as_array().unwrap().len(), live["top"].as_array().unwrap().len()), (1, 1));
    assert!(live["outcomes"].is_null());
    let day = &live["days"][0];
    assert_eq!(day["campaignHoursDiffering"], 1);
    assert_eq!(day["before"][0]["clicks"], serde_json::json!([7, 6]), "its own campaign hours only");
    let one = Events::open(&api, "/v1/stream?campaign=c1", &api.tenant).await.next_named("live").await.unwrap();
    assert_eq!(one["campaigns"][0]["campaignId"], "c1");
}

#[tokio::test]
async fn an_outage_is_told_and_the_stream_goes_on() {
    let api = Api::start_with(|s| s.tile_ttl = shared::config::Span::millis(50)).await;
    api.store.set_unavailable(true);
    let mut events = Events::open(&api, "/v1/stream", &api.operator).await;
    let (name, problem) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &problem["status"]), ("problem", &503.into()));
    api.store.set_unavailable(false);
    assert!(events.next_named("live").await.is_some());
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked_and_when_the_server_stops() {
    let api = Api::start_with(|s| s.tile_ttl = shared::config::Span::millis(50)).await;
    let mut revoked = Events::open(&api, "/v1/stream", &api.tenant).await;
    let mut goes_on = Events::open(&api, "/v1/stream", &api.operator).await;
    assert!(revoked.next().await.is_some());
    let id = api.tenant.split('_').nth(1).unwrap().to_owned();
    api.keys.edit(|keys| keys.revoke(&id)).unwrap();
    while revoked.next().await.is_some() {}
    assert!(goes_on.next().await.is_some());
    api.shutdown.request();
    while goes_on.next().await.is_some() {}
    api.running.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_are_limited_and_a_closed_one_makes_room() {
    let api = Api::start_with(|s| {
        s.max_streams = 1;
        s.tile_ttl = shared::config::Span::millis(50);
    })
    .await;
    let mut first = Events::open(&api, "/v1/stream", &api.operator).await;
    assert!(first.next().await.is_some());
    let full = api.get("/v1/stream", &api.operator).await;
    assert_problem(&full, 503);
    assert!(!full.header("retry-after").is_empty());
    drop(first);
    let bearer = format!("Bearer {}", api.operator);
    while api.begin(Method::GET, "/v1/stream", &[("authorization", &bearer)], "").await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

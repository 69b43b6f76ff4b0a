//! `POST /v1/impressions`: links for an ad server (contract 4, requirement C15).

use serde_json::{Value, json};
use shared::time::{HOUR, SECOND};

use crate::support::*;

async fn ask(gateway: &Running, key: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    gateway.send("POST", "/v1/impressions", &headers, body.to_string().as_bytes()).await
}

fn path_of(url: &Value) -> String {
    url.as_str().unwrap().strip_prefix("http://test").unwrap().to_owned()
}

#[tokio::test]
async fn an_ad_server_gets_links_that_count_once_each_and_end_in_time() {
    let gateway = start(roomy()).await;
    let answer = ask(&gateway, "operator", &json!({ "adId": "ad-1", "validSeconds": 3600 })).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, Some("no-store")), "{answer:?}");
    let links = answer.json();
    assert_eq!(links["expiresAt"], NOW.plus(HOUR).to_string());
    assert!(gateway.captured().await.is_empty(), "nothing is shown yet");
    assert_eq!(gateway.get(&path_of(&links["pixelUrl"])).await.status, 200);
    for _ in 0..2 {
        assert_eq!(gateway.get(&path_of(&links["clickUrl"])).await.status, 302);
    }
    let events = gateway.captured().await;
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!(event.invalid, None);
        assert_eq!(event.details.impression_id.as_ref().unwrap().as_str(), links["impressionId"].as_str().unwrap());
    }
    let next = ask(&gateway, "operator", &json!({ "adId": "ad-1" })).await.json();
    assert_ne!(next["impressionId"], links["impressionId"]);
    gateway.clock.advance(24 * HOUR - SECOND);
    assert_eq!(gateway.get(&path_of(&next["clickUrl"])).await.status, 302);
    assert_eq!(gateway.captured().await.last().unwrap().invalid, None, "links count as long as duplicates are known");
}

#[tokio::test]
async fn only_a_key_that_may_sign_gets_links_and_only_for_its_own_ads() {
    let gateway = start(roomy()).await;
    let ad = json!({ "adId": "ad-1" });
    assert_eq!(gateway.post("/v1/impressions", &ad).await.status, 401);
    assert_eq!(ask(&gateway, "nobody", &ad).await.status, 401);
    let (others, unknown) = (ask(&gateway, "other", &ad).await, ask(&gateway, "other", &json!({ "adId": "x" })).await);
    assert_eq!((others.status, unknown.status), (404, 404));
    let shown = |answer: &Answer| {
        let mut problem = answer.json();
        problem["requestId"] = Value::Null;
        problem
    };
    assert_eq!(shown(&others), shown(&unknown), "another's ad and none look the same");
    assert_eq!(ask(&gateway, "operator", &json!({ "adId": "ad-paused" })).await.status, 404);
    for bad in [json!({}), json!({ "adId": "a b" }), json!({ "adId": "ad-1", "validSeconds": 0 }), json!([])] {
        assert_eq!(ask(&gateway, "operator", &bad).await.status, 400, "{bad}");
    }
    let too_long = json!({ "adId": "ad-1", "validSeconds": 24 * 3_600 + 1 });
    assert_eq!(ask(&gateway, "operator", &too_long).await.status, 400, "a link must not outlive the dedup window");
}

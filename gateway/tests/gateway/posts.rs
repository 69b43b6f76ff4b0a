//! `POST /v1/events` and `POST /v1/clicks`: every answer of contract 4.

use std::io::Write;

use gateway::link_event_id;
use prost::Message;
use serde_json::{Value, json};
use shared::event::{EventKind, Submission};
use shared::time::{HOUR, SECOND};
use shared::wire::{EventBatch, EventMessage, MAX_BAD_BYTES};

use crate::support::*;

#[tokio::test]
async fn one_event_is_accepted_and_its_repetition_is_named_a_duplicate() {
    let gateway = start(roomy()).await;
    let event = gateway.event("e-1");
    let answer = gateway.post("/v1/events", &event).await;
    assert_eq!((answer.status, answer.json()), (202, json!({"eventId": "e-1", "outcome": "accepted", "status": 202})));
    gateway.clock.advance(HOUR / 2);
    let answer = gateway.post("/v1/events", &event).await;
    assert_eq!(answer.status, 409);
    assert_eq!((&answer.json()["duplicateOf"], &answer.json()["firstSeen"]), (&"e-1".into(), &NOW.to_string().into()));
    let [event] = &gateway.captured().await[..] else { panic!("not one event") };
    assert_eq!(event.details.user_pseudo_id.as_ref().unwrap().as_str(), "user-77");
    assert_eq!(counts(&gateway.stop().await), [("duplicate".to_owned(), 1)].into());
}

#[tokio::test]
async fn the_same_id_with_other_content_is_a_conflict_and_kept_for_the_judge() {
    let gateway = start(roomy()).await;
    assert_eq!(gateway.post("/v1/events", &gateway.event("e-1")).await.status, 202);
    let mut other = plain_event("e-1");
    other["costMicros"] = 5.into();
    let answer = gateway.post("/v1/events", &gateway.signed(other)).await;
    assert_eq!((answer.status, answer.json()["type"].as_str()), (409, Some("urn:clickledger:problem:conflict")));
    let events = gateway.captured().await;
    assert_eq!(events.len(), 2);
    assert_ne!(events[0].fingerprint, events[1].fingerprint);
    assert!(gateway.stop().await.is_empty(), "a conflict is an archived event, not a refusal");
}

#[tokio::test]
async fn signed_anew_it_is_still_the_same_event() {
    let gateway = start(roomy()).await;
    let first = gateway.event("e-1");
    assert_eq!(gateway.post("/v1/events", &first).await.status, 202);
    let mut again = first.clone();
    again["nonce"] = "n-2".into();
    let submission = Submission::from_json(again.to_string().as_bytes()).unwrap();
    let claims = gateway::signature::EventClaims::of(&submission);
    again["signature"] = gateway.keys.sign_event(&claims).unwrap().signature.into();
    assert_ne!(again["signature"], first["signature"]);
    let answer = gateway.post("/v1/events", &again).await;
    assert_eq!(answer.json()["type"], "urn:clickledger:problem:duplicate");
    assert_eq!(gateway.captured().await.len(), 1);
}

#[tokio::test]
async fn every_refusal_has_its_status_a_reason_a_fix_and_its_bytes_kept() {
    let gateway = start(roomy()).await;
    let event = |change: fn(&mut Value)| {
        let mut event = plain_event("e-1");
        change(&mut event);
        gateway.signed(event).to_string()
    };
    let spoilt = |change: fn(&mut Value)| {
        let mut event = gateway.event("e-1");
        change(&mut event);
        event.to_string()
    };
    let cases = [
        (400, "malformed", "{".to_owned()),
        (400, "malformed", "not json".to_owned()),
        (400, "malformed", String::new()),
        (400, "malformed", "7".to_owned()),
        (400, "missing_field", spoilt(|e| e["adId"] = Value::Null)),
        (400, "bad_value", spoilt(|e| e["adId"] = "a b".into())),
        (400, "bad_value", spoilt(|e| e["costMicros"] = (-1).into())),
        (400, "bad_value", spoilt(|e| e["timestamp"] = "yesterday".into())),
        (400, "bad_value", event(|e| e["ingestTime"] = "2027-01-15T08:00:00Z".into())),
        (400, "unsupported_schema_version", spoilt(|e| e["schemaVersion"] = 2.into())),
        (400, "unknown_ad", event(|e| e["adId"] = "ad-unknown".into())),
        (401, "unauthorized", plain_event("e-1").to_string()),
        (401, "unauthorized", spoilt(|e| e["signature"] = "A".repeat(43).into())),
        (401, "unauthorized", spoilt(|e| e["keyId"] = "k-none".into())),
        (401, "unauthorized", spoilt(|e| e["costMicros"] = 1.into())),
        (401, "unauthorized", spoilt(|e| e["campaignId"] = "cam-9".into())),
        (401, "unauthorized", spoilt(|e| e["eventId"] = "e-2".into())),
        (401, "unauthorized", spoilt(|e| e["nonce"] = "n-2".into())),
        (413, "too_large", spoilt(|e| e["note"] = "x".repeat(40_000).into())),
    ];
    for (status, reason, body) in &cases {
        let answer = gateway.send("POST", "/v1/events", &[], body.as_bytes()).await;
        assert_eq!(answer.status, *status, "{body:.200}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:clickledger:problem:{reason}"), "{body:.200}");
        assert!(problem["fix"].is_string() && problem["requestId"].is_string() && problem["detail"].is_string());
    }
    assert!(gateway.captured().await.is_empty());
    let bad = gateway.stop().await;
    let mut kept: Vec<(&str, &[u8])> = bad.iter().map(|b| (b.reason.as_str(), b.raw.as_slice())).collect();
    let mut sent: Vec<(&str, &[u8])> = cases.iter().map(|(_, reason, body)| (*reason, body.as_bytes())).collect();
    kept.sort_unstable();
    sent.sort_unstable();
    assert_eq!(kept, sent);
}

#[tokio::test]
async fn a_signature_holds_for_its_time_and_no_longer() {
    let gateway = start(roomy()).await;
    let event = gateway.event("e-1");
    gateway.clock.advance(HOUR);
    let answer = gateway.post("/v1/events", &event).await;
    assert_eq!((answer.status, answer.json()["detail"].as_str()), (401, Some("the signature has expired")));
    gateway.clock.advance(-1);
    assert_eq!(gateway.post("/v1/events", &event).await.status, 202);
    // A signature that outlives the memory of duplicates is not taken.
    gateway.clock.advance(-24 * HOUR);
    assert_eq!(gateway.post("/v1/events", &gateway.event("e-2")).await.status, 401);
}

#[tokio::test]
async fn several_items_are_answered_each_in_order_and_appended_at_once() {
    let gateway = start(roomy()).await;
    let items = json!([
        gateway.event("e-1"), {"eventId": "half"}, gateway.event("e-2"), gateway.event("e-1"), plain_event("unsigned"),
        gateway.signed(json!({"eventId": "e-3", "eventType": "impression", "timestamp": 0, "adId": "ad-paused"})),
        {"eventId": "e-4", "optOut": true, "eventType": "click", "timestamp": 0, "adId": "ad-1", "ipHash": "canary"},
    ]);
    let ndjson: String = items.as_array().unwrap().iter().map(|i| format!("{i}\r\n\n")).collect();
    for (first, content_type, body) in
        [(true, "application/json; charset=utf-8", items.to_string()), (false, "application/x-ndjson", ndjson)]
    {
        let answer = gateway.send("POST", "/v1/events", &[("Content-Type", content_type)], body.as_bytes()).await;
        assert_eq!(answer.status, 207);
        let fields = |r: &Value| (r["status"].as_u64().unwrap(), r["outcome"].as_str().unwrap().to_owned());
        let results: Vec<(u64, String)> = answer.json()["results"].as_array().unwrap().iter().map(fields).collect();
        let fresh = if first { (202, "accepted") } else { (409, "duplicate") };
        let expected =
            [fresh, (400, "rejected"), fresh, (409, "duplicate"), (401, "rejected"), fresh, (202, "opted_out")];
        assert_eq!(results, expected.map(|(status, outcome)| (status, outcome.to_owned())));
        assert_eq!(answer.json()["results"][2]["eventId"], "e-2");
        if first {
            assert_eq!(answer.json()["results"][5]["invalid"], "inactive_ad");
        }
    }
    assert_eq!(gateway.events.appends.load(std::sync::atomic::Ordering::SeqCst), 1);
    let mut ids: Vec<String> = gateway.captured().await.iter().map(|e| e.event_id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["e-1", "e-2", "e-3"]);
    let bad = gateway.stop().await;
    let all = [("duplicate", 5), ("missing_field", 2), ("opted_out", 2), ("unauthorized", 2)];
    assert_eq!(counts(&bad), all.map(|(reason, n)| (reason.to_owned(), n)).into());
    assert!(!format!("{bad:?}").contains("canary"));
}

#[tokio::test]
async fn all_accepted_is_202_and_an_array_of_one_still_has_results() {
    let gateway = start(roomy()).await;
    let answer = gateway.post("/v1/events", &json!([gateway.event("e-1"), gateway.event("e-2")])).await;
    assert_eq!((answer.status, answer.json()["results"].as_array().unwrap().len()), (202, 2));
    let answer = gateway.post("/v1/events", &json!([gateway.event("e-1")])).await;
    assert_eq!((answer.status, answer.json()["results"][0]["status"].as_u64()), (207, Some(409)));
    assert_eq!(gateway.post("/v1/events", &json!([])).await.status, 202);
}

#[tokio::test]
async fn protobuf_says_the_same_as_json() {
    let gateway = start(roomy()).await;
    let json_event = gateway.event("e-1");
    let text = |field: &str| json_event[field].as_str().map(str::to_owned);
    let message = EventMessage {
        event_id: text("eventId"),
        event_type: text("eventType"),
        event_time: Some(NOW.0),
        ad_id: text("adId"),
        user_pseudo_id: text("userPseudoId"),
        country: text("country"),
        device_type: text("deviceType"),
        signature: text("signature"),
        key_id: text("keyId"),
        expires_at: Some(NOW.plus(HOUR).0),
        nonce: text("nonce"),
        ..EventMessage::default()
    };
    let sneaky = EventMessage { event_id: Some("e-2".into()), ingest_time: Some(5), ..message.clone() };
    let batch = EventBatch { events: vec![message, sneaky] }.encode_to_vec();
    let answer = gateway.send("POST", "/v1/events", &[("Content-Type", "application/x-protobuf")], &batch).await;
    assert_eq!(answer.json()["results"][0]["outcome"], "accepted", "{answer:?}");
    assert_eq!(answer.json()["results"][1]["outcome"], "rejected");
    assert_eq!(gateway.post("/v1/events", &json_event).await.json()["type"], "urn:clickledger:problem:duplicate");
    let answer = gateway.send("POST", "/v1/events", &[("Content-Type", "application/x-protobuf")], b"\xff\xff").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn compressed_bodies_are_read_and_other_forms_are_415() {
    let gateway = start(roomy()).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let event = |id: &str| gateway.event(id).to_string().into_bytes();
    for (encoding, body, status) in [
        ("gzip", gzip(&event("e-1")), 202),
        ("zstd", zstd(&event("e-2")), 202),
        ("identity", event("e-3"), 202),
        ("gzip", event("e-4"), 400),
        ("zstd", event("e-5"), 400),
        ("gzip", gzip(&event("e-6"))[..40].to_vec(), 400),
        ("br", event("e-7"), 415),
    ] {
        let answer = gateway.send("POST", "/v1/events", &[("Content-Encoding", encoding)], &body).await;
        assert_eq!(answer.status, status, "{encoding}");
    }
    let answer = gateway.send("POST", "/v1/events", &[("Content-Type", "text/html")], &event("e-8")).await;
    assert_eq!(answer.status, 415);
    let answer =
        gateway.send("POST", "/v1/events", &[("Content-Type", "text/plain;charset=UTF-8")], &event("e-9")).await;
    assert_eq!(answer.status, 202, "what a browser's beacon sends is JSON");
    assert_eq!(gateway.captured().await.len(), 4);
    assert_eq!(counts(&gateway.stop().await), [("malformed".to_owned(), 5)].into());
}

#[tokio::test]
async fn too_many_items_or_bytes_are_413_and_only_a_part_is_kept() {
    let mut settings = roomy();
    settings.max_items = 3;
    let gateway = start(settings).await;
    let four = json!([{}, {}, {}, {}]).to_string();
    assert_eq!(gateway.send("POST", "/v1/events", &[], four.as_bytes()).await.status, 413);
    let lines = [("Content-Type", "application/x-ndjson")];
    assert_eq!(gateway.send("POST", "/v1/events", &lines, b"{}\n{}\n{}\n{}").await.status, 413);
    let batch = EventBatch { events: vec![EventMessage::default(); 4] }.encode_to_vec();
    let proto = [("Content-Type", "application/x-protobuf")];
    assert_eq!(gateway.send("POST", "/v1/events", &proto, &batch).await.status, 413);
    let large = vec![b' '; 1_000_000];
    assert_eq!(gateway.send("POST", "/v1/events", &[], &large).await.status, 413, "one event may have 32 KiB");
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("too_large".to_owned(), 4)].into());
    assert!(bad.iter().all(|b| b.raw.len() <= MAX_BAD_BYTES));
}

#[tokio::test]
async fn a_posted_click_is_the_click_its_link_is() {
    let gateway = start(roomy()).await;
    let claims = gateway::signature::LinkClaims { expires_at: None, ..link("ad-1", "imp-1") };
    let signature = gateway.keys.sign_link(&claims).unwrap();
    let click = json!({
        "ad_id": "ad-1", "user_id": "u-1", "impression_id": "imp-1", "timestamp": NOW.plus(-SECOND).to_string(),
        "signature": signature.signature, "key_id": signature.key_id,
    });
    assert_eq!(gateway.post("/v1/clicks", &click).await.status, 202);
    assert_eq!(gateway.post("/v1/clicks", &click).await.status, 409);
    let mut forged = click.clone();
    forged["impression_id"] = "imp-2".into();
    assert_eq!(gateway.post("/v1/clicks", &forged).await.status, 401);
    let mut extra = click.clone();
    extra["cost"] = 1.into();
    assert_eq!(gateway.post("/v1/clicks", &extra).await.status, 400);
    let [event] = &gateway.captured().await[..] else { panic!("not one event") };
    assert_eq!(event.event_id.as_str(), link_event_id(EventKind::Click, "ad-1", "imp-1"));
    assert_eq!(event.details.user_pseudo_id.as_ref().unwrap().as_str(), "u-1");
    // By link it is the same click with other content: redirected, kept for the judge, never billed twice.
    assert_eq!(gateway.get(&gateway.click("ad-1", "imp-1")).await.status, 302);
    assert_eq!(gateway.captured().await.iter().filter(|e| e.event_id == event.event_id).count(), 2);
}

#[tokio::test]
async fn the_directory_decides_whose_campaign_pays() {
    let gateway = start(roomy()).await;
    for (id, ad, campaign) in [("e-1", "ad-1", "cam-2"), ("e-2", "ad-unknown", "cam-7")] {
        let mut event = plain_event(id);
        event["adId"] = ad.into();
        event["campaignId"] = campaign.into();
        event["advertiserId"] = "somebody".into();
        assert_eq!(gateway.post("/v1/events", &gateway.signed(event)).await.status, 202);
    }
    for event in gateway.captured().await {
        let advertiser = event.advertiser_id.as_ref().unwrap().as_str();
        let expected = if event.ad_id.as_str() == "ad-1" { ("cam-1", "adv-1") } else { ("cam-7", "somebody") };
        assert_eq!((event.campaign_id.as_str(), advertiser), expected);
    }
}

#[tokio::test]
async fn a_request_that_opts_out_leaves_nothing_whatever_it_sends() {
    let gateway = start(roomy()).await;
    let canary = "canary-203-0-113-77";
    let mut event = plain_event(canary);
    event["userPseudoId"] = canary.into();
    for body in [gateway.signed(event).to_string(), format!("{{\"{canary}"), format!("[{{\"a\":\"{canary}\"}}]")] {
        for header in ["DNT", "Sec-GPC"] {
            let answer = gateway.send("POST", "/v1/events", &[(header, "1")], body.as_bytes()).await;
            assert!(!format!("{answer:?}").contains(canary));
        }
    }
    assert!(gateway.captured().await.is_empty());
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("opted_out".to_owned(), 6)].into());
    assert!(bad.iter().all(|b| b.raw.is_empty() && b.detail.is_empty()));
}

#[tokio::test]
async fn health_metrics_and_unknown_paths_answer() {
    let gateway = start(roomy()).await;
    assert_eq!(gateway.get("/livez").await.status, 200);
    assert_eq!(gateway.get("/readyz").await.status, 200);
    assert_eq!(gateway.get("/metrics").await.body, b"a_metric 1\n");
    for (path, status) in [("/", 404), ("/v1/events", 405), ("/click/../x", 404)] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.json()["fix"].is_string()), (status, true), "{path}");
    }
}

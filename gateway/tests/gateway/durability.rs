//! No acknowledged event is lost, none counts twice: failing logs, racing requests, failing dedup stores.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use gateway::dedup::{Claim, DedupError, DedupStore, Key, Token, Wanted};
use serde_json::{Value, json};
use shared::config::Span;
use shared::event_log::EventLog;
use shared::time::{SECOND, Timestamp};

use crate::support::*;

#[tokio::test]
async fn a_failed_append_claims_nothing_so_that_the_retry_counts_once() {
    let gateway = start(roomy()).await;
    let (click, event) = (gateway.click("ad-1", "imp-1"), gateway.event("e-1"));
    gateway.events.fail(true);
    for _ in 0..2 {
        let answer = gateway.get(&click).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        // A person is led on all the same, to the ad's own URL; a machine sees 503 and retries.
        let page = String::from_utf8(answer.body.clone()).unwrap();
        assert!(page.contains("content=\"0;url=https://shop.example/ad-1?a=1&amp;b=2\""), "{page}");
        let answer = gateway.post("/v1/events", &event).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(gateway.post("/v1/events", &json!([event, {}])).await.status, 503);
    }
    assert_eq!(gateway.get("/readyz").await.status, 503);
    gateway.events.fail(false);
    assert_eq!(gateway.get(&click).await.status, 302);
    assert_eq!(gateway.get("/readyz").await.status, 200);
    assert_eq!(gateway.post("/v1/events", &event).await.status, 202);
    assert_eq!(gateway.post("/v1/events", &event).await.status, 409);
    assert_eq!(gateway.get(&click).await.status, 302);
    assert_eq!(gateway.captured().await.len(), 2);
}

#[tokio::test]
async fn of_two_requests_at_once_the_second_answers_by_what_became_of_the_first() {
    for fails in [false, true] {
        let gateway = Arc::new(start(roomy()).await);
        let event = gateway.event("e-1");
        gateway.events.close_gate();
        gateway.events.fail(fails);
        let send = || {
            let (gateway, event) = (Arc::clone(&gateway), event.clone());
            tokio::spawn(async move { gateway.post("/v1/events", &event).await })
        };
        let first = send();
        gateway.events.wait_for_append().await;
        let second = send();
        gateway.events.open_one();
        let first = first.await.unwrap();
        assert_eq!(first.status, if fails { 503 } else { 202 });
        if fails {
            // The second now holds the claim and appends for itself.
            gateway.events.wait_for_append().await;
            gateway.events.fail(false);
            gateway.events.open_one();
        }
        assert_eq!(second.await.unwrap().status, if fails { 202 } else { 409 });
        assert_eq!(gateway.captured().await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_send_an_id_at_once_it_is_in_the_log_once() {
    let gateway = Arc::new(start(roomy()).await);
    let click = gateway.click("ad-1", "imp-1");
    let event = gateway.event("e-1");
    let requests = (0..64).map(|i| {
        let (gateway, click, event) = (Arc::clone(&gateway), click.clone(), event.clone());
        tokio::spawn(async move {
            if i % 2 == 0 { gateway.get(&click).await.status } else { gateway.post("/v1/events", &event).await.status }
        })
    });
    let statuses: Vec<u16> = join_all(requests).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 302).count(), 32);
    assert_eq!(statuses.iter().filter(|s| **s == 202).count(), 1);
    assert_eq!(statuses.iter().filter(|s| **s == 409).count(), 31);
    assert_eq!(gateway.captured().await.len(), 2);
}

/// Two batches that hold each other's ids would wait for ever if either waited while holding its own.
#[tokio::test(flavor = "multi_thread")]
async fn batches_with_each_others_ids_do_not_lock_each_other_out() {
    let gateway = Arc::new(start(roomy()).await);
    let events: Vec<Value> = (0..40).map(|i| gateway.event(&format!("e-{i}"))).collect();
    let batches = (0..16).map(|n| {
        let mut events = events.clone();
        events.rotate_left(n * 5 % 40);
        if n % 2 == 0 {
            events.reverse();
        }
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move { gateway.post("/v1/events", &Value::Array(events)).await.json() })
    });
    let results: Vec<Value> = join_all(batches).await.into_iter().map(Result::unwrap).collect();
    let outcomes = results.iter().flat_map(|r| r["results"].as_array().unwrap().iter());
    let accepted = outcomes.clone().filter(|r| r["outcome"] == "accepted").count();
    assert_eq!((accepted, outcomes.count()), (40, 16 * 40));
    assert_eq!(gateway.captured().await.len(), 40);
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_stop_its_event_half_way() {
    let gateway = start(roomy()).await;
    gateway.events.close_gate();
    let click = gateway.click("ad-1", "imp-1");
    {
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let request = format!("GET {click} HTTP/1.1\r\nHost: a\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        gateway.events.wait_for_append().await;
    }
    gateway.events.open_one();
    // The claim was confirmed: the same click is a duplicate that needs no append (the gate is still closed).
    assert_eq!(gateway.get(&click).await.status, 302);
    assert_eq!(gateway.captured().await.len(), 1);
}

#[tokio::test]
async fn a_log_that_hangs_is_answered_503_and_the_queue_has_an_end() {
    let mut settings = roomy();
    settings.append_timeout = Span::millis(200);
    settings.max_in_flight = 2;
    let gateway = start(settings).await;
    gateway.events.close_gate();
    let events = [gateway.event("e-1"), gateway.event("e-2"), gateway.event("e-3")];
    for event in &events {
        let answer = gateway.post("/v1/events", event).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    // Two stood in the queue, the third was turned away at once; both go through when the log comes back.
    for _ in 0..2 {
        gateway.events.wait_for_append().await;
        gateway.events.open_one();
    }
    gateway.events.closed.store(false, std::sync::atomic::Ordering::SeqCst);
    let mut statuses = Vec::new();
    for event in &events {
        // The queue empties on its own time.
        let mut status = 503;
        while status == 503 {
            status = gateway.post("/v1/events", event).await.status;
        }
        statuses.push(status);
    }
    assert_eq!(statuses, [409, 409, 202]);
    assert_eq!(gateway.captured().await.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_kept_as_refused_is_not_answered_as_refused() {
    let gateway = start(roomy()).await;
    gateway.dead_letters.fail(true);
    let mixed = json!([gateway.event("e-1"), {"eventId": "half"}]);
    assert_eq!(gateway.post("/v1/events", &json!({})).await.status, 503);
    assert_eq!(gateway.get("/click?adId=ad-1").await.status, 503);
    assert_eq!(gateway.post("/v1/events", &mixed).await.status, 503);
    // Duplicates and opt-outs leave counts only: they are answered, and counted when the log is back.
    assert_eq!(gateway.post("/v1/events", &gateway.event("e-1")).await.status, 409);
    gateway.dead_letters.fail(false);
    let answer = gateway.post("/v1/events", &mixed).await;
    assert_eq!((answer.status, answer.json()["results"][0]["status"].as_u64()), (207, Some(409)));
    assert_eq!(gateway.captured().await.len(), 1);
    let all = [("duplicate", 2), ("missing_field", 1)];
    assert_eq!(counts(&gateway.stop().await), all.map(|(reason, n)| (reason.to_owned(), n)).into());
}

#[tokio::test]
async fn refusals_past_the_byte_budget_are_counted_without_their_bytes() {
    let mut settings = roomy();
    settings.max_refused_per_second = shared::config::ByteSize(1_000);
    let gateway = start(settings).await;
    let rubbish = "x".repeat(900);
    for _ in 0..50 {
        assert_eq!(gateway.send("POST", "/v1/events", &[], rubbish.as_bytes()).await.status, 400);
    }
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("malformed".to_owned(), 50)].into());
    let kept: usize = bad.iter().map(|b| b.raw.len()).sum();
    assert!((900..=10_000).contains(&kept), "{kept}");
}

#[tokio::test]
async fn what_was_acknowledged_is_tallied_with_how_far_the_log_was_written() {
    let gateway = start(roomy()).await;
    for id in ["e-1", "e-2", "e-2"] {
        gateway.post("/v1/events", &gateway.event(id)).await;
    }
    assert_eq!(gateway.post("/v1/events", &json!({})).await.status, 400);
    let end = gateway.events.inner.bounds().await.unwrap().end;
    let (refused, tallies) = gateway.stop_with_tallies().await;
    assert_eq!(counts(&refused).values().sum::<u64>(), 2);
    let [tally] = tallies.as_slice() else { panic!("{tallies:?}") };
    assert_eq!((tally.number, tally.accepted, tally.refused), (1, 2, 2));
    assert_eq!(end.lag(&tally.through) + tally.through.lag(&end), 0, "{tally:?} {end:?}");
}

/// A dedup store that is away.
struct Away;

#[async_trait]
impl DedupStore for Away {
    async fn claim(&self, _: &[Wanted], _: Timestamp) -> Result<Vec<Claim>, DedupError> {
        Err(DedupError("away".to_owned()))
    }
    async fn confirm(&self, _: &[Token]) -> Result<(), DedupError> {
        Err(DedupError("away".to_owned()))
    }
    async fn release(&self, _: &[Token]) -> Result<(), DedupError> {
        Err(DedupError("away".to_owned()))
    }
    async fn settled(&self, _: Key) {}
    fn size(&self) -> (u64, u64) {
        (0, 0)
    }
}

#[tokio::test]
async fn without_its_dedup_store_the_gateway_lets_events_pass() {
    let gateway = start_with(roomy(), Arc::new(Away)).await;
    for _ in 0..2 {
        assert_eq!(gateway.post("/v1/events", &gateway.event("e-1")).await.status, 202);
        assert_eq!(gateway.get(&gateway.click("ad-1", "imp-1")).await.status, 302);
    }
    assert_eq!(gateway.captured().await.len(), 4, "later layers deduplicate; the edge loses nothing");
}

#[tokio::test]
async fn a_stale_ad_directory_is_served_and_readyz_says_since_when() {
    let gateway = start(roomy()).await;
    let says = async || String::from_utf8(gateway.get("/readyz").await.body).unwrap();
    assert_eq!(says().await, "ready\n");
    assert_eq!(gateway.directory.mark_stale(NOW), NOW);
    assert_eq!(gateway.directory.mark_stale(NOW.plus(SECOND)), NOW, "since the first time");
    assert_eq!(gateway.get(&gateway.click("ad-1", "imp-1")).await.status, 302);
    assert!(says().await.starts_with("ready\n") && says().await.contains(&format!("since {NOW}")), "{}", says().await);
    gateway.directory.mark_fresh();
    assert_eq!(says().await, "ready\n");
}

#[tokio::test]
async fn after_the_window_the_edge_has_forgotten_and_later_layers_judge() {
    let gateway = start(roomy()).await;
    let claims = gateway::signature::LinkClaims { expires_at: None, ..link("ad-1", "imp-1") };
    let click = gateway.keys.sign_click_url("", &claims).unwrap();
    for pause in [0, 86_400 * SECOND - 1_000, 1_000] {
        gateway.clock.advance(pause);
        assert_eq!(gateway.get(&click).await.status, 302);
    }
    assert_eq!(gateway.captured().await.len(), 2);
}

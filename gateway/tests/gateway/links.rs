//! `GET /click` and `GET /impression.gif` (contract 4).

use gateway::{OnBadSignature, link_event_id};
use shared::event::EventKind;
use shared::time::{HOUR, SECOND};
use shared::verdict::InvalidCode;

use crate::support::*;

#[tokio::test]
async fn a_click_is_redirected_once_it_is_in_the_log() {
    let gateway = start(roomy()).await;
    let headers =
        [("User-Agent", "Browser/1"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    let answer = gateway.send("GET", &gateway.click("ad-1", "imp-1"), &headers, b"").await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), Some("https://shop.example/ad-1?a=1&b=2"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let [event] = &gateway.captured().await[..] else { panic!("not one event") };
    assert_eq!(event.event_id.as_str(), link_event_id(EventKind::Click, "ad-1", "imp-1"));
    assert_eq!((event.event_time, event.ingest_time), (NOW, NOW));
    assert_eq!((event.campaign_id.as_str(), event.region.as_str()), ("cam-1", "here"));
    assert_eq!(event.advertiser_id.as_ref().unwrap().as_str(), "adv-1");
    assert_eq!(event.details.user_agent.as_deref(), Some("Browser/1"));
    assert_eq!(event.invalid, None);
    assert!(event.traceparent.is_some());
}

#[tokio::test]
async fn a_click_asked_for_again_is_redirected_and_not_kept() {
    let gateway = start(roomy()).await;
    let path = gateway.click("ad-1", "imp-1");
    for (agent, signature) in [("A", &path), ("B", &path), ("A", &format!("{path}&utm_source=mail&x=%"))] {
        gateway.clock.advance(SECOND);
        assert_eq!(gateway.send("GET", signature, &[("User-Agent", agent)], b"").await.status, 302);
    }
    // Signed anew for a longer time: the same served impression, the same click.
    let later = gateway::signature::LinkClaims { expires_at: Some(NOW.plus(2 * HOUR)), ..link("ad-1", "imp-1") };
    assert_eq!(gateway.get(&gateway.keys.sign_click_url("", &later).unwrap()).await.status, 302);
    assert_eq!(gateway.captured().await.len(), 1);
    assert_eq!(gateway.get(&gateway.click("ad-1", "imp-2")).await.status, 302);
    assert_eq!(gateway.captured().await.len(), 2);
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("duplicate".to_owned(), 3)].into());
    assert!(bad.iter().all(|b| b.raw.is_empty()));
}

#[tokio::test]
async fn an_impression_is_a_pixel_and_an_event_of_its_own() {
    let gateway = start(roomy()).await;
    for _ in 0..2 {
        let answer = gateway.get(&gateway.pixel("ad-1", "imp-1")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/gif")));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.body.starts_with(b"GIF89a") && answer.body.ends_with(b"\x3b"));
    }
    assert_eq!(gateway.get(&gateway.click("ad-1", "imp-1")).await.status, 302);
    let mut kinds: Vec<EventKind> = gateway.captured().await.iter().map(|e| e.kind).collect();
    kinds.sort();
    assert_eq!(kinds, [EventKind::Impression, EventKind::Click]);
}

#[tokio::test]
async fn a_forged_or_expired_link_is_followed_but_kept_as_invalid_and_claims_nothing() {
    let gateway = start(roomy()).await;
    let good = gateway.click("ad-1", "imp-1");
    let (unsigned, _) = good.rsplit_once("&signature=").unwrap();
    let forged = format!("{unsigned}&signature={}", "A".repeat(43));
    let expired = gateway::signature::LinkClaims { expires_at: Some(NOW), ..link("ad-1", "imp-1") };
    let expired = gateway.keys.sign_click_url("", &expired).unwrap();
    for path in [forged.as_str(), unsigned, &expired, &forged] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.header("location")), (302, Some("https://shop.example/ad-1?a=1&b=2")));
    }
    assert_eq!(gateway.get(&good).await.status, 302);
    let codes: Vec<Option<InvalidCode>> = gateway.captured().await.iter().map(|e| e.invalid).collect();
    let bad = Some(InvalidCode::BadSignature);
    assert_eq!(codes, [bad, bad, Some(InvalidCode::Expired), bad, None], "the real click was suppressed");
}

#[tokio::test]
async fn under_the_policy_deny_a_forged_link_leads_nowhere() {
    let mut settings = roomy();
    settings.bad_signature = OnBadSignature::Deny;
    let gateway = start(settings).await;
    let good = gateway.click("ad-1", "imp-1");
    let forged = good.replace("imp-1", "imp-2");
    let answer = gateway.get(&forged).await;
    assert_eq!((answer.status, answer.header("location")), (401, None));
    assert_eq!(gateway.get(&forged.replace("click", "impression.gif")).await.status, 401);
    assert_eq!(gateway.get(&good).await.status, 302);
    assert_eq!(gateway.captured().await.len(), 1);
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("unauthorized".to_owned(), 2)].into());
    assert!(bad.iter().any(|b| b.raw == forged.as_bytes()));
}

#[tokio::test]
async fn an_ad_that_does_not_run_is_kept_as_inactive_and_an_unknown_one_is_refused() {
    for (fallback, status) in [("", 404), ("https://fallback.example/", 302)] {
        let mut settings = roomy();
        settings.fallback_url = fallback.to_owned();
        let gateway = start(settings).await;
        for ad in ["ad-paused", "ad-ended", "ad-unknown"] {
            let answer = gateway.get(&gateway.click(ad, "imp-1")).await;
            assert_eq!(answer.status, status, "{ad}");
            assert_eq!(answer.header("location"), Some(fallback).filter(|f| !f.is_empty()));
        }
        assert_eq!(gateway.get(&gateway.pixel("ad-unknown", "imp-1")).await.status, 404);
        let events = gateway.captured().await;
        assert_eq!(events.len(), 2);
        assert!(events.iter().all(|e| e.invalid == Some(InvalidCode::InactiveAd) && e.campaign_id.as_str() == "cam-2"));
        assert_eq!(counts(&gateway.stop().await), [("unknown_ad".to_owned(), 2)].into());
    }
}

#[tokio::test]
async fn who_opts_out_is_redirected_and_leaves_nothing_but_a_count() {
    let gateway = start(roomy()).await;
    let secret = "person-203-0-113-77";
    let click = format!("{}&userPseudoId={secret}", gateway.click("ad-1", secret));
    let agent = ("User-Agent", secret);
    for (path, headers) in [
        (click.clone(), vec![agent, ("DNT", "1")]),
        (click.clone(), vec![agent, ("Sec-GPC", "1")]),
        (format!("{click}&optOut=1"), vec![agent]),
    ] {
        let answer = gateway.send("GET", &path, &headers, b"").await;
        assert_eq!((answer.status, answer.header("location")), (302, Some("https://shop.example/ad-1?a=1&b=2")));
    }
    assert_eq!(gateway.send("GET", &format!("{click}&adId=twice"), &[("DNT", "1")], b"").await.status, 404);
    assert!(gateway.captured().await.is_empty());
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("opted_out".to_owned(), 4)].into());
    assert!(bad.iter().all(|b| b.raw.is_empty() && b.detail.is_empty()), "{bad:?}");
}

#[tokio::test]
async fn a_link_that_is_no_link_is_refused_with_its_bytes() {
    let gateway = start(roomy()).await;
    let good = gateway.click("ad-1", "imp-1");
    for path in [
        "/click".to_owned(),
        "/click?adId=ad-1&signature=x".to_owned(),
        "/click?impressionId=imp-1&signature=x".to_owned(),
        format!("{good}&adId=ad-2"),
        format!("{good}&signature=x"),
        good.replace("ad-1", "ad%2F1"),
        good.replace("ad-1", "ad%ZZ1"),
        good.replace("ad-1", "%ff"),
        good.replace("exp=", "exp=0"),
        good.replace("exp=", "exp=%2B"),
        format!("{good}&country=de"),
    ] {
        let answer = gateway.get(&path).await;
        assert_eq!((answer.status, answer.header("location")), (400, None), "{path}");
        assert!(answer.json()["fix"].is_string() && answer.json()["requestId"].is_string());
    }
    assert!(gateway.captured().await.is_empty());
    let bad = gateway.stop().await;
    assert_eq!(bad.len(), 11);
    assert!(bad.iter().all(|b| b.raw.starts_with(b"/click") && b.stage == "gateway"));
}

#[tokio::test]
async fn looking_is_not_clicking() {
    let gateway = start(roomy()).await;
    for (method, path) in [("HEAD", gateway.click("ad-1", "i")), ("POST", gateway.click("ad-1", "i"))] {
        assert_eq!(gateway.send(method, &path, &[], b"").await.status, 405);
    }
    assert_eq!(gateway.send("HEAD", &gateway.pixel("ad-1", "i"), &[], b"").await.status, 405);
    assert!(gateway.captured().await.is_empty());
}

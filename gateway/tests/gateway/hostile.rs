//! Hostile clients (reliability.md 3e, 44 to 49): forged signatures, open redirects, bombs, floods.

use std::io::Write;

use gateway::signature::{EventClaims, LinkClaims};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use shared::config::ByteSize;
use shared::event::Submission;

use crate::support::*;

/// A change to a text that makes it another text.
fn mutation() -> impl Strategy<Value = (usize, u8, u8)> {
    (any::<usize>(), 0..4_u8, any::<u8>())
}

fn mutate(text: &str, (at, how, with): (usize, u8, u8)) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.|";
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len().max(1);
    let other = ALPHABET[usize::from(with) % ALPHABET.len()];
    match how {
        0 => bytes[at] = other,
        1 => bytes.insert(at, other),
        2 => drop(bytes.remove(at)),
        _ => bytes.truncate(at),
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn no_mutation_of_a_signed_link_or_event_verifies() {
    let keys = signing_keys();
    let validity = gateway::signature::Validity { now: NOW, max_ahead: 86_400_000_000 };
    let claims = link("ad-1", "imp-1");
    let signed = keys.sign_link(&claims).unwrap();
    let verifies = |ad: &str, impression: &str, exp: i64, key_id: &str, signature: &str| {
        let claims = LinkClaims {
            ad_id: ad,
            impression_id: impression,
            expires_at: Some(shared::time::Timestamp(exp * 1_000_000)),
        };
        keys.verify(Some(signature), Some(key_id), |k| claims.canonical(k), claims.expires_at, validity).is_ok()
    };
    let exp = claims.expires_at.unwrap().0 / 1_000_000;
    assert!(verifies("ad-1", "imp-1", exp, &signed.key_id, &signed.signature));
    let mut runner = TestRunner::new(Config::with_cases(100_000));
    let strategy = (0..5_u8, mutation());
    runner
        .run(&strategy, |(field, change)| {
            let mut texts = ["ad-1", "imp-1", "", &signed.key_id, &signed.signature].map(str::to_owned);
            let mut changed_exp = exp;
            if field == 2 {
                changed_exp = exp + i64::from(change.2) + 1;
            } else {
                let text = &mut texts[usize::from(field)];
                let mutated = mutate(text, change);
                prop_assume!(mutated != *text);
                *text = mutated;
            }
            let [ad, impression, _, key_id, signature] = texts;
            prop_assert!(
                !verifies(&ad, &impression, changed_exp, &key_id, &signature),
                "{ad} {impression} {key_id} {signature}"
            );
            Ok(())
        })
        .unwrap();
}

proptest! {
    /// Two different events never have one canonical string, so that no signature speaks for both.
    #[test]
    fn different_claims_are_different_strings(a in event_claims(), b in event_claims()) {
        let text = |event: &Value| {
            let submission = Submission::from_json(event.to_string().as_bytes()).unwrap();
            EventClaims::of(&submission).canonical("k")
        };
        prop_assert_eq!(a == b, text(&a) == text(&b));
    }
}

prop_compose! {
    fn event_claims()(
        event_id in "[a-b]{1,2}", kind in 0..3_usize, millis in 0..3_i64, ad in "[a-b]{1,2}",
        campaign in proptest::option::of("[a-b]"), impression in proptest::option::of("[a-b]"),
        cost in proptest::option::of(0..3_i64), currency in proptest::option::of("E[U-V]R"),
        exp in proptest::option::of(1..3_i64), nonce in proptest::option::of("[a|]{1,2}"),
    ) -> Value {
        let kind = ["click", "impression", "conversion"][kind];
        let mut event = serde_json::json!({
            "eventId": event_id, "eventType": kind, "timestamp": millis, "adId": ad, "signature": "x",
        });
        let mut put = |name: &str, value: Option<Value>| if let Some(value) = value { event[name] = value };
        put("campaignId", campaign.map(Value::from));
        put("impressionId", impression.map(Value::from));
        put("costMicros", cost.map(Value::from));
        put("currency", currency.map(Value::from));
        put("expiresAt", exp.map(|s| Value::from(s * 1_000)));
        put("nonce", nonce.map(Value::from));
        event
    }
}

#[tokio::test]
async fn nothing_in_a_request_chooses_where_a_click_leads() {
    let gateway = start(roomy()).await;
    let good = gateway.click("ad-1", "imp-1");
    let mut paths = Vec::new();
    for evil in [
        "https://evil.example/",
        "//evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "%0d%0aLocation:%20https://evil.example",
        "%0d%0aSet-Cookie:%20a=b",
        "%00",
        "..%2f..%2fevil",
        "@evil.example",
        "https:%2f%2fevil.example",
    ] {
        for name in ["url", "redirect", "to", "target", "next", "u"] {
            paths.push(format!("{good}&{name}={evil}"));
        }
        for name in ["adId", "impressionId", "keyId", "exp", "signature", "country"] {
            paths.push(format!("{good}&{name}={evil}"));
            paths.push(format!("/click?adId=ad-1&impressionId=imp-1&{name}={evil}"));
        }
        paths.push(good.replace("ad-1", evil));
    }
    let hosts = [("Host", "evil.example"), ("X-Forwarded-Host", "evil.example"), ("Referer", "https://evil.example/")];
    for path in paths {
        let answer = gateway.send("GET", &path, &hosts, b"").await;
        let location = answer.header("location").unwrap_or("https://shop.example/");
        assert!(location.starts_with("https://shop.example/"), "{path} leads to {location}");
        assert!(answer.header("set-cookie").is_none() && !answer.head.contains("evil"), "{path}: {}", answer.head);
        assert!(matches!(answer.status, 302 | 400 | 404), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn bombs_are_refused_before_they_take_room() {
    let gateway = start(roomy()).await;
    // 64 MiB of spaces: 64 KiB as gzip, a few as zstd.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..64 {
        gzip.write_all(&block).unwrap();
    }
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&vec![b' '; 64 << 20][..], 3).unwrap();
    assert!(gzip.len() < 1 << 17 && zstd.len() < 1 << 17);
    for (encoding, bomb) in [("gzip", &gzip), ("zstd", &zstd)] {
        let answer = gateway.send("POST", "/v1/events", &[("Content-Encoding", encoding)], bomb).await;
        assert_eq!(answer.status, 413, "{encoding}");
    }
    // A frame that asks for a 128 MiB window is refused for its head alone.
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&vec![b' '; 2 << 20]).unwrap();
    let wide = wide.finish().unwrap();
    assert_eq!(gateway.send("POST", "/v1/events", &[("Content-Encoding", "zstd")], &wide).await.status, 400);
    // Announced too large: refused without a byte being read.
    let head = "POST /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10000000000\r\n\r\n";
    assert_eq!(raw(gateway.address, head.as_bytes()).await.status, 413);
    // Chunked without end: refused at the limit.
    let mut endless =
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..3 {
        endless.extend(b"100000\r\n");
        endless.extend(vec![b' '; 1 << 20]);
        endless.extend(b"\r\n");
    }
    assert_eq!(raw(gateway.address, &endless).await.status, 413);
    let deep = "[".repeat(500_000);
    assert_eq!(gateway.send("POST", "/v1/events", &[], deep.as_bytes()).await.status, 400);
    let deep_item = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(gateway.send("POST", "/v1/events", &[], deep_item.as_bytes()).await.status, 400);
    assert!(gateway.captured().await.is_empty());
}

#[tokio::test]
async fn bodies_share_one_budget_of_memory() {
    let mut settings = roomy();
    settings.max_body_size = ByteSize::mib(1);
    settings.max_decoded_size = ByteSize::mib(1);
    settings.max_buffered = ByteSize::mib(2);
    settings.http.request_timeout = shared::config::Span::secs(3_600);
    let gateway = start(settings).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let head = format!("POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        // All but the last byte: the body is held. Some are turned away while this is being sent.
        drop(tokio::io::AsyncWriteExt::write_all(&mut stream, &vec![b' '; (1 << 20) - 1]).await);
        held.push(stream);
    }
    // Whoever is held says nothing (its request has an hour); whoever is refused says so.
    let first_lines = held.iter_mut().map(|stream| {
        Box::pin(async move {
            let mut answer = [0; 12];
            tokio::io::AsyncReadExt::read_exact(stream, &mut answer).await.map(|_| answer)
        })
    });
    let first = tokio::time::timeout(GUARD, futures::future::select_all(first_lines)).await;
    let (answer, ..) = first.expect("4 MiB of bodies fitted into a budget of 2 MiB");
    assert_eq!(&answer.unwrap(), b"HTTP/1.1 503");
    drop(held);
    // The room is given back.
    let mut status = 503;
    while status == 503 {
        status = gateway.send("POST", "/v1/events", &[], gateway.event("e-1").to_string().as_bytes()).await.status;
    }
    assert_eq!(status, 202);
}

#[tokio::test]
async fn the_rate_limit_says_when_to_come_back_and_no_header_evades_it() {
    let mut settings = roomy();
    settings.rate_limit.per_second = 1;
    settings.rate_limit.burst = 5;
    let gateway = start(settings).await;
    let mut limited = 0;
    for i in 0..20 {
        let lie = format!("198.51.100.{i}");
        let headers = [
            ("X-Forwarded-For", lie.as_str()),
            ("Forwarded", "for=198.51.100.9"),
            ("X-Real-IP", lie.as_str()),
            ("CF-Connecting-IP", lie.as_str()),
        ];
        let path = gateway.click("ad-1", &format!("imp-{i}"));
        let answer = gateway.send("GET", &path, &headers, b"").await;
        if answer.status == 429 {
            limited += 1;
            assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
            assert!(answer.json()["fix"].is_string());
        }
    }
    assert_eq!(limited, 15);
    assert_eq!(gateway.get("/livez").await.status, 200, "health is not limited");
    gateway.clock.advance(1_000_000);
    assert_eq!(gateway.get(&gateway.click("ad-1", "again")).await.status, 302);
    assert_eq!(gateway.captured().await.len(), 6);
    let bad = gateway.stop().await;
    assert_eq!(counts(&bad), [("limited".to_owned(), 15)].into());
    assert!(bad.iter().all(|b| b.raw.is_empty()));
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_of_its_clients_has_its_own_limit() {
    let mut settings = roomy();
    settings.rate_limit.per_second = 1;
    settings.rate_limit.burst = 1;
    settings.trusted_proxies.0 = vec!["127.0.0.0/8".parse().unwrap()];
    let gateway = start(settings).await;
    let mut statuses = Vec::new();
    for (i, forwarded) in
        ["203.0.113.1", "203.0.113.2", "6.6.6.6, 203.0.113.1", "203.0.113.2, 127.0.0.9", "203.0.113.3"]
            .iter()
            .enumerate()
    {
        let path = gateway.click("ad-1", &format!("imp-{i}"));
        statuses.push(gateway.send("GET", &path, &[("X-Forwarded-For", forwarded)], b"").await.status);
    }
    assert_eq!(statuses, [302, 302, 429, 429, 302]);
}

//! Addresses are keyed hashes that link events within one epoch and are nothing afterwards (X4, X5).

use std::net::IpAddr;

use gateway::Settings;
use gateway::ip_hash::{self, Salts};
use serde_json::json;
use shared::http::address::TrustedProxies;
use shared::time::{DAY, HOUR};
use shared::wire::encode_event;

use crate::support::*;

const PERSON: &str = "203.0.113.77";

fn behind_proxy() -> Settings {
    Settings { trusted_proxies: TrustedProxies(vec!["127.0.0.0/8".parse().unwrap()]), ..roomy() }
}

fn salts(path: Option<std::path::PathBuf>) -> Salts {
    Salts::open(path, ip_hash::Settings::default(), counter()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_link_carries_a_hash_of_who_asked_behind_the_proxies_we_trust() {
    let gateway = start(behind_proxy()).await;
    for (impression, forwarded) in
        [("imp-1", PERSON), ("imp-2", "198.51.100.9, 203.0.113.77"), ("imp-3", "203.0.113.78")]
    {
        let path = gateway.click("ad-1", impression);
        assert_eq!(gateway.send("GET", &path, &[("X-Forwarded-For", forwarded)], b"").await.status, 302);
    }
    let events = gateway.captured().await;
    let hash = |n: usize| events[n].details.ip_hash.clone().unwrap();
    assert_eq!(hash(0), hash(1), "one person in one epoch");
    assert_ne!(hash(0), hash(2));
    let plain = ["203.0.113.77", "203.0.113"];
    for event in &events {
        let bytes = encode_event(event);
        assert!(plain.iter().all(|p| !bytes.windows(p.len()).any(|w| w == p.as_bytes())), "{event:?}");
    }
    let path = gateway.click("ad-1", "imp-4");
    let out = [("X-Forwarded-For", PERSON), ("DNT", "1")];
    assert_eq!(gateway.send("GET", &path, &out, b"").await.status, 302);
    assert_eq!(gateway.captured().await.len(), 3, "whoever opts out leaves no event");
}

#[tokio::test]
async fn a_bare_address_sent_as_a_hash_is_hashed_and_a_hash_is_kept() {
    let gateway = start(behind_proxy()).await;
    for (id, hash) in [("e-1", PERSON), ("e-2", "already-a-hash")] {
        let mut event = plain_event(id);
        event["ipHash"] = json!(hash);
        assert_eq!(gateway.post("/v1/events", &gateway.signed(event)).await.status, 202);
    }
    let hashes: Vec<_> = gateway.captured().await.iter().map(|e| e.details.ip_hash.clone().unwrap()).collect();
    assert_eq!(hashes[1], "already-a-hash");
    assert!(hashes[0] != PERSON && hashes[0].len() == 32, "{hashes:?}");
    assert!(hashes[0].bytes().all(|b| b.is_ascii_hexdigit()));
}

#[tokio::test]
async fn the_hash_can_be_switched_off() {
    let mut settings = behind_proxy();
    settings.ip_hash.enabled = false;
    let gateway = start(settings).await;
    assert_eq!(gateway.get(&gateway.click("ad-1", "imp-1")).await.status, 302);
    assert_eq!(gateway.captured().await[0].details.ip_hash, None);
}

#[test]
fn an_epoch_has_one_salt_whatever_restarts_and_the_next_has_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/ip_salts.json");
    let first = salts(Some(path.clone()));
    let today = first.hash(ip(PERSON), NOW).unwrap();
    let later = NOW.floor(DAY).plus(DAY - 1);
    assert_eq!(first.hash(ip(PERSON), later).unwrap(), today);
    assert_eq!(first.hash(ip("::ffff:203.0.113.77"), NOW).unwrap(), today);
    let again = Salts::open(
        Some(path.clone()),
        ip_hash::Settings::default(),
        std::sync::Arc::new(|bytes| {
            bytes.fill(99);
            Ok(())
        }),
    );
    let again = again.unwrap();
    assert_eq!(again.hash(ip(PERSON), later).unwrap(), today);
    assert_ne!(again.hash(ip(PERSON), later.plus(1)).unwrap(), today);
    let (home, neighbour) = (again.hash(ip("2001:db8:1:2::5"), NOW), again.hash(ip("2001:db8:1:3::5"), NOW));
    assert_eq!(home, again.hash(ip("2001:db8:1:2:9:9:9:9"), NOW), "one subscriber");
    assert_ne!(home, neighbour);
    assert!(!format!("{:?}", std::fs::read_to_string(path).unwrap()).contains(PERSON));
}

#[test]
fn a_salt_is_destroyed_once_its_time_is_over_and_cannot_be_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ip_salts.json");
    let salts = salts(Some(path.clone()));
    let today = salts.hash(ip(PERSON), NOW).unwrap();
    let over = NOW.floor(DAY).plus(8 * DAY);
    let stored =
        || serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap()["salts"].clone();
    salts.destroy_old(over.plus(-HOUR)).unwrap();
    assert_eq!(stored().as_array().unwrap().len(), 1);
    salts.destroy_old(over).unwrap();
    assert_eq!(stored(), json!([]));
    assert_ne!(salts.hash(ip(PERSON), NOW).unwrap(), today);
    let silent =
        Salts::open(None, ip_hash::Settings::default(), std::sync::Arc::new(|_| Err(std::io::Error::other("no"))));
    assert_eq!(silent.unwrap().hash(ip(PERSON), NOW), None, "without chance there is no hash, and no address");
}

//! The memory of event ids against a plain map with a window, and its promises one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;
use shared::config::Span;
use shared::time::{HOUR, MINUTE, SECOND};

use super::*;
use crate::dedup::Key;

const START: Timestamp = Timestamp(1_000 * HOUR);

fn wanted(id: u32, payload: u8) -> Wanted {
    let id = shared::id::EventId::new(id.to_string()).unwrap();
    Wanted { key: Key::of(&id), fingerprint: Fingerprint([payload; 16]) }
}

async fn claim(store: &MemoryDedup, wanted: Wanted, now: Timestamp) -> Claim {
    store.claim(&[wanted], now).await.unwrap()[0]
}

async fn capture(store: &MemoryDedup, wanted: Wanted, now: Timestamp) -> Claim {
    let claim = claim(store, wanted, now).await;
    if let Claim::New(token) = claim {
        store.confirm(&[token]).await.unwrap();
    }
    claim
}

#[tokio::test]
async fn a_confirmed_id_is_seen_until_the_window_ends() {
    let store = MemoryDedup::new(&Settings { window: Span::secs(3_600), ..Settings::default() });
    assert!(matches!(capture(&store, wanted(1, 1), START).await, Claim::New(_)));
    let last = START.plus(HOUR - 1_000);
    assert_eq!(claim(&store, wanted(1, 1), last).await, Claim::Seen { first_seen: START, same_payload: true });
    assert_eq!(claim(&store, wanted(1, 2), last).await, Claim::Seen { first_seen: START, same_payload: false });
    assert!(matches!(claim(&store, wanted(1, 1), START.plus(HOUR)).await, Claim::New(_)));
}

#[tokio::test]
async fn a_released_id_is_free_and_a_dead_holder_loses_its_lease() {
    let store = MemoryDedup::new(&Settings { lease: Span::secs(60), ..Settings::default() });
    let Claim::New(first) = claim(&store, wanted(1, 1), START).await else { panic!("not new") };
    assert_eq!(claim(&store, wanted(1, 1), START).await, Claim::Pending);
    store.release(&[first]).await.unwrap();
    let Claim::New(dead) = claim(&store, wanted(1, 1), START).await else { panic!("not free") };
    let Claim::New(heir) = claim(&store, wanted(1, 1), START.plus(MINUTE)).await else { panic!("not free") };
    // The old holder comes back: what it made durable counts, what it gives back is no longer its own.
    store.release(&[dead]).await.unwrap();
    assert_eq!(claim(&store, wanted(1, 1), START.plus(MINUTE)).await, Claim::Pending);
    store.confirm(&[dead]).await.unwrap();
    assert!(matches!(claim(&store, wanted(1, 1), START.plus(MINUTE)).await, Claim::Seen { first_seen: START, .. }));
    store.confirm(&[heir]).await.unwrap();
}

#[tokio::test]
async fn one_request_with_an_id_twice_holds_it_once() {
    let store = MemoryDedup::new(&Settings::default());
    let claims = store.claim(&[wanted(1, 1), wanted(1, 1), wanted(2, 1)], START).await.unwrap();
    assert!(matches!(claims[..], [Claim::New(_), Claim::Pending, Claim::New(_)]));
}

#[tokio::test]
async fn whoever_waits_hears_of_every_settling() {
    let store = std::sync::Arc::new(MemoryDedup::new(&Settings::default()));
    for durable in [true, false] {
        let id = u32::from(durable);
        let Claim::New(token) = claim(&store, wanted(id, 1), START).await else { panic!("not new") };
        let waiters: Vec<_> = (0..16)
            .map(|_| {
                let store = std::sync::Arc::clone(&store);
                tokio::spawn(async move { store.settled(token.key).await })
            })
            .collect();
        tokio::task::yield_now().await;
        if durable {
            store.confirm(&[token]).await.unwrap()
        } else {
            store.release(&[token]).await.unwrap()
        }
        for waiter in waiters {
            waiter.await.unwrap();
        }
    }
    store.settled(wanted(99, 1).key).await;
}

#[tokio::test]
async fn room_is_bounded_and_what_is_forgotten_is_the_oldest_and_counted() {
    let store = MemoryDedup::new(&Settings { max_entries: 64 * 160, ..Settings::default() });
    let total = 40_000_u32;
    for id in 0..total {
        assert!(matches!(capture(&store, wanted(id, 1), START.plus(i64::from(id) * SECOND)).await, Claim::New(_)));
    }
    let (entries, forgotten) = store.size();
    assert!(entries <= 64 * 160, "{entries}");
    assert_eq!(entries + forgotten, u64::from(total));
    assert!(entries >= 64 * 160 / 2, "{entries}: more was dropped than room needed");
    let now = START.plus(i64::from(total) * SECOND);
    let recent = claim(&store, wanted(total - 1, 1), now).await;
    assert!(matches!(recent, Claim::Seen { .. }));
    assert!(matches!(claim(&store, wanted(0, 1), now).await, Claim::New(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Against a plain map with the same window: the store never forgets early while it has room, never
    /// remembers too long, and tells the first payload's time (to the millisecond) and sameness.
    #[test]
    fn the_store_is_a_map_with_a_window(
        steps in proptest::collection::vec((0..12_u32, 0..3_u8, 0..20 * MINUTE, any::<bool>()), 1..200)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryDedup::new(&Settings { window: Span::secs(3_600), ..Settings::default() });
            let mut model: BTreeMap<u32, (Timestamp, u8)> = BTreeMap::new();
            let mut now = START;
            for (id, payload, pause, durable) in steps {
                now = now.plus(pause / 1_000 * 1_000);
                let known = model.get(&id).filter(|(at, _)| now.since(*at) < HOUR).copied();
                match (claim(&store, wanted(id, payload), now).await, known) {
                    (Claim::Seen { first_seen, same_payload }, Some((at, first))) => {
                        prop_assert_eq!(first_seen, at);
                        prop_assert_eq!(same_payload, first == payload);
                    }
                    (Claim::New(token), None) if durable => {
                        store.confirm(&[token]).await.unwrap();
                        model.insert(id, (now, payload));
                    }
                    (Claim::New(token), None) => store.release(&[token]).await.unwrap(),
                    (claim, known) => prop_assert!(false, "{claim:?} but the map has {known:?}"),
                }
            }
            Ok(())
        })?;
    }
}

//! What every memory of event ids must do, on memory and on Redis, and what only Redis can get wrong.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use gateway::dedup::{Claim, DedupStore, Key, MemoryDedup, Settings, Token, Wanted};
use shared::config::Span;
use shared::event::Fingerprint;
use shared::id::EventId;
use shared::time::{ManualClock, SECOND, Timestamp};

use crate::support::GUARD;

const START: Timestamp = Timestamp(1_800_000_000_000_000);
/// Longer than any test takes.
const LONG: Span = Span::secs(3_600);
/// What runs out while a test waits for it.
const SHORT: Span = Span::millis(200);

/// Makes stores.
#[async_trait]
trait Harness {
    /// Two clients of one empty store.
    async fn fresh(&mut self, lease: Span, window: Span) -> [Arc<dyn DedupStore>; 2];
    /// Lets time pass.
    async fn pass(&self, span: Span);
    fn now(&self) -> Timestamp;
}

fn wanted(id: u32, payload: u8) -> Wanted {
    Wanted { key: Key::of(&EventId::new(id.to_string()).unwrap()), fingerprint: Fingerprint([payload; 16]) }
}

async fn claim(store: &Arc<dyn DedupStore>, wanted: Wanted, now: Timestamp) -> Claim {
    store.claim(&[wanted], now).await.unwrap()[0]
}

async fn take(store: &Arc<dyn DedupStore>, wanted: Wanted, now: Timestamp) -> Token {
    match claim(store, wanted, now).await {
        Claim::New(token) => token,
        other => panic!("not new but {other:?}"),
    }
}

async fn run(harness: &mut dyn Harness) {
    a_durable_event_is_seen_by_all_with_its_time_and_sameness(harness).await;
    a_claim_is_pending_until_it_is_settled_and_free_once_released(harness).await;
    a_dead_holder_loses_its_claim_and_cannot_take_its_heirs(harness).await;
    after_the_window_an_id_is_new(harness).await;
    a_batch_is_answered_in_order_and_an_id_in_it_twice_is_held_once(harness).await;
    of_many_at_once_one_holds_each_id(harness).await;
    whoever_waits_hears_of_the_settling(harness).await;
}

async fn a_durable_event_is_seen_by_all_with_its_time_and_sameness(harness: &mut dyn Harness) {
    let [a, b] = harness.fresh(LONG, LONG).await;
    let now = harness.now();
    let token = take(&a, wanted(1, 1), now).await;
    a.confirm(&[token]).await.unwrap();
    for store in [&a, &b] {
        let later = now.plus(SECOND);
        assert_eq!(claim(store, wanted(1, 1), later).await, Claim::Seen { first_seen: now, same_payload: true });
        assert_eq!(claim(store, wanted(1, 2), later).await, Claim::Seen { first_seen: now, same_payload: false });
    }
    // Confirming or releasing once more changes nothing.
    a.confirm(&[token]).await.unwrap();
    a.release(&[token]).await.unwrap();
    assert_eq!(claim(&b, wanted(1, 1), now).await, Claim::Seen { first_seen: now, same_payload: true });
}

async fn a_claim_is_pending_until_it_is_settled_and_free_once_released(harness: &mut dyn Harness) {
    let [a, b] = harness.fresh(LONG, LONG).await;
    let token = take(&a, wanted(1, 1), harness.now()).await;
    for store in [&a, &b] {
        assert_eq!(claim(store, wanted(1, 1), harness.now()).await, Claim::Pending);
    }
    a.release(&[token]).await.unwrap();
    let heir = take(&b, wanted(1, 1), harness.now()).await;
    // What was given back is no longer ours to give back.
    a.release(&[token]).await.unwrap();
    assert_eq!(claim(&a, wanted(1, 1), harness.now()).await, Claim::Pending);
    b.confirm(&[heir]).await.unwrap();
}

async fn a_dead_holder_loses_its_claim_and_cannot_take_its_heirs(harness: &mut dyn Harness) {
    let [a, b] = harness.fresh(SHORT, LONG).await;
    let first = harness.now();
    let dead = take(&a, wanted(1, 1), first).await;
    harness.pass(SHORT).await;
    let heir = take(&b, wanted(1, 2), harness.now()).await;
    // The dead one comes back: what it made durable counts, and stays the first.
    a.confirm(&[dead]).await.unwrap();
    let seen = Claim::Seen { first_seen: first, same_payload: true };
    assert_eq!(claim(&b, wanted(1, 1), harness.now()).await, seen);
    b.confirm(&[heir]).await.unwrap();
    b.release(&[heir]).await.unwrap();
    assert_eq!(claim(&a, wanted(1, 1), harness.now()).await, seen);
}

async fn after_the_window_an_id_is_new(harness: &mut dyn Harness) {
    let [a, b] = harness.fresh(LONG, SHORT).await;
    let token = take(&a, wanted(1, 1), harness.now()).await;
    a.confirm(&[token]).await.unwrap();
    harness.pass(SHORT).await;
    let again = take(&b, wanted(1, 1), harness.now()).await;
    b.release(&[again]).await.unwrap();
}

async fn a_batch_is_answered_in_order_and_an_id_in_it_twice_is_held_once(harness: &mut dyn Harness) {
    let [a, b] = harness.fresh(LONG, LONG).await;
    let now = harness.now();
    let taken = b.claim(&(0..1_000).step_by(2).map(|n| wanted(n, 1)).collect::<Vec<_>>(), now).await.unwrap();
    let tokens: Vec<Token> = taken.iter().filter_map(|c| if let Claim::New(t) = c { Some(*t) } else { None }).collect();
    assert_eq!(tokens.len(), 500);
    b.confirm(&tokens).await.unwrap();
    let answers = a.claim(&(0..1_000).map(|n| wanted(n, 1)).collect::<Vec<_>>(), now).await.unwrap();
    assert_eq!(answers.len(), 1_000);
    for (n, answer) in (0_u32..).zip(answers) {
        match answer {
            Claim::Seen { same_payload: true, .. } => assert!(n.is_multiple_of(2), "{n}"),
            Claim::New(token) => assert!(!n.is_multiple_of(2) && token.key == wanted(n, 1).key, "{n}"),
            other => panic!("{n}: {other:?}"),
        }
    }
    let twice = a.claim(&[wanted(5_000, 1), wanted(5_000, 1), wanted(5_001, 1)], now).await.unwrap();
    assert!(matches!(twice[..], [Claim::New(_), Claim::Pending, Claim::New(_)]), "{twice:?}");
    assert!(a.claim(&[], now).await.unwrap().is_empty());
}

async fn of_many_at_once_one_holds_each_id(harness: &mut dyn Harness) {
    let stores = harness.fresh(LONG, LONG).await;
    let now = harness.now();
    let claims = (0..64_u32).map(|n| {
        let store = Arc::clone(&stores[(n % 2) as usize]);
        tokio::spawn(async move {
            let mut ids: Vec<Wanted> = (0..20).map(|id| wanted(id, 1)).collect();
            ids.rotate_left((n % 20) as usize);
            store.claim(&ids, now).await.unwrap()
        })
    });
    let all: Vec<Claim> = join_all(claims).await.into_iter().flat_map(Result::unwrap).collect();
    let mut held: Vec<Key> =
        all.iter().filter_map(|c| if let Claim::New(t) = c { Some(t.key) } else { None }).collect();
    held.sort_unstable();
    held.dedup();
    assert_eq!(held.len(), 20);
    assert_eq!(all.iter().filter(|c| matches!(c, Claim::New(_))).count(), 20, "an id has two holders");
    assert_eq!(all.iter().filter(|c| matches!(c, Claim::Pending)).count(), 64 * 20 - 20);
}

async fn whoever_waits_hears_of_the_settling(harness: &mut dyn Harness) {
    let [a, b] = harness.fresh(LONG, LONG).await;
    b.settled(wanted(99, 1).key).await;
    for durable in [false, true] {
        let token = take(&a, wanted(1, 1), harness.now()).await;
        let waiting = {
            let b = Arc::clone(&b);
            tokio::spawn(async move { b.settled(token.key).await })
        };
        assert!(tokio::time::timeout(Duration::from_millis(20), b.settled(token.key)).await.is_err(), "it is pending");
        if durable {
            a.confirm(&[token]).await.unwrap();
        } else {
            a.release(&[token]).await.unwrap();
        }
        tokio::time::timeout(GUARD, waiting).await.expect("nobody told").unwrap();
    }
}

struct Memory(ManualClock);

#[async_trait]
impl Harness for Memory {
    async fn fresh(&mut self, lease: Span, window: Span) -> [Arc<dyn DedupStore>; 2] {
        let store: Arc<dyn DedupStore> = Arc::new(MemoryDedup::new(&Settings { lease, window, ..Settings::default() }));
        [Arc::clone(&store), store]
    }
    async fn pass(&self, span: Span) {
        self.0.advance(span.as_micros());
    }
    fn now(&self) -> Timestamp {
        shared::time::Clock::now(&self.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_a_dedup_store() {
    run(&mut Memory(ManualClock::at(START))).await;
}

#[cfg(feature = "redis")]
mod redis {
    use gateway::dedup::redis::{RedisDedup, Settings as RedisSettings, check};
    use shared::testing::parts::Part;
    use shared::time::{Clock, SystemClock, sleep};

    use super::*;
    use crate::support::{roomy, start_with};

    /// Stores under prefixes of their own on one server or cluster.
    struct Redis {
        settings: RedisSettings,
        made: u64,
    }

    impl Redis {
        fn new(part: &Part, cluster: bool) -> Self {
            let timeout = Span::secs(5);
            Self {
                settings: RedisSettings { url: part.address.clone(), cluster, timeout, ..Default::default() },
                made: 0,
            }
        }

        fn settings(&self, lease: Span, window: Span) -> Settings {
            let prefix = format!("suite-{}-{}:", std::process::id(), self.made);
            Settings { lease, window, redis: RedisSettings { prefix, ..self.settings.clone() }, ..Settings::default() }
        }

        async fn open(&mut self, settings: &Settings) -> Arc<RedisDedup> {
            self.made += 1;
            let store = RedisDedup::open(settings, self.made << 32).unwrap();
            store.tried().await;
            Arc::new(store)
        }
    }

    #[async_trait]
    impl Harness for Redis {
        async fn fresh(&mut self, lease: Span, window: Span) -> [Arc<dyn DedupStore>; 2] {
            let settings = self.settings(lease, window);
            [self.open(&settings).await, self.open(&settings).await]
        }
        async fn pass(&self, span: Span) {
            // Redis's own clock, which is this machine's or not: a little more than the span.
            sleep(span.0 + Duration::from_millis(50)).await;
        }
        fn now(&self) -> Timestamp {
            SystemClock::default().now()
        }
    }

    /// Asks until there is an answer.
    async fn answered(store: &Arc<dyn DedupStore>, wanted: Wanted) -> Claim {
        let asking = async {
            loop {
                if let Ok(claims) = store.claim(&[wanted], START).await {
                    return claims[0];
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, asking).await.expect("Redis does not come back")
    }

    async fn tell(part: &Part, words: &[&str]) {
        let client = ::redis::Client::open(part.address.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = ::redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(word);
        });
        command.exec_async(&mut connection).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn redis_is_a_dedup_store() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::given_or_start("redis", "REDIS_URL", folder.path());
        let mut redis = Redis::new(&part, false);
        run(&mut redis).await;
        figures(&mut redis).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redis_cluster_is_a_dedup_store() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::given_or_start("redis-cluster", "REDIS_CLUSTER_URL", folder.path());
        let mut redis = Redis::new(&part, true);
        run(&mut redis).await;
        figures(&mut redis).await;
    }

    /// What a request pays, for docs/redis.md: nothing is asserted of it.
    async fn figures(redis: &mut Redis) {
        let settings = redis.settings(LONG, LONG);
        let store: Arc<dyn DedupStore> = redis.open(&settings).await;
        for (size, rounds) in [(1_u32, 2_000_u32), (100, 200), (1_000, 50)] {
            let mut times = [Vec::new(), Vec::new()];
            for round in 0..rounds {
                let ids: Vec<Wanted> = (0..size).map(|n| wanted(1_000_000 * size + round * size + n, 1)).collect();
                let watch = shared::time::stopwatch();
                let claims = store.claim(&ids, START).await.unwrap();
                times[0].push(watch.elapsed());
                let tokens: Vec<Token> =
                    claims.iter().map(|c| if let Claim::New(t) = c { *t } else { panic!("{c:?}") }).collect();
                let watch = shared::time::stopwatch();
                store.confirm(&tokens).await.unwrap();
                times[1].push(watch.elapsed());
            }
            for (what, times) in ["claim", "confirm"].iter().zip(&mut times) {
                times.sort();
                let kind = if redis.settings.cluster { "cluster" } else { "one" };
                println!(
                    "{kind}: {what} {size}: p50 {:?} p99 {:?}",
                    times[times.len() / 2],
                    times[times.len() * 99 / 100]
                );
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_redis_acknowledged_outlives_its_kill_and_what_it_forgot_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let mut part = Part::start("redis", "REDIS_URL", folder.path());
        let mut redis = Redis::new(&part, false);
        let [a, _b] = redis.fresh(LONG, LONG).await;
        let (done, open) = (take(&a, wanted(1, 1), START).await, take(&a, wanted(2, 1), START).await);
        a.confirm(&[done]).await.unwrap();
        part.crash_and_restart();
        assert_eq!(answered(&a, wanted(1, 1)).await, Claim::Seen { first_seen: START, same_payload: true });
        assert_eq!(answered(&a, wanted(2, 1)).await, Claim::Pending);
        for (policy, advice) in [("", "maxmemory is not set"), ("allkeys-lru", "noeviction"), ("noeviction", "")] {
            if !policy.is_empty() {
                tell(&part, &["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", policy]).await;
            }
            let said = check(&redis.settings).await.unwrap().advice.join("; ");
            assert!(said.contains(advice), "{policy}: {said}");
        }
        tell(&part, &["FLUSHALL"]).await;
        // The event of the open claim becomes durable after all: it is known again; the other one is not.
        a.confirm(&[open]).await.unwrap();
        assert_eq!(answered(&a, wanted(2, 1)).await, Claim::Seen { first_seen: START, same_payload: true });
        assert!(matches!(answered(&a, wanted(1, 1)).await, Claim::New(_)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redis_that_hangs_costs_one_time_limit_and_leaves_no_claim_behind() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::start("redis", "REDIS_URL", folder.path());
        let mut redis = Redis::new(&part, false);
        redis.settings.timeout = Span::millis(300);
        let [a, b] = redis.fresh(LONG, LONG).await;
        tell(&part, &["CLIENT", "PAUSE", "1500"]).await;
        let error = a.claim(&[wanted(1, 1)], START).await.unwrap_err();
        assert!(error.to_string().contains("no answer within 300ms"), "{error}");
        let error = a.claim(&[wanted(1, 1)], START).await.unwrap_err();
        assert!(error.to_string().contains("not connected"), "the second one waits for nothing: {error}");
        // Redis carries the claim out after the pause, and what takes it back after that.
        let free = async {
            while !matches!(answered(&b, wanted(1, 1)).await, Claim::New(_)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, free).await.expect("the claim without an answer is still held");
        assert_eq!(answered(&a, wanted(1, 1)).await, Claim::Pending, "the first one is back too");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redis_behind_tls_and_a_password_is_asked_by_settings_alone() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::start("redis-tls", "REDIS_TLS_URL", folder.path());
        // The binary does this when it starts.
        if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
            println!("TLS has its cryptography already");
        }
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, "s3cret\n").unwrap();
        let mut redis = Redis::new(&part, false);
        redis.settings.ca_file = folder.path().join("ca.pem");
        redis.settings.password_file = password_file.clone();
        assert_eq!(redis.settings.problems("redis"), vec![]);
        let [a, b] = redis.fresh(LONG, LONG).await;
        let token = take(&a, wanted(1, 1), START).await;
        assert_eq!(claim(&b, wanted(1, 1), START).await, Claim::Pending);
        b.release(&[token]).await.unwrap();
        // A certificate that is not trusted, and a wrong password.
        let distrusting = RedisSettings { ca_file: std::path::PathBuf::new(), ..redis.settings.clone() };
        assert!(check(&distrusting).await.is_err());
        std::fs::write(&password_file, "guess").unwrap();
        let said = check(&redis.settings).await.unwrap_err().to_string();
        assert!(said.contains("password") || said.contains("uthentication"), "{said}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_its_redis_a_gateway_takes_every_event() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut settings = roomy();
        settings.dedup.redis.url = format!("redis://{free}");
        let store = Arc::new(RedisDedup::open(&settings.dedup, 0).unwrap());
        let gateway = start_with(settings.clone(), store).await;
        for _ in 0..2 {
            assert_eq!(gateway.post("/v1/events", &gateway.event("e-1")).await.status, 202);
        }
        assert_eq!(gateway.captured().await.len(), 2, "later layers deduplicate; the edge loses nothing");
        assert!(check(&settings.dedup.redis).await.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_gateways_on_one_redis_take_an_event_once() {
        let folder = tempfile::tempdir().unwrap();
        let part = Part::given_or_start("redis", "REDIS_URL", folder.path());
        let mut redis = Redis::new(&part, false);
        let [a, b] = redis.fresh(LONG, LONG).await;
        let gateways = [Arc::new(start_with(roomy(), a).await), Arc::new(start_with(roomy(), b).await)];
        let event = gateways[0].event("e-1");
        let requests = (0..32_usize).map(|n| {
            let (gateway, event) = (Arc::clone(&gateways[n % 2]), event.clone());
            tokio::spawn(async move { gateway.post("/v1/events", &event).await.status })
        });
        let statuses: Vec<u16> = join_all(requests).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(statuses.iter().filter(|s| **s == 202).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|s| **s == 409).count(), 31, "{statuses:?}");
        assert_eq!(gateways[0].captured().await.len() + gateways[1].captured().await.len(), 1);
    }
}

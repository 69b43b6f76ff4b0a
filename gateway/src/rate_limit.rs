//! Requests per client: a token bucket for each address (IPv6: each /64).
//! Bounded: past `max_clients` addresses, further ones share a fixed number of buckets, so that a flood of
//! addresses meets a limit and not our memory. [`RateLimit::forget_idle`] must be called on a timer.
//! Never: believes a header; the address comes from [`shared::http::address`].

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock as LimiterClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::InMemoryState;
use governor::state::NotKeyed;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use shared::config::Problem;
use shared::http::address::limit_key;
use shared::time::{Clock, Timestamp};

/// Buckets shared by the clients beyond `max_clients`.
const SHARED_BUCKETS: u64 = 4_096;
/// How many requests pass between two looks at the number of clients.
const LOOK_EVERY: u64 = 256;

/// The limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Requests per second and client, sustained. A batch is one request.
    pub per_second: u32,
    /// Requests a client may make at once after a pause.
    pub burst: u32,
    /// The most clients told apart at once.
    pub max_clients: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { per_second: 100, burst: 200, max_clients: 1_000_000 }
    }
}

impl Settings {
    /// Everything wrong with these settings; `prefix` is their place in the file.
    #[must_use]
    pub fn problems(&self, prefix: &str) -> Vec<Problem> {
        let named = [
            ("per_second", u64::from(self.per_second)),
            ("burst", u64::from(self.burst)),
            ("max_clients", self.max_clients),
        ];
        named
            .into_iter()
            .filter(|(_, value)| *value == 0)
            .map(|(name, _)| Problem::new(format!("{prefix}.{name}"), "must be at least 1"))
            .collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket {
    Client(IpAddr),
    Shared(u64),
}

type Limiter<K, S> = RateLimiter<K, S, SteadyClock, NoOpMiddleware<Nanos>>;

/// The limiter.
pub(crate) struct RateLimit {
    limiter: Limiter<Bucket, DefaultKeyedStateStore<Bucket>>,
    max_clients: u64,
    requests: AtomicU64,
    clients: AtomicU64,
}

/// Come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limited {
    /// In so many seconds (at least 1).
    pub(crate) retry_after: u32,
}

impl RateLimit {
    pub(crate) fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        let quota = Quota::per_second(at_least_one(settings.per_second)).allow_burst(at_least_one(settings.burst));
        Self {
            limiter: RateLimiter::new(quota, DefaultKeyedStateStore::default(), SteadyClock::new(clock)),
            max_clients: settings.max_clients,
            requests: AtomicU64::new(0),
            clients: AtomicU64::new(0),
        }
    }

    /// Counts one request of `client`.
    pub(crate) fn check(&self, client: IpAddr) -> Result<(), Limited> {
        if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.clients.store(self.limiter.len() as u64, Ordering::Relaxed);
        }
        let key = limit_key(client);
        let bucket = if self.clients.load(Ordering::Relaxed) < self.max_clients {
            Bucket::Client(key)
        } else {
            let hash = u64::from(shared::partition::partition_of(&key.to_string(), u32::MAX));
            Bucket::Shared(hash % SHARED_BUCKETS)
        };
        self.limiter.check_key(&bucket).map_err(|until| {
            let wait: Duration = until.wait_time_from(self.limiter.clock().now());
            Limited { retry_after: u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1) }
        })
    }

    /// Forgets the clients whose buckets are full again.
    pub(crate) fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
        self.clients.store(self.limiter.len() as u64, Ordering::Relaxed);
    }
}

/// A budget of bytes per second, for what costs us storage.
pub(crate) struct ByteBudget(Limiter<NotKeyed, InMemoryState>);

impl ByteBudget {
    /// `per_second` bytes sustained, ten seconds of them at once.
    pub(crate) fn new(per_second: u64, clock: Arc<dyn Clock>) -> Self {
        let rate = at_least_one(u32::try_from(per_second).unwrap_or(u32::MAX));
        let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(at_least_one(10)));
        Self(RateLimiter::new(quota, InMemoryState::default(), SteadyClock::new(clock)))
    }

    /// Takes `bytes` from the budget, or says that there are not so many.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        match u32::try_from(bytes).ok().and_then(NonZeroU32::new) {
            Some(bytes) => matches!(self.0.check_n(bytes), Ok(Ok(()))),
            None => bytes == 0,
        }
    }
}

fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

/// Our clock as a limiter needs it: it never goes back. When the machine's clock is set back, time stands
/// still for one reading instead of shutting everybody out until the old time is reached again.
#[derive(Clone)]
struct SteadyClock {
    clock: Arc<dyn Clock>,
    passed: Arc<Mutex<(Timestamp, u64)>>,
}

impl SteadyClock {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let passed = Arc::new(Mutex::new((clock.now(), 0)));
        Self { clock, passed }
    }
}

impl LimiterClock for SteadyClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        passed.1 += u64::try_from(now.since(passed.0)).unwrap_or(0);
        passed.0 = now;
        Nanos::from(passed.1.saturating_mul(1_000))
    }
}

#[cfg(test)]
mod tests {
    use shared::time::{HOUR, ManualClock, SECOND};

    use super::*;

    fn limit(per_second: u32, burst: u32, max_clients: u64) -> (RateLimit, ManualClock) {
        let clock = ManualClock::at(Timestamp(1_000_000 * SECOND));
        let settings = Settings { per_second, burst, max_clients };
        (RateLimit::new(&settings, Arc::new(clock.clone())), clock)
    }

    fn passed(limit: &RateLimit, client: &str, requests: u32) -> u32 {
        (0..requests).map(|_| u32::from(limit.check(client.parse().unwrap()).is_ok())).sum()
    }

    #[test]
    fn a_client_gets_its_burst_and_then_its_rate() {
        let (limit, clock) = limit(10, 20, 1_000);
        assert_eq!(passed(&limit, "192.0.2.1", 100), 20);
        assert_eq!(limit.check("192.0.2.1".parse().unwrap()), Err(Limited { retry_after: 1 }));
        assert_eq!(passed(&limit, "192.0.2.2", 5), 5);
        clock.advance(SECOND);
        assert_eq!(passed(&limit, "192.0.2.1", 100), 10);
    }

    #[test]
    fn an_ipv6_subscriber_cannot_evade_by_changing_its_address() {
        let (limit, _) = limit(10, 20, 1_000);
        let all: u32 = (0..500).map(|i| passed(&limit, &format!("2001:db8:1:2:{i:x}::{i:x}"), 1)).sum();
        assert_eq!(all, 20);
    }

    #[test]
    fn a_clock_set_back_shuts_nobody_out() {
        let (limit, clock) = limit(10, 20, 1_000);
        assert_eq!(passed(&limit, "192.0.2.1", 20), 20);
        clock.advance(-HOUR);
        assert_eq!(passed(&limit, "192.0.2.1", 1), 0);
        clock.advance(SECOND);
        assert_eq!(passed(&limit, "192.0.2.1", 100), 10);
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_forgotten_when_it_ends() {
        let (limit, clock) = limit(1, 1, 1_000);
        let addresses = (0..20_000).map(|i| IpAddr::V4(std::net::Ipv4Addr::from_bits(i)));
        let passed_first = addresses.filter(|address| limit.check(*address).is_ok()).count();
        assert!((1_000..20_000).contains(&passed_first), "{passed_first}");
        assert!(limit.limiter.len() as u64 <= 1_000 + LOOK_EVERY + SHARED_BUCKETS, "{}", limit.limiter.len());
        clock.advance(10 * SECOND);
        limit.forget_idle();
        assert_eq!(limit.limiter.len(), 0);
        assert_eq!(passed(&limit, "192.0.2.1", 1), 1);
    }

    #[test]
    fn a_byte_budget_is_spent_and_refilled() {
        let clock = ManualClock::at(Timestamp(SECOND));
        let budget = ByteBudget::new(100, Arc::new(clock.clone()));
        assert!(budget.take(1_000));
        assert!(!budget.take(1));
        assert!(budget.take(0));
        clock.advance(SECOND);
        assert!(budget.take(100));
        assert!(!budget.take(1));
    }
}

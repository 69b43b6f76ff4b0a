//! The dedup store of a fleet: Redis, one key for an event id.
//!
//! A claim is `SET key pending NX GET PX lease`, confirming and releasing are a script of one key each; whatever a request
//! asks is one round trip, of a cluster too. Pending values name the claim, so that nobody can release another's;
//! a durable event is never forgotten for a claim, nor a first one for a second.
//! Guarantees: an answer or an error within `timeout`; while Redis is away an error at once (the gateway then lets events
//! pass, see `capture`). Times of expiry are Redis's own: `lease` after the claim, `window` after the confirmation.
//! On crash: of a gateway, its claims end with their lease; of Redis, what it forgot is deduplicated by later layers,
//! exactly. Never: waits for a connection, or keeps more than 17 bytes beside the key.

mod check;
mod link;
mod settings;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Value, cmd};
use shared::time::{Timestamp, sleep};

use super::{Claim, DedupError, DedupStore, Key, Token, Wanted};

pub use check::{Checked, check};
pub use settings::Settings;

use link::Link;

/// Writes the durable event ARGV[1] for ARGV[2] milliseconds, unless one is there already.
const CONFIRM: &str = "local v = redis.call('GET', KEYS[1]) \
    if not v or v:byte() ~= 99 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end return 0";
/// Takes the claim ARGV[1] away, if it is still the one there.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0";

const PENDING: u8 = b'p';
const DURABLE: u8 = b'c';

/// The first pause between two looks at a pending claim; it doubles up to [`LONGEST_LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// The longest pause between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(50);

/// The store.
pub struct RedisDedup {
    link: Link,
    prefix: Vec<u8>,
    lease: u64,
    window: u64,
    claims: AtomicU64,
}

impl RedisDedup {
    /// A store that begins to connect; `start` is where the numbers of its claims begin, at random, so that no two
    /// stores have a number in common.
    ///
    /// # Errors
    /// When the settings cannot be used. Redis itself may be away.
    pub fn open(settings: &super::Settings, start: u64) -> Result<Self, DedupError> {
        let millis = |span: shared::config::Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            link: Link::open(&settings.redis)?,
            prefix: settings.redis.prefix.clone().into_bytes(),
            lease: millis(settings.lease),
            window: millis(settings.window),
            claims: AtomicU64::new(start),
        })
    }

    /// Waits until it is connected, or could not be.
    pub async fn tried(&self) {
        self.link.tried().await;
    }

    fn key(&self, key: Key) -> Vec<u8> {
        [self.prefix.as_slice(), &key.0].concat()
    }

    fn script(&self, script: &str, token: &Token, value: [u8; 17]) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(script).arg(1).arg(self.key(token.key)).arg(value.as_slice());
        command
    }

    fn release_one(&self, token: &Token) -> Cmd {
        self.script(RELEASE, token, pending(token))
    }

    async fn settle(&self, commands: Vec<Cmd>) -> Result<(), DedupError> {
        if commands.is_empty() {
            return Ok(());
        }
        self.link.ask(self.link.current()?, commands).await.map(|_| ())
    }
}

/// The value of a claim: its number and time.
fn pending(token: &Token) -> [u8; 17] {
    value(PENDING, token.claimed_at, token.number.to_le_bytes())
}

/// The value of a durable event: when it was claimed, and half of its fingerprint.
fn durable(token: &Token) -> [u8; 17] {
    let [a, b, c, d, e, f, g, h, ..] = token.fingerprint.0;
    value(DURABLE, token.claimed_at, [a, b, c, d, e, f, g, h])
}

fn value(kind: u8, at: Timestamp, rest: [u8; 8]) -> [u8; 17] {
    let mut value = [kind; 17];
    let parts = at.0.to_le_bytes().into_iter().chain(rest);
    value.iter_mut().skip(1).zip(parts).for_each(|(to, from)| *to = from);
    value
}

/// What the answer to a claim means.
fn read(answer: Value, token: Token) -> Result<Claim, DedupError> {
    let bytes = match answer {
        Value::Nil => return Ok(Claim::New(token)),
        Value::BulkString(bytes) => bytes,
        other => return Err(DedupError(format!("Redis answered a claim with {other:?}"))),
    };
    match *bytes.as_slice() {
        [PENDING, ..] => Ok(Claim::Pending),
        [DURABLE, t0, t1, t2, t3, t4, t5, t6, t7, ..] => {
            let first_seen = Timestamp(i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]));
            let same_payload = durable(&Token { claimed_at: first_seen, ..token }) == bytes.as_slice();
            Ok(Claim::Seen { first_seen, same_payload })
        }
        _ => Err(DedupError("a key under our prefix is not ours: set another prefix".to_owned())),
    }
}

#[async_trait]
impl DedupStore for RedisDedup {
    async fn claim(&self, wanted: &[Wanted], now: Timestamp) -> Result<Vec<Claim>, DedupError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.claims.fetch_add(wanted.len() as u64, Ordering::Relaxed);
        let token = |(w, n): (&Wanted, u64)| Token {
            key: w.key,
            fingerprint: w.fingerprint,
            claimed_at: now,
            number: first.wrapping_add(n),
        };
        let tokens: Vec<Token> = wanted.iter().zip(0..).map(token).collect();
        let set = |token: &Token| {
            let mut command = cmd("SET");
            let value = pending(token);
            command.arg(self.key(token.key)).arg(value.as_slice()).arg("NX").arg("GET").arg("PX").arg(self.lease);
            command
        };
        let (number, mut connection) = self.link.current()?;
        match self.link.ask((number, connection.clone()), tokens.iter().map(set).collect()).await {
            Ok(answers) => answers.into_iter().zip(tokens).map(|(answer, token)| read(answer, token)).collect(),
            Err(error) => {
                // It may be carried out yet. The same connection takes it back after that; the lease ends it otherwise.
                let back: Vec<Cmd> = tokens.iter().map(|token| self.release_one(token)).collect();
                tokio::spawn(async move {
                    if let Err(error) = connection.ask(back).await {
                        tracing::debug!(%error, "claims without an answer end with their lease");
                    }
                });
                Err(error)
            }
        }
    }

    async fn confirm(&self, tokens: &[Token]) -> Result<(), DedupError> {
        let confirm = |token: &Token| {
            let mut command = self.script(CONFIRM, token, durable(token));
            command.arg(self.window);
            command
        };
        self.settle(tokens.iter().map(confirm).collect()).await
    }

    async fn release(&self, tokens: &[Token]) -> Result<(), DedupError> {
        self.settle(tokens.iter().map(|token| self.release_one(token)).collect()).await
    }

    async fn settled(&self, key: Key) {
        let mut pause = FIRST_LOOK;
        loop {
            let mut command = cmd("GET");
            command.arg(self.key(key));
            let Ok(current) = self.link.current() else { return };
            // Without an answer the claim that follows says so.
            let Ok(answers) = self.link.ask(current, vec![command]).await else { return };
            if !matches!(answers.first(), Some(Value::BulkString(v)) if v.first() == Some(&PENDING)) {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Redis says so itself, and what it evicted: `INFO`.
    fn size(&self) -> (u64, u64) {
        (0, 0)
    }
}

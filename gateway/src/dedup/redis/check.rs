//! Whether Redis is fit for what it is to do: for `doctor`.
//! Never: writes anything.

use redis::{Value, cmd};
use shared::time::stopwatch;

use super::{Settings, link};
use crate::dedup::DedupError;

/// Round trips measured.
const TRIPS: u32 = 20;
/// Since then `SET` takes NX and GET together.
const OLDEST: u32 = 7;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What it is: version, memory, the median round trip.
    pub finding: String,
    /// What to change, if anything.
    pub advice: Vec<String>,
}

/// Asks the Redis of these settings.
///
/// # Errors
/// When it does not answer, or is too old.
pub async fn check(settings: &Settings) -> Result<Checked, DedupError> {
    let one_node = Settings { cluster: false, ..settings.clone() };
    let mut redis = link::connect(&one_node).await?;
    let failed = |e: redis::RedisError| DedupError(e.to_string());
    let info: Vec<Value> = redis.ask(vec![cmd("INFO")]).await.map_err(failed)?;
    let Some(Value::BulkString(info)) = info.first() else {
        return Err(DedupError("it does not answer INFO".to_owned()));
    };
    let info = String::from_utf8_lossy(info);
    let field = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
    let version = field("redis_version").to_owned();
    if version.split('.').next().and_then(|v| v.parse::<u32>().ok()).is_some_and(|major| major < OLDEST) {
        return Err(DedupError(format!("Redis {version} is too old: it must be {OLDEST}.0 or newer")));
    }
    let mut trips = Vec::new();
    for _ in 0..TRIPS {
        let watch = stopwatch();
        redis.ask(vec![cmd("PING")]).await.map_err(failed)?;
        trips.push(watch.elapsed());
    }
    trips.sort();
    let trip = trips.get(trips.len() / 2).copied().unwrap_or_default();
    let mut advice = Vec::new();
    let (limit, policy) = (field("maxmemory"), field("maxmemory_policy"));
    if limit == "0" {
        advice.push("maxmemory is not set: set it, so that Redis and not the machine says when it is full".to_owned());
    } else if policy != "noeviction" {
        advice.push(format!("maxmemory-policy={policy} forgets ids without a word: set it to noeviction"));
    }
    if trip * 5 > settings.timeout.0 {
        advice.push(format!("a round trip takes {trip:.1?}: too much of timeout = {}", settings.timeout));
    }
    let is_cluster = field("cluster_enabled") == "1";
    if is_cluster != settings.cluster {
        advice.push(format!("set gateway.dedup.redis.cluster to {is_cluster}"));
    }
    let finding = format!("{version}, {} used, {trip:.1?} a round trip", field("used_memory_human"));
    Ok(Checked { finding, advice })
}

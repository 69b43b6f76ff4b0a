//! The stores that many processes share, asked live.

use super::Found;
use crate::wiring::Parts;

/// Redis, if it is configured.
#[cfg(feature = "redis")]
pub(super) async fn redis(parts: &Parts) -> Option<Found> {
    let settings = &parts.settings().gateway.dedup.redis;
    if !settings.is_used() {
        return None;
    }
    Some(match gateway::dedup::redis::check(settings).await {
        Ok(checked) if checked.advice.is_empty() => Found::Good(checked.finding),
        Ok(checked) => Found::Look(format!("{}; {}", checked.finding, checked.advice.join("; "))),
        Err(error) => Found::Bad(format!("{error}: events pass unclaimed and later layers deduplicate them")),
    })
}

/// PostgreSQL, if it is configured.
#[cfg(feature = "postgres")]
pub(super) async fn postgres(parts: &Parts) -> Option<Found> {
    let settings = &parts.settings().postgres;
    if !settings.is_used() {
        return None;
    }
    Some(match shared::directory::postgres::check(settings).await {
        Ok((version, 0)) => Found::Look(format!("{version}, no ads: /click answers 404; clickledger ads import")),
        Ok((version, ads)) => Found::Good(format!("{version}, {ads} ads")),
        Err(error) => Found::Bad(error.to_string()),
    })
}

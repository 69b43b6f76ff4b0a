//! Which memory of event ids the gateway has: its own, or the fleet's in Redis. The only file that knows.

use std::sync::Arc;

use gateway::dedup::{DedupStore, MemoryDedup};
use gateway::ip_hash::Chance;

use crate::wiring::Parts;

impl Parts {
    /// The memory of event ids.
    ///
    /// # Errors
    /// When Redis is configured and its settings cannot be used; Redis itself may be away.
    #[cfg_attr(not(feature = "redis"), allow(unused_variables))]
    pub(crate) fn dedup(&self, chance: &Chance) -> anyhow::Result<Arc<dyn DedupStore>> {
        let settings = &self.settings().gateway.dedup;
        #[cfg(feature = "redis")]
        if settings.redis.is_used() {
            let mut start = [0; 8];
            chance(&mut start)?;
            let start = u64::from_le_bytes(start);
            return Ok(Arc::new(gateway::dedup::redis::RedisDedup::open(settings, start)?));
        }
        Ok(Arc::new(MemoryDedup::new(settings)))
    }
}

//! Key to partition: Kafka's own murmur2 over the ad id, so that embedded log and Kafka agree with every
//! Java client on which partition an ad lives in; and the partitions of an ad that is too much for one.

/// The partition of `key` among `partitions` (at least 1), as Kafka's default partitioner computes it.
#[must_use]
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    (murmur2(key.as_bytes()) & 0x7FFF_FFFF) % partitions.max(1)
}

/// The partition of one event of an ad that is spread over `salts` partitions (0 and 1: not spread). These are the ad's
/// own and those after it, so that they are as many as the salts; which one, the event's id says, so that a repeated
/// event comes to the same.
#[must_use]
pub fn salted_partition_of(ad_id: &str, event_id: &str, salts: u32, partitions: u32) -> u32 {
    let (own, partitions) = (partition_of(ad_id, partitions), partitions.max(1));
    let salt = if salts > 1 { murmur2(event_id.as_bytes()) % salts.min(partitions) } else { 0 };
    if salt < partitions - own { own + salt } else { salt - (partitions - own) }
}

/// MurmurHash2, 32 bits, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut h = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = chunk.iter().rev().fold(0, |k, b| k << 8 | u32::from(*b)).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        h = (h ^ rest.iter().rev().fold(0, |k, b| k << 8 | u32::from(*b))).wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafka() {
        // The vectors of Kafka's own UtilsTest.
        for (text, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }
    #[test]
    fn as_many_salts_are_as_many_partitions_and_share_the_events() {
        for (salts, partitions) in [(1, 8), (2, 8), (4, 8), (8, 8), (8, 5), (3, 1)] {
            let mut load = std::collections::BTreeMap::new();
            for n in 0..8_000 {
                let partition = salted_partition_of("ad-1", &format!("event-{n}"), salts, partitions);
                *load.entry(partition).or_insert(0_u32) += 1;
            }
            let spread = salts.min(partitions);
            assert_eq!(load.keys().filter(|p| **p < partitions).count(), spread as usize, "{load:?}");
            assert!(load.contains_key(&partition_of("ad-1", partitions)));
            let fair = 8_000 / spread;
            assert!(load.values().all(|n| n.abs_diff(fair) < fair / 8), "{load:?}");
        }
    }
}

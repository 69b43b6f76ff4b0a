//! A bucket's facts as one object: its ads, its price keys, and the facts of each hour in 32 bytes each.
//! Guarantee: what is unpacked is the shard that was packed, in its order.

use std::path::Path as FolderPath;
use std::sync::Arc;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use shared::money::Currency;
use shared::price::{PriceBook, PriceModel};

use crate::error::Error;
use crate::facts::{Ad, Fact, HOURS, Shard};
use crate::prices::PriceKey;

/// What stands before the facts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    /// Ad and campaign, by number.
    ads: Vec<(CompactString, CompactString)>,
    /// Currency, model and version, by number.
    prices: Vec<(String, String, u32)>,
    /// How many facts each hour has.
    hours: Vec<u64>,
}

/// The object: the length of the head, the head, the facts hour by hour.
///
/// # Errors
/// When a spill file does not read.
pub(crate) fn pack(mut shard: Shard) -> Result<Bytes, Error> {
    let head = Head {
        ads: shard.ads.iter().map(|a| (a.ad_id.clone(), a.campaign_id.clone())).collect(),
        prices: shard.prices.keys.iter().map(|k| (k.currency.to_string(), k.model.to_owned(), k.version)).collect(),
        hours: shard.hours.iter().map(|h| h.len()).collect(),
    };
    let head = serde_json::to_vec(&head).map_err(|e| Error::Internal(format!("packing facts: {e}")))?;
    let length = u32::try_from(head.len()).map_err(|_| Error::Invalid("a bucket has too many ads".to_owned()))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&head);
    for hour in &mut shard.hours {
        let read = hour.for_each(|fact| bytes.extend_from_slice(&fact.encode()));
        read.map_err(|source| Error::Spill { folder: "the spill folder of an executor".to_owned(), source })?;
    }
    Ok(bytes.into())
}

/// The shard in an object; it holds at most `memory` bytes of facts and spills the rest to `folder`.
///
/// # Errors
/// When the object is damaged or spilling fails.
pub(crate) fn unpack(bytes: &[u8], memory: u64, folder: &FolderPath, book: &Arc<PriceBook>) -> Result<Shard, Error> {
    let damaged = || Error::Corrupt("the facts of a bucket are damaged".to_owned());
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (head, facts) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(head).map_err(|_| damaged())?;
    let mut shard = Shard::new(memory, folder.to_owned(), book.clone());
    shard.ads = head.ads.into_iter().map(|(ad_id, campaign_id)| Ad { ad_id, campaign_id }).collect();
    let key = |(currency, model, version): (String, String, u32)| {
        let currency = Currency::parse(&currency)?;
        Some(PriceKey { currency, model: PriceModel::parse(&model)?.as_str(), version })
    };
    shard.prices.keys = head.prices.into_iter().map(key).collect::<Option<_>>().ok_or_else(damaged)?;
    let (facts, odd) = facts.as_chunks();
    let mut facts = facts.iter();
    if head.hours.len() != HOURS {
        return Err(damaged());
    }
    for (hour, count) in head.hours.into_iter().enumerate() {
        for _ in 0..count {
            shard.add(hour, Fact::decode(facts.next().ok_or_else(damaged)?))?;
        }
    }
    if facts.next().is_some() || !odd.is_empty() {
        return Err(damaged());
    }
    Ok(shard)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_packed_shard_comes_back_and_a_damaged_one_does_not(
            facts in proptest::collection::vec((0..HOURS, 0..3_u32, any::<i64>(), any::<Option<u64>>()), 0..40),
            cut in any::<proptest::sample::Index>(),
        ) {
            let folder = std::env::temp_dir();
            let mut shard = Shard::new(0, folder.clone(), Arc::default());
            for ad in ["a", "b", "c"] {
                shard.ad(ad, "campaign").unwrap();
            }
            let currency = Currency::parse("EUR").unwrap();
            shard.prices.keys = vec![PriceKey { currency, model: PriceModel::Cpc.as_str(), version: 7 }];
            for (hour, ad, cost, user) in facts {
                let (verdict, country) = (1, *b"DE");
                let fact = Fact { user, cost, ad, price: 0, minute: 59, kind: 2, verdict, device: 4, country };
                shard.add(hour, fact).unwrap();
            }
            let read = |shard: &mut Shard| {
                let mut hours = Vec::new();
                for hour in &mut shard.hours {
                    let mut read = Vec::new();
                    hour.for_each(|f| read.push(f)).unwrap();
                    hours.push(read);
                }
                (shard.ads.clone(), shard.prices.keys.clone(), hours)
            };
            let before = read(&mut shard);
            let bytes = pack(shard).unwrap();
            let book = Arc::default();
            prop_assert_eq!(read(&mut unpack(&bytes, 1 << 20, &folder, &book).unwrap()), before);
            let cut = bytes.get(..cut.index(bytes.len())).unwrap();
            prop_assert!(matches!(unpack(cut, 1 << 20, &folder, &book), Err(Error::Corrupt(_))));
        }
    }
}

//! One numbering for all workers: ads, campaigns, currencies and price keys by their rank, so that ordering numbers
//! orders names. Guarantee: the ranks follow from the names alone.

use compact_str::CompactString;
use shared::money::Currency;

use crate::error::Error;
use crate::facts::{Ad, Fact, HourFacts, Shard};
use crate::prices::PriceKey;

/// Campaigns must be fewer than this, so that a campaign hour's key fits in 64 bits.
const MAX_CAMPAIGNS: usize = 1 << 30;

/// Every name of a day, in order.
#[derive(Debug)]
pub(crate) struct Names {
    /// By ad, then campaign.
    pub(crate) ads: Vec<Ad>,
    /// The campaigns.
    pub(crate) campaigns: Vec<CompactString>,
    /// The campaign of each of `ads`.
    pub(crate) campaign_of: Vec<u32>,
    /// By currency, model and version.
    pub(crate) prices: Vec<PriceKey>,
    /// The currencies.
    pub(crate) currencies: Vec<Currency>,
    /// The currency of each of `prices`.
    pub(crate) currency_of: Vec<u32>,
}

/// The facts of one hour from all workers, under common numbers.
pub(crate) struct HourInput {
    parts: Vec<(HourFacts, std::sync::Arc<Translation>)>,
}

#[derive(Debug)]
struct Translation {
    ads: Vec<u32>,
    prices: Vec<u32>,
}

/// Ranks the names of all shards and regroups their facts by hour.
///
/// # Errors
/// More campaigns than fit.
pub(crate) fn unite(shards: Vec<Shard>) -> Result<(Names, Vec<HourInput>), Error> {
    let ads = ordered(shards.iter().flat_map(|s| s.ads.iter().cloned()));
    let campaigns = ordered(ads.iter().map(|a| a.campaign_id.clone()));
    let prices = ordered(shards.iter().flat_map(|s| s.prices.keys.iter().copied()));
    let currencies = ordered(prices.iter().map(|p| p.currency));
    if campaigns.len() >= MAX_CAMPAIGNS {
        return Err(Error::Invalid(format!("a day has {} campaigns, the limit is {MAX_CAMPAIGNS}", campaigns.len())));
    }
    let campaign_of = ads.iter().map(|a| rank(&campaigns, &a.campaign_id)).collect();
    let currency_of = prices.iter().map(|p| rank(&currencies, &p.currency)).collect();
    let mut hours: Vec<HourInput> = (0..crate::facts::HOURS).map(|_| HourInput { parts: Vec::new() }).collect();
    for shard in shards {
        let translation = std::sync::Arc::new(Translation {
            ads: shard.ads.iter().map(|a| rank(&ads, a)).collect(),
            prices: shard.prices.keys.iter().map(|p| rank(&prices, p)).collect(),
        });
        for (input, facts) in hours.iter_mut().zip(shard.hours) {
            input.parts.push((facts, translation.clone()));
        }
    }
    Ok((Names { ads, campaigns, campaign_of, prices, currencies, currency_of }, hours))
}

fn ordered<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn rank<T: Ord>(values: &[T], value: &T) -> u32 {
    u32::try_from(values.partition_point(|v| v < value)).unwrap_or(u32::MAX)
}

impl HourInput {
    /// How many facts.
    pub(crate) fn len(&self) -> u64 {
        self.parts.iter().map(|(facts, _)| facts.len()).sum()
    }

    /// The facts that `keep` wants, about one of `parts` equal parts, under common numbers.
    ///
    /// # Errors
    /// When a spill file does not read.
    pub(crate) fn load(&mut self, parts: u64, keep: impl Fn(&Fact) -> bool) -> Result<Vec<Fact>, Error> {
        let mut kept = Vec::with_capacity(usize::try_from(self.len() / parts.max(1)).unwrap_or(0));
        for (facts, to) in &mut self.parts {
            let common = |list: &[u32], number: u32| list.get(number as usize).copied().unwrap_or(u32::MAX);
            let read = facts.for_each(|fact| {
                let fact = Fact { ad: common(&to.ads, fact.ad), price: common(&to.prices, fact.price), ..fact };
                if keep(&fact) {
                    kept.push(fact);
                }
            });
            read.map_err(|source| Error::Spill { folder: "the spill folder".to_owned(), source })?;
        }
        Ok(kept)
    }
}

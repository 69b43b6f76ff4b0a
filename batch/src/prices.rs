//! The price book as one worker asks for it: event after event of the same campaigns, mostly within one price's time.
//! Guarantee: answers what `PriceBook::in_force` answers (a property test says so). Memory: one entry per campaign met.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use shared::money::Currency;
use shared::price::{NO_PRICE, Price, PriceBook, PriceModel};
use shared::time::Timestamp;

use crate::error::Error;

/// The price part of an event's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PriceKey {
    /// The currency it is counted in.
    pub(crate) currency: Currency,
    /// How it pays, by its word, so that keys sort as the table does.
    pub(crate) model: &'static str,
    /// The price book version.
    pub(crate) version: u32,
}

/// A price in force, with its key and the key's number.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    /// The price.
    pub(crate) price: Price,
    /// The key of an event under it.
    pub(crate) key: PriceKey,
    /// The key's number.
    pub(crate) number: u32,
}

/// The prices and price keys that a worker has met.
#[derive(Debug)]
pub(crate) struct Prices {
    /// The keys, by number.
    pub(crate) keys: Vec<PriceKey>,
    book: Arc<PriceBook>,
    campaigns: Vec<Campaign>,
    campaign_numbers: HashMap<CompactString, u32>,
    key_numbers: HashMap<PriceKey, u32>,
}

#[derive(Debug)]
struct Campaign {
    prices: Vec<Price>,
    /// The last answer, good from and until (exclusive).
    last: Option<(Timestamp, Timestamp, InForce)>,
}

impl Prices {
    /// Nothing met yet.
    pub(crate) fn new(book: Arc<PriceBook>) -> Self {
        Self {
            keys: Vec::new(),
            book,
            campaigns: Vec::new(),
            campaign_numbers: HashMap::new(),
            key_numbers: HashMap::new(),
        }
    }

    /// The number of a campaign.
    ///
    /// # Errors
    /// More than 2³² of them.
    pub(crate) fn campaign(&mut self, id: &str) -> Result<u32, Error> {
        if let Some(number) = self.campaign_numbers.get(id) {
            return Ok(*number);
        }
        let number = number(self.campaigns.len())?;
        let prices = self.book.prices.get(id).cloned().unwrap_or_default();
        self.campaigns.push(Campaign { prices, last: None });
        self.campaign_numbers.insert(CompactString::new(id), number);
        Ok(number)
    }

    /// The price of a campaign (by its number) in force at `at`, for an event that reports `reported`.
    ///
    /// # Errors
    /// More than 2³² price keys.
    pub(crate) fn in_force(
        &mut self,
        campaign: u32,
        at: Timestamp,
        reported: Option<Currency>,
    ) -> Result<InForce, Error> {
        let known = self.campaigns.get(campaign as usize);
        let last = known.and_then(|c| c.last.as_ref()).filter(|(from, until, _)| (*from..*until).contains(&at));
        let own = reported.is_none();
        if let Some((_, _, found)) = last.filter(|(_, _, l)| own || l.price.model != PriceModel::Reported) {
            return Ok(found.clone());
        }
        let prices = known.map_or(&[][..], |c| c.prices.as_slice());
        let after = prices.partition_point(|p| p.valid_from <= at);
        let price = after.checked_sub(1).and_then(|i| prices.get(i));
        let from = price.map_or(Timestamp(i64::MIN), |p| p.valid_from);
        let until = prices.get(after).map_or(Timestamp(i64::MAX), |p| p.valid_from);
        let price = price.unwrap_or(&NO_PRICE).clone();
        let key =
            PriceKey { currency: price.currency_of(reported), model: price.model.as_str(), version: price.version };
        let found = InForce { number: self.key(key)?, price, key };
        if own && let Some(campaign) = self.campaigns.get_mut(campaign as usize) {
            campaign.last = Some((from, until, found.clone()));
        }
        Ok(found)
    }

    fn key(&mut self, key: PriceKey) -> Result<u32, Error> {
        if let Some(number) = self.key_numbers.get(&key) {
            return Ok(*number);
        }
        let number = number(self.keys.len())?;
        self.key_numbers.insert(key, number);
        self.keys.push(key);
        Ok(number)
    }
}

/// A place in a list as a number.
///
/// # Errors
/// More than 2³² of them.
pub(crate) fn number(index: usize) -> Result<u32, Error> {
    u32::try_from(index).map_err(|_| Error::Invalid("a day has more than four billion ads or prices".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::id::CampaignId;

    use super::*;

    fn book() -> impl Strategy<Value = PriceBook> {
        let price = (0..50_i64, 0..5_usize, 0..9_i64, any::<bool>());
        let campaign = proptest::collection::vec(price, 0..5);
        proptest::collection::vec(campaign, 3).prop_map(|campaigns| {
            let mut book = PriceBook { version: 1, ..PriceBook::default() };
            for (i, mut prices) in campaigns.into_iter().enumerate() {
                prices.sort_by_key(|p| p.0);
                prices.dedup_by_key(|p| p.0);
                let made = prices.into_iter().map(|(from, model, price_micros, is_euro)| Price {
                    valid_from: Timestamp(from),
                    model: PriceModel::ALL[model],
                    price_micros,
                    currency: Currency::parse(if is_euro { "EUR" } else { "USD" }).unwrap(),
                    version: 1,
                });
                book.prices.insert(CampaignId::new(format!("c{i}")).unwrap(), made.collect());
            }
            book
        })
    }

    proptest! {
        #[test]
        fn the_answer_is_always_the_books(
            book in book(),
            asked in proptest::collection::vec((0..4_u8, 0..60_i64, proptest::option::of(Just("GBP"))), 0..60),
        ) {
            let mut prices = Prices::new(Arc::new(book.clone()));
            for (campaign, at, reported) in asked {
                let (id, at) = (format!("c{campaign}"), Timestamp(at));
                let reported = reported.and_then(Currency::parse);
                let number = prices.campaign(&id).unwrap();
                let found = prices.in_force(number, at, reported).unwrap();
                let expected = book.in_force(&id, at);
                prop_assert_eq!(&found.price, expected);
                prop_assert_eq!(found.key.currency, expected.currency_of(reported));
                prop_assert_eq!(prices.keys[found.number as usize], found.key);
            }
        }
    }
}

//! Ads and campaigns by number: an event's two ids are looked up once, and its rows are reached by what stands there.
//!
//! An ad under another campaign is another number, so the pair is exact. Beside each number: where its rows were last
//! (a guess that a grid checks), and for a campaign the price in force with the time during which it is.
//! Bounded: ids that no open row names go once they are more than those that are named ([`Names::keep`]).
//! On crash: rebuilt with the windows. Never: gives two pairs one number, or a pair two.

use std::ops::Range;

use hashbrown::HashTable;
use shared::id::{AdId, CampaignId, IdRef};
use shared::money::Currency;
use shared::price::{NO_PRICE, Price, PriceBook};
use shared::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::grid::spread;

/// So many ids may be unused however few are used. (Few in tests, so that they see ids go.)
const SPARE: usize = if cfg!(test) { 8 } else { 4_096 };
/// A stretch of time that holds no instant.
const NEVER: Range<Timestamp> = Timestamp(i64::MAX)..Timestamp(i64::MIN);

/// Where the rows of something were last, by whether the minute's number is even or odd: of two minutes that
/// events come for in turns, neither displaces the other.
pub(crate) type Recent = [u32; 2];

/// An ad of a campaign.
#[derive(Debug)]
struct Ad {
    id: AdId,
    campaign: u32,
    recent: Recent,
}

/// A campaign.
#[derive(Debug)]
struct Campaign {
    id: CampaignId,
    recent: Recent,
    price: Price,
    priced: Range<Timestamp>,
}

/// Things by number, found by hash; numbers of those that went are given out again.
#[derive(Debug)]
struct Numbered<T> {
    index: HashTable<u32>,
    things: Vec<T>,
    free: Vec<u32>,
}

/// Every ad and campaign that open rows name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ads: Numbered<Ad>,
    campaigns: Numbered<Campaign>,
    /// How many there were when those without rows went last.
    kept: usize,
}

impl Names {
    /// The number of `ad` under `campaign`, if they have one.
    pub(crate) fn find(&self, ad: IdRef<'_>, campaign: IdRef<'_>) -> Option<u32> {
        let hash = spread(xxh3_64(ad.as_bytes()), xxh3_64(campaign.as_bytes()));
        self.find_by(hash, ad, campaign)
    }

    fn find_by(&self, hash: u64, ad: IdRef<'_>, campaign: IdRef<'_>) -> Option<u32> {
        let is_campaign = |at: u32| self.campaigns.get(at).is_some_and(|c| c.id.borrowed() == campaign);
        self.ads.find(hash, |known| known.id.borrowed() == ad && is_campaign(known.campaign))
    }

    /// The number of `ad` under `campaign`; `None` when there are 2³² of them.
    pub(crate) fn number(&mut self, ad: IdRef<'_>, campaign: IdRef<'_>) -> Option<u32> {
        let campaign_hash = xxh3_64(campaign.as_bytes());
        let hash = spread(xxh3_64(ad.as_bytes()), campaign_hash);
        if let Some(found) = self.find_by(hash, ad, campaign) {
            return Some(found);
        }
        let campaign = self.number_campaign(campaign, campaign_hash)?;
        let ad = Ad { id: ad.into(), campaign, recent: Recent::default() };
        let Self { ads, campaigns, .. } = self;
        ads.add(hash, ad, |ad| hash_of(ad, campaigns))
    }

    /// The number of a campaign without an ad.
    pub(crate) fn campaign_number(&mut self, campaign: IdRef<'_>) -> Option<u32> {
        self.number_campaign(campaign, xxh3_64(campaign.as_bytes()))
    }

    fn number_campaign(&mut self, id: IdRef<'_>, hash: u64) -> Option<u32> {
        if let Some(at) = self.campaigns.find(hash, |known| known.id.borrowed() == id) {
            return Some(at);
        }
        let campaign = Campaign { id: id.into(), recent: Recent::default(), price: NO_PRICE, priced: NEVER };
        self.campaigns.add(hash, campaign, |known| xxh3_64(known.id.as_str().as_bytes()))
    }

    /// A campaign's id.
    pub(crate) fn campaign(&self, number: u32) -> Option<&CampaignId> {
        self.campaigns.get(number).map(|campaign| &campaign.id)
    }

    /// An ad's campaign's number.
    pub(crate) fn campaign_of(&self, ad: u32) -> Option<u32> {
        self.ads.get(ad).map(|ad| ad.campaign)
    }

    /// How many numbers ads have: each is smaller.
    pub(crate) fn ads(&self) -> usize {
        self.ads.things.len()
    }

    /// How many numbers campaigns have: each is smaller.
    pub(crate) fn campaigns(&self) -> usize {
        self.campaigns.things.len()
    }

    /// An ad's id and its campaign's.
    pub(crate) fn ids(&self, ad: u32) -> Option<(&AdId, &CampaignId)> {
        let ad = self.ads.get(ad)?;
        Some((&ad.id, &self.campaigns.get(ad.campaign)?.id))
    }

    /// An ad's campaign's number, and where rows of both were last.
    pub(crate) fn recent(&mut self, ad: u32) -> Option<(u32, &mut Recent, &mut Recent)> {
        let ad = self.ads.things.get_mut(ad as usize)?;
        let campaign = self.campaigns.things.get_mut(ad.campaign as usize)?;
        Some((ad.campaign, &mut ad.recent, &mut campaign.recent))
    }

    /// An ad's campaign's number, where the ad's rows were last, and the currency of the price that was looked up last.
    pub(crate) fn last(&self, ad: u32) -> Option<(u32, Recent, Currency)> {
        let ad = self.ads.get(ad)?;
        let campaign = self.campaigns.get(ad.campaign)?;
        Some((ad.campaign, ad.recent, campaign.price.currency))
    }

    /// The price in force at `at` for an ad's campaign, by `book`: always the same one until [`Names::forget_prices`].
    pub(crate) fn price(&mut self, ad: u32, at: Timestamp, book: &PriceBook) -> Price {
        let campaign = self.ads.get(ad).map(|ad| ad.campaign as usize);
        let Some(campaign) = campaign.and_then(|at| self.campaigns.things.get_mut(at)) else { return NO_PRICE };
        if !campaign.priced.contains(&at) {
            let (price, priced) = book.in_force_during(campaign.id.as_str(), at);
            (campaign.price, campaign.priced) = (price.clone(), priced);
        }
        campaign.price.clone()
    }

    /// The next prices come from another book.
    pub(crate) fn forget_prices(&mut self) {
        self.campaigns.things.iter_mut().for_each(|campaign| campaign.priced = NEVER);
    }

    /// How many ids there are.
    pub(crate) fn len(&self) -> usize {
        self.ads.index.len() + self.campaigns.index.len()
    }

    /// Whether so many ids came since the last [`Names::keep`] that it is worth a walk through all rows.
    pub(crate) fn is_crowded(&self) -> bool {
        self.len() > 2 * self.kept + SPARE
    }

    /// Lets every ad go that is not among `ads`, and every campaign that is neither theirs nor among `campaigns`.
    pub(crate) fn keep(&mut self, ads: impl Iterator<Item = u32>, campaigns: impl Iterator<Item = u32>) {
        let Self { ads: known, campaigns: theirs, .. } = self;
        let ads = marks(known.things.len(), ads);
        let of_ads = known.things.iter().zip(&ads).filter_map(|(ad, is_kept)| is_kept.then_some(ad.campaign));
        let campaigns = marks(theirs.things.len(), campaigns.chain(of_ads));
        known.keep(&ads);
        theirs.keep(&campaigns);
        self.kept = self.len();
    }

    /// Makes room for so many more ads.
    pub(crate) fn reserve(&mut self, ads: usize) {
        let Self { ads: known, campaigns, .. } = self;
        known.reserve(ads, |ad| hash_of(ad, campaigns));
    }
}

/// The hash by which an ad is found.
fn hash_of(ad: &Ad, campaigns: &Numbered<Campaign>) -> u64 {
    let campaign = campaigns.get(ad.campaign).map_or(0, |c| xxh3_64(c.id.as_str().as_bytes()));
    spread(xxh3_64(ad.id.as_str().as_bytes()), campaign)
}

/// Which of `count` numbers are among `numbers`.
fn marks(count: usize, numbers: impl Iterator<Item = u32>) -> Vec<bool> {
    let mut marks = vec![false; count];
    for number in numbers {
        if let Some(mark) = marks.get_mut(number as usize) {
            *mark = true;
        }
    }
    marks
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { index: HashTable::new(), things: Vec::new(), free: Vec::new() }
    }
}

impl<T> Numbered<T> {
    fn get(&self, number: u32) -> Option<&T> {
        self.things.get(number as usize)
    }

    fn find(&self, hash: u64, is: impl Fn(&T) -> bool) -> Option<u32> {
        self.index.find(hash, |at| self.get(*at).is_some_and(&is)).copied()
    }

    fn add(&mut self, hash: u64, thing: T, hash_of: impl Fn(&T) -> u64) -> Option<u32> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => u32::try_from(self.things.len()).ok()?,
        };
        match self.things.get_mut(number as usize) {
            Some(place) => *place = thing,
            None => self.things.push(thing),
        }
        let Self { index, things, .. } = self;
        index.insert_unique(hash, number, |at| things.get(*at as usize).map_or(0, &hash_of));
        Some(number)
    }

    fn keep(&mut self, marks: &[bool]) {
        let Self { index, free, .. } = self;
        index.retain(|at| {
            let is_kept = marks.get(*at as usize).copied().unwrap_or(false);
            if !is_kept {
                free.push(*at);
            }
            is_kept
        });
    }

    fn reserve(&mut self, more: usize, hash_of: impl Fn(&T) -> u64) {
        self.things.reserve(more);
        let Self { index, things, .. } = self;
        index.reserve(more, |at| things.get(*at as usize).map_or(0, &hash_of));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::tests::events::{START, prices};

    fn id(text: &str) -> IdRef<'_> {
        IdRef::new(text.as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn every_pair_has_one_number_of_its_own_and_the_price_of_its_campaign(
            steps in prop::collection::vec((0..12_u32, 0..5_u32, -3..200_i64, any::<u16>()), 0..300),
        ) {
            let (mut names, mut numbers) = (Names::default(), BTreeMap::new());
            let (book, none) = (prices(), PriceBook::default());
            for (ad, campaign, minutes, dice) in steps {
                let pair = (format!("ad{ad}"), format!("c{campaign}"));
                let before = names.find(id(&pair.0), id(&pair.1));
                prop_assert_eq!(before, numbers.get(&pair).copied());
                let number = names.number(id(&pair.0), id(&pair.1)).unwrap();
                prop_assert_eq!(*numbers.entry(pair.clone()).or_insert(number), number);
                let at = START.plus(minutes * shared::time::MINUTE);
                let book = if dice % 3 == 0 { &none } else { &book };
                names.forget_prices();
                for at in [at, at.plus(1), at] {
                    prop_assert_eq!(&names.price(number, at, book), book.in_force(&pair.1, at));
                }
                if dice % 29 == 0 {
                    numbers.retain(|_, number| *number % 3 != u32::from(dice) % 3);
                    names.keep(numbers.values().copied(), std::iter::empty());
                }
                for ((ad, campaign), number) in &numbers {
                    let (its_ad, its_campaign) = names.ids(*number).unwrap();
                    prop_assert_eq!((its_ad.as_str(), its_campaign.as_str()), (ad.as_str(), campaign.as_str()));
                }
                let campaigns: std::collections::BTreeSet<_> = numbers.keys().map(|(_, campaign)| campaign).collect();
                prop_assert!(names.len() >= numbers.len() + campaigns.len());
            }
        }
    }

    #[test]
    fn ids_without_rows_go_and_their_numbers_are_given_out_again() {
        let mut names = Names::default();
        for n in 0..100_000 {
            let ad = names.number(id(&format!("ad{n}")), id(&format!("c{}", n % 7))).unwrap();
            if names.is_crowded() {
                names.keep([ad].into_iter(), std::iter::empty());
            }
        }
        assert!(names.ads() <= 2 * SPARE && names.len() <= 2 * SPARE, "{} {}", names.ads(), names.len());
    }
}

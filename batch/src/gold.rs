//! Facts → aggregates, one hour at a time: ad minutes, campaign hours with exact unique users, and the hour's share
//! of the day's billing lines. Pure but for reading spilled facts.
//! Guarantee: rows come in the order of their table and depend on the set of facts alone. Sums are checked: what does
//! not fit is an error, never another number.
//! Users are told apart by the 64-bit hash that the sketch takes; two of a day's 20 million users share one with a
//! chance of about 1 in 100,000.

use std::borrow::Cow;
use std::collections::HashMap;

use shared::money::Overflow;
use shared::rollup::Counts;
use shared::sketch::Sketch;
use shared::verdict::Verdict;

use crate::error::Error;
use crate::facts::Fact;
use crate::judge::KINDS;
use crate::names::{HourInput, Names};

/// Bytes that a fact takes while an hour is aggregated.
const BYTES_PER_FACT: u64 = 64;
/// Verdicts other than billable.
pub(crate) const OTHER_VERDICTS: usize = Verdict::ALL.len() - 1;

/// A row of `gold/ad_minute`, by ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdMinute {
    pub(crate) minute: u8,
    pub(crate) ad: u32,
    pub(crate) currency: u32,
    pub(crate) counts: Counts,
}

/// A row of `gold/campaign_hour`, by ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CampaignHour {
    pub(crate) campaign: u32,
    pub(crate) country: [u8; 2],
    pub(crate) device: u8,
    pub(crate) currency: u32,
    pub(crate) counts: Counts,
    pub(crate) uniques: u64,
    pub(crate) sketch: Vec<u8>,
}

/// The values of a billing line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Billing {
    /// What bills.
    pub(crate) counts: Counts,
    /// The other verdicts, in the order of `Verdict::ALL`.
    pub(crate) others: [u64; OTHER_VERDICTS],
}

/// One hour's aggregates.
#[derive(Debug, Default)]
pub(crate) struct HourGold {
    /// In table order.
    pub(crate) minutes: Vec<AdMinute>,
    /// In table order.
    pub(crate) campaigns: Vec<CampaignHour>,
    /// By ad and price rank ([`BillingLines`] puts them in table order).
    pub(crate) billing: Vec<(u64, Billing)>,
}

/// Aggregates an hour, holding about `memory` bytes; more facts take several rounds.
///
/// # Errors
/// When a sum does not fit or a spill file does not read.
pub(crate) fn hour(names: &Names, mut input: HourInput, memory: u64) -> Result<HourGold, Error> {
    let rounds = (input.len() * BYTES_PER_FACT).div_ceil(memory.max(1)).max(1);
    let (ads, campaigns) = (names.ads.len() as u64, names.campaigns.len() as u64);
    let round_of = |value: u64, of: u64| value * rounds / of.max(1);
    let mut gold = HourGold::default();
    // Mostly one round is enough, and one reading.
    let whole = if rounds == 1 { Some(input.load(1, |_| true)?) } else { None };
    for round in 0..rounds {
        let mut part = |of: &dyn Fn(&Fact) -> u64| match &whole {
            Some(facts) => Ok(Cow::Borrowed(facts.as_slice())),
            None => input.load(rounds, |f| of(f) == round).map(Cow::Owned),
        };
        minutes(names, &part(&|f| round_of(u64::from(f.minute), 60))?, &mut gold.minutes)?;
        campaign_hours(names, &part(&|f| round_of(u64::from(campaign(names, f)), campaigns))?, &mut gold.campaigns)?;
        billing(&part(&|f| round_of(u64::from(f.ad), ads))?, &mut gold.billing)?;
    }
    Ok(gold)
}

fn is_billable(fact: &Fact) -> bool {
    fact.verdict == 0 // the first of Verdict::ALL
}

fn campaign(names: &Names, fact: &Fact) -> u32 {
    names.campaign_of.get(fact.ad as usize).copied().unwrap_or(u32::MAX)
}

fn currency(names: &Names, fact: &Fact) -> u32 {
    names.currency_of.get(fact.price as usize).copied().unwrap_or(u32::MAX)
}

fn minutes(names: &Names, facts: &[Fact], rows: &mut Vec<AdMinute>) -> Result<(), Error> {
    // 6 bits of minute, 32 of ad, 15 of currency: there are fewer than 2^15 currency codes.
    let key = |f: &Fact| u64::from(f.minute) << 47 | u64::from(f.ad) << 15 | u64::from(currency(names, f));
    for group in ordered(facts.iter().filter(|f| is_billable(f)), key).chunk_by(|a, b| a.0 == b.0) {
        let Some((_, first)) = group.first() else { continue };
        let counts = sum(group.iter().map(|(_, fact)| *fact))?;
        rows.push(AdMinute { minute: first.minute, ad: first.ad, currency: currency(names, first), counts });
    }
    Ok(())
}

fn campaign_hours(names: &Names, facts: &[Fact], rows: &mut Vec<CampaignHour>) -> Result<(), Error> {
    // 30 bits of campaign (see `Names`), 16 of country, 3 of device, 15 of currency.
    let key = |f: &Fact| {
        let place = u64::from(u16::from_be_bytes(f.country)) << 18 | u64::from(f.device) << 15;
        (u64::from(campaign(names, f)) << 34 | place | u64::from(currency(names, f)), f.user)
    };
    for group in ordered(facts.iter().filter(|f| is_billable(f)), key).chunk_by(|a, b| a.0.0 == b.0.0) {
        let Some((_, first)) = group.first() else { continue };
        let (mut sketch, mut uniques, mut last) = (Sketch::new(), 0, None);
        for user in group.iter().filter_map(|(_, fact)| fact.user) {
            if last != Some(user) {
                sketch.add(user);
                uniques += 1;
                last = Some(user);
            }
        }
        rows.push(CampaignHour {
            campaign: campaign(names, first),
            country: first.country,
            device: first.device,
            currency: currency(names, first),
            counts: sum(group.iter().map(|(_, fact)| *fact))?,
            uniques,
            sketch: sketch.to_bytes(),
        });
    }
    Ok(())
}

fn billing(facts: &[Fact], rows: &mut Vec<(u64, Billing)>) -> Result<(), Error> {
    let key = |f: &Fact| u64::from(f.ad) << 32 | u64::from(f.price);
    for group in ordered(facts.iter(), key).chunk_by(|a, b| a.0 == b.0) {
        let Some((key, _)) = group.first() else { continue };
        let facts = group.iter().map(|(_, fact)| *fact);
        let mut line = Billing { counts: sum(facts.clone().filter(|f| is_billable(f)))?, ..Billing::default() };
        for fact in facts {
            let other = usize::from(fact.verdict).checked_sub(1).and_then(|i| line.others.get_mut(i));
            other.into_iter().for_each(|n| *n += 1);
        }
        rows.push((*key, line));
    }
    Ok(())
}

/// The facts by their keys.
fn ordered<'a, K: Ord + Copy>(facts: impl Iterator<Item = &'a Fact>, key: impl Fn(&Fact) -> K) -> Vec<(K, &'a Fact)> {
    let mut keyed: Vec<(K, &Fact)> = facts.map(|f| (key(f), f)).collect();
    keyed.sort_unstable_by_key(|(key, _)| *key);
    keyed
}

fn sum<'a>(facts: impl Iterator<Item = &'a Fact>) -> Result<Counts, Error> {
    let mut total = Counts::default();
    for fact in facts {
        let kind = KINDS.get(usize::from(fact.kind)).copied().unwrap_or(shared::event::EventKind::Impression);
        total = total.merge(&Counts::one(kind, fact.cost)).map_err(Error::overflow("a sum"))?;
    }
    Ok(total)
}

/// The day's billing lines, gathered hour by hour.
#[derive(Debug, Default)]
pub(crate) struct BillingLines(HashMap<u64, Billing>);

impl BillingLines {
    /// Adds an hour's share.
    ///
    /// # Errors
    /// When a sum does not fit.
    pub(crate) fn add(&mut self, hour: Vec<(u64, Billing)>) -> Result<(), Error> {
        for (key, share) in hour {
            let line = self.0.entry(key).or_default();
            line.counts = line.counts.merge(&share.counts).map_err(Error::overflow("a billing line"))?;
            for (total, more) in line.others.iter_mut().zip(share.others) {
                *total = total.checked_add(more).ok_or(Overflow).map_err(Error::overflow("a count"))?;
            }
        }
        Ok(())
    }

    /// The lines in the order of `gold/billing_day`: `(ad rank, price rank, values)`.
    pub(crate) fn into_lines(self, names: &Names) -> Vec<(u32, u32, Billing)> {
        let half = |n: u64| u32::try_from(n & 0xFFFF_FFFF).unwrap_or(u32::MAX);
        let mut lines: Vec<_> = self.0.into_iter().map(|(key, line)| (half(key >> 32), half(key), line)).collect();
        // Ads are ranked by ad, then campaign: within a campaign their order is that of the ads.
        lines.sort_unstable_by_key(|(ad, price, _)| (names.campaign_of.get(*ad as usize), *ad, *price));
        lines
    }
}

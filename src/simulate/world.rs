//! The world behind the traffic: ads, campaigns, their prices, and how unevenly ads are seen.
//! Guarantees: follows from the settings alone; `ads.csv` and `prices.csv` name what the traffic names.

use std::io::{self, Write};

use shared::money::Currency;
use shared::price::PriceModel;
use shared::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};

use super::dice::Dice;
use super::settings::Settings;

const CURRENCIES: [&str; 3] = ["EUR", "USD", "JPY"];
/// What the models of campaigns 0, 1, 2, … are, over and over; the last one has no price (at first).
const MODELS: [Option<PriceModel>; 6] = [
    Some(PriceModel::Cpc),
    Some(PriceModel::Cpm),
    Some(PriceModel::Reported),
    Some(PriceModel::Cpa),
    Some(PriceModel::Free),
    None,
];

/// One line of `prices.csv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PriceLine {
    pub(super) from: Timestamp,
    pub(super) model: PriceModel,
    pub(super) micros: i64,
    pub(super) currency: &'static str,
}

/// Ads, campaigns and prices.
pub struct World {
    ads: u32,
    campaigns: u32,
    advertisers: u32,
    currencies: u32,
    start: Timestamp,
    /// Running sums of the ads' weights.
    weights: Vec<u64>,
}

impl World {
    /// The world of these settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            ads: settings.ads.max(1),
            campaigns: settings.campaigns.max(1),
            advertisers: settings.advertisers.max(1),
            currencies: settings.currencies.clamp(1, 3),
            start: settings.start.start(),
            weights: weights(settings.ads.max(1), settings.zipf),
        }
    }

    /// An ad by its share of the traffic.
    pub(super) fn draw_ad(&self, dice: &mut Dice) -> u32 {
        let total = self.weights.last().copied().unwrap_or(1);
        let roll = dice.below(total);
        u32::try_from(self.weights.partition_point(|sum| *sum <= roll)).unwrap_or(0).min(self.ads - 1)
    }

    pub(super) fn ad_id(ad: u32) -> String {
        format!("ad-{ad}")
    }

    pub(super) fn campaign_id(&self, ad: u32) -> String {
        format!("camp-{}", ad % self.campaigns)
    }

    pub(super) fn advertiser_id(&self, ad: u32) -> String {
        format!("adv-{}", ad % self.campaigns % self.advertisers)
    }

    /// The ad after this one.
    pub(super) fn next_ad(&self, ad: u32) -> u32 {
        (ad + 1) % self.ads
    }

    /// A currency of this world.
    pub(super) fn draw_currency(&self, dice: &mut Dice) -> &'static str {
        let used = usize::try_from(self.currencies).unwrap_or(1);
        dice.pick(CURRENCIES.get(..used).unwrap_or(&CURRENCIES))
    }

    /// Whether events of this ad pay their own price at some time.
    pub(super) fn pays_reported(&self, ad: u32) -> bool {
        ad % self.campaigns % 6 == 2
    }

    /// When the last price of the ad's campaign came into force, at `now`.
    pub(super) fn last_change(&self, ad: u32, now: Timestamp) -> Option<Timestamp> {
        self.prices(ad % self.campaigns).into_iter().map(|p| p.from).filter(|from| *from <= now).max()
    }

    /// The prices of a campaign, oldest first: every second block of six campaigns changes its price in the middle
    /// of the second day, every third block even its model and currency on the last; a campaign without
    /// a price may get one at noon of the second day.
    pub(super) fn prices(&self, campaign: u32) -> Vec<PriceLine> {
        let block = campaign / 6;
        let currency = |n: u32| {
            let i = usize::try_from(n % self.currencies).unwrap_or(0);
            CURRENCIES.get(i).copied().unwrap_or("EUR")
        };
        let model = usize::try_from(campaign % 6).ok().and_then(|i| MODELS.get(i)).copied().flatten();
        let mut lines = Vec::new();
        if let Some(model) = model {
            let micros = price(model, campaign);
            lines.push(PriceLine { from: self.start.plus(-30 * DAY), model, micros, currency: currency(block) });
            if block % 2 == 1 {
                let from = self.start.plus(DAY + 13 * HOUR + 37 * MINUTE + SECOND / 2);
                lines.push(PriceLine { from, model, micros: micros + micros / 3, currency: currency(block) });
            }
            if block % 3 == 2 {
                let model = if model == PriceModel::Cpm { PriceModel::Cpc } else { PriceModel::Cpm };
                let from = self.start.plus(2 * DAY + 7 * HOUR + 123_457);
                lines.push(PriceLine { from, model, micros: price(model, campaign), currency: currency(block + 1) });
            }
        } else if block % 2 == 1 {
            let from = self.start.plus(DAY + 12 * HOUR);
            let model = PriceModel::Cpm;
            lines.push(PriceLine { from, model, micros: price(model, campaign), currency: currency(block) });
        }
        lines
    }

    /// Writes the ad directory (contract 3: adId, campaignId, advertiserId, url, status).
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_ads(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "adId,campaignId,advertiserId,url,status")?;
        for ad in 0..self.ads {
            let (campaign, advertiser) = (self.campaign_id(ad), self.advertiser_id(ad));
            writeln!(out, "ad-{ad},{campaign},{advertiser},https://{advertiser}.example/landing/{ad},active")?;
        }
        out.flush()
    }

    /// Writes the price file (contract 3: campaignId, model, priceMicros, currency, validFrom).
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write_prices(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "campaignId,model,priceMicros,currency,validFrom")?;
        for campaign in 0..self.campaigns {
            for p in self.prices(campaign) {
                debug_assert!(Currency::parse(p.currency).is_some());
                writeln!(out, "camp-{campaign},{},{},{},{}", p.model.as_str(), p.micros, p.currency, p.from)?;
            }
        }
        out.flush()
    }
}

/// A price with digits that do not divide by a thousand, so that rounding anywhere too early shows.
fn price(model: PriceModel, campaign: u32) -> i64 {
    let c = i64::from(campaign);
    match model {
        PriceModel::Cpc => 250_000 + c * 1_111,
        PriceModel::Cpm => 1_234_567 + c * 97,
        PriceModel::Cpa => 5_000_001 + c,
        PriceModel::Reported | PriceModel::Free => 0,
    }
}

/// Running sums of `1 / rank^exponent`, in whole numbers.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 10^9
fn weights(ads: u32, exponent: f64) -> Vec<u64> {
    let mut sum = 0_u64;
    (1..=ads)
        .map(|rank| {
            sum += (1e9 / f64::from(rank).powf(exponent)) as u64 + 1;
            sum
        })
        .collect()
}

//! The price book: what a campaign pays, from when, in which currency (contract 2.6 and 2.8).
//! Pure: a book is a value with a version; importing makes a new value. Cost is integer nanos, checked.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::event::EventKind;
use crate::id::CampaignId;
use crate::money::{Currency, MAX_MICROS, NANOS_PER_MICRO, Overflow, nanos};
use crate::time::{Day, Timestamp};

/// How a campaign pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriceModel {
    /// Per click.
    Cpc,
    /// Per thousand impressions.
    Cpm,
    /// Per conversion.
    Cpa,
    /// Each event's own `costMicros`.
    Reported,
    /// Nothing.
    Free,
}

impl PriceModel {
    /// Every model.
    pub const ALL: [Self; 5] = [Self::Cpc, Self::Cpm, Self::Cpa, Self::Reported, Self::Free];

    /// The word used in files and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpc => "cpc",
            Self::Cpm => "cpm",
            Self::Cpa => "cpa",
            Self::Reported => "reported",
            Self::Free => "free",
        }
    }

    /// From its word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == text)
    }
}

/// One price of one campaign, in force from `valid_from` until the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Price {
    /// When it comes into force (UTC microseconds).
    pub valid_from: Timestamp,
    /// How it pays.
    pub model: PriceModel,
    /// Micros per click, per thousand impressions or per conversion; 0 for `reported` and `free`.
    pub price_micros: i64,
    /// The currency of the price.
    pub currency: Currency,
    /// The book version that brought this price in.
    pub version: u32,
}

/// What a campaign without a price in force gets: nothing, in no currency, with a warning (contract 2.6).
pub const NO_PRICE: Price =
    Price { valid_from: Timestamp(0), model: PriceModel::Free, price_micros: 0, currency: Currency::NONE, version: 0 };

/// What one billable event costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// The amount in nanos of `currency`.
    pub nanos: i64,
    /// The currency it is in.
    pub currency: Currency,
}

impl Price {
    /// The cost of one billable event. A `reported` event pays in its own currency, or in the price's
    /// where it names none.
    ///
    /// # Errors
    /// [`Overflow`] when the amount does not fit in nanos.
    pub fn cost(
        &self,
        kind: EventKind,
        reported_micros: Option<i64>,
        reported_currency: Option<Currency>,
    ) -> Result<Cost, Overflow> {
        let nanos = match (self.model, kind) {
            (PriceModel::Cpc, EventKind::Click) | (PriceModel::Cpa, EventKind::Conversion) => nanos(self.price_micros)?,
            // A price in micros per thousand impressions is that many nanos per impression.
            (PriceModel::Cpm, EventKind::Impression) => self.price_micros,
            (PriceModel::Reported, _) => nanos(reported_micros.unwrap_or(0))?,
            (PriceModel::Cpc | PriceModel::Cpa | PriceModel::Cpm | PriceModel::Free, _) => 0,
        };
        Ok(Cost { nanos, currency: self.currency_of(reported_currency) })
    }

    /// The currency an event under this price is counted in.
    #[must_use]
    pub fn currency_of(&self, reported_currency: Option<Currency>) -> Currency {
        match self.model {
            PriceModel::Reported => reported_currency.unwrap_or(self.currency),
            PriceModel::Cpc | PriceModel::Cpm | PriceModel::Cpa | PriceModel::Free => self.currency,
        }
    }
}

/// One row of a price file: `campaignId, model, priceMicros, currency, validFrom`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PriceRow {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// How it pays.
    pub model: PriceModel,
    /// The price.
    #[serde(default)]
    pub price_micros: i64,
    /// The currency.
    pub currency: Currency,
    /// RFC 3339.
    pub valid_from: String,
}

/// A row that cannot be taken, by its number (the first data row is 1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {why}")]
pub struct BadPrice {
    /// The row.
    pub row: u64,
    /// What is wrong and what to do.
    pub why: String,
}

/// Every row that cannot be taken; nothing was imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} row(s) cannot be taken, nothing was imported\n{}", .0.len(), listed(.0))]
pub struct BadPrices(pub Vec<BadPrice>);

/// The most rows a message names.
const NAMED_ROWS: usize = 100;

fn listed(bad: &[BadPrice]) -> String {
    let mut lines: Vec<String> = bad.iter().take(NAMED_ROWS).map(ToString::to_string).collect();
    if let Some(more) = bad.len().checked_sub(NAMED_ROWS).filter(|n| *n > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

impl PriceRow {
    /// The price it is, as `version` of the book brings it in.
    ///
    /// # Errors
    /// What is wrong with it.
    fn price(&self, version: u32) -> Result<Price, String> {
        let Some(valid_from) = Timestamp::parse(&self.valid_from) else {
            return Err(format!("validFrom {:?} is not an RFC 3339 time", self.valid_from));
        };
        if !(0..=MAX_MICROS).contains(&self.price_micros) {
            return Err(format!("priceMicros {} is not in 0..={MAX_MICROS}", self.price_micros));
        }
        let pays = matches!(self.model, PriceModel::Cpc | PriceModel::Cpm | PriceModel::Cpa);
        if pays && self.price_micros > 0 && self.currency == Currency::NONE {
            return Err("XXX is no currency: a price needs one".to_owned());
        }
        Ok(Price { valid_from, model: self.model, price_micros: self.price_micros, currency: self.currency, version })
    }
}

/// All prices, by campaign and time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceBook {
    /// Rises by one with every import that changes something; 0 is empty.
    pub version: u32,
    /// Each campaign's prices, by `valid_from`.
    pub prices: BTreeMap<CampaignId, Vec<Price>>,
}

impl PriceBook {
    /// The price of `campaign` in force at `at`; [`NO_PRICE`] where there is none.
    #[must_use]
    pub fn in_force(&self, campaign: &str, at: Timestamp) -> &Price {
        self.in_force_during(campaign, at).0
    }

    /// The price of `campaign` in force at `at`, and the stretch of time around `at` during which it is.
    #[must_use]
    pub fn in_force_during(&self, campaign: &str, at: Timestamp) -> (&Price, Range<Timestamp>) {
        let prices = self.prices.get(campaign).map_or(&[][..], Vec::as_slice);
        let after = prices.partition_point(|p| p.valid_from <= at);
        let until = prices.get(after).map_or(Timestamp(i64::MAX), |p| p.valid_from);
        match after.checked_sub(1).and_then(|i| prices.get(i)) {
            Some(price) => (price, price.valid_from..until),
            None => (&NO_PRICE, Timestamp(i64::MIN)..until),
        }
    }

    /// The book with `rows` added, one version newer; the same book when every row is already in it.
    ///
    /// # Errors
    /// Every row that is out of range or contradicts a price with the same start.
    pub fn import(&self, rows: impl IntoIterator<Item = PriceRow>) -> Result<Self, BadPrices> {
        let mut book = self.clone();
        let version = self.version + 1;
        let mut bad = Vec::new();
        for (row, price) in (1..).zip(rows) {
            match book.add(price, version) {
                Ok(true) => book.version = version,
                Ok(false) => {}
                Err(why) => bad.push(BadPrice { row, why }),
            }
        }
        if bad.is_empty() { Ok(book) } else { Err(BadPrices(bad)) }
    }

    /// Whether the row was new.
    fn add(&mut self, row: PriceRow, version: u32) -> Result<bool, String> {
        let price = row.price(version)?;
        let prices = self.prices.entry(row.campaign_id.clone()).or_default();
        match prices.binary_search_by_key(&price.valid_from, |p| p.valid_from) {
            Err(place) => {
                prices.insert(place, price);
                Ok(true)
            }
            Ok(place) => {
                let old = prices.get(place).unwrap_or(&NO_PRICE);
                let is_same =
                    (old.model, old.price_micros, old.currency) == (price.model, price.price_micros, price.currency);
                if is_same {
                    return Ok(false);
                }
                Err(format!(
                    "campaign {} already has another price from {} ({} {} {}): give the new price a later validFrom",
                    row.campaign_id,
                    price.valid_from,
                    old.model.as_str(),
                    old.price_micros,
                    old.currency
                ))
            }
        }
    }

    /// What `newer` changes: each stretch of time in which a campaign has another price.
    #[must_use]
    pub fn changes<'a>(&'a self, newer: &'a Self) -> Vec<PriceChange<'a>> {
        let mut changes = Vec::new();
        for (campaign, prices) in &newer.prices {
            for (i, price) in prices.iter().enumerate() {
                let before = self.in_force(campaign.as_str(), price.valid_from);
                if before.version != price.version || before.valid_from != price.valid_from {
                    let until = prices.get(i + 1).map(|next| next.valid_from);
                    changes.push(PriceChange { campaign, until, before, after: price });
                }
            }
        }
        changes
    }
}

/// A stretch of time, from `after.valid_from`, in which a campaign gets another price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceChange<'a> {
    /// The campaign.
    pub campaign: &'a CampaignId,
    /// Where it ends (exclusive); absent where no later price is known.
    pub until: Option<Timestamp>,
    /// What was in force at its beginning; [`NO_PRICE`] for nothing.
    pub before: &'a Price,
    /// What is.
    pub after: &'a Price,
}

impl PriceChange<'_> {
    /// Whether a campaign that paid in one currency now pays in another: rarely meant.
    #[must_use]
    pub fn changes_currency(&self) -> bool {
        *self.before != NO_PRICE && self.before.currency != self.after.currency
    }

    /// Whether some of a day lies in it.
    #[must_use]
    pub fn touches(&self, day: Day) -> bool {
        self.after.valid_from < day.end() && self.until.is_none_or(|until| until > day.start())
    }
}

const _: () = assert!(NANOS_PER_MICRO == 1_000, "a CPM price in micros is nanos per impression only at this scale");

#[cfg(test)]
mod tests {
    use super::*;

    fn row(campaign: &str, model: PriceModel, micros: i64, from: &str) -> PriceRow {
        PriceRow {
            campaign_id: CampaignId::new(campaign).unwrap(),
            model,
            price_micros: micros,
            currency: Currency::parse("EUR").unwrap(),
            valid_from: from.to_owned(),
        }
    }

    #[test]
    fn the_price_in_force_changes_at_its_first_instant() {
        let book = PriceBook::default()
            .import([
                row("c", PriceModel::Cpc, 5, "2026-01-02T00:00:00Z"),
                row("c", PriceModel::Cpm, 7, "2026-01-03T00:00:00Z"),
            ])
            .unwrap();
        let at = |t: &str| book.in_force("c", Timestamp::parse(t).unwrap()).clone();
        assert_eq!(at("2026-01-01T23:59:59.999999Z"), NO_PRICE);
        assert_eq!(at("2026-01-02T00:00:00Z").model, PriceModel::Cpc);
        assert_eq!(at("2026-01-03T00:00:00Z").model, PriceModel::Cpm);
        assert_eq!(at("2026-01-03T00:00:00Z").cost(EventKind::Impression, None, None).unwrap().nanos, 7);
        assert_eq!(at("2026-01-02T00:00:00Z").cost(EventKind::Click, None, None).unwrap().nanos, 5_000);
        assert_eq!(book.in_force("other", Timestamp::MAX), &NO_PRICE);
        for t in ["2026-01-01T23:59:59.999999Z", "2026-01-02T00:00:00Z", "2026-01-02T12:00:00Z", "2026-01-03T00:00:00Z"]
        {
            let at = Timestamp::parse(t).unwrap();
            let (price, during) = book.in_force_during("c", at);
            assert!(during.contains(&at), "{t}");
            for inside in [during.start, during.end.plus(-1)] {
                assert_eq!(book.in_force("c", inside), price);
            }
            assert!(during.start == Timestamp(i64::MIN) || book.in_force("c", during.start.plus(-1)) != price);
            assert!(during.end == Timestamp(i64::MAX) || book.in_force("c", during.end) != price);
        }
    }

    #[test]
    fn importing_twice_changes_nothing_and_a_contradiction_names_its_row() {
        let rows = [row("c", PriceModel::Cpc, 5, "2026-01-02T00:00:00Z")];
        let book = PriceBook::default().import(rows.clone()).unwrap();
        assert_eq!(book.import(rows).unwrap(), book);
        let error = book.import([row("c", PriceModel::Cpc, 6, "2026-01-02T00:00:00Z")]).unwrap_err();
        assert_eq!(error.0[0].row, 1);
    }

    #[test]
    fn every_bad_row_is_named_at_once() {
        let good = row("c", PriceModel::Cpc, 5, "2026-01-02T00:00:00Z");
        let none = PriceRow { currency: Currency::NONE, ..row("c", PriceModel::Cpa, 1, "2026-01-05T00:00:00Z") };
        let rows = [
            good.clone(),
            row("c", PriceModel::Cpc, -1, "2026-01-03T00:00:00Z"),
            row("c", PriceModel::Cpc, MAX_MICROS + 1, "2026-01-03T00:00:00Z"),
            row("c", PriceModel::Cpm, 5, "2026-01-02T00:00:00Z"),
            row("c", PriceModel::Cpc, 5, "yesterday"),
            none,
            good,
        ];
        let bad = PriceBook::default().import(rows).unwrap_err();
        assert_eq!(bad.0.iter().map(|b| b.row).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn changes_are_the_stretches_of_time_with_another_price() {
        let at = |t: &str| Timestamp::parse(t).unwrap();
        let old = PriceBook::default().import([row("c", PriceModel::Cpc, 5, "2026-01-02T00:00:00Z")]).unwrap();
        let dollars = PriceRow {
            currency: Currency::parse("USD").unwrap(),
            ..row("c", PriceModel::Cpc, 6, "2026-01-04T12:00:00Z")
        };
        let new = old.import([dollars, row("d", PriceModel::Cpm, 1, "2026-01-01T00:00:00Z")]).unwrap();
        let changes = old.changes(&new);
        assert_eq!(changes.len(), 2);
        let (c, d) = (changes[0], changes[1]);
        assert_eq!((c.after.valid_from, c.until, c.before.price_micros), (at("2026-01-04T12:00:00Z"), None, 5));
        assert!(c.changes_currency() && !d.changes_currency());
        let days: Vec<bool> =
            ["03", "04", "05"].map(|d| c.touches(Day::parse(&format!("2026-01-{d}")).unwrap())).into();
        assert_eq!(days, [false, true, true]);
        assert_eq!(new.changes(&new), []);
    }
}

//! The price book: what a campaign pays, from when, in which currency (contract 2.6 and 2.8).
//! Pure: a book is a value with a version; importing makes a new value. Cost is integer nanos, checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::EventKind;
use crate::id::CampaignId;
use crate::money::{Currency, MAX_MICROS, NANOS_PER_MICRO, Overflow, nanos};
use crate::time::Timestamp;

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
    pub row: usize,
    /// What is wrong and what to do.
    pub why: String,
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
        let prices = self.prices.get(campaign).map_or(&[][..], Vec::as_slice);
        let after = prices.partition_point(|p| p.valid_from <= at);
        after.checked_sub(1).and_then(|i| prices.get(i)).unwrap_or(&NO_PRICE)
    }

    /// The book with `rows` added, one version newer; the same book when every row is already in it.
    ///
    /// # Errors
    /// [`BadPrice`] for the first row that is out of range or contradicts a price with the same start.
    pub fn import(&self, rows: impl IntoIterator<Item = PriceRow>) -> Result<Self, BadPrice> {
        let mut book = self.clone();
        let version = self.version + 1;
        for (i, row) in rows.into_iter().enumerate() {
            let fail = |why: String| BadPrice { row: i + 1, why };
            let valid_from = Timestamp::parse(&row.valid_from)
                .ok_or_else(|| fail(format!("validFrom {:?} is not an RFC 3339 time", row.valid_from)))?;
            if !(0..=MAX_MICROS).contains(&row.price_micros) {
                return Err(fail(format!("priceMicros {} is not in 0..={MAX_MICROS}", row.price_micros)));
            }
            let price =
                Price { valid_from, model: row.model, price_micros: row.price_micros, currency: row.currency, version };
            let prices = book.prices.entry(row.campaign_id.clone()).or_default();
            match prices.binary_search_by_key(&valid_from, |p| p.valid_from) {
                Err(place) => {
                    prices.insert(place, price);
                    book.version = version;
                }
                Ok(place) => {
                    let old = prices.get(place).unwrap_or(&NO_PRICE);
                    let same = (old.model, old.price_micros, old.currency)
                        == (price.model, price.price_micros, price.currency);
                    if !same {
                        return Err(fail(format!(
                            "campaign {} already has another price from {valid_from}: give the new price a later validFrom",
                            row.campaign_id
                        )));
                    }
                }
            }
        }
        Ok(book)
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
    }

    #[test]
    fn importing_twice_changes_nothing_and_a_contradiction_names_its_row() {
        let rows = [row("c", PriceModel::Cpc, 5, "2026-01-02T00:00:00Z")];
        let book = PriceBook::default().import(rows.clone()).unwrap();
        assert_eq!(book.import(rows).unwrap(), book);
        let error = book.import([row("c", PriceModel::Cpc, 6, "2026-01-02T00:00:00Z")]).unwrap_err();
        assert_eq!(error.row, 1);
    }
}

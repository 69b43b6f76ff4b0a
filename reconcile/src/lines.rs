//! Settlement lines: one row of `gold/billing_day` each, with its version and the one rounding to micros.
//! Owns: the columns, their order and the order of rows. Pure.
//! Never: rounds twice; the rounded amount is derived from the unrounded one beside it.

use arrow::array::RecordBatch;
use shared::id::{AdId, CampaignId};
use shared::money::{Currency, Overflow, micros_half_even};
use shared::price::PriceModel;
use shared::rollup::Counts;
use shared::time::Day;
use shared::verdict::{InvalidCode, Verdict};

use crate::checksum::Sha256Sum;
use crate::columns::Columns;
use crate::error::Error;
use crate::gold::counts_of;

/// The verdicts that are not billed, each with its column.
pub(crate) const EXCLUDED: [(Verdict, &str); 9] = [
    (Verdict::Duplicate, "duplicates"),
    (Verdict::Conflict, "conflicts"),
    (Verdict::RepeatClick, "repeat_clicks"),
    (Verdict::Invalid(InvalidCode::BadSignature), "invalid_bad_signature"),
    (Verdict::Invalid(InvalidCode::Expired), "invalid_expired"),
    (Verdict::Invalid(InvalidCode::KnownBot), "invalid_known_bot"),
    (Verdict::Invalid(InvalidCode::DatacenterIp), "invalid_datacenter_ip"),
    (Verdict::Invalid(InvalidCode::Rate), "invalid_rate"),
    (Verdict::Invalid(InvalidCode::InactiveAd), "invalid_inactive_ad"),
];

/// The columns of a settlement file, in order. `cost` (CSV only) is `cost_micros` as a decimal of the currency unit.
pub(crate) const COLUMNS: [&str; 22] = [
    "day",
    "version",
    "campaign_id",
    "ad_id",
    "currency",
    "price_model",
    "price_version",
    "impressions",
    "clicks",
    "conversions",
    "cost_nanos",
    "cost_micros",
    "cost",
    "duplicates",
    "conflicts",
    "repeat_clicks",
    "invalid_bad_signature",
    "invalid_expired",
    "invalid_known_bot",
    "invalid_datacenter_ip",
    "invalid_rate",
    "invalid_inactive_ad",
];

/// What makes a line one line; lines are sorted by it, and no two of a settlement share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LineKey {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The ad.
    pub ad_id: AdId,
    /// The cost's currency.
    pub currency: Currency,
    /// How it pays, by its word: the order of words, which any reader can check.
    pub price_model: &'static str,
    /// The price book version that brought the price in.
    pub price_version: u32,
}

impl LineKey {
    /// From the cells of a row in the order of [`COLUMNS`].
    pub(crate) fn from_cells(cells: &[String]) -> Result<Self, String> {
        let [_, _, campaign, ad, currency, model, price, ..] = cells else { return Err("it is too short".to_owned()) };
        Ok(Self {
            campaign_id: cell("campaign_id", campaign, CampaignId::new(campaign).ok())?,
            ad_id: cell("ad_id", ad, AdId::new(ad).ok())?,
            currency: cell("currency", currency, Currency::parse(currency))?,
            price_model: cell("price_model", model, PriceModel::parse(model))?.as_str(),
            price_version: cell("price_version", price, price.parse().ok())?,
        })
    }
}

/// One settlement line without its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its key.
    pub key: LineKey,
    /// Billable counts and unrounded cost.
    pub counts: Counts,
    /// Counts of the other verdicts, in the order of [`EXCLUDED`].
    pub excluded: [u64; 9],
}

impl Line {
    /// The amount to settle: rounded half-even, once.
    ///
    /// # Errors
    /// [`Overflow`] when it is no i64.
    pub(crate) fn cost_micros(&self) -> Result<i64, Overflow> {
        micros_half_even(self.counts.cost_nanos)
    }

    /// Billable events.
    ///
    /// # Errors
    /// [`Overflow`].
    pub(crate) fn billable(&self) -> Result<u64, Overflow> {
        let c = &self.counts;
        c.impressions.checked_add(c.clicks).and_then(|n| n.checked_add(c.conversions)).ok_or(Overflow)
    }

    /// The cells in the order of [`COLUMNS`], unquoted.
    ///
    /// # Errors
    /// [`Overflow`] when the amount is no i64.
    pub(crate) fn cells(&self, day: Day, version: u32) -> Result<Vec<String>, Overflow> {
        let micros = self.cost_micros()?;
        let mut cells = vec![
            day.to_string(),
            version.to_string(),
            self.key.campaign_id.to_string(),
            self.key.ad_id.to_string(),
            self.key.currency.to_string(),
            self.key.price_model.to_owned(),
            self.key.price_version.to_string(),
            self.counts.impressions.to_string(),
            self.counts.clicks.to_string(),
            self.counts.conversions.to_string(),
            self.counts.cost_nanos.to_string(),
            micros.to_string(),
            decimal(micros),
        ];
        cells.extend(self.excluded.iter().map(u64::to_string));
        Ok(cells)
    }

    /// Feeds the checksum of a settlement's content: every cell but the version, so that two versions with the
    /// same lines have the same checksum. Cells are joined by a comma, lines end in a line feed.
    pub(crate) fn feed(&self, day: Day, content: &mut Sha256Sum) -> Result<(), Overflow> {
        let mut cells = self.cells(day, 0)?;
        cells.remove(1);
        content.update(cells.join(",").as_bytes());
        content.update(b"\n");
        Ok(())
    }
}

/// One row of a settlement file as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) day: Day,
    pub(crate) version: u32,
    pub(crate) line: Line,
}

impl Printed {
    /// From the cells of one row. Every cell must be what the line itself would print, so an amount that is not
    /// the rounded one, or a number in another spelling, is found and its column named.
    pub(crate) fn from_cells(cells: &[String]) -> Result<Self, String> {
        let cells: &[String; 22] =
            cells.try_into().map_err(|_| format!("it has {} cells, not {}", cells.len(), COLUMNS.len()))?;
        let [day, version, _, _, _, _, _, impressions, clicks, conversions, nanos, ..] = cells;
        let line = Line {
            key: LineKey::from_cells(cells)?,
            counts: Counts {
                impressions: cell("impressions", impressions, impressions.parse().ok())?,
                clicks: cell("clicks", clicks, clicks.parse().ok())?,
                conversions: cell("conversions", conversions, conversions.parse().ok())?,
                cost_nanos: cell("cost_nanos", nanos, nanos.parse().ok())?,
            },
            excluded: excluded(cells)?,
        };
        let printed = Self {
            day: cell("day", day, Day::parse(day))?,
            version: cell("version", version, version.parse().ok())?,
            line,
        };
        let wanted = printed.line.cells(printed.day, printed.version).map_err(|e| e.to_string())?;
        match COLUMNS.iter().zip(cells).zip(&wanted).find(|((_, found), wanted)| found != wanted) {
            Some(((column, found), wanted)) => Err(format!("{column} is {found:?} and must be {wanted:?}")),
            None => Ok(printed),
        }
    }
}

fn cell<T>(column: &str, text: &str, parsed: Option<T>) -> Result<T, String> {
    parsed.ok_or_else(|| format!("{column} is {text:?}"))
}

fn excluded(cells: &[String]) -> Result<[u64; 9], String> {
    let mut counts = [0; 9];
    let columns = cells.iter().skip(COLUMNS.len() - EXCLUDED.len());
    for ((count, text), (_, column)) in counts.iter_mut().zip(columns).zip(EXCLUDED) {
        *count = cell(column, text, text.parse().ok())?;
    }
    Ok(counts)
}

/// Micros as a decimal of the currency unit with six digits, such as `-0.000001`.
#[must_use]
pub(crate) fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let amount = micros.unsigned_abs();
    format!("{sign}{}.{:06}", amount / 1_000_000, amount % 1_000_000)
}

/// The lines in a batch of `gold/billing_day`.
///
/// # Errors
/// [`Error::Damaged`] when a column is missing or holds what it must not.
pub(crate) fn from_gold(batch: &RecordBatch, what: &str) -> Result<Vec<Line>, Error> {
    let c = Columns::of(batch, what);
    let (campaigns, ads, currencies) = (c.text("campaign_id")?, c.text("ad_id")?, c.text("currency")?);
    let (models, versions) = (c.text("price_model")?, c.counts("price_version")?);
    let excluded: Vec<Vec<u64>> = EXCLUDED.iter().map(|(_, name)| c.counts(name)).collect::<Result<_, _>>()?;
    let mut lines = Vec::with_capacity(batch.num_rows());
    for (i, (counts, version)) in counts_of(&c)?.into_iter().zip(versions).enumerate() {
        let (campaign, ad) = (campaigns.value(i), ads.value(i));
        let (currency, model) = (currencies.value(i), models.value(i));
        let key = LineKey {
            campaign_id: c.parse("campaign_id", campaign, CampaignId::new(campaign).ok())?,
            ad_id: c.parse("ad_id", ad, AdId::new(ad).ok())?,
            currency: c.parse("currency", currency, Currency::parse(currency))?,
            price_model: c.parse("price_model", model, PriceModel::parse(model))?.as_str(),
            price_version: c.parse("price_version", "a number", u32::try_from(version).ok())?,
        };
        let mut counts_excluded = [0; 9];
        for (slot, column) in counts_excluded.iter_mut().zip(&excluded) {
            *slot = column.get(i).copied().unwrap_or_default();
        }
        lines.push(Line { key, counts, excluded: counts_excluded });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_has_six_digits_and_its_sign() {
        for (micros, text) in [
            (0, "0.000000"),
            (1, "0.000001"),
            (-1, "-0.000001"),
            (1_500_000, "1.500000"),
            (i64::MIN, "-9223372036854.775808"),
        ] {
            assert_eq!(decimal(micros), text);
        }
    }

    #[test]
    fn every_verdict_but_billable_has_a_column() {
        let columns: Vec<Verdict> = EXCLUDED.iter().map(|(v, _)| *v).collect();
        assert_eq!(columns, Verdict::ALL[1..]);
        assert_eq!(COLUMNS[13..], EXCLUDED.map(|(_, name)| name));
    }
}

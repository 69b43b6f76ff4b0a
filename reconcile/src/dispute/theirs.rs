//! A partner's sheet → what they counted, by campaign and day, by campaign and hour, or by click.
//! Guarantee: a row that cannot be read is an error with its number; nothing is skipped silently but days that were
//! not asked for. Amounts become integer nanos; a decimal is never a float.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::money::{Currency, NANOS_PER_MICRO};
use shared::rollup::Counts;
use shared::time::{DAY, Day, HOUR};

use super::fields::{Field, Mapping};
use super::when::{self, Zone};
use super::{Error, Sheet};

/// What one number of theirs is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// A campaign's day.
    Day,
    /// A campaign's hour.
    Hour,
    /// One click.
    Click,
}

/// The unit of their amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Integer micros of the currency.
    Micros,
    /// Decimal of the currency.
    Decimal,
}

/// How their file is to be read.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Which column is what.
    pub mapping: Mapping,
    /// What a row is about; found from the columns where it is not said.
    pub grain: Option<Grain>,
    /// The unit of amounts; found from the column's name where it is not said.
    pub unit: Option<Unit>,
    /// Their time zone.
    pub zone: Zone,
    /// Only this day of theirs; needed where the file has no dates.
    pub day: Option<Day>,
}

/// Whom and when a number is about: a campaign's period, or a click.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The campaign, or the click.
    pub who: String,
    /// The currency, where their file names it.
    pub currency: Option<Currency>,
    /// The start of the period on their wall clock; 0 for a click.
    pub period: i64,
}

/// What a partner counted.
#[derive(Debug, Clone)]
pub struct Theirs {
    /// What a number is about.
    pub grain: Grain,
    /// Their time zone.
    pub zone: Zone,
    /// Which counts they give: impressions, clicks, conversions.
    pub counted: [bool; 3],
    /// Whether they give amounts.
    pub has_amounts: bool,
    /// Whether they name currencies.
    pub has_currency: bool,
    /// Their days that are compared.
    pub days: BTreeSet<Day>,
    /// Rows read.
    pub rows: u64,
    /// Their numbers.
    pub numbers: BTreeMap<Key, Counts>,
}

impl Theirs {
    /// From a sheet.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the row and the column, or what is missing.
    pub fn read(sheet: &Sheet, reading: &Reading) -> Result<Self, Error> {
        let places = reading.mapping.places(&sheet.columns)?;
        let has = |field: Field| places.contains_key(&field);
        let grain = reading.grain.unwrap_or(match (has(Field::Event), has(Field::Time)) {
            (true, _) => Grain::Click,
            (false, true) => Grain::Hour,
            (false, false) => Grain::Day,
        });
        let needed: &[Field] = match grain {
            Grain::Click => &[Field::Event],
            Grain::Hour => &[Field::Campaign, Field::Time],
            Grain::Day => &[Field::Campaign],
        };
        if let Some(missing) = needed.iter().find(|f| !has(**f)) {
            let name = missing.as_str();
            return Err(Error::Invalid(format!("no column is the {name}: name it with --map {name}=COLUMN")));
        }
        let counted = match grain {
            Grain::Click => [false, true, false],
            _ => [Field::Impressions, Field::Clicks, Field::Conversions].map(has),
        };
        let has_amounts = has(Field::Amount);
        if !has_amounts && counted == [false; 3] {
            let all = sheet.columns.join(", ");
            return Err(Error::Invalid(format!("no column has counts or amounts (--map); it has {all}")));
        }
        let micros = places
            .get(&Field::Amount)
            .and_then(|i| sheet.columns.get(*i))
            .is_some_and(|name| name.to_ascii_lowercase().ends_with("micros"));
        let unit = reading.unit.unwrap_or(if micros { Unit::Micros } else { Unit::Decimal });
        let mut theirs = Self {
            grain,
            zone: reading.zone,
            counted,
            has_amounts,
            has_currency: has(Field::Currency),
            days: reading.day.into_iter().collect(),
            rows: 0,
            numbers: BTreeMap::new(),
        };
        for (n, cells) in (1_u64..).zip(&sheet.rows) {
            let row = Row { cells, places: &places };
            theirs.add(&row, reading, unit).map_err(|why| Error::Invalid(format!("row {n} of their file: {why}")))?;
        }
        if theirs.days.is_empty() {
            return Err(Error::Invalid("their file has no rows; name the day with --date".to_owned()));
        }
        Ok(theirs)
    }

    fn add(&mut self, row: &Row<'_>, reading: &Reading, unit: Unit) -> Result<(), String> {
        let (date, time) = (row.cell(Field::Date), row.cell(Field::Time));
        let local = match (date, time, reading.day) {
            (None, None, Some(day)) => day.start().0,
            (None, None, None) => return Err("it has no date: name the day with --date".to_owned()),
            _ => when::local(date, time, reading.zone)
                .ok_or_else(|| format!("{:?} {:?} is no time we know", date.unwrap_or(""), time.unwrap_or("")))?,
        };
        let day = when::day_of(local);
        if reading.day.is_some_and(|only| only != day) {
            return Ok(());
        }
        self.rows += 1;
        self.days.insert(day);
        let who = if self.grain == Grain::Click { Field::Event } else { Field::Campaign };
        let who = row.cell(who).ok_or_else(|| format!("{} is empty", who.as_str()))?;
        let currency = match row.cell(Field::Currency) {
            None => None,
            Some(text) => Some(Currency::parse(text).ok_or_else(|| format!("{text:?} is not an ISO 4217 code"))?),
        };
        let period = match self.grain {
            Grain::Click => 0,
            Grain::Hour => local - local.rem_euclid(HOUR),
            Grain::Day => local - local.rem_euclid(DAY),
        };
        let counts = Counts {
            impressions: row.count(Field::Impressions)?,
            clicks: if self.grain == Grain::Click { 1 } else { row.count(Field::Clicks)? },
            conversions: row.count(Field::Conversions)?,
            cost_nanos: row.cell(Field::Amount).map_or(Ok(0), |text| nanos(text, unit))?,
        };
        // Our own files keep a spreadsheet from reading an id as a formula by an apostrophe; ids never hold one.
        let key = Key { who: who.trim_start_matches('\'').to_owned(), currency, period };
        let sum = self.numbers.entry(key).or_default();
        *sum = sum.merge(&counts).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// One row with its cells' places.
struct Row<'a> {
    cells: &'a [String],
    places: &'a BTreeMap<Field, usize>,
}

impl<'a> Row<'a> {
    fn cell(&self, field: Field) -> Option<&'a str> {
        self.cells.get(*self.places.get(&field)?).map(|c| c.trim()).filter(|c| !c.is_empty())
    }

    fn count(&self, field: Field) -> Result<u64, String> {
        let Some(text) = self.cell(field) else { return Ok(0) };
        let plain = text.replace(',', "");
        let whole = plain.strip_suffix(".0").unwrap_or(&plain);
        whole.parse().map_err(|_| format!("{} is {text:?}, not a count", field.as_str()))
    }
}

/// An amount as nanos.
fn nanos(text: &str, unit: Unit) -> Result<i128, String> {
    let bad = || format!("amount is {text:?}, not a number (1234.56, or micros with --amount micros)");
    if unit == Unit::Micros {
        let micros: i64 = text.parse().map_err(|_| bad())?;
        return Ok(i128::from(micros) * i128::from(NANOS_PER_MICRO));
    }
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.replace(',', "");
    // Digits beyond a nano are what a float left behind.
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let is_number = |t: &str| !t.is_empty() && t.len() <= 24 && t.bytes().all(|b| b.is_ascii_digit());
    if !is_number(&whole) || !is_number(&fraction) {
        return Err(bad());
    }
    let (whole, fraction): (i128, i128) = (whole.parse().map_err(|_| bad())?, fraction.parse().map_err(|_| bad())?);
    Ok(sign * (whole * 1_000_000_000 + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(columns: &[&str], rows: &[&[&str]]) -> Sheet {
        let text = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        Sheet { columns: text(columns), rows: rows.iter().map(|r| text(r)).collect() }
    }

    #[test]
    fn amounts_are_exact_whatever_their_form() {
        for (text, unit, wanted) in [
            ("1,234.5", Unit::Decimal, 1_234_500_000_000),
            ("-0.000001", Unit::Decimal, -1_000),
            ("7", Unit::Decimal, 7_000_000_000),
            ("7", Unit::Micros, 7_000),
        ] {
            assert_eq!(nanos(text, unit), Ok(wanted), "{text}");
        }
        for bad in ["", "1.2.3", "€5", "1e3", "."] {
            assert!(nanos(bad, Unit::Decimal).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_grain_follows_from_the_columns_and_rows_of_one_key_add_up() {
        let days = sheet(&["campaign", "date", "clicks"], &[&["c", "2026-01-05", "3"], &["c", "2026-01-05", "4"]]);
        let read = Theirs::read(&days, &Reading::default()).unwrap();
        assert_eq!((read.grain, read.rows, read.numbers.len()), (Grain::Day, 2, 1));
        assert_eq!(read.numbers.values().next().unwrap().clicks, 7);
        let hours = sheet(&["campaign", "day", "hour", "clicks"], &[&["c", "2026-01-05", "3", "4"]]);
        assert_eq!(Theirs::read(&hours, &Reading::default()).unwrap().grain, Grain::Hour);
        let clicks = sheet(&["click_id", "time"], &[&["'-x", "2026-01-05T23:30:00Z"]]);
        let read = Theirs::read(&clicks, &Reading { zone: Zone(60), ..Reading::default() }).unwrap();
        assert_eq!((read.grain, read.days.first()), (Grain::Click, Day::parse("2026-01-06").as_ref()));
        assert_eq!(read.numbers.keys().next().unwrap().who, "-x");
    }

    #[test]
    fn a_row_that_does_not_read_is_named() {
        let bad = sheet(&["campaign", "date", "clicks"], &[&["c", "2026-01-05", "3"], &["c", "2026-01-05", "many"]]);
        let error = Theirs::read(&bad, &Reading::default()).unwrap_err().to_string();
        assert!(error.contains("row 2") && error.contains("many"), "{error}");
        let undated = sheet(&["campaign", "clicks"], &[&["c", "3"]]);
        assert!(Theirs::read(&undated, &Reading::default()).unwrap_err().to_string().contains("--date"));
    }
}

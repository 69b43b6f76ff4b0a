//! Rows of an adjustment file: CSV or NDJSON in, checked adjustments out, every problem with its row and field.
//! Guarantee: all rows or none, and all problems at once. Never: repairs a field or guesses an absent one, except
//! that absent quantities and notes are none.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use shared::id::{AdId, CampaignId, RefId};
use shared::money::Currency;
use shared::time::Day;

use super::adjustment::{Adjustment, Corrects, Reason};

/// The columns of a file, in the order of [`Adjustment::cells`].
pub(crate) const FIELDS: [&str; 13] = [
    "adjustmentId",
    "day",
    "campaignId",
    "adId",
    "currency",
    "impressions",
    "clicks",
    "conversions",
    "amountMicros",
    "reason",
    "note",
    "actor",
    "corrects",
];
/// The longest note in bytes.
const MAX_NOTE_BYTES: usize = 500;
/// The longest actor in bytes.
const MAX_ACTOR_BYTES: usize = 100;
/// The most events one row may add or take, either way.
const MAX_EVENTS: i64 = 1_000_000_000_000;
/// The largest amount one row may add or take, in micros: a thousand million currency units.
const MAX_AMOUNT_MICROS: i64 = 1_000_000_000_000_000;
/// The most problems a message shows.
const SHOWN: usize = 100;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180 with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// An adjustment and the row it stands in (the first data row is 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The row's number.
    pub number: u64,
    /// What it says.
    pub adjustment: Adjustment,
}

/// One thing that is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The row's number; the first data row is 1.
    pub row: u64,
    /// The field; empty where it is about the whole row.
    pub field: &'static str,
    /// What is wrong and what to do.
    pub why: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            "" => write!(f, "row {}: {}", self.row, self.why),
            field => write!(f, "row {}, {field}: {}", self.row, self.why),
        }
    }
}

/// Problems as lines of text, up to a limit.
pub(crate) fn lines(problems: &[BadRow]) -> String {
    let mut lines: Vec<String> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more) = problems.len().checked_sub(SHOWN).filter(|n| *n > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

/// The adjustments in a file's bytes.
///
/// # Errors
/// Every problem of every row.
pub fn read_rows(bytes: &[u8], format: Format) -> Result<Vec<Row>, Vec<BadRow>> {
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    let texts = match format {
        Format::Csv => csv_rows(bytes),
        Format::Ndjson => json_rows(bytes),
    };
    for (number, text) in (1..).zip(texts) {
        let mut fields = Fields { row: number, cells: BTreeMap::new(), problems: Vec::new() };
        match text {
            Ok(cells) => fields.cells = cells,
            Err(why) => fields.bad("", why),
        }
        let adjustment = if fields.problems.is_empty() { fields.adjustment() } else { None };
        problems.append(&mut fields.problems);
        rows.extend(adjustment.map(|adjustment| Row { number, adjustment }));
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

type Cells = BTreeMap<String, String>;

fn csv_rows(bytes: &[u8]) -> Vec<Result<Cells, String>> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    reader.deserialize::<Cells>().map(|row| row.map_err(|e| e.to_string())).collect()
}

fn json_rows(bytes: &[u8]) -> Vec<Result<Cells, String>> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    lines.map(json_row).collect()
}

fn json_row(line: &[u8]) -> Result<Cells, String> {
    let object: BTreeMap<String, Value> = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let text = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(number) => Ok((name, number.to_string())),
        Value::Null => Ok((name, String::new())),
        other => Err(format!("{name} is neither text nor a number: {other}")),
    };
    object.into_iter().map(text).collect()
}

/// One row's cells and what is wrong with them.
struct Fields {
    row: u64,
    cells: Cells,
    problems: Vec<BadRow>,
}

impl Fields {
    fn bad(&mut self, field: &'static str, why: impl Into<String>) {
        self.problems.push(BadRow { row: self.row, field, why: why.into() });
    }

    fn text(&self, field: &str) -> String {
        self.cells.get(field).cloned().unwrap_or_default()
    }

    fn parse<T>(&mut self, field: &'static str, wanted: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(field);
        let parsed = parse(&text);
        if parsed.is_none() {
            self.bad(
                field,
                if text.is_empty() {
                    format!("it is missing; give {wanted}")
                } else {
                    format!("{text:?} is not {wanted}")
                },
            );
        }
        parsed
    }

    fn optional<T>(
        &mut self,
        field: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.text(field).is_empty() { Some(None) } else { self.parse(field, wanted, parse).map(Some) }
    }

    fn number(&mut self, field: &'static str, limit: i64) -> Option<i64> {
        let wanted = format!("a whole number from -{limit} to {limit}");
        let parse = |text: &str| text.parse::<i64>().ok().filter(|n| (-limit..=limit).contains(n));
        self.optional(field, &wanted, parse).map(Option::unwrap_or_default)
    }

    fn plain(&mut self, field: &'static str, limit: usize) -> Option<String> {
        let text = self.text(field);
        if text.len() > limit || text.chars().any(char::is_control) {
            self.bad(field, format!("it must be at most {limit} bytes of plain text"));
            return None;
        }
        Some(text)
    }

    /// Reads every field, so that every problem is named.
    fn adjustment(&mut self) -> Option<Adjustment> {
        for name in self.cells.keys().filter(|n| !FIELDS.contains(&n.as_str())).cloned().collect::<Vec<_>>() {
            self.bad("", format!("there is no field {name:?}; the fields are {}", FIELDS.join(", ")));
        }
        let id = self.parse("adjustmentId", "an id of 1 to 64 of A-Z a-z 0-9 _ -", |t| RefId::new(t).ok());
        let day = self.parse("day", "a UTC day such as 2026-01-05", Day::parse);
        let campaign_id = self.parse("campaignId", "an id", |t| CampaignId::new(t).ok());
        let ad_id = self.optional("adId", "an id", |t| AdId::new(t).ok());
        let currency = self.parse("currency", "an ISO 4217 code", Currency::parse);
        let events = ["impressions", "clicks", "conversions"].map(|field| self.number(field, MAX_EVENTS));
        let amount_micros = self.number("amountMicros", MAX_AMOUNT_MICROS);
        let reasons = Reason::ALL.map(Reason::as_str).join(", ");
        let reason = self.parse("reason", &format!("one of {reasons}"), Reason::parse);
        let note = self.plain("note", MAX_NOTE_BYTES);
        let actor = self.plain("actor", MAX_ACTOR_BYTES);
        if actor.as_ref().is_some_and(String::is_empty) {
            self.bad("actor", "it is missing; say who answers for the adjustment");
        }
        let corrects = self.optional("corrects", "a settlement sequence or DAY/VERSION", Corrects::parse);
        let [Some(impressions), Some(clicks), Some(conversions)] = events else { return None };
        let (events, amount_micros) = ([impressions, clicks, conversions], amount_micros?);
        if events == [0; 3] && amount_micros == 0 {
            self.bad("amountMicros", "nothing is corrected: all quantities and the amount are 0");
        }
        if currency == Some(Currency::NONE) && amount_micros != 0 {
            self.bad("currency", "XXX is no currency: an amount needs one");
        }
        let (ad_id, corrects) = (ad_id?, corrects?);
        let (id, day, campaign_id, currency) = (id?, day?, campaign_id?, currency?);
        let (reason, note, actor) = (reason?, note?, actor?);
        let adjustment =
            Adjustment { id, day, campaign_id, ad_id, currency, events, amount_micros, reason, note, actor, corrects };
        self.problems.is_empty().then_some(adjustment)
    }
}

/// An adjustment from the cells it prints, for files of our own.
pub(crate) fn from_cells(cells: &[String]) -> Result<Adjustment, String> {
    let cells: Cells = FIELDS.iter().map(|f| (*f).to_owned()).zip(cells.iter().cloned()).collect();
    let mut fields = Fields { row: 0, cells, problems: Vec::new() };
    fields.adjustment().ok_or_else(|| {
        let what = |p: &BadRow| format!("{}: {}", p.field, p.why);
        fields.problems.iter().map(what).collect::<Vec<_>>().join("; ")
    })
}

//! The conservation gate: the books of a run, summed by another engine over the very files about to be published.
//! archived = Σ verdicts for every hour; silver = ad minutes = campaign hours for every hour and currency; silver =
//! billing lines for every currency and verdict; billable events = leaves. Integers, to the unit and the nano.
//! Guarantee: pure comparison; what does not balance is named line by line. Never: repairs, or trusts a counter of
//! the code that wrote the files.

use std::collections::{BTreeMap, BTreeSet};

use lake::run_record::{HourConservation, Totals};
use shared::event::EventKind;
use shared::money::Currency;
use shared::time::{Day, HOUR, Timestamp};
use shared::verdict::Verdict;

use crate::engine::{Engine, Sums};
use crate::error::{Difference, Error};

const BRONZE_HOURS: &str = include_str!("../../sql/batch/01_count_bronze_hours.sql");
const SILVER: &str = include_str!("../../sql/batch/02_sum_silver.sql");
const AD_MINUTES: &str = include_str!("../../sql/batch/03_sum_ad_minutes.sql");
const CAMPAIGN_HOURS: &str = include_str!("../../sql/batch/04_sum_campaign_hours.sql");
const BILLING_LINES: &str = include_str!("../../sql/batch/05_sum_billing_lines.sql");
const REFUSALS: &str = include_str!("../../sql/batch/06_count_refusals.sql");
const UNPRICED: &str = include_str!("../../sql/batch/07_list_unpriced_campaigns.sql");

/// The most campaigns a warning names one by one.
const NAMED_CAMPAIGNS: usize = 50;

/// The sums of every table of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Books {
    bronze: Sums,
    silver: Sums,
    ad_minutes: Sums,
    campaign_hours: Sums,
    billing: Sums,
    refusals: Sums,
    unpriced: Sums,
}

/// What the books say, for the run record.
pub(crate) struct Summary {
    /// Σ verdicts, every verdict.
    pub(crate) verdicts: BTreeMap<String, u64>,
    /// Billable counts and cost by currency.
    pub(crate) totals: BTreeMap<Currency, Totals>,
    /// All 24 hours.
    pub(crate) hours: Vec<HourConservation>,
    /// Refusals by reason.
    pub(crate) quarantined: BTreeMap<String, u64>,
    /// Sentences for a person.
    pub(crate) warnings: Vec<String>,
}

impl Books {
    /// Sums every table registered with `engine`.
    ///
    /// # Errors
    /// When a statement fails.
    pub(crate) async fn open(engine: &Engine) -> Result<Self, Error> {
        Ok(Self {
            bronze: engine.sums(BRONZE_HOURS, 1).await?,
            silver: engine.sums(SILVER, 4).await?,
            ad_minutes: engine.sums(AD_MINUTES, 2).await?,
            campaign_hours: engine.sums(CAMPAIGN_HOURS, 2).await?,
            billing: engine.sums(BILLING_LINES, 1).await?,
            refusals: engine.sums(REFUSALS, 1).await?,
            unpriced: engine.sums(UNPRICED, 1).await?,
        })
    }

    /// Every line that does not balance.
    pub(crate) fn differences(&self) -> Vec<Difference> {
        let mut found = Vec::new();
        let judged = group(&self.silver, |hour, _, _, _| vec![hour.to_owned()], |_, _, events, _| vec![events]);
        compare(&mut found, "archived events and their verdicts", &["events"], &self.bronze, &judged);
        let by_hour =
            group(&self.silver, |hour, verdict, currency, _| billable_key(verdict, &[hour, currency]), counts);
        let columns = ["impressions", "clicks", "conversions", "cost_nanos"];
        compare(&mut found, "silver and gold/ad_minute", &columns, &by_hour, &self.ad_minutes);
        compare(&mut found, "silver and gold/campaign_hour", &columns, &by_hour, &self.campaign_hours);
        let by_day = group(&self.silver, |_, _, currency, _| vec![currency.to_owned()], all_verdicts);
        let names: Vec<&str> = columns.into_iter().chain(Verdict::ALL.iter().skip(1).map(|v| v.as_str())).collect();
        compare(&mut found, "silver and gold/billing_day", &names, &by_day, &self.billing);
        for (key, values) in &self.silver {
            let is_billable = key.get(1).is_some_and(|v| v == Verdict::Billable.as_str());
            let cost = values.get(1).copied().unwrap_or(0);
            if !is_billable && cost != 0 {
                found.push(line(key, "cost of events that do not bill", 0, cost));
            }
        }
        found
    }

    /// Billable events that are not as many as the Merkle tree has leaves.
    pub(crate) fn tree_difference(&self, leaves: u64) -> Option<Difference> {
        let billable = |keys: &[String]| keys.get(1).is_some_and(|v| v == Verdict::Billable.as_str());
        let billed: i128 = self.silver.iter().filter(|(k, _)| billable(k)).map(|(_, v)| first(Some(v))).sum();
        (billed != i128::from(leaves)).then(|| line(&[], "silver's billable events and leaves", billed, leaves.into()))
    }

    /// What the record says about the day.
    ///
    /// # Errors
    /// When a sum is negative or does not fit.
    pub(crate) fn summary(&self, day: Day) -> Result<Summary, Error> {
        let by_verdict =
            group(&self.silver, |_, verdict, _, _| vec![verdict.to_owned()], |_, _, events, _| vec![events]);
        let of = |verdict: &Verdict| first(by_verdict.get(&vec![verdict.as_str().to_owned()]));
        let verdicts = Verdict::ALL.iter().map(|v| Ok((v.as_str().to_owned(), unsigned(of(v))?)));
        let by_currency = group(&self.silver, |_, verdict, currency, _| billable_key(verdict, &[currency]), counts);
        let totals = by_currency.iter().map(|(key, values)| Ok((currency(key)?, totals(values)?)));
        Ok(Summary {
            verdicts: verdicts.collect::<Result<_, Error>>()?,
            totals: totals.collect::<Result<_, Error>>()?,
            hours: day.hours().map(|hour| self.hour(hour)).collect::<Result<_, Error>>()?,
            quarantined: named(&self.refusals)?,
            warnings: self.warnings(),
        })
    }

    fn hour(&self, hour: Timestamp) -> Result<HourConservation, Error> {
        let number = (hour.0 / HOUR).to_string();
        let here = self.silver.iter().filter(|(key, _)| key.first() == Some(&number));
        let mut verdicts: BTreeMap<String, u64> = BTreeMap::new();
        for (key, values) in here {
            *verdicts.entry(key.get(1).cloned().unwrap_or_default()).or_default() += unsigned(first(Some(values)))?;
        }
        let archived = unsigned(first(self.bronze.get(&vec![number])))?;
        Ok(HourConservation { hour, archived, verdicts })
    }

    fn warnings(&self) -> Vec<String> {
        let billing = |(_, events): &(&Vec<String>, &Vec<i128>)| events.first().is_some_and(|n| *n > 0);
        let unpriced: Vec<_> = self.unpriced.iter().filter(billing).collect();
        let name = |(key, events): &(&Vec<String>, &Vec<i128>)| {
            let (campaign, events) = (key.first().map_or("", String::as_str), first(Some(*events)));
            format!("campaign {campaign} had no price in force for {events} billable events: they are free")
        };
        let mut warnings: Vec<String> = unpriced.iter().take(NAMED_CAMPAIGNS).map(name).collect();
        if let Some(more) = unpriced.len().checked_sub(NAMED_CAMPAIGNS).filter(|more| *more > 0) {
            warnings.push(format!("{more} more campaigns had no price in force"));
        }
        warnings
    }
}

/// Regroups the silver sums (hour, verdict, currency, type → events, cost) and adds up; an empty key is left out.
fn group(
    silver: &Sums,
    key: impl Fn(&str, &str, &str, &str) -> Vec<String>,
    values: impl Fn(&str, &str, i128, i128) -> Vec<i128>,
) -> Sums {
    let mut grouped = Sums::new();
    for (keys, sums) in silver {
        let ([hour, verdict, currency, kind], [events, cost]) = (keys.as_slice(), sums.as_slice()) else { continue };
        let key = key(hour, verdict, currency, kind);
        if key.is_empty() {
            continue;
        }
        let values = values(verdict, kind, *events, *cost);
        let totals: &mut Vec<i128> = grouped.entry(key).or_insert_with(|| vec![0; values.len()]);
        totals.iter_mut().zip(values).for_each(|(total, value)| *total += value);
    }
    grouped
}

fn billable_key(verdict: &str, key: &[&str]) -> Vec<String> {
    let is_billable = verdict == Verdict::Billable.as_str();
    if is_billable { key.iter().map(|k| (*k).to_owned()).collect() } else { Vec::new() }
}

/// Impressions, clicks, conversions and cost.
fn counts(verdict: &str, kind: &str, events: i128, cost: i128) -> Vec<i128> {
    let is_billable = verdict == Verdict::Billable.as_str();
    let of = |wanted: EventKind| if is_billable && kind == wanted.as_str() { events } else { 0 };
    let cost = if is_billable { cost } else { 0 };
    vec![of(EventKind::Impression), of(EventKind::Click), of(EventKind::Conversion), cost]
}

/// The same and the other verdicts, as a billing line has them.
fn all_verdicts(verdict: &str, kind: &str, events: i128, cost: i128) -> Vec<i128> {
    let others = Verdict::ALL.iter().skip(1).map(|v| if v.as_str() == verdict { events } else { 0 });
    counts(verdict, kind, events, cost).into_iter().chain(others).collect()
}

fn compare(found: &mut Vec<Difference>, what: &str, columns: &[&str], expected: &Sums, actual: &Sums) {
    let keys: BTreeSet<&Vec<String>> = expected.keys().chain(actual.keys()).collect();
    for key in keys {
        for (i, column) in columns.iter().enumerate() {
            let value = |sums: &Sums| sums.get(key).and_then(|values| values.get(i)).copied().unwrap_or(0);
            let (expected, actual) = (value(expected), value(actual));
            if expected != actual {
                found.push(line(key, &format!("{what}: {column}"), expected, actual));
            }
        }
    }
}

/// A difference, with the hour in words.
fn line(key: &[String], what: &str, expected: i128, found: i128) -> Difference {
    let hour = |text: &String| text.parse::<i64>().ok().and_then(|h| h.checked_mul(HOUR)).map(Timestamp);
    let words: Vec<String> = key.iter().map(|k| hour(k).map_or_else(|| k.clone(), |t| t.to_string())).collect();
    Difference { place: words.join(" "), what: what.to_owned(), expected, found }
}

fn first(values: Option<&Vec<i128>>) -> i128 {
    values.and_then(|v| v.first()).copied().unwrap_or(0)
}

fn unsigned(value: i128) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::Corrupt(format!("{value} is not a count")))
}

fn named(sums: &Sums) -> Result<BTreeMap<String, u64>, Error> {
    let name = |key: &Vec<String>| key.first().cloned().unwrap_or_default();
    sums.iter().map(|(key, values)| Ok((name(key), unsigned(first(Some(values)))?))).collect()
}

fn currency(key: &[String]) -> Result<Currency, Error> {
    let code = key.first().map_or("", String::as_str);
    Currency::parse(code).ok_or_else(|| Error::Corrupt(format!("{code:?} is not a currency")))
}

fn totals(values: &[i128]) -> Result<Totals, Error> {
    let value = |i: usize| values.get(i).copied().unwrap_or(0);
    Ok(Totals {
        impressions: unsigned(value(0))?,
        clicks: unsigned(value(1))?,
        conversions: unsigned(value(2))?,
        cost_nanos: value(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(rows: &[(&[&str], &[i128])]) -> Sums {
        rows.iter().map(|(k, v)| (k.iter().map(|k| (*k).to_owned()).collect(), v.to_vec())).collect()
    }

    fn balanced() -> Books {
        Books {
            bronze: sums(&[(&["490896"], &[6])]),
            silver: sums(&[
                (&["490896", "billable", "EUR", "click"], &[2, 500]),
                (&["490896", "billable", "EUR", "impression"], &[3, 30]),
                (&["490896", "duplicate", "EUR", "click"], &[1, 0]),
            ]),
            ad_minutes: sums(&[(&["490896", "EUR"], &[3, 2, 0, 530])]),
            campaign_hours: sums(&[(&["490896", "EUR"], &[3, 2, 0, 530])]),
            billing: sums(&[(&["EUR"], &[3, 2, 0, 530, 1, 0, 0, 0, 0, 0, 0, 0, 0])]),
            ..Books::default()
        }
    }

    #[test]
    fn balanced_books_have_no_differences_and_sum_up() {
        assert_eq!(balanced().differences(), []);
        let day = Timestamp(490_896 * HOUR).day();
        let summary = balanced().summary(day).unwrap();
        assert_eq!(summary.verdicts.len(), Verdict::ALL.len());
        assert_eq!((summary.verdicts["billable"], summary.verdicts["duplicate"]), (5, 1));
        assert_eq!(summary.totals[&Currency::parse("EUR").unwrap()].cost_nanos, 530);
        assert_eq!(summary.hours.len(), 24);
        assert_eq!(summary.hours.iter().map(|h| h.archived).sum::<u64>(), 6);
    }

    #[test]
    fn every_single_change_of_any_sum_is_noticed() {
        let tables: [fn(&mut Books) -> &mut Sums; 5] = [
            |b| &mut b.bronze,
            |b| &mut b.silver,
            |b| &mut b.ad_minutes,
            |b| &mut b.campaign_hours,
            |b| &mut b.billing,
        ];
        for table in tables {
            let cells: Vec<_> = table(&mut balanced()).iter().map(|(k, v)| (k.clone(), v.len())).collect();
            for (key, width) in cells {
                for column in 0..width {
                    let mut books = balanced();
                    table(&mut books).get_mut(&key).unwrap()[column] += 1;
                    assert_ne!(books.differences(), [], "{key:?} {column}");
                }
                let mut books = balanced();
                table(&mut books).remove(&key);
                assert_ne!(books.differences(), [], "{key:?} gone");
            }
        }
    }

    #[test]
    fn a_difference_names_its_hour_and_sides() {
        let mut books = balanced();
        books.bronze = sums(&[(&["490896"], &[7])]);
        let differences = books.differences();
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].place, Timestamp(490_896 * HOUR).to_string());
        assert_eq!((differences[0].expected, differences[0].found), (7, 6));
    }
}

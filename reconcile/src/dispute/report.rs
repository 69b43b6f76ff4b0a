//! What a dispute found, as a document: totals, lines that differ, hypotheses with their evidence, the verdict.
//! Amounts are integer micros (rounded half-even once, here). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shared::money::{Currency, Overflow, micros_half_even};
use shared::rollup::Counts;
use shared::time::{Day, Timestamp};

use super::causes::Cause;
use super::compare::{Board, Distance, Line, MILLION};
use super::ours::Ours;
use super::rank::{Ranked, Tried};
use super::theirs::{Grain, Theirs};
use super::{Error, Request, SCHEMA_VERSION};

/// Lines that are listed, largest difference first.
const LISTED: usize = 100;
/// Pairs that are listed.
const PAIRS: usize = 5;
/// A second cause must explain this much more of the distance, in parts per million.
const WORTH_A_SECOND: i128 = 20_000;
/// What explains less than this is no answer, in parts per million.
const WORTH_NAMING: i128 = 200_000;

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dispute {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Their days that are compared.
    pub days: Vec<Day>,
    /// The time zone their file is said to be in.
    pub zone: String,
    /// What one number is about.
    pub grain: Grain,
    /// The runs our side comes from.
    pub runs: Vec<RunUsed>,
    /// Rows of their file.
    pub their_rows: u64,
    /// How far two numbers may lie apart, in parts per million of ours.
    pub tolerance_ppm: u64,
    /// Whether every total is within the tolerance.
    pub is_within_tolerance: bool,
    /// Each measure in all.
    pub totals: Vec<Total>,
    /// How many keys match.
    pub summary: Summary,
    /// What explains the distance best; absent where nothing does, or nothing is to explain.
    pub verdict: Option<Hypothesis>,
    /// The best of each sort, and the best pairs, best first.
    pub hypotheses: Vec<Hypothesis>,
    /// How many were tested.
    pub tests: u64,
    /// The lines that differ, largest first.
    pub lines: Vec<LineDifference>,
    /// Lines that differ and are not listed.
    pub lines_omitted: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A run that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunUsed {
    /// Its day.
    pub day: Day,
    /// Its number.
    pub run: u64,
    /// The settlement made from it, if there is one.
    pub settled_version: Option<u32>,
}

/// One measure over everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Total {
    /// impressions, clicks, conversions, or micros of a currency.
    pub measure: String,
    /// Ours.
    pub ours: i64,
    /// Theirs.
    pub theirs: i64,
    /// Theirs less ours, in parts per million of ours; absent where ours is zero and theirs is not.
    pub difference_ppm: Option<i64>,
}

/// How many keys (campaign periods, or clicks) there are of each standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The same number on both sides.
    pub equal: u64,
    /// Apart, but within the tolerance.
    pub within_tolerance: u64,
    /// Farther apart.
    pub differing: u64,
    /// Only we have it.
    pub ours_only: u64,
    /// Only they have it.
    pub theirs_only: u64,
}

impl Summary {
    /// Keys that do not match.
    #[must_use]
    pub fn unmatched(&self) -> u64 {
        self.differing + self.ours_only + self.theirs_only
    }
}

/// How one key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// The same number.
    Equal,
    /// Within the tolerance.
    WithinTolerance,
    /// Farther apart.
    Differing,
    /// Only ours.
    OursOnly,
    /// Only theirs.
    TheirsOnly,
}

/// A hypothesis with its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hypothesis {
    /// One cause, or two at once.
    pub causes: Vec<Cause>,
    /// In words.
    pub sentence: String,
    /// The part of the distance it explains, in parts per million; negative where it makes things worse.
    pub explained_ppm: i64,
    /// Events apart before.
    pub events_before: u64,
    /// Events apart when we count their way.
    pub events_after: u64,
    /// Micros apart before, by currency.
    pub micros_before: BTreeMap<String, i64>,
    /// Micros apart when we count their way.
    pub micros_after: BTreeMap<String, i64>,
    /// How the keys stand when we count their way; absent where it makes things worse.
    pub after: Option<Summary>,
}

/// One key that does not match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LineDifference {
    /// The campaign, or the click.
    pub who: String,
    /// Their day or hour (their wall clock); absent for clicks.
    pub period: Option<String>,
    /// The currency, where their file names it.
    pub currency: Option<Currency>,
    /// How it stands.
    pub standing: Standing,
    /// Impressions, ours and theirs.
    pub impressions: [u64; 2],
    /// Clicks, ours and theirs.
    pub clicks: [u64; 2],
    /// Conversions, ours and theirs.
    pub conversions: [u64; 2],
    /// Amount in micros, ours and theirs.
    pub micros: [i64; 2],
}

/// Writes it all down.
pub(super) fn write(
    request: &Request<'_>,
    theirs: &Theirs,
    ours: &Ours,
    board: &Board<'_>,
    ranked: Ranked,
) -> Result<Dispute, Error> {
    let scribe = Scribe { board, tolerance_ppm: request.tolerance_ppm.into(), currency: ours.currency };
    let lines = board.lines(&ranked.baseline);
    let totals = scribe.totals(&lines)?;
    let tolerance = i64::try_from(request.tolerance_ppm).unwrap_or(i64::MAX);
    let is_within = totals.iter().all(|t| t.difference_ppm.is_some_and(|d| d.abs() <= tolerance));
    let mut apart: Vec<&Line> = lines.iter().filter(|l| scribe.standing(l) != Standing::Equal).collect();
    apart.sort_by_key(|l| (std::cmp::Reverse(scribe.size(l)), l.at));
    let listed = apart.iter().take(LISTED).map(|l| scribe.line(l)).collect::<Result<Vec<_>, _>>()?;
    let (verdict, hypotheses) = scribe.hypotheses(&ranked)?;
    Ok(Dispute {
        schema_version: SCHEMA_VERSION,
        days: theirs.days.iter().copied().collect(),
        zone: theirs.zone.to_string(),
        grain: theirs.grain,
        runs: ours.runs.iter().map(|(day, run, settled_version)| used(*day, *run, *settled_version)).collect(),
        their_rows: theirs.rows,
        tolerance_ppm: request.tolerance_ppm,
        is_within_tolerance: is_within,
        totals,
        summary: scribe.summary(&lines),
        verdict,
        hypotheses,
        tests: ranked.tests,
        lines_omitted: (apart.len() - listed.len()) as u64,
        lines: listed,
        warnings: ours.warnings.clone(),
    })
}

fn used(day: Day, run: u64, settled_version: Option<u32>) -> RunUsed {
    RunUsed { day, run, settled_version }
}

struct Scribe<'a> {
    board: &'a Board<'a>,
    tolerance_ppm: i128,
    /// The currency where their file names none.
    currency: Option<Currency>,
}

impl Scribe<'_> {
    /// The measures of two counts, in the order of their file: ours and theirs.
    fn pairs(&self, line: &Line) -> Vec<(i128, i128)> {
        let (a, b) = (line.ours.unwrap_or_default(), line.theirs.unwrap_or_default());
        let counts = [(a.impressions, b.impressions), (a.clicks, b.clicks), (a.conversions, b.conversions)];
        let theirs = self.board.theirs;
        let counts = counts.into_iter().zip(theirs.counted).filter(|(_, is)| *is);
        let counts = counts.map(|((a, b), _)| (i128::from(a), i128::from(b)));
        counts.chain(theirs.has_amounts.then_some((a.cost_nanos, b.cost_nanos))).collect()
    }

    fn standing(&self, line: &Line) -> Standing {
        let pairs = self.pairs(line);
        match (line.ours, line.theirs) {
            _ if pairs.iter().all(|(a, b)| a == b) => Standing::Equal,
            (Some(_), None) => Standing::OursOnly,
            (None, Some(_)) => Standing::TheirsOnly,
            _ if pairs.iter().all(|(a, b)| (b - a).abs() * MILLION <= a.abs() * self.tolerance_ppm) => {
                Standing::WithinTolerance
            }
            _ => Standing::Differing,
        }
    }

    fn size(&self, line: &Line) -> (i128, i128) {
        let (a, b) = (line.ours.unwrap_or_default(), line.theirs.unwrap_or_default());
        (self.board.events(&a, &b), (a.cost_nanos - b.cost_nanos).abs())
    }

    fn summary(&self, lines: &[Line]) -> Summary {
        let mut summary = Summary::default();
        for line in lines {
            *match self.standing(line) {
                Standing::Equal => &mut summary.equal,
                Standing::WithinTolerance => &mut summary.within_tolerance,
                Standing::Differing => &mut summary.differing,
                Standing::OursOnly => &mut summary.ours_only,
                Standing::TheirsOnly => &mut summary.theirs_only,
            } += 1;
        }
        summary
    }

    /// The name of a currency's number.
    fn code(&self, number: u32) -> String {
        let named = self.board.currencies.get(&number).copied().flatten().or(self.currency);
        named.map_or_else(|| "amount".to_owned(), |c| c.to_string())
    }

    fn totals(&self, lines: &[Line]) -> Result<Vec<Total>, Overflow> {
        let (mut ours, mut theirs) = (Counts::default(), Counts::default());
        let mut nanos: BTreeMap<u32, (i128, i128)> = BTreeMap::new();
        for line in lines {
            let (a, b) = (line.ours.unwrap_or_default(), line.theirs.unwrap_or_default());
            let only_counts = |c: Counts| Counts { cost_nanos: 0, ..c };
            ours = ours.merge(&only_counts(a))?;
            theirs = theirs.merge(&only_counts(b))?;
            let sum = nanos.entry(line.at.1).or_default();
            *sum = (sum.0 + a.cost_nanos, sum.1 + b.cost_nanos);
        }
        let counts = [
            ("impressions", ours.impressions, theirs.impressions),
            ("clicks", ours.clicks, theirs.clicks),
            ("conversions", ours.conversions, theirs.conversions),
        ];
        let board = self.board.theirs;
        let number = |n: u64| i64::try_from(n).map_err(|_| Overflow);
        let mut totals = Vec::new();
        for ((measure, a, b), _) in counts.into_iter().zip(board.counted).filter(|(_, is)| *is) {
            totals.push(total(measure.to_owned(), number(a)?, number(b)?));
        }
        for (currency, (a, b)) in nanos.into_iter().filter(|(_, (a, b))| board.has_amounts && (*a, *b) != (0, 0)) {
            totals.push(total(format!("micros {}", self.code(currency)), micros_half_even(a)?, micros_half_even(b)?));
        }
        Ok(totals)
    }

    fn line(&self, line: &Line) -> Result<LineDifference, Overflow> {
        let (a, b) = (line.ours.unwrap_or_default(), line.theirs.unwrap_or_default());
        let grain = self.board.theirs.grain;
        let period = (grain != Grain::Click).then(|| {
            let text = Timestamp(line.at.2).to_string();
            let length = if grain == Grain::Day { 10 } else { 13 };
            text.get(..length).unwrap_or(&text).to_owned()
        });
        Ok(LineDifference {
            who: self.board.names.get(&line.at.0).cloned().unwrap_or_default(),
            period,
            currency: self.board.currencies.get(&line.at.1).copied().flatten(),
            standing: self.standing(line),
            impressions: [a.impressions, b.impressions],
            clicks: [a.clicks, b.clicks],
            conversions: [a.conversions, b.conversions],
            micros: [micros_half_even(a.cost_nanos)?, micros_half_even(b.cost_nanos)?],
        })
    }

    /// The verdict, and those worth showing: the best of each sort and the best pairs.
    fn hypotheses(&self, ranked: &Ranked) -> Result<(Option<Hypothesis>, Vec<Hypothesis>), Overflow> {
        let (mut sorts, mut pairs) = (BTreeSet::new(), 0);
        let mut shown = Vec::new();
        for tried in &ranked.tried {
            let is_shown = match tried.causes.as_slice() {
                [one] => sorts.insert(one.sort()),
                _ => {
                    pairs += 1;
                    pairs <= PAIRS
                }
            };
            if is_shown {
                shown.push(self.hypothesis(tried, &ranked.base)?);
            }
        }
        let verdict = best(&ranked.tried).map(|t| self.hypothesis(t, &ranked.base)).transpose()?;
        Ok((verdict, shown))
    }

    fn hypothesis(&self, tried: &Tried, base: &Distance) -> Result<Hypothesis, Overflow> {
        let number = |n: i128| u64::try_from(n).map_err(|_| Overflow);
        let micros = |d: &Distance| -> Result<BTreeMap<String, i64>, Overflow> {
            d.nanos.iter().map(|(c, n)| Ok((self.code(*c), micros_half_even(*n)?))).collect()
        };
        let sentences: Vec<String> = tried.causes.iter().map(|c| c.sentence()).collect();
        let after = (!tried.numbers.is_empty()).then(|| self.summary(&self.board.lines(&tried.numbers)));
        Ok(Hypothesis {
            causes: tried.causes.clone(),
            sentence: sentences.join("; and "),
            explained_ppm: i64::try_from(MILLION - tried.residual_ppm).unwrap_or(i64::MIN),
            events_before: number(base.events)?,
            events_after: number(tried.left.events)?,
            micros_before: micros(base)?,
            micros_after: micros(&tried.left)?,
            after,
        })
    }
}

/// The best explanation: two causes only where the second is worth it, nothing where nothing explains.
fn best(tried: &[Tried]) -> Option<&Tried> {
    let single = tried.iter().find(|t| t.causes.len() == 1)?;
    let pair = tried.iter().find(|t| t.causes.len() > 1);
    let best = pair.filter(|p| p.residual_ppm + WORTH_A_SECOND <= single.residual_ppm).unwrap_or(single);
    (MILLION - best.residual_ppm >= WORTH_NAMING).then_some(best)
}

fn total(measure: String, ours: i64, theirs: i64) -> Total {
    let difference = i128::from(theirs) - i128::from(ours);
    let ppm = (difference * MILLION).checked_div(i128::from(ours)).and_then(|p| i64::try_from(p).ok());
    let difference_ppm = if difference == 0 { Some(0) } else { ppm };
    Total { measure, ours, theirs, difference_ppm }
}

//! Silver of the disputed days and their neighbours → the cube.
//! Reads: the run that the settlement was made from (or the newest), and what the newest run has beyond it; columns
//! of `silver/events` only. Memory: the cube, and every click on an impression once (about 150 bytes).
//! Never: judges an event anew; only the gaps between clicks are measured again, for other windows than ours.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use lake::run_record::RunRecord;
use shared::event::EventKind;
use shared::money::Currency;
use shared::rollup::Counts;
use shared::time::{DAY, Day, HOUR, Timestamp};
use shared::verdict::{Counting, Verdict};

use super::cube::{Class, Cube, Place, SLOT, Sort, lateness_of, windows_of};
use super::theirs::{Grain, Theirs};
use super::{Error, Request};
use crate::columns::Columns;
use crate::gold::{Gold, SILVER};
use crate::settlements::Settlements;

const COLUMNS: [&str; 13] = [
    "event_id",
    "event_type",
    "campaign_id",
    "impression_id",
    "ingest_time",
    "billing_time",
    "verdict",
    "currency",
    "cost_nanos",
    "price_model",
    "region",
    "partition",
    "position",
];
/// The farthest time zones, microseconds from UTC.
const FARTHEST: i64 = 14 * HOUR;

/// Our side.
pub(super) struct Ours {
    pub(super) cube: Cube,
    /// The runs that were read: day, run, and the settled version where the run was settled.
    pub(super) runs: Vec<(Day, u64, Option<u32>)>,
    /// What a person should know.
    pub(super) warnings: Vec<String>,
    /// The rules of the first disputed day.
    pub(super) counting: Counting,
    /// The currency of their amounts, where the file names none.
    pub(super) currency: Option<Currency>,
}

/// One day of ours.
struct Read {
    run: RunRecord,
    version: Option<u32>,
    /// A later run than the settled one.
    later: Option<RunRecord>,
}

/// Reads everything a hypothesis may ask for.
pub(super) async fn read(request: &Request<'_>, theirs: &Theirs) -> Result<Ours, Error> {
    let days = asked(theirs);
    let (first, last) = (theirs.days.first().copied(), theirs.days.last().copied());
    let (Some(first), Some(last)) = (first, last) else {
        return Err(Error::Invalid("their file has no days".to_owned()));
    };
    let mut found = Vec::new();
    let mut warnings = Vec::new();
    for day in days {
        match choose(request, day).await? {
            Some(read) => found.push(read),
            None if theirs.days.contains(&day) => {
                return Err(Error::Invalid(format!("{day} was never recounted: run batch for it first")));
            }
            None => warnings.push(format!("{day} was never recounted: shifts into it cannot be seen in full")),
        }
    }
    let counting = found.iter().find(|r| r.run.day >= first).map(|r| r.run.counting.clone()).unwrap_or_default();
    let currency = currency_of(request, theirs, &found)?;
    let offset = theirs.zone.micros();
    let span = (first.start().0 - offset - FARTHEST, last.end().0 - offset + FARTHEST);
    let mut reader = Reader { request, theirs, currency, span, cube: Cube::default(), clicks: Vec::new() };
    let mut runs = Vec::new();
    for Read { run, version, later } in found {
        runs.push((run.day, run.run, version));
        let bounds = positions(&run);
        reader.silver(run, None).await?;
        if let Some(later) = later {
            reader.silver(later, Some(&bounds)).await?;
        }
    }
    let cube = reader.finish(&counting)?;
    Ok(Ours { cube, runs, warnings, counting, currency })
}

/// The UTC days to read: theirs in any time zone, and one before for the chains of clicks.
fn asked(theirs: &Theirs) -> Vec<Day> {
    let (first, last) = (theirs.days.first().copied(), theirs.days.last().copied());
    first.zip(last).map_or_else(Vec::new, |(first, last)| (first.0 - 2..=last.0 + 1).map(Day).collect())
}

/// The run that stands for a day: the settled one, else the newest.
async fn choose(request: &Request<'_>, day: Day) -> Result<Option<Read>, Error> {
    let Some(newest) = crate::runs::newest(&request.lake, day).await? else { return Ok(None) };
    let settlements = Settlements::new(request.data.clone());
    let settled = match request.settled {
        Some((disputed, version)) if disputed == day => Some(settlements.show(day, Some(version)).await?.manifest),
        _ => settlements.newest(day).await?,
    };
    let Some(manifest) = settled else { return Ok(Some(Read { run: newest, version: None, later: None })) };
    let version = Some(manifest.version);
    if manifest.run == newest.run {
        return Ok(Some(Read { run: newest, version, later: None }));
    }
    let run = crate::runs::one(&request.lake, day, manifest.run).await?;
    Ok(Some(Read { run, version, later: Some(newest) }))
}

/// The positions the run covers, by log partition.
fn positions(run: &RunRecord) -> BTreeMap<i64, i64> {
    let events = run.partitions.iter().filter(|p| p.topic == "events");
    events.map(|p| (i64::from(p.partition), i64::try_from(p.next).unwrap_or(i64::MAX))).collect()
}

/// Their amounts' currency: as told, or the only one we bill in.
fn currency_of(request: &Request<'_>, theirs: &Theirs, found: &[Read]) -> Result<Option<Currency>, Error> {
    if !theirs.has_amounts || theirs.has_currency || request.currency.is_some() {
        return Ok(request.currency);
    }
    let disputed = found.iter().filter(|r| theirs.days.contains(&r.run.day));
    let mut all: Vec<Currency> = disputed.flat_map(|r| r.run.totals.keys().copied()).collect();
    all.retain(|c| *c != Currency::NONE);
    all.sort_unstable();
    all.dedup();
    match all.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        many => {
            let names: Vec<String> = many.iter().map(Currency::to_string).collect();
            Err(Error::Invalid(format!("we bill in {}: map a currency column, or say --currency", names.join(", "))))
        }
    }
}

/// A click that takes part in a chain.
struct Click {
    impression: String,
    order: (i64, String, i64, i64),
    place: Place,
    class: Class,
    counts: Counts,
}

struct Reader<'a> {
    request: &'a Request<'a>,
    theirs: &'a Theirs,
    currency: Option<Currency>,
    /// Only what happened in here can fall on a disputed day, in any time zone.
    span: (i64, i64),
    cube: Cube,
    clicks: Vec<Click>,
}

impl Reader<'_> {
    /// Reads a run's silver; only what lies beyond `bounds`, where they are given.
    async fn silver(&mut self, run: RunRecord, bounds: Option<&BTreeMap<i64, i64>>) -> Result<(), Error> {
        let gold = Gold::unchecked(self.request.lake.clone(), run);
        gold.each_batch(SILVER, &COLUMNS, |batch, what| self.batch(batch, what, bounds)).await
    }

    fn batch(&mut self, batch: &RecordBatch, what: &str, bounds: Option<&BTreeMap<i64, i64>>) -> Result<(), Error> {
        let c = Columns::of(batch, what);
        let (ids, kinds, campaigns) = (c.text("event_id")?, c.text("event_type")?, c.text("campaign_id")?);
        let (ingest, billing) = (c.times("ingest_time")?, c.times("billing_time")?);
        let (verdicts, currencies) = (c.text("verdict")?, c.text("currency")?);
        let (costs, regions) = (c.integers("cost_nanos")?, c.text("region")?);
        let (partitions, positions) = (c.integers("partition")?, c.integers("position")?);
        let impressions = batch.column_by_name("impression_id").and_then(|a| a.as_string_opt::<i32>());
        let impressions = impressions.ok_or_else(|| Error::damaged(what, "no column impression_id"))?;
        for i in 0..batch.num_rows() {
            let (partition, position) = (partitions.value(i), positions.value(i));
            let is_after = bounds.is_some_and(|b| b.get(&partition).is_none_or(|next| position >= *next));
            if bounds.is_some() && !is_after {
                continue;
            }
            let kind = c.parse("event_type", kinds.value(i), EventKind::parse(kinds.value(i)))?;
            let verdict = c.parse("verdict", verdicts.value(i), Verdict::parse(verdicts.value(i)))?;
            let at = billing.value(i);
            let has_key = kind == EventKind::Click && !impressions.is_null(i);
            let chains = has_key && matches!(verdict, Verdict::Billable | Verdict::RepeatClick);
            let is_counted = (self.span.0..self.span.1).contains(&at)
                && (self.theirs.grain != Grain::Click || kind == EventKind::Click);
            if !chains && !is_counted {
                continue;
            }
            let row = Row {
                id: ids.value(i),
                campaign: campaigns.value(i),
                kind,
                verdict,
                at: Timestamp(at),
                delay: ingest.value(i).saturating_sub(at),
                currency: c.parse("currency", currencies.value(i), Currency::parse(currencies.value(i)))?,
                cost: costs.value(i),
                is_after,
            };
            let (place, class, counts) = self.facts(&row)?;
            if chains {
                let order = (ingest.value(i), regions.value(i).to_owned(), partition, position);
                self.clicks.push(Click { impression: impressions.value(i).to_owned(), order, place, class, counts });
            } else {
                self.cube.add(place, class, &counts)?;
            }
        }
        Ok(())
    }

    fn facts(&mut self, row: &Row<'_>) -> Result<(Place, Class, Counts), Error> {
        let cost = match row.verdict {
            Verdict::Billable => i128::from(row.cost),
            _ => self.request.prices.in_force(row.campaign, row.at).cost(row.kind, None, None)?.nanos.into(),
        };
        let named = self.theirs.has_currency.then_some(row.currency);
        let is_comparable = named.is_some() || self.currency == Some(row.currency);
        let counts = Counts { cost_nanos: if is_comparable { cost } else { 0 }, ..Counts::one(row.kind, 0) };
        let who = if self.theirs.grain == Grain::Click { row.id } else { row.campaign };
        let place =
            Place { who: self.cube.who(who), currency: self.cube.currency(named), slot: row.at.0.div_euclid(SLOT) };
        let sort = match row.verdict {
            Verdict::Billable | Verdict::RepeatClick => Sort::Valid,
            Verdict::Duplicate | Verdict::Conflict => Sort::Again,
            Verdict::Invalid(code) => Sort::invalid(code),
        };
        let is_billed = row.verdict == Verdict::Billable;
        let class = Class {
            sort,
            is_billed,
            // A repeat that no impression explains (the policy for identical clicks) counts where all do.
            windows: if is_billed { windows_of(i64::MAX) } else { 1 },
            lateness: lateness_of(row.delay),
            is_after: row.is_after,
        };
        Ok((place, class, counts))
    }

    /// Measures the gaps between clicks and closes the cube.
    fn finish(mut self, counting: &Counting) -> Result<Cube, Error> {
        self.clicks.sort_unstable_by(|a, b| (&a.impression, &a.order).cmp(&(&b.impression, &b.order)));
        let mut before: Option<(&str, i64)> = None;
        for click in &self.clicks {
            let ingest = click.order.0;
            let gap = match before.filter(|(impression, _)| *impression == click.impression) {
                Some((_, at)) => ingest.saturating_sub(at),
                None if click.class.is_billed => i64::MAX,
                // The click before lies beyond what was read, and within our own window.
                None => counting.repeat_click_seconds.saturating_mul(1_000_000) - 1,
            };
            before = Some((&click.impression, ingest));
            let at = click.place.slot * SLOT;
            if (self.span.0 - SLOT..self.span.1).contains(&at) {
                self.cube.add(click.place, Class { windows: windows_of(gap), ..click.class }, &click.counts)?;
            }
        }
        Ok(self.cube)
    }
}

/// One silver row.
struct Row<'a> {
    id: &'a str,
    campaign: &'a str,
    kind: EventKind,
    verdict: Verdict,
    at: Timestamp,
    delay: i64,
    currency: Currency,
    cost: i64,
    is_after: bool,
}

const _: () = assert!(DAY % SLOT == 0);

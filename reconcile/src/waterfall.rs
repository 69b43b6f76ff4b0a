//! A campaign's day as a waterfall: archived, less each verdict that is not billed, is billable; units × price, rounded
//! once a line, is settled; with adjustments it is due. And how far the dashboard was off before, by cause.
//! Guarantee: every sum is checked against the numbers it must equal; one that does not balance is an error, never an
//! answer. Reads: `gold/billing_day` of the newest run, the newest manifest's files, the drift report. Writes: nothing.

use std::collections::BTreeMap;

use lake::LakeRoot;
use shared::explain::{AdjustmentNote, Amounts, Cause, Drift, Priced, Step, Waterfall};
use shared::id::CampaignId;
use shared::money::{Currency, NANOS_PER_MICRO, Overflow};
use shared::price::{PriceBook, PriceModel};
use shared::time::Day;
use shared::verdict::Verdict;

use crate::causes::Explanation;
use crate::error::Error;
use crate::gold::{BILLING_DAY, Gold};
use crate::line_file::{Form, parquet};
use crate::lines::{EXCLUDED, Line, from_gold};
use crate::report::Report;
use crate::settlements::{Settlements, folder};

/// The waterfall of a campaign's day; nothing where the day was never recounted.
///
/// # Errors
/// [`Error::Unbalanced`] with every sum that does not hold; those of storage.
pub async fn of(
    lake: &LakeRoot,
    data: &LakeRoot,
    book: &(dyn Fn(u32) -> Option<PriceBook> + Sync),
    campaign: &CampaignId,
    day: Day,
) -> Result<Option<Waterfall>, Error> {
    let Some(run) = crate::runs::newest(lake, day).await? else { return Ok(None) };
    let (number, prices) = (run.run, book(run.price_book_version).unwrap_or_default());
    let gold = Gold::unchecked(lake.clone(), run);
    let mut lines: Vec<Line> = Vec::new();
    gold.each_batch(BILLING_DAY, &[], |batch, what| {
        lines.extend(from_gold(batch, what)?.into_iter().filter(|l| l.key.campaign_id == *campaign));
        Ok(())
    })
    .await?;
    let mut notes = vec!["what was refused never became an event and has no campaign: see `bad list`".to_owned()];
    let settled = settled(&Settlements::new(data.clone()), day, campaign).await?;
    match &settled {
        None => notes.push("the day is not settled yet".to_owned()),
        Some((version, run, _)) if *run != number => {
            notes.push(format!("settlement v{version} was made from run {run}; run {number} is not settled yet"));
        }
        Some((version, ..)) => notes.push(format!("settled in version {version}")),
    }
    let settled = settled.map(|(_, run, sums)| (run == number, sums));
    let mut checks = Checks::default();
    let events = events(&lines, &mut checks)?;
    let adjusted = crate::locate::adjustments(lake, day, campaign.as_str()).await?;
    let mut amounts = amounts(&lines, &prices, settled.as_ref(), &mut checks)?;
    adjust(&mut amounts, adjusted)?;
    let drift = drift(data, day, campaign, &mut notes, &mut checks).await?;
    if !checks.0.is_empty() {
        return Err(Error::Unbalanced { day, findings: checks.0 });
    }
    Ok(Some(Waterfall { campaign_id: campaign.clone(), day, run: number, events, amounts, drift, notes }))
}

/// Sums that must hold.
#[derive(Default)]
struct Checks(Vec<String>);

impl Checks {
    fn equal(&mut self, what: &str, a: impl Into<i128>, b: impl Into<i128>) {
        let (a, b) = (a.into(), b.into());
        if a != b {
            self.0.push(format!("{what}: {a} is not {b}"));
        }
    }
}

/// Archived − each verdict = billable = by kind.
fn events(lines: &[Line], checks: &mut Checks) -> Result<Vec<Step>, Overflow> {
    let signed = |n: u64| i64::try_from(n).map_err(|_| Overflow);
    let sum = |get: &dyn Fn(&Line) -> u64| -> Result<i64, Overflow> {
        lines.iter().try_fold(0_u64, |all, l| all.checked_add(get(l)).ok_or(Overflow)).and_then(signed)
    };
    let kinds = [
        ("impressions", sum(&|l| l.counts.impressions)?),
        ("clicks", sum(&|l| l.counts.clicks)?),
        ("conversions", sum(&|l| l.counts.conversions)?),
    ];
    let billable: i64 = kinds.iter().map(|(_, n)| n).sum();
    let mut steps = Vec::new();
    let mut excluded = 0;
    for (n, (verdict, _)) in EXCLUDED.iter().enumerate() {
        let events = sum(&|l| l.excluded.get(n).copied().unwrap_or_default())?;
        excluded += events;
        if events != 0 {
            steps.push(step(verdict.as_str(), -events, false, shared::explain::verdict_sentence(verdict.as_str())));
        }
    }
    let archived = billable.checked_add(excluded).ok_or(Overflow)?;
    steps.insert(0, step("archived", archived, true, "accepted, durable, and billing on this day"));
    let left = archived + steps.iter().skip(1).map(|s| s.events).sum::<i64>();
    checks.equal("archived less what is not billed", left, billable);
    let why = shared::explain::verdict_sentence(Verdict::Billable.as_str());
    steps.push(step("billable", left, true, why));
    steps.extend(kinds.map(|(kind, n)| step(kind, n, false, "billable events of this kind")));
    Ok(steps)
}

fn step(what: &str, events: i64, is_sum: bool, why: &str) -> Step {
    Step { what: what.to_owned(), events, is_sum, why: why.to_owned() }
}

/// The units that a model pays, of a line.
fn units(line: &Line) -> Result<u64, Overflow> {
    match PriceModel::parse(line.key.price_model) {
        Some(PriceModel::Cpc) => Ok(line.counts.clicks),
        Some(PriceModel::Cpm) => Ok(line.counts.impressions),
        Some(PriceModel::Cpa) => Ok(line.counts.conversions),
        _ => line.billable(),
    }
}

/// What the settlement says of the campaign, by currency, and whether it was made from this run.
type SettledSums = (bool, BTreeMap<Currency, i64>);

/// Units × price = unrounded; + rounding = lines; + adjustments = due.
fn amounts(
    lines: &[Line],
    prices: &PriceBook,
    settled: Option<&SettledSums>,
    checks: &mut Checks,
) -> Result<Vec<Amounts>, Overflow> {
    let mut by_currency: BTreeMap<Currency, BTreeMap<(&'static str, u32), Vec<&Line>>> = BTreeMap::new();
    for line in lines {
        let key = (line.key.price_model, line.key.price_version);
        by_currency.entry(line.key.currency).or_default().entry(key).or_default().push(line);
    }
    let mut all = Vec::new();
    for (currency, groups) in by_currency {
        let (mut nanos, mut micros, mut priced) = (0_i128, 0_i64, Vec::new());
        for ((model, version), lines) in groups {
            let group = self::priced(model, version, &lines, prices, checks)?;
            nanos = nanos.checked_add(group.1).ok_or(Overflow)?;
            for line in &lines {
                micros = micros.checked_add(line.cost_micros()?).ok_or(Overflow)?;
            }
            priced.push(group.0);
        }
        let rounding = i128::from(micros) * i128::from(NANOS_PER_MICRO) - nanos;
        let most = i128::try_from(lines.len()).map_err(|_| Overflow)? * i128::from(NANOS_PER_MICRO / 2);
        if rounding.abs() > most {
            checks.0.push(format!("{currency}: rounding moves {rounding} nanos, more than half a micro a line"));
        }
        let settled_micros = settled.map(|(_, sums)| sums.get(&currency).copied().unwrap_or(0));
        if let (Some((true, _)), Some(said)) = (settled, settled_micros) {
            checks.equal(&format!("settled micros {currency}"), said, micros);
        }
        all.push(Amounts {
            currency: currency.to_string(),
            priced,
            unrounded_nanos: nanos.to_string(),
            rounding_nanos: rounding.to_string(),
            lines_micros: micros,
            settled_micros,
            adjustments: Vec::new(),
            adjustments_micros: 0,
            due_micros: micros,
        });
    }
    Ok(all)
}

/// Adds the adjustments; a currency that only they have gets its own steps.
fn adjust(amounts: &mut Vec<Amounts>, adjusted: Vec<AdjustmentNote>) -> Result<(), Overflow> {
    for note in adjusted {
        let place = amounts.iter().position(|a| a.currency == note.currency).unwrap_or_else(|| {
            amounts.push(nothing(note.currency.clone()));
            amounts.len() - 1
        });
        if let Some(a) = amounts.get_mut(place) {
            a.adjustments_micros = a.adjustments_micros.checked_add(note.amount_micros).ok_or(Overflow)?;
            a.due_micros = a.due_micros.checked_add(note.amount_micros).ok_or(Overflow)?;
            a.adjustments.push(note);
        }
    }
    Ok(())
}

fn nothing(currency: String) -> Amounts {
    Amounts {
        currency,
        priced: Vec::new(),
        unrounded_nanos: "0".to_owned(),
        rounding_nanos: "0".to_owned(),
        lines_micros: 0,
        settled_micros: None,
        adjustments: Vec::new(),
        adjustments_micros: 0,
        due_micros: 0,
    }
}

/// Units at one price, and their cost; where the price is the same for each, the product must be the cost.
fn priced(
    model: &str,
    version: u32,
    lines: &[&Line],
    prices: &PriceBook,
    checks: &mut Checks,
) -> Result<(Priced, i128), Overflow> {
    let (mut count, mut nanos) = (0_u64, 0_i128);
    for line in lines {
        count = count.checked_add(units(line)?).ok_or(Overflow)?;
        nanos = nanos.checked_add(line.counts.cost_nanos).ok_or(Overflow)?;
    }
    let campaign = lines.first().map(|l| l.key.campaign_id.as_str()).unwrap_or_default();
    let rules: Vec<i64> = prices
        .prices
        .get(campaign)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter(|p| p.version == version && p.model.as_str() == model && p.model != PriceModel::Reported)
        .map(|p| p.price_micros)
        .collect();
    // Two prices of one book version and model share a line: then there is no single price to show.
    let price_micros = match rules.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    if let Some(price) = price_micros {
        let per = if model == PriceModel::Cpm.as_str() { 1 } else { NANOS_PER_MICRO };
        let product = i128::from(count) * i128::from(price) * i128::from(per);
        checks.equal(&format!("{count} × {price} micros ({model})"), product, nanos);
    }
    let (price_model, price_version) = (model.to_owned(), i64::from(version));
    Ok((Priced { price_model, price_version, price_micros, units: count, cost_nanos: nanos.to_string() }, nanos))
}

/// The campaign's settled micros by currency in the newest settlement, with its version and run.
async fn settled(
    settlements: &Settlements,
    day: Day,
    campaign: &CampaignId,
) -> Result<Option<(u32, u64, BTreeMap<Currency, i64>)>, Error> {
    let Some(manifest) = settlements.newest(day).await? else { return Ok(None) };
    let mut sums: BTreeMap<Currency, i64> = BTreeMap::new();
    for file in manifest.files.iter().filter(|f| Form::of(&f.path) == Some(Form::Parquet)) {
        let path = format!("{}/{}", folder(day, manifest.version), file.path);
        let bytes = settlements.read(&path).await?.ok_or_else(|| Error::damaged(path.clone(), "it is gone"))?;
        let mut overflow = false;
        let read = parquet::of_campaign(bytes, campaign.as_str(), &mut |_, cells| {
            let currency = cells.get(4).and_then(|c| Currency::parse(c)).unwrap_or(Currency::NONE);
            let micros: i64 = cells.get(11).and_then(|c| c.parse().ok()).unwrap_or_default();
            let sum = sums.entry(currency).or_default();
            match sum.checked_add(micros) {
                Some(more) => *sum = more,
                None => overflow = true,
            }
        });
        read.map_err(|why| Error::damaged(path, why))?;
        if overflow {
            return Err(Overflow.into());
        }
    }
    Ok(Some((manifest.version, manifest.run, sums)))
}

/// What the drift report says of the campaign.
async fn drift(
    data: &LakeRoot,
    day: Day,
    campaign: &CampaignId,
    notes: &mut Vec<String>,
    checks: &mut Checks,
) -> Result<Option<Drift>, Error> {
    let Some(report) = Report::load(data, day).await? else {
        notes.push("there is no drift report: reconcile has not run".to_owned());
        return Ok(None);
    };
    let omitted: u64 =
        report.hours.iter().map(|h| h.campaigns_differing.saturating_sub(h.campaigns.len() as u64)).sum();
    if omitted > 0 {
        notes.push(format!(
            "the drift report leaves out {omitted} smaller campaign hours; this campaign's may be among them"
        ));
    }
    let (mut sum, mut events, mut uniques) = (Explanation::default(), 0_u128, 0_u64);
    for hour in report.hours.iter().flat_map(|h| &h.campaigns).filter(|c| c.campaign_id == *campaign) {
        sum.add(&hour.causes)?;
        events = events.saturating_add(hour.measure.distance.events());
        uniques = uniques.saturating_add(hour.uniques_shown.abs_diff(hour.uniques_exact));
    }
    let causes = named(&sum);
    let explained: u64 = causes.iter().map(|c| c.events).sum();
    let events = u64::try_from(events).map_err(|_| Overflow)?;
    checks.equal("drift by cause", explained, events);
    Ok(Some(Drift { events, causes, uniques }))
}

fn named(sum: &Explanation) -> Vec<Cause> {
    [
        ("notShown", "nothing was shown for the hour: speed was not running, or lost it", sum.not_shown),
        ("restated", "the hour was exact for an earlier run, and the run changed", sum.restated),
        ("late", "came later than speed waits", sum.late),
        ("duplicates", "repetitions beyond what speed remembers", sum.duplicates),
        ("conflicts", "the same id with another payload, beyond what speed remembers", sum.conflicts),
        ("repeatClicks", "repeat clicks beyond what speed remembers", sum.repeat_clicks),
        ("invalid", "judged invalid after speed counted it", sum.invalid),
        ("unexplained", "no cause is left", sum.unexplained),
    ]
    .into_iter()
    .map(|(cause, why, events)| Cause { cause: cause.to_owned(), why: why.to_owned(), events })
    .collect()
}

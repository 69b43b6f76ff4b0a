//! `settlement diff`: a partner's file beside ours, as a table, one JSON line or a page.

use std::collections::BTreeMap;
use std::path::Path;

use ::reconcile::dispute::{self, Dispute, Grain, Mapping, Reading, Sheet, Theirs, Unit, Zone};
use anyhow::Context;
use serde_json::json;
use shared::money::Currency;
use shared::time::Day;

use crate::cli::{AmountUnit, Output, Per, SettlementDiff};
use crate::exit::Usage;
use crate::output::{Report, last_line};
use crate::wiring::Parts;

/// What lies apart by more than the tolerance (contract 3).
const OVER_TOLERANCE: u8 = 11;

pub(super) async fn run(parts: &Parts, args: &SettlementDiff, output: Output) -> super::Done {
    let settled = args.folder.as_deref().map(settlement).transpose()?;
    let reading = Reading {
        mapping: mapping(args)?,
        grain: args.per.map(|per| match per {
            Per::Day => Grain::Day,
            Per::Hour => Grain::Hour,
            Per::Click => Grain::Click,
        }),
        unit: args.amount.map(|unit| match unit {
            AmountUnit::Micros => Unit::Micros,
            AmountUnit::Decimal => Unit::Decimal,
        }),
        zone: Zone::parse(&args.zone)
            .ok_or_else(|| Usage(format!("--zone {:?} is no offset like +02:00", args.zone)))?,
        day: args.date.or(settled.map(|(day, _)| day)),
    };
    let code = |text: &String| Currency::parse(text).ok_or_else(|| Usage(format!("{text:?} is not an ISO 4217 code")));
    let bytes = std::fs::read(&args.theirs).with_context(|| format!("cannot read {}", args.theirs.display()))?;
    let theirs = Theirs::read(&Sheet::read(bytes)?, &reading)?;
    let request = dispute::Request {
        lake: parts.lake_root()?,
        data: parts.data_root()?,
        prices: &parts.price_store().newest()?,
        settled,
        currency: args.currency.as_ref().map(code).transpose()?,
        tolerance_ppm: u64::from(args.tolerance) * 10_000,
    };
    let found = dispute::run(&request, &theirs).await?;
    if let Some(file) = &args.html {
        std::fs::write(file, dispute::page::html(&found)).with_context(|| format!("writing {}", file.display()))?;
    }
    match output {
        Output::Table => table(&found)?,
        Output::Csv => lines(&found).print(output)?,
        Output::Json => last_line(&json!(found))?,
    }
    Ok(if found.is_within_tolerance { 0 } else { OVER_TOLERANCE })
}

/// Their columns by our fields.
fn mapping(args: &SettlementDiff) -> anyhow::Result<Mapping> {
    if let Some(text) = &args.map {
        return Ok(Mapping::parse(text)?);
    }
    let Some(file) = &args.map_file else { return Ok(Mapping::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bad = |why: String| Usage(format!("{}: {why}", file.display()));
    let pairs: BTreeMap<String, String> = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?
    } else {
        toml::from_str(&text).map_err(|e| bad(e.to_string()))?
    };
    Ok(Mapping::new(pairs)?)
}

/// The day and version that a settlement folder's manifest states.
fn settlement(folder: &Path) -> anyhow::Result<(Day, u32)> {
    let file = folder.join(::reconcile::manifest::MANIFEST);
    let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let manifest = ::reconcile::manifest::Manifest::from_bytes(&bytes)
        .map_err(|e| Usage(format!("{} is no manifest: {e}", file.display())))?;
    Ok((manifest.day, manifest.version))
}

pub(super) fn table(found: &Dispute) -> anyhow::Result<()> {
    let mut totals = Report::new(&["measure", "ours", "theirs", "difference %"]);
    for t in &found.totals {
        let difference = t.difference_ppm.map_or(json!(null), |ppm| json!(percent(ppm)));
        totals.row([json!(t.measure), json!(t.ours), json!(t.theirs), difference]);
    }
    totals.print(Output::Table)?;
    let mut hypotheses = Report::new(&["explained %", "events apart", "then", "unmatched then", "if …"]);
    for h in &found.hypotheses {
        hypotheses.row([
            json!(percent(h.explained_ppm)),
            json!(h.events_before),
            json!(h.events_after),
            json!(h.after.map(|s| s.unmatched())),
            json!(h.sentence),
        ]);
    }
    if !hypotheses.is_empty() {
        hypotheses.print(Output::Table)?;
    }
    if !found.lines.is_empty() {
        lines(found).print(Output::Table)?;
    }
    for warning in &found.warnings {
        eprintln!("{warning}");
    }
    let s = &found.summary;
    println!(
        "{} match ({} exactly), {} differ, {} ours only, {} theirs only",
        s.equal + s.within_tolerance,
        s.equal,
        s.differing,
        s.ours_only,
        s.theirs_only
    );
    match &found.verdict {
        Some(best) => println!("most likely {} ({} % of the distance)", best.sentence, percent(best.explained_ppm)),
        None if s.unmatched() + s.within_tolerance == 0 => println!("both sides say the same"),
        None if s.unmatched() == 0 => println!("what lies apart is within the tolerance"),
        None => println!("no difference of method that we know explains the distance"),
    }
    Ok(())
}

/// The lines that differ, ours and theirs.
fn lines(found: &Dispute) -> Report {
    let mut report = Report::new(&[
        "who",
        "period",
        "currency",
        "standing",
        "ourImpressions",
        "theirImpressions",
        "ourClicks",
        "theirClicks",
        "ourConversions",
        "theirConversions",
        "ourMicros",
        "theirMicros",
    ]);
    for l in &found.lines {
        let head = [json!(l.who), json!(l.period), json!(l.currency), json!(l.standing)];
        let counts = [l.impressions, l.clicks, l.conversions].into_iter().flatten().map(|n| json!(n));
        report.row(head.into_iter().chain(counts).chain(l.micros.map(|n| json!(n))));
    }
    report
}

/// Parts per million as a percentage with two digits.
fn percent(ppm: i64) -> String {
    let sign = if ppm < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", ppm.unsigned_abs() / 10_000, ppm.unsigned_abs() % 10_000 / 100)
}

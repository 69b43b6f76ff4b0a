//! The demo's last act: a partner's bill that differs is disputed, one click is explained, and two clicks are proven, one
//! billed and one not. Everything here works on what the demo published, with the product's own commands.
//! Fabricated: only the partner's file, by a rule that is said aloud, so that the answer can be seen to be right.

use std::collections::BTreeMap;
use std::path::Path;

use ::reconcile::dispute::{self, Cause, Reading, Sheet, Theirs, Zone};
use ::reconcile::proof::Proof;
use ::reconcile::settlements::Settlements;
use ::reconcile::verify::verify_proof;
use anyhow::{Context, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use shared::event::EventKind;
use shared::id::EventId;
use shared::time::Day;

use super::dispute::table;
use super::explain::life;
use crate::cli::Output;
use crate::wiring::Parts;

/// A settlement of the demo, and where its files are.
pub(super) struct Settled<'a> {
    pub(super) day: Day,
    pub(super) version: u32,
    pub(super) folder: &'a Path,
}

/// Disputes, explains and proves; what it found, for the last line.
pub(super) async fn tell(parts: &Parts, settled: &Settled<'_>, output: Output) -> anyhow::Result<Value> {
    let cause = disputed(parts, settled, output).await?;
    let (billed, forged) = (click("demo-imp-1"), click("stolen-imp-0"));
    explained(parts, &billed, output).await?;
    eprintln!("\nProof: what a receiver can check with the manifest alone, offline, seeing no other row.");
    let proven = prove(parts, settled, &billed).await?;
    ensure!(proven.is_billed(), "an honest click is not proven to be billed");
    let disproven = prove(parts, settled, &forged).await?;
    ensure!(!disproven.is_billed(), "a forged click is proven to be billed");
    eprintln!("  click {billed} is in the settlement that the root and the signature in manifest.json stand for;");
    eprintln!("  click {forged}, which came with a forged signature, is not: nobody pays for it.");
    eprintln!(
        "\nIn plain words: the partner's bill is higher because he counts clicks that we take for repetitions, not"
    );
    eprintln!(
        "because events were lost; the click explained above is billed once, at the price in force; and neither we"
    );
    eprintln!("nor anybody else can change, add or drop a billed click of this day without the signature failing.");
    Ok(json!({ "cause": cause, "billed": billed, "notBilled": forged }))
}

/// The id of the click that following the demo's link to this impression made.
fn click(impression: &str) -> String {
    let n = impression.rsplit('-').next().unwrap_or_default();
    gateway::link_event_id(EventKind::Click, &format!("ad-{n}"), impression)
}

/// A partner's file that counts every click, held beside ours; the cause that the product names.
async fn disputed(parts: &Parts, settled: &Settled<'_>, output: Output) -> anyhow::Result<String> {
    let file = parts.folder().root().join("demo.partner.csv");
    let campaigns = partner(settled, &file)?;
    eprintln!("\nDispute: a partner bills {campaigns} campaigns by {}; he counts every click anew.", file.display());
    let reading = Reading {
        mapping: dispute::Mapping::default(),
        grain: None,
        unit: None,
        zone: Zone::parse("UTC").context("UTC is a zone")?,
        day: Some(settled.day),
    };
    let theirs = Theirs::read(&Sheet::read(std::fs::read(&file)?)?, &reading)?;
    let request = dispute::Request {
        lake: parts.lake_root()?,
        data: parts.data_root()?,
        prices: &parts.price_store().newest()?,
        settled: Some((settled.day, settled.version)),
        currency: None,
        tolerance_ppm: dispute::TRADE_TOLERANCE_PPM,
    };
    let found = dispute::run(&request, &theirs).await?;
    if output == Output::Table {
        table(&found)?;
    }
    let page = parts.folder().root().join("demo.dispute.html");
    std::fs::write(&page, dispute::page::html(&found))?;
    eprintln!("  as a page: {}", page.display());
    let verdict = found.verdict.context("no method explains the partner's bill")?;
    let counts_every = |cause: &Cause| matches!(cause, Cause::RepeatWindow { .. });
    ensure!(verdict.causes.iter().any(counts_every), "the wrong method was named: {}", verdict.sentence);
    Ok(verdict.sentence)
}

/// Writes what a partner who knows no repeat clicks would bill: from the settlement's own lines, as a receiver has them.
fn partner(settled: &Settled<'_>, to: &Path) -> anyhow::Result<usize> {
    let mut clicks: BTreeMap<String, u64> = BTreeMap::new();
    for entry in std::fs::read_dir(settled.folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !(name.starts_with("lines-") && name.ends_with(".csv.gz")) {
            continue;
        }
        let mut lines = csv::Reader::from_reader(MultiGzDecoder::new(std::fs::File::open(&path)?));
        for line in lines.deserialize::<BTreeMap<String, String>>() {
            let line = line?;
            let number = |column: &str| line.get(column).and_then(|n| n.parse::<u64>().ok());
            let (billed, repeated) = number("clicks").zip(number("repeat_clicks")).context("a line without clicks")?;
            let campaign = line.get("campaign_id").context("a line without a campaign")?;
            *clicks.entry(campaign.clone()).or_default() += billed + repeated;
        }
    }
    let mut file = csv::Writer::from_path(to)?;
    file.write_record(["Campaign ID", "Date", "Clicks"])?;
    for (campaign, clicks) in &clicks {
        file.write_record([campaign.as_str(), &settled.day.to_string(), &clicks.to_string()])?;
    }
    file.flush()?;
    Ok(clicks.len())
}

async fn explained(parts: &Parts, id: &str, output: Output) -> anyhow::Result<()> {
    eprintln!("\nExplain: one click, from the gateway to its settlement line.");
    let found = parts.explainer()?.event(&EventId::new(id)?).await?;
    let occurrence = found.first().context("a followed link is not in the archive")?;
    let judged = occurrence.judged.as_ref().context("a settled click has no verdict")?;
    ensure!(judged.settled.is_some(), "a billed click is in no settlement line");
    Ok(life(1, found.len(), occurrence).print(output)?)
}

/// Proves, and checks the proof as its receiver would: with the folder alone.
async fn prove(parts: &Parts, settled: &Settled<'_>, id: &str) -> anyhow::Result<Proof> {
    let settlements = Settlements::new(parts.data_root()?);
    let wanted = (settled.day, Some(settled.version));
    let proof = ::reconcile::prove::prove(&parts.lake_root()?, &settlements, &EventId::new(id)?, wanted).await?;
    let received = Proof::from_bytes(&serde_json::to_vec(&proof)?)?;
    let checked = verify_proof(settled.folder, &received, None)?;
    ensure!(checked.is_sound(), "the proof of {id} does not hold: {:?}", checked.findings);
    Ok(received)
}

//! `adjust`: import, receive and list. Adjustments are signed with the newest signing key before they are stored.

use std::path::Path;

#[cfg(feature = "kafka")]
use ::reconcile::ledger::Received;
use ::reconcile::ledger::{Adjustment, AdjustmentBook, Format, Imported, Signed, read_rows, sha256};
use anyhow::Context;
use gateway::keys::SigningKeys;
use serde_json::json;
use shared::time::Day;

use crate::cli::{Adjust, Output};
use crate::exit::Usage;
use crate::output::{Report, last_line};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Adjust, output: Output) -> super::Done {
    match command {
        Adjust::Import { file, dry_run } => import(parts, &file, dry_run).await,
        #[cfg(feature = "kafka")]
        Adjust::Receive => match receive(parts).await? {
            Some(received) => {
                last_line(&json!(received))?;
                Ok(0)
            }
            None => {
                Err(Usage("Kafka is not configured: adjustments come by `clickledger adjust import`".into()).into())
            }
        },
        Adjust::List { date } => list(parts, date, output).await,
    }
}

async fn import(parts: &Parts, file: &Path, dry_run: bool) -> super::Done {
    let format = match file.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
        Some("csv") => Format::Csv,
        Some("ndjson" | "jsonl") => Format::Ndjson,
        _ => return Err(Usage(format!("{}: the name must end in .csv or .ndjson", file.display())).into()),
    };
    let bytes = std::fs::read(file).map_err(|e| Usage(format!("cannot read {}: {e}", file.display())))?;
    let rows = read_rows(&bytes, format).map_err(::reconcile::Error::BadRows);
    let rows = rows.with_context(|| file.display().to_string())?;
    let source_sha256 = sha256(&bytes);
    let count = rows.len();
    let rows = rows.into_iter().map(|row| (row.number, row.adjustment, source_sha256.clone())).collect();
    let done = post(parts, rows, dry_run).await.with_context(|| file.display().to_string())?;
    last_line(&json!({
        "rows": count,
        "added": done.added,
        "repeated": done.repeated,
        "days": done.days,
        "sourceSha256": source_sha256,
        "dryRun": dry_run,
    }))?;
    Ok(0)
}

/// Signs adjustments, each with its row's number and the SHA-256 of what it comes from, and stores those that are new.
pub(super) async fn post(
    parts: &Parts,
    rows: Vec<(u64, Adjustment, String)>,
    dry_run: bool,
) -> anyhow::Result<Imported> {
    let keys = SigningKeys::load(&parts.folder().signing_keys())?;
    let mut signed = Vec::with_capacity(rows.len());
    for (number, adjustment, source_sha256) in rows {
        signed.push((number, sign(&keys, adjustment, source_sha256)?));
    }
    let mut book = AdjustmentBook::open(&parts.lake_root()?).await?;
    Ok(book.import(&signed, parts.clock().now(), dry_run).await?)
}

fn sign(keys: &SigningKeys, adjustment: Adjustment, source_sha256: String) -> Result<Signed, ::reconcile::Error> {
    let proof = keys.sign_statement(|key_id| adjustment.canonical(&source_sha256, key_id));
    let why = "there is no signing key: clickledger keys create signing";
    let proof = proof.ok_or_else(|| ::reconcile::Error::Invalid(why.to_owned()))?;
    Ok(Signed { adjustment, source_sha256, key_id: proof.key_id, signature: proof.signature })
}

/// Takes in what was published on Kafka since the last time; `None` where Kafka is not configured.
#[cfg(feature = "kafka")]
pub(super) async fn receive(parts: &Parts) -> anyhow::Result<Option<Received>> {
    let Some((adjustments, refusals)) = parts.adjustment_logs().await? else { return Ok(None) };
    let keys = SigningKeys::load(&parts.folder().signing_keys())?;
    let mut book = AdjustmentBook::open(&parts.lake_root()?).await?;
    let topic = parts.settings().kafka.adjustments_topic.as_str();
    let sign = |adjustment, source| sign(&keys, adjustment, source);
    let received =
        ::reconcile::ledger::receive(&mut book, (topic, &adjustments), &refusals, sign, parts.clock().now()).await?;
    if received.refused > 0 {
        let dead = parts.settings().kafka.adjustment_refusals_topic();
        eprintln!("{} adjustments were refused: the topic {dead} says why", received.refused);
    }
    Ok(Some(received))
}

async fn list(parts: &Parts, date: Option<Day>, output: Output) -> super::Done {
    let book = AdjustmentBook::open(&parts.lake_root()?).await?;
    let keys = SigningKeys::load(&parts.folder().signing_keys())?;
    let days = date.map_or_else(|| book.days().map(|days| days.into_keys().collect()), |day| Ok(vec![day]))?;
    let mut report = Report::new(&[
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
        "sourceSha256",
        "signature",
    ]);
    for day in days {
        for signed in book.of_day(day).await? {
            let a = &signed.adjustment;
            let text = a.canonical(&signed.source_sha256, &signed.key_id);
            let holds = match keys.holds(&signed.key_id, &signed.signature, &text) {
                Some(true) => "holds",
                Some(false) => "broken",
                None => "unknown key",
            };
            let [impressions, clicks, conversions] = a.events;
            report.row([
                json!(a.id),
                json!(a.day),
                json!(a.campaign_id),
                json!(a.ad_id),
                json!(a.currency),
                json!(impressions),
                json!(clicks),
                json!(conversions),
                json!(a.amount_micros),
                json!(a.reason.as_str()),
                json!(a.note),
                json!(a.actor),
                json!(a.corrects.map(|c| c.to_string())),
                json!(signed.source_sha256),
                json!(holds),
            ]);
        }
    }
    report.print(output)?;
    Ok(0)
}

//! `bad`: what was refused, as the lake keeps it.

use std::collections::BTreeMap;

use lake::convert::{BadRow, bad_from_batch};
use lake::tables::BRONZE_BAD;
use serde_json::json;
use shared::tally::is_note;
use shared::time::Timestamp;

use super::import::Importer;
use crate::cli::{Bad, Output};
use crate::output::{Report, last_line};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Bad, output: Output) -> super::Done {
    match command {
        Bad::List => {
            let mut counts = BTreeMap::<(String, String, String), u64>::new();
            each(parts, |row| {
                let day = Timestamp(row.record.ingest_time).day().to_string();
                *counts.entry((day, row.record.reason, row.record.stage)).or_default() += row.record.count;
                true
            })
            .await?;
            let mut report = Report::new(&["day", "reason", "stage", "count"]);
            for ((day, reason, stage), count) in counts {
                report.row([json!(day), json!(reason), json!(stage), json!(count)]);
            }
            report.print(output)?;
        }
        Bad::Show { reason, limit } => {
            let mut report = Report::new(&["ingestTime", "reason", "detail", "stage", "raw"]);
            let mut left = limit;
            each(parts, |row| {
                if left > 0 && !row.record.raw.is_empty() && reason.as_ref().is_none_or(|r| *r == row.record.reason) {
                    left -= 1;
                    report.row([
                        json!(Timestamp(row.record.ingest_time).to_string()),
                        json!(row.record.reason),
                        json!(row.record.detail),
                        json!(row.record.stage),
                        // Bytes of strangers: nothing in them may steer a terminal.
                        json!(row.record.raw.escape_ascii().to_string()),
                    ]);
                }
                left > 0
            })
            .await?;
            report.print(output)?;
        }
        Bad::Replay { reason, dry_run } => replay(parts, &reason, dry_run).await?,
    }
    Ok(0)
}

/// Gives every refusal in `bronze/bad` to `visit` until it answers false.
pub(super) async fn each(parts: &Parts, mut visit: impl FnMut(BadRow) -> bool) -> anyhow::Result<()> {
    let table = ::lake::Table::open(&parts.lake_root()?, &BRONZE_BAD).await?;
    for file in table.files()? {
        for batch in table.read(&file, None).await? {
            for row in bad_from_batch(&batch?)?.into_iter().filter(|row| !is_note(&row.record.reason)) {
                if !visit(row) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Sends refused bodies through the import path again, with the time they first came. What is refused again is left
/// where it is, and a second replay of what was taken is a duplicate: it counts once.
async fn replay(parts: &Parts, reason: &str, dry_run: bool) -> anyhow::Result<()> {
    let mut bodies = Vec::new();
    each(parts, |row| {
        if row.record.reason == reason && !row.record.raw.is_empty() {
            bodies.push(row.record);
        }
        true
    })
    .await?;
    let importer = Importer::new(parts, parts.log_writer().await?)?;
    let mut taken = Vec::new();
    for body in &bodies {
        let dated = with_time(&body.raw, Timestamp(body.ingest_time));
        if importer.judge(&dated).is_ok() {
            taken.push(dated);
        }
    }
    if !dry_run {
        importer.append(&taken).await?;
        importer.finish().await?;
    }
    let (found, taken) = (bodies.len(), taken.len());
    Ok(last_line(&json!({ "found": found, "taken": taken, "refusedAgain": found - taken, "dryRun": dry_run }))?)
}

/// The body with `ingestTime` set, where it is an object that names none.
fn with_time(raw: &[u8], at: Timestamp) -> Vec<u8> {
    let text = raw.trim_ascii();
    match (text.strip_prefix(b"{"), text.windows(12).any(|w| w == b"\"ingestTime\"")) {
        (Some(rest), false) => [format!("{{\"ingestTime\":\"{at}\",").as_bytes(), rest].concat(),
        _ => text.to_vec(),
    }
}

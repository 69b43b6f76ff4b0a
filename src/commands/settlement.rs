//! `settlement`: list, show, verify, prove; `diff` is in [`super::dispute`].

use std::path::Path;

use ::reconcile::keys::Pin;
use ::reconcile::proof::Proof;
use ::reconcile::verify::{self, Verified};
use anyhow::Context;
use serde_json::{Value, json};
use shared::id::EventId;
use shared::time::Day;

use crate::cli::{Output, Settlement};
use crate::exit::Usage;
use crate::output::{Report, last_line};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Settlement, output: Output) -> super::Done {
    match command {
        Settlement::List => {
            let mut report = Report::new(&["day", "version", "sequence", "rows", "folder"]);
            for s in settlements(parts)?.list().await? {
                let m = s.manifest;
                let folder = ::reconcile::settlements::folder(m.day, m.version);
                report.row([json!(m.day), json!(m.version), json!(m.sequence), json!(m.row_count), json!(folder)]);
            }
            report.print(output)?;
            Ok(0)
        }
        Settlement::Show { date, settlement_version: version } => {
            let shown = settlements(parts)?.show(date, version).await?;
            println!("{}", serde_json::to_string_pretty(&shown.manifest)?);
            Ok(0)
        }
        Settlement::Diff(args) => super::dispute::run(parts, &args, output).await,
        Settlement::Verify { folder, api_key, proof, key } => {
            let pin = pin(key.as_deref())?;
            let folder = super::fetch::fetch(parts, &folder, api_key.as_deref()).await?;
            check(folder.path(), proof.as_deref(), pin.as_ref(), output)
        }
        Settlement::Prove { event, date, settlement_version } => {
            let id = EventId::new(&event).map_err(|e| Usage(format!("--event: {e}")))?;
            let proof = prove(parts, &id, date, settlement_version).await?;
            let what = if proof.is_billed() { "is billed" } else { "is not billed" };
            eprintln!("event {id} {what} in the settlement of {} version {}", proof.day, proof.version);
            last_line(&json!(proof))?;
            Ok(0)
        }
    }
}

async fn prove(parts: &Parts, id: &EventId, date: Option<Day>, version: Option<u32>) -> anyhow::Result<Proof> {
    let (lake, settlements) = (parts.lake_root()?, settlements(parts)?);
    match date {
        Some(day) => Ok(::reconcile::prove::prove(&lake, &settlements, id, (day, version)).await?),
        None => {
            let found = ::reconcile::prove::find(&lake, &settlements, id).await?;
            let none = || format!("no settled day bills event {id}; for a proof of that name the day: --date");
            Ok(found.ok_or_else(|| Usage(none()))?)
        }
    }
}

fn check(folder: &Path, proof: Option<&Path>, pin: Option<&Pin>, output: Output) -> super::Done {
    let Some(proof) = proof else {
        let checked = verify::verify_as(folder, pin)?;
        return answer(&checked, output, json!({ "files": checked.files_read, "rows": checked.rows_read }));
    };
    let name = proof.display();
    let bytes = std::fs::read(proof).with_context(|| format!("reading {name}"))?;
    let proof = Proof::from_bytes(&bytes).map_err(|e| Usage(format!("{name} is not a proof: {e}")))?;
    let checked = verify::verify_proof(folder, &proof, pin)?;
    answer(&checked, output, json!({ "eventId": proof.event_id, "billed": proof.is_billed() }))
}

/// Findings as a table, warnings on stderr, then the one line.
fn answer(checked: &Verified, output: Output, more: Value) -> super::Done {
    let mut report = Report::new(&["file", "row", "finding"]);
    for finding in &checked.findings {
        report.row([json!(finding.file), json!(finding.row), json!(finding.what)]);
    }
    if !report.is_empty() {
        report.print(output)?;
    }
    for warning in &checked.warnings {
        eprintln!("warning: {warning}");
    }
    let m = checked.manifest.as_ref();
    let mut line = json!({
        "sound": checked.is_sound(),
        "day": m.map(|m| m.day),
        "version": m.map(|m| m.version),
        "signedBy": checked.signed_by,
        "findings": checked.findings.len() as u64 + checked.findings_omitted,
    });
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    last_line(&line)?;
    Ok(if checked.is_sound() { 0 } else { 13 })
}

/// What `--key` names: a key, or a file with one or with a list.
fn pin(key: Option<&str>) -> anyhow::Result<Option<Pin>> {
    let Some(key) = key else { return Ok(None) };
    if let Ok(key) = key.parse() {
        return Ok(Some(Pin::Key(key)));
    }
    let text = std::fs::read_to_string(key).with_context(|| format!("--key {key} is no public key and no file"))?;
    let parsed = text.trim().parse().map(Pin::Key).or_else(|_| serde_json::from_str(&text).map(Pin::List));
    Ok(Some(parsed.map_err(|e| Usage(format!("{key} holds no public key and no list of them: {e}")))?))
}

fn settlements(parts: &Parts) -> anyhow::Result<::reconcile::settlements::Settlements> {
    Ok(::reconcile::settlements::Settlements::new(parts.data_root()?))
}

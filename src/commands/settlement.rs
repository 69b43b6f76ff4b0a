//! `settlement`: list, show, verify.

use serde_json::json;

use crate::cli::{Output, Settlement};
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
        Settlement::Verify { folder } => {
            let checked = ::reconcile::verify::verify(&folder)?;
            let mut report = Report::new(&["file", "row", "finding"]);
            for finding in &checked.findings {
                report.row([json!(finding.file), json!(finding.row), json!(finding.what)]);
            }
            if !report.is_empty() {
                report.print(output)?;
            }
            let m = checked.manifest.as_ref();
            last_line(&json!({
                "sound": checked.is_sound(),
                "day": m.map(|m| m.day),
                "version": m.map(|m| m.version),
                "files": checked.files_read,
                "rows": checked.rows_read,
                "findings": checked.findings.len() as u64 + checked.findings_omitted,
            }))?;
            Ok(if checked.is_sound() { 0 } else { 13 })
        }
    }
}

fn settlements(parts: &Parts) -> anyhow::Result<::reconcile::settlements::Settlements> {
    Ok(::reconcile::settlements::Settlements::new(parts.data_root()?))
}

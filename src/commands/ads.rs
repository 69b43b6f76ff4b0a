//! `ads`: import and list.

use std::fs::File;
use std::io::BufReader;

use anyhow::Context;
use serde_json::json;
use shared::directory::{Directory, Format, Imported, import};
use shared::id::AdId;

use crate::cli::{Ads, Output};
use crate::output::{Report, last_line, progress};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Ads, output: Output) -> super::Done {
    let path = parts.folder().ads();
    match command {
        Ads::Import { file } => {
            let is_csv = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
            let source = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let format = if is_csv { Format::Csv } else { Format::Ndjson };
            let done = import_into(parts, BufReader::new(source), format).await;
            let done = done.with_context(|| file.display().to_string())?;
            last_line(&json!({
                "added": done.added, "changed": done.changed, "unchanged": done.unchanged, "total": done.total,
            }))?;
        }
        Ads::List { limit, after } => {
            parts.fetch_directory().await;
            let after = after.map(AdId::new).transpose().map_err(|e| crate::exit::Usage(e.to_string()))?;
            let directory = Directory::load(&path)?;
            let mut report = Report::new(&["adId", "campaignId", "advertiserId", "url", "status"]);
            for ad in directory.ads_after(after.as_ref()).take(limit) {
                report.row([
                    json!(ad.ad_id),
                    json!(ad.campaign_id.as_str()),
                    json!(ad.advertiser_id.as_str()),
                    json!(ad.url),
                    json!(ad.status.as_str()),
                ]);
            }
            report.print(output)?;
        }
    }
    Ok(0)
}

/// Imports to where the directory is kept: PostgreSQL, or the file.
#[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async))]
async fn import_into(parts: &Parts, source: BufReader<File>, format: Format) -> anyhow::Result<Imported> {
    let bar = progress("reading ads", 0);
    #[cfg(feature = "postgres")]
    if parts.settings().postgres.is_used() {
        let rows = shared::directory::read_rows(source, format).map(|row| row.map(|(_, ad)| ad));
        let rows = Directory::of(rows.collect::<Result<Vec<_>, _>>()?)?;
        let done = shared::directory::postgres::publish(&parts.settings().postgres, &rows).await?;
        parts.fetch_directory().await;
        bar.finish_and_clear();
        return Ok(done);
    }
    let done = import(&parts.folder().ads(), source, format, &mut |rows| bar.set_position(rows))?;
    bar.finish_and_clear();
    Ok(done)
}

//! `ads`: import and list.

use std::fs::File;
use std::io::BufReader;

use anyhow::Context;
use serde_json::json;
use shared::directory::{Directory, Format, import};
use shared::id::AdId;

use crate::cli::{Ads, Output};
use crate::output::{Report, last_line, progress};
use crate::wiring::Parts;

pub(super) fn run(parts: &Parts, command: Ads, output: Output) -> super::Done {
    let path = parts.folder().ads();
    match command {
        Ads::Import { file } => {
            let is_csv = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
            let source = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let bar = progress("reading ads", 0);
            let format = if is_csv { Format::Csv } else { Format::Ndjson };
            let done = import(&path, BufReader::new(source), format, &mut |rows| bar.set_position(rows))
                .with_context(|| file.display().to_string())?;
            bar.finish_and_clear();
            last_line(&json!({
                "added": done.added, "changed": done.changed, "unchanged": done.unchanged, "total": done.total,
            }))?;
        }
        Ads::List { limit, after } => {
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

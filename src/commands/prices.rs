//! `prices`: import and list.

use serde_json::json;

use crate::cli::{Output, Prices};
use crate::output::{Report, last_line};
use crate::wiring::Parts;

pub(super) fn run(parts: &Parts, command: Prices, output: Output) -> super::Done {
    let store = parts.price_store();
    match command {
        Prices::Import { file, dry_run } => {
            let (old, new) = store.import(&file, dry_run)?;
            let count = |book: &shared::price::PriceBook| book.prices.values().map(Vec::len).sum::<usize>();
            last_line(&json!({
                "priceBookVersion": new.version,
                "added": count(&new) - count(&old),
                "prices": count(&new),
                "dryRun": dry_run,
            }))?;
        }
        Prices::List => {
            let book = store.newest()?;
            let mut report = Report::new(&["campaignId", "model", "priceMicros", "currency", "validFrom", "version"]);
            for (campaign, prices) in &book.prices {
                for p in prices {
                    report.row([
                        json!(campaign.as_str()),
                        json!(p.model.as_str()),
                        json!(p.price_micros),
                        json!(p.currency.as_str()),
                        json!(p.valid_from.to_string()),
                        json!(p.version),
                    ]);
                }
            }
            report.print(output)?;
        }
    }
    Ok(0)
}

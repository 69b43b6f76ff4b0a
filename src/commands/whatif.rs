//! What-if: other rules and prices from files, and the difference a dry run found.
//! Never: stores a rule or a price.

use std::path::Path;

use anyhow::Context;
use serde_json::json;
use shared::price::{PriceBook, PriceRow};
use shared::verdict::Counting;

use crate::cli::Output;
use crate::exit::Usage;
use crate::output::Report;
use crate::price_store::{PriceStore, PriceStoreError};

/// The standing rules with what `file` (TOML or JSON) says otherwise.
pub(super) fn rules(file: &Path, standing: &Counting) -> anyhow::Result<Counting> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let bad = |why: String| Usage(format!("{}: {why}", file.display()));
    let given: toml::Table = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?
    } else {
        text.parse().map_err(|e: toml::de::Error| bad(e.to_string()))?
    };
    let mut table = toml::Table::try_from(standing).context("the standing rules")?;
    table.extend(given);
    let counting: Counting = table.try_into().map_err(|e: toml::de::Error| bad(e.to_string()))?;
    match counting.problems().first() {
        None => Ok(counting),
        Some(problem) => Err(bad(problem.clone()).into()),
    }
}

/// The newest price book, in which the campaigns of `file` have exactly the prices of `file`.
pub(super) fn prices(file: &Path, store: &PriceStore) -> anyhow::Result<PriceBook> {
    let csv = |source| PriceStoreError::Csv { file: file.to_owned(), source };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(file).map_err(csv)?;
    let rows: Vec<PriceRow> = reader.deserialize().collect::<Result<_, _>>().map_err(csv)?;
    let mut book = store.newest()?;
    for row in &rows {
        book.prices.remove(&row.campaign_id);
    }
    Ok(book.import(rows).map_err(|source| PriceStoreError::Rows { file: file.to_owned(), source })?)
}

/// Prints the difference by campaign, for people; programs find it in the job's JSON line.
pub(super) fn print(outcome: &::batch::Outcome, output: Output) -> anyhow::Result<()> {
    let Some(shadow) = outcome.shadow.as_ref().filter(|_| output != Output::Json) else { return Ok(()) };
    let mut report = Report::new(&["campaign", "what", "from", "to", "change"]);
    let whole = std::iter::once(("(all)", &shadow.day));
    for (campaign, change) in whole.chain(shadow.campaigns.iter().map(|(id, change)| (id.as_str(), change))) {
        for m in &change.moves {
            report.row([json!(campaign), json!("events"), json!(m.from), json!(m.to), json!(m.events)]);
        }
        for c in &change.costs {
            let (was, would) = (c.standing_nanos.to_string(), c.shadow_nanos.to_string());
            let change = (c.shadow_nanos - c.standing_nanos).to_string();
            report.row([
                json!(campaign),
                json!(format!("nanos {}", c.currency)),
                json!(was),
                json!(would),
                json!(change),
            ]);
        }
    }
    if report.is_empty() {
        eprintln!("{}: nothing would change", outcome.record.day);
        return Ok(());
    }
    Ok(report.print(output)?)
}

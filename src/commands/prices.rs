//! `prices`: import (or only say what would change, and what that costs: [`super::repriced`]) and list.

use std::collections::BTreeSet;

use ::reconcile::days::{DayStatus, days};
use ::reconcile::settlements::Settlements;
use serde_json::{Value, json};
use shared::directory::Directory;
use shared::id::CampaignId;
use shared::price::{NO_PRICE, Price, PriceBook, PriceChange};
use shared::time::Day;

use crate::cli::{Output, Prices};
use crate::output::{Report, last_line};
use crate::wiring::Parts;

use super::repriced;

pub(super) async fn run(parts: &Parts, command: Prices, output: Output) -> super::Done {
    match command {
        Prices::Import { file, dry_run, any_campaign } => {
            parts.fetch_directory().await;
            let ads = Directory::load(&parts.folder().ads())?;
            let takes_any = any_campaign || ads.is_empty();
            let is_known = |campaign: &CampaignId| takes_any || ads.advertiser_of(campaign).is_some();
            let (old, new) = parts.price_store().import(&file, &is_known, dry_run)?;
            let changes = old.changes(&new);
            for change in changes.iter().filter(|c| c.changes_currency()) {
                let (from, to) = (change.before.currency, change.after.currency);
                tracing::warn!(campaign = %change.campaign, at = %change.after.valid_from, "{from} → {to}: a campaign changes its currency");
            }
            let (mut days, mut costs) = (Value::Null, Value::Null);
            if dry_run {
                let touched = diff(parts, &changes, output).await?;
                costs = repriced::print(&repriced::repriced(parts, &touched.open, &old, &new).await?, output)?;
                days = json!({ "open": touched.open, "settled": touched.settled });
            }
            let count = |book: &PriceBook| book.prices.values().map(Vec::len).sum::<usize>();
            last_line(&json!({
                "priceBookVersion": new.version,
                "added": count(&new) - count(&old),
                "prices": count(&new),
                "currencyChanges": changes.iter().filter(|c| c.changes_currency()).count(),
                "days": days,
                "costs": costs,
                "dryRun": dry_run,
            }))?;
        }
        Prices::List { gaps: false } => list(&parts.price_store().newest()?, output)?,
        Prices::List { gaps: true } => gaps(parts, output)?,
    }
    Ok(0)
}

fn words(price: &Price) -> String {
    match *price == NO_PRICE {
        true => "none".to_owned(),
        false => format!("{} {} {}", price.model.as_str(), price.price_micros, price.currency),
    }
}

/// Days with events that a change of prices touches.
struct Touched {
    open: BTreeSet<Day>,
    settled: BTreeSet<Day>,
}

/// Prints each change with the days it touches, and answers those.
async fn diff(parts: &Parts, changes: &[PriceChange<'_>], output: Output) -> anyhow::Result<Touched> {
    let close_delay = parts.settings().batch.close_delay.as_micros();
    let settlements = Settlements::new(parts.data_root()?);
    let all = days(&parts.lake_root()?, &settlements, parts.clock().now(), close_delay).await?.days;
    let of = |days: &mut dyn Iterator<Item = &DayStatus>| days.map(|d| d.day).collect::<BTreeSet<_>>();
    let words_of = |days: &BTreeSet<Day>| days.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut report = Report::new(&["campaignId", "from", "until", "before", "after", "openDays", "settledDays"]);
    let mut both = Touched { open: BTreeSet::new(), settled: BTreeSet::new() };
    for change in changes {
        let touched = || all.iter().filter(|d| d.archived > 0 && change.touches(d.day));
        let ours = of(&mut touched().filter(|d| d.version.is_none()));
        let restated = of(&mut touched().filter(|d| d.version.is_some()));
        report.row([
            json!(change.campaign),
            json!(change.after.valid_from.to_string()),
            json!(change.until.map(|t| t.to_string())),
            json!(words(change.before)),
            json!(words(change.after)),
            json!(words_of(&ours)),
            json!(words_of(&restated)),
        ]);
        both.open.extend(ours);
        both.settled.extend(restated);
    }
    report.print(output)?;
    Ok(both)
}

fn list(book: &PriceBook, output: Output) -> anyhow::Result<()> {
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
    Ok(report.print(output)?)
}

/// Campaigns with ads and without a price in force now: what they count is free, and batch warns of it.
fn gaps(parts: &Parts, output: Output) -> anyhow::Result<()> {
    let (book, now) = (parts.price_store().newest()?, parts.clock().now());
    let ads = Directory::load(&parts.folder().ads())?;
    let campaigns: BTreeSet<CampaignId> = ads.ads_after(None).map(|ad| ad.campaign_id.clone()).collect();
    let mut report = Report::new(&["campaignId", "firstPriceFrom"]);
    for campaign in campaigns.iter().filter(|c| *book.in_force(c.as_str(), now) == NO_PRICE) {
        let first = book.prices.get(campaign.as_str()).and_then(|prices| prices.first());
        report.row([json!(campaign), json!(first.map(|p| p.valid_from.to_string()))]);
    }
    Ok(report.print(output)?)
}

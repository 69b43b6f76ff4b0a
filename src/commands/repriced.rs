//! What other prices do to the cost of open days: each day's events counted again under both books, nothing kept.
//! Guarantee: exact, to the nano, whether the day was run before or not; what would cost the same is not listed. Never: stores a price or a run.

use std::collections::{BTreeMap, BTreeSet};

use ::batch::whatif::CostChange;
use anyhow::Context;
use serde_json::{Value, json};
use shared::money::micros_half_even;
use shared::price::PriceBook;
use shared::time::Day;

use crate::cli::Output;
use crate::output::Report;
use crate::wiring::Parts;

use super::batch::one_day;

/// Day, campaign, currency → nanos more (or less) under the other book.
pub(super) type Costs = BTreeMap<(Day, String, String), i128>;

/// What `other` costs beyond `standing` on each of `days`.
pub(super) async fn repriced(
    parts: &Parts,
    days: &BTreeSet<Day>,
    standing: &PriceBook,
    other: &PriceBook,
) -> anyhow::Result<Costs> {
    let mut costs = Costs::new();
    for day in days {
        // Both are held against the day's run, if there is one, so what they have in common with it cancels.
        for (book, sign) in [(standing, -1), (other, 1)] {
            let doing = || format!("counting {day} again");
            for (campaign, cost) in against_run(parts, *day, book).await.with_context(doing)? {
                let sum = costs.entry((*day, campaign, cost.currency)).or_insert(0_i128);
                let change = cost.shadow_nanos.checked_sub(cost.standing_nanos).and_then(|c| c.checked_mul(sign));
                *sum = change.and_then(|c| sum.checked_add(c)).context("a cost change overflows its integer")?;
            }
        }
    }
    costs.retain(|_, change| *change != 0);
    Ok(costs)
}

/// By campaign, what a book changes in the day's run.
async fn against_run(parts: &Parts, day: Day, book: &PriceBook) -> anyhow::Result<Vec<(String, CostChange)>> {
    let deps = parts.batch_deps(None, Some(book.clone())).await?;
    let request = ::batch::Request { day, dry_run: true, force: true };
    let campaigns = one_day(&deps, &parts.batch_settings(), request).await?.shadow.unwrap_or_default().campaigns;
    let costs = campaigns.into_iter().flat_map(|(id, change)| change.costs.into_iter().map(move |c| (id.clone(), c)));
    Ok(costs.collect())
}

/// Prints the table for people, and answers what programs find in the job's JSON line.
pub(super) fn print(costs: &Costs, output: Output) -> anyhow::Result<Value> {
    let mut report = Report::new(&["day", "campaignId", "currency", "changeMicros"]);
    let mut answer = Vec::new();
    for ((day, campaign, currency), change) in costs {
        report.row([json!(day), json!(campaign), json!(currency), json!(micros_half_even(*change)?)]);
        let change = change.to_string();
        answer.push(json!({ "day": day, "campaignId": campaign, "currency": currency, "changeNanos": change }));
    }
    if output != Output::Json {
        report.print(output)?;
    }
    Ok(answer.into())
}

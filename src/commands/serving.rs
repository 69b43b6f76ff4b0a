//! `serving`: the role, the store's schema, and whether two stores say the same.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest, Sha256};
use shared::id::CampaignId;
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::serving_store::ServingStore;
use shared::time::Day;

use super::roles::{self, Role};
use crate::cli::{Output, Serving, ServingArgs};
use crate::exit::Usage;
use crate::output::{Report, last_line};
use crate::wiring::Parts;

/// Two stores differ.
const DIFFERENT: u8 = 13;

pub(super) async fn run(parts: Parts, args: ServingArgs, output: Output) -> super::Done {
    match args.command {
        None => roles::run(parts, &[Role::Serving], args.roles.run_for).await,
        Some(Serving::Migrate { cluster, cold_after_days }) => {
            parts.lay_out_serving_store(cluster, cold_after_days).await?;
            last_line(&json!({ "migrated": true }))?;
            Ok(0)
        }
        Some(Serving::Verify { left, right, from, to }) => {
            if from > to {
                return Err(Usage(format!("--from {from} is after --to {to}")).into());
            }
            let stores = [parts.serving_store_at(&left).await?, parts.serving_store_at(&right).await?];
            verify(stores.each_ref().map(AsRef::as_ref), from..=to, output).await
        }
    }
}

/// What one store says of a campaign's day, in one grain and currency.
#[derive(Default)]
struct Sums {
    rows: u64,
    counts: Counts,
    /// Of every row, in key order: the same totals spread otherwise are a difference too.
    checksum: Sha256,
}

/// Grain, campaign and currency.
type Line = (&'static str, CampaignId, Currency);

async fn verify(stores: [&dyn ServingStore; 2], days: std::ops::RangeInclusive<Day>, output: Output) -> super::Done {
    let mut report = Report::new(&["day", "campaignId", "grain", "currency", "difference"]);
    let (mut compared, mut different) = (0_u64, 0_u64);
    for day in (days.start().0..=days.end().0).map(Day) {
        let (left, mut right) = (sums(stores[0], day).await?, sums(stores[1], day).await?);
        let mut lines: Vec<(Line, Sums, Sums)> = Vec::new();
        for (line, sums) in left {
            let other = right.remove(&line).unwrap_or_default();
            lines.push((line, sums, other));
        }
        lines.extend(right.into_iter().map(|(line, sums)| (line, Sums::default(), sums)));
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        for ((grain, campaign, currency), left, right) in lines {
            compared += 1;
            if let Some(difference) = difference(left, right) {
                different += 1;
                report.row([json!(day.to_string()), json!(campaign), json!(grain), json!(currency), json!(difference)]);
            }
        }
    }
    report.print(output)?;
    last_line(&json!({ "compared": compared, "different": different }))?;
    Ok(if different == 0 { 0 } else { DIFFERENT })
}

async fn sums(store: &dyn ServingStore, day: Day) -> anyhow::Result<BTreeMap<Line, Sums>> {
    let mut lines: BTreeMap<Line, Sums> = BTreeMap::new();
    for hour in day.hours() {
        for row in store.read_hour(hour).await? {
            let sums = lines.entry(line(&row)).or_default();
            sums.rows += 1;
            sums.counts = sums.counts.merge(&row.counts)?;
            sums.checksum.update(format!("{:?} {:?}\n", row.key, row.counts));
        }
    }
    Ok(lines)
}

fn line(row: &RollupRow) -> Line {
    match &row.key {
        RollupKey::AdMinute { campaign_id, currency, .. } => ("ad minutes", campaign_id.clone(), *currency),
        RollupKey::CampaignMinute { campaign_id, currency, .. } => ("campaign minutes", campaign_id.clone(), *currency),
        RollupKey::CampaignHour { campaign_id, currency, .. } => ("campaign hours", campaign_id.clone(), *currency),
    }
}

/// What differs, in words.
fn difference(left: Sums, right: Sums) -> Option<String> {
    let figures = |s: &Sums| {
        [
            ("rows", i128::from(s.rows)),
            ("impressions", i128::from(s.counts.impressions)),
            ("clicks", i128::from(s.counts.clicks)),
            ("conversions", i128::from(s.counts.conversions)),
            ("cost nanos", s.counts.cost_nanos),
        ]
    };
    let pairs = figures(&left).into_iter().zip(figures(&right));
    let unequal = pairs.filter(|(l, r)| l != r).map(|((name, l), (_, r))| format!("{name} {l} and {r}"));
    let unequal: Vec<String> = unequal.collect();
    if !unequal.is_empty() {
        return Some(unequal.join(", "));
    }
    (left.checksum.finalize() != right.checksum.finalize()).then(|| "the same sums, spread otherwise".to_owned())
}

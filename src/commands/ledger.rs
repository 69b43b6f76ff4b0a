//! `ledger`: balance and list. Settlements that were published and not posted (a kill came between) are posted first.

use std::collections::BTreeMap;

use ::reconcile::ledger::{self, Posting};
use ::reconcile::settlements::Settlements;
use serde_json::json;

use crate::cli::{Ledger, Output, Postings};
use crate::output::Report;
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Ledger, output: Output) -> super::Done {
    match command {
        Ledger::Balance(which) => balance(&postings(parts, &which).await?, output)?,
        Ledger::List(which) => list(&postings(parts, &which).await?, output)?,
    }
    Ok(0)
}

async fn postings(parts: &Parts, which: &Postings) -> anyhow::Result<Vec<Posting>> {
    let lake = parts.lake_root()?;
    ledger::catch_up(&lake, &Settlements::new(parts.data_root()?)).await?;
    let mut found = ledger::postings(&lake, which.date).await?;
    found.retain(|p| which.campaign.as_ref().is_none_or(|c| p.campaign_id.as_str() == c));
    Ok(found)
}

fn balance(postings: &[Posting], output: Output) -> anyhow::Result<()> {
    let mut sums: BTreeMap<(String, String), (u64, i128)> = BTreeMap::new();
    for p in postings {
        let sum = sums.entry((p.account(), p.currency.to_string())).or_default();
        *sum = (sum.0 + 1, sum.1 + i128::from(p.amount_micros));
    }
    let mut report = Report::new(&["account", "currency", "postings", "balanceMicros"]);
    for ((account, currency), (count, micros)) in sums {
        // Text, because a sum may exceed what JSON readers take for a safe integer.
        report.row([json!(account), json!(currency), json!(count), json!(micros.to_string())]);
    }
    Ok(report.print(output)?)
}

fn list(postings: &[Posting], output: Output) -> anyhow::Result<()> {
    let columns = ["transactionId", "day", "version", "adjustmentId", "account", "currency", "amountMicros"];
    let mut report = Report::new(&columns);
    for p in postings {
        report.row([
            json!(p.transaction_id),
            json!(p.day),
            json!(p.version),
            json!(p.adjustment_id),
            json!(p.account()),
            json!(p.currency),
            json!(p.amount_micros),
        ]);
    }
    Ok(report.print(output)?)
}

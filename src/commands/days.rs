//! `days`: where every billing day stands.

use ::reconcile::days::days;
use ::reconcile::settlements::Settlements;
use serde_json::json;

use crate::cli::{DaysArgs, Output};
use crate::output::{Report, last_line};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, args: &DaysArgs, output: Output) -> super::Done {
    let settlements = Settlements::new(parts.data_root()?);
    let close_delay = parts.settings().batch.close_delay.as_micros();
    let mut all = days(&parts.lake_root()?, &settlements, parts.clock().now(), close_delay).await?;
    all.days.retain(|d| args.from.is_none_or(|from| d.day >= from) && args.to.is_none_or(|to| d.day <= to));
    if output == Output::Json {
        last_line(&json!(all))?;
        return Ok(0);
    }
    let columns = ["day", "state", "version", "run", "archived", "unsettledEvents", "unsettledAdjustments"];
    let mut report = Report::new(&columns);
    for d in &all.days {
        let (events, adjustments) = (d.unsettled_events, d.unsettled_adjustments);
        let cells = [json!(d.day), json!(d.state), json!(d.version), json!(d.run), json!(d.archived)];
        report.row(cells.into_iter().chain([json!(events), json!(adjustments)]));
    }
    report.print(output)?;
    if output == Output::Table {
        println!("closed through: {}", all.closed_through.map_or("no day yet".to_owned(), |day| day.to_string()));
    }
    Ok(0)
}

//! `reconcile`: run and rebuild.

use serde_json::json;
use shared::time::Day;

use crate::cli::{Days, Reconcile};
use crate::exit::Usage;
use crate::output::{last_line, progress};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, command: Reconcile) -> super::Done {
    match command {
        Reconcile::Run { days, force } => settle(parts, &days, force).await,
        Reconcile::Rebuild => {
            let bar = progress("rebuilding", 1);
            let rebuilt = ::reconcile::rebuild::run(&parts.reconcile_deps().await?, &|done, of| {
                bar.set_length(of);
                bar.set_position(done);
            })
            .await?;
            bar.finish_and_clear();
            last_line(&json!(rebuilt))?;
            Ok(0)
        }
    }
}

/// Days in order; the first that is not ready or over tolerance ends the run with its exit code.
async fn settle(parts: &Parts, days: &Days, force: bool) -> super::Done {
    let days = days.list().map_err(Usage)?;
    #[cfg(feature = "kafka")]
    super::adjust::receive(parts).await?;
    let mut results = Vec::new();
    let mut codes = Vec::new();
    for day in &days {
        let outcome = one_day(parts, *day, force).await?;
        codes.push(outcome.exit_code());
        results.push(json!(outcome));
        if ![0, 99].contains(&outcome.exit_code()) {
            break;
        }
    }
    let line = if let [one] = results.as_slice() { one.clone() } else { json!({ "days": results }) };
    last_line(&line)?;
    let failed = codes.iter().copied().find(|c| ![0, 99].contains(c));
    let all_final = codes.iter().all(|c| *c == 99);
    Ok(failed.unwrap_or(if all_final { 99 } else { 0 }))
}

pub(super) async fn one_day(parts: &Parts, day: Day, force: bool) -> anyhow::Result<::reconcile::Outcome> {
    let bar = progress(&format!("reconcile {day}"), 24);
    let request = ::reconcile::Request { day, force, reason: None };
    let deps = parts.reconcile_deps().await?;
    let outcome = ::reconcile::run(&deps, &parts.reconcile_settings(), &request, &|p| {
        use ::reconcile::Progress;
        match p {
            Progress::Measured(hours) | Progress::Corrected(hours) => {
                bar.set_position(u64::try_from(hours).unwrap_or(u64::MAX));
            }
            Progress::Publishing => bar.set_message(format!("reconcile {day}: publishing")),
        }
    })
    .await?;
    bar.finish_and_clear();
    Ok(outcome)
}

//! `batch`: ready, run (and backfill); a dry run shows what it would change ([`super::whatif`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use lake::run_record::RunRecord;
use serde_json::{Value, json};

use crate::cli::{Batch, BatchRun, Days, Engine, Output};
use crate::exit::Usage;
use crate::output::{last_line, progress};
use crate::wiring::Parts;

use super::whatif;

pub(super) async fn run(parts: &Parts, command: Batch, output: Output) -> super::Done {
    match command {
        Batch::Ready { days } => ready(parts, &days).await,
        Batch::Run(args) => recompute(parts, &args, output).await,
        #[cfg(feature = "ballista")]
        Batch::Scheduler { bind, executor_timeout } => scheduler(bind, executor_timeout).await,
        #[cfg(feature = "ballista")]
        Batch::Executor { scheduler, bind, advertise, threads } => {
            let mut settings = parts.batch_settings();
            settings.threads = threads.unwrap_or(settings.threads);
            settings.ballista.scheduler_url = scheduler.unwrap_or(settings.ballista.scheduler_url);
            ::batch::cluster::executor(parts.lake_root()?, &settings, bind, advertise).await?;
            Ok(0)
        }
    }
}

#[cfg(feature = "ballista")]
async fn scheduler(bind: std::net::SocketAddr, executor_timeout: shared::config::Span) -> super::Done {
    let shutdown = shared::shutdown::Shutdown::new();
    super::roles::on_signal(shutdown.clone())?;
    let listener = tokio::net::TcpListener::bind(bind).await.with_context(|| format!("cannot listen on {bind}"))?;
    ::batch::cluster::scheduler(listener, executor_timeout.0, &shutdown).await?;
    Ok(0)
}

async fn ready(parts: &Parts, days: &Days) -> super::Done {
    let mut waiting = Vec::new();
    let days = days.list().map_err(Usage)?;
    let deps = parts.batch_deps(None, None).await?;
    for day in &days {
        match ::batch::ready(&deps, &parts.batch_settings(), *day, false).await {
            Ok(()) => {}
            Err(e) if e.exit_code() == 10 => waiting.push(format!("{day}: {e}")),
            Err(e) => return Err(e.into()),
        }
    }
    last_line(&json!({ "days": days, "ready": waiting.is_empty(), "waiting": waiting }))?;
    Ok(if waiting.is_empty() { 0 } else { 10 })
}

/// Days in order; one that changed nothing does not stop the others. The exit code is 99 only when all were final.
async fn recompute(parts: &Parts, args: &BatchRun, output: Output) -> super::Done {
    let days = args.days.list().map_err(Usage)?;
    let rules = args.rules.as_deref().map(|file| whatif::rules(file, &parts.settings().counting)).transpose()?;
    let prices = args.prices.as_deref().map(|file| whatif::prices(file, &parts.price_store())).transpose()?;
    let deps = parts.batch_deps(rules, prices).await?;
    let mut settings = parts.batch_settings();
    if let Some(threads) = args.threads {
        settings.threads = threads;
    }
    if let Some(engine) = args.engine {
        settings.engine = match engine {
            Engine::Local => ::batch::Engine::Local,
            Engine::Ballista => ::batch::Engine::Ballista,
        };
    }
    if let Some(problem) = settings.problems().into_iter().next() {
        return Err(Usage(problem.to_string()).into());
    }
    let mut results = Vec::new();
    let mut unchanged = 0;
    for day in &days {
        let request = ::batch::Request { day: *day, dry_run: args.dry_run, force: args.force };
        let outcome = one_day(&deps, &settings, request).await.with_context(|| format!("batch of {day}"))?;
        unchanged += usize::from(outcome.status == ::batch::Status::Unchanged);
        whatif::print(&outcome, output)?;
        results.push(summary(&outcome));
    }
    let line = if let [one] = results.as_slice() { one.clone() } else { json!({ "days": results }) };
    last_line(&line)?;
    Ok(if unchanged == days.len() && !args.dry_run { 99 } else { 0 })
}

pub(super) async fn one_day(
    deps: &::batch::Deps,
    settings: &::batch::Settings,
    request: ::batch::Request,
) -> Result<::batch::Outcome, ::batch::Error> {
    let bar = progress(&format!("batch {}", request.day), 0);
    let shown = bar.clone();
    let listener: ::batch::Listener = Arc::new(move |p| {
        shown.set_message(format!("batch {}: {}", p.day, p.step.as_str()));
        shown.set_length(p.total);
        shown.set_position(p.done);
    });
    let outcome = ::batch::recompute(deps, settings, request, &listener).await;
    bar.finish_and_clear();
    outcome
}

/// The job's JSON line: how it ended, what was counted, and against what it changed.
pub(super) fn summary(outcome: &::batch::Outcome) -> Value {
    let record = &outcome.record;
    let files = |r: &RunRecord| -> BTreeMap<String, Vec<String>> {
        r.outputs.iter().map(|(t, o)| (t.clone(), o.files.iter().map(|f| f.sha256.clone()).collect())).collect()
    };
    let changed = outcome.previous.as_ref().map(|previous| {
        let change = |(verdict, now): (&String, &u64)| {
            let before = previous.verdicts.get(verdict).copied().unwrap_or(0);
            (before != *now).then(|| (verdict.clone(), json!({ "before": before, "now": now })))
        };
        record.verdicts.iter().filter_map(change).collect::<serde_json::Map<_, _>>()
    });
    json!({
        "day": record.day,
        "outcome": outcome.status.as_str(),
        "published": outcome.published,
        "run": record.run,
        "verdicts": record.verdicts,
        "totals": record.totals,
        "changed": changed,
        "sha256": files(record),
        "warnings": record.warnings,
        "shadow": outcome.shadow,
    })
}

//! `lake`: the archiver and its maintenance.

use serde_json::json;
use shared::time::Day;

use super::roles::{self, Role};
use crate::cli::{Lake, LakeArgs, Output};
use crate::output::{Report, last_line, progress};
use crate::wiring::Parts;

pub(super) async fn run(parts: Parts, args: LakeArgs, output: Output) -> super::Done {
    match args.command {
        None if args.drain => drain(&parts).await,
        None => roles::run(parts, &[Role::Lake], args.roles.run_for).await,
        Some(Lake::Optimize { date }) => optimize(&parts, date).await,
        Some(Lake::Vacuum { retention, dry_run }) => vacuum(&parts, retention, dry_run).await,
        Some(Lake::Stats) => stats(&parts, output).await,
    }
}

async fn drain(parts: &Parts) -> super::Done {
    let bar = waiting("archiving");
    let archived = parts.archiver(parts.log_reader().await?)?.drain().await?;
    bar.finish_and_clear();
    let end = |p: &shared::progress::Positions| p.0.values().sum::<u64>();
    last_line(&json!({ "events": end(&archived.events), "deadLetters": end(&archived.dead_letters) }))?;
    Ok(0)
}

async fn optimize(parts: &Parts, day: Option<Day>) -> super::Done {
    let settings = parts.settings().lake.maintenance.clone();
    let root = parts.lake_root()?;
    let mut all = serde_json::Map::new();
    for def in ::lake::tables::ALL.iter().copied().filter(|d| d.name.starts_with("bronze/")) {
        let mut table = ::lake::Table::open(&root, def).await?;
        let bar = waiting(&format!("merging small files of {}", def.name));
        let done = ::lake::maintenance::optimize(&mut table, &settings, day).await?;
        bar.finish_and_clear();
        all.insert(def.name.to_owned(), json!(done));
    }
    last_line(&all.into())?;
    Ok(0)
}

/// A spinner that turns by itself while work without a known length goes on.
fn waiting(what: &str) -> indicatif::ProgressBar {
    let bar = progress(what, 0);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

async fn vacuum(parts: &Parts, retention: shared::config::Span, dry_run: bool) -> super::Done {
    let root = parts.lake_root()?;
    let pins = parts.pinned_versions().await?;
    let mut all = serde_json::Map::new();
    for def in ::lake::tables::ALL.iter().copied() {
        let mut table = ::lake::Table::open(&root, def).await?;
        let done = ::lake::maintenance::vacuum(&mut table, retention, &pins, dry_run).await?;
        all.insert(def.name.to_owned(), json!(done));
    }
    last_line(&json!({ "dryRun": dry_run, "tables": all }))?;
    Ok(0)
}

async fn stats(parts: &Parts, output: Output) -> super::Done {
    let stats = ::lake::maintenance::stats(&parts.lake_root()?, &parts.settings().lake.maintenance).await?;
    let mut report =
        Report::new(&["table", "version", "days", "files", "smallFiles", "rows", "bytes", "logFiles", "logBytes"]);
    for s in stats {
        report.row([
            json!(s.table),
            json!(s.version),
            json!(s.days),
            json!(s.files),
            json!(s.small_files),
            json!(s.rows),
            json!(s.bytes),
            json!(s.log_files),
            json!(s.log_bytes),
        ]);
    }
    report.print(output)?;
    Ok(0)
}

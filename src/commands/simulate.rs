//! `simulate`: traffic to a file, to the log, or over HTTP.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use shared::shutdown::Shutdown;

use crate::cli::Simulate;
use crate::output::{last_line, progress};
use crate::simulate::{History, Settings, Tally, World, write_history};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, args: &Simulate) -> super::Done {
    let settings = settings(args)?;
    let world = World::new(&settings);
    if args.to.starts_with("http://") {
        return live(parts, settings, args).await;
    }
    let tally = if args.to == "log:" {
        let folder = tempfile(parts)?;
        let file = folder.join("history.ndjson");
        let tally = history(parts, settings, &world, &file)?;
        super::import::run(parts, &[file], crate::cli::Output::Json).await?;
        std::fs::remove_dir_all(&folder)?;
        tally
    } else {
        history(parts, settings, &world, Path::new(&args.to))?
    };
    last_line(&json!({ "to": args.to, "items": labels(&tally) }))?;
    Ok(0)
}

fn tempfile(parts: &Parts) -> anyhow::Result<std::path::PathBuf> {
    let folder = parts.folder().root().join(format!("state/simulate-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[allow(clippy::cast_precision_loss)] // shares of a simulation
fn settings(args: &Simulate) -> anyhow::Result<Settings> {
    let per_thousand = |n: u32| f64::from(n) / 1_000.0;
    let settings = Settings {
        seed: args.seed,
        start: args.from,
        days: args.days,
        events: args.events,
        rate: u32::try_from(args.rate)?,
        ads: args.ads,
        zipf: f64::from(args.zipf) / 100.0,
        duplicates: per_thousand(args.duplicates),
        late: per_thousand(args.late),
        bots: per_thousand(args.bots),
        ..Settings::default()
    };
    let problems = settings.problems();
    if let Some(first) = problems.first() {
        return Err(crate::exit::Usage(first.to_string()).into());
    }
    Ok(settings)
}

/// Writes the history, and beside it the journal, the ads and the prices it goes with.
fn history(parts: &Parts, settings: Settings, world: &World, file: &Path) -> anyhow::Result<Tally> {
    let beside = |ending: &str| file.with_extension(ending);
    let create = |path: &Path| {
        File::create(path).map(BufWriter::new).with_context(|| format!("cannot write {}", path.display()))
    };
    world.write_ads(&mut create(&beside("ads.csv"))?)?;
    world.write_prices(&mut create(&beside("prices.csv"))?)?;
    let bar = progress("generating", settings.events);
    let items = History::new(settings, parts.event_signer()?);
    let tally =
        write_history(items, &mut create(file)?, &mut create(&beside("journal.csv"))?, &mut |n| bar.set_position(n))?;
    bar.finish_and_clear();
    let mut err = std::io::stderr().lock();
    writeln!(err, "wrote {0} and, beside it, .ads.csv .prices.csv .journal.csv", file.display())?;
    Ok(tally)
}

async fn live(parts: &Parts, settings: Settings, args: &Simulate) -> super::Done {
    let stop = Shutdown::new();
    super::roles::on_signal(stop.clone())?;
    let sent = crate::traffic::drive(parts, settings, &args.to, args.duration, &stop).await?;
    last_line(&json!({ "to": args.to, "items": labels(&sent.items), "answers": sent.answers }))?;
    Ok(0)
}

fn labels(tally: &Tally) -> serde_json::Value {
    tally.iter().map(|(label, n)| (label.as_str().to_owned(), json!(n))).collect::<serde_json::Map<_, _>>().into()
}

//! `replay`: a part of the log once more through the speed layer, into a store of its own.

use serde_json::json;
use shared::progress::Positions;
use shared::time::Timestamp;

use crate::cli::Replay;
use crate::exit::Usage;
use crate::output::{last_line, progress};
use crate::wiring::Parts;

pub(super) async fn run(parts: &Parts, args: &Replay) -> super::Done {
    let logs = parts.log_reader().await?;
    let bounds = logs.events.bounds().await?;
    let (mut from, to) = (
        at(&logs, args.from_time, bounds.start).await?, // the log's start, or where that time begins
        at(&logs, args.until_time, bounds.end).await?,
    );
    for place in &args.from_position {
        let (partition, position) = place_of(place)?;
        if from.0.insert(partition, position).is_none() {
            return Err(Usage(format!("{place}: the log has {} partitions", logs.events.partitions())).into());
        }
    }
    let (settings, deps) = parts.replay(logs, &args.to).await?;
    let bar = progress("replay", from.lag(&to));
    let replayed = ::speed::replay(&settings, &deps, &from, &to, &|read, of| {
        bar.set_length(of);
        bar.set_position(read);
    })
    .await?;
    bar.finish_and_clear();
    last_line(&json!({
        "store": args.to,
        "from": from.0,
        "to": to.0,
        "records": replayed.outcomes.total(),
        "outcomes": replayed.outcomes.by_word(),
        "rows": replayed.rows,
    }))?;
    Ok(0)
}

async fn at(logs: &crate::logs::Logs, time: Option<Timestamp>, otherwise: Positions) -> anyhow::Result<Positions> {
    match time {
        Some(time) => Ok(logs.events.positions_at(time).await?),
        None => Ok(otherwise),
    }
}

/// `PARTITION:POSITION`.
fn place_of(text: &str) -> Result<(u32, u64), Usage> {
    let numbers = text.split_once(':').and_then(|(p, n)| Some((p.parse().ok()?, n.parse().ok()?)));
    numbers.ok_or_else(|| Usage(format!("--from-position {text}: write PARTITION:POSITION, such as 3:12000")))
}

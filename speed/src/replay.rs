//! A part of the log once more through fresh workers, into a store of its own: what the speed layer would show had it
//! read just that. To look at a change of code or prices before it is live, or at what an outage did (requirement H8).
//!
//! Guarantees: reads from the named positions to the named ends, no further; the same part gives the same rows.
//! On crash: the store has some of the rows; remove it and begin again.
//! Never: touches checkpoints, reports positions, or writes into a store that another speed layer writes.

use std::collections::BTreeMap;

use shared::config::Problem;
use shared::event_log::Record;
use shared::progress::Positions;
use shared::rollup::RowVersion;
use shared::serving_store::Flush;

use crate::outcome::Tally;
use crate::settings::Settings;
use crate::worker::Worker;
use crate::{Deps, Error};

/// The name under which the log is read.
const GROUP: &str = "replay";

/// What a replay did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records by outcome.
    pub outcomes: Tally,
    /// Rows written; one that changed between two flushes counts twice.
    pub rows: u64,
}

/// One partition of it.
struct Part {
    worker: Worker,
    end: u64,
    generation: u32,
    sequence: u64,
}

impl Part {
    /// Takes in the next record, unless it lies beyond the end.
    fn apply(&mut self, record: &Record, replayed: &mut Replayed) {
        if record.position < self.end {
            replayed.outcomes.add(self.worker.apply(record));
        }
    }
}

/// Reads the log from `from` to before `to`, partition by partition, into `deps.store`; `progress` is told records read
/// and to be read.
///
/// # Errors
/// [`Error::Settings`] when `to` lies before `from` or the store has a writer already; those of log and store.
pub async fn replay(
    settings: &Settings,
    deps: &Deps,
    from: &Positions,
    to: &Positions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Replayed, Error> {
    let mut parts = parts(settings, deps, from, to).await?;
    let (all, mut read, mut unflushed) = (from.lag(to), 0, 0);
    let mut replayed = Replayed::default();
    let mut consumer = deps.events.consumer(GROUP, from).await?;
    while !consumer.positions().covers(to) {
        let prices = (deps.prices)();
        parts.values_mut().for_each(|part| part.worker.set_prices(prices.clone()));
        for record in consumer.poll(settings.poll_records, settings.poll_wait.0).await? {
            // The log only hands out what was asked for.
            let Some(part) = parts.get_mut(&record.partition) else { continue };
            part.apply(&record, &mut replayed);
        }
        parts.values().try_for_each(|part| part.worker.check())?;
        unflushed += replayed.outcomes.total() - read;
        read = replayed.outcomes.total();
        progress(read, all);
        if unflushed >= settings.max_unflushed_records {
            flush(deps, &mut parts, &mut replayed).await?;
            unflushed = 0;
        }
    }
    flush(deps, &mut parts, &mut replayed).await?;
    Ok(replayed)
}

/// Fresh workers, each at its position.
async fn parts(
    settings: &Settings,
    deps: &Deps,
    from: &Positions,
    to: &Positions,
) -> Result<BTreeMap<u32, Part>, Error> {
    let mut problems = settings.problems();
    if let Some((partition, start)) = from.0.iter().find(|(partition, start)| to.next(**partition) < **start) {
        let why = format!("partition {partition} would begin at {start} and end at {}", to.next(*partition));
        problems.push(Problem::new("from", why));
    }
    if !deps.store.writers().await?.is_empty() {
        problems.push(Problem::new("to", "is a store that has rows of a speed layer: name an empty one"));
    }
    if !problems.is_empty() {
        return Err(Error::Settings(problems));
    }
    let share = settings.share_of(from.0.len());
    let mut parts = BTreeMap::new();
    for (&partition, &start) in &from.0 {
        let generation = deps.store.next_generation(partition).await?;
        let worker = Worker::with_shelf(partition, start, &share, share.shelf());
        parts.insert(partition, Part { worker, end: to.next(partition), generation, sequence: 0 });
    }
    Ok(parts)
}

async fn flush(deps: &Deps, parts: &mut BTreeMap<u32, Part>, replayed: &mut Replayed) -> Result<(), Error> {
    let now = deps.clock.now();
    for (&writer, part) in parts {
        part.sequence += 1;
        let rows = part.worker.take_changed_rows(now);
        replayed.rows += rows.len() as u64;
        let lag = part.end.saturating_sub(part.worker.next_position());
        let status = part.worker.status(now, part.worker.watermark(), lag);
        let version = RowVersion::speed(part.generation, part.sequence);
        deps.store.upsert_approximate(Flush { writer, version, rows, status }).await?;
    }
    Ok(())
}

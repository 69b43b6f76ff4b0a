//! Whether a day can be recomputed: it is closed, and the lake holds everything both logs had taken by then.
//! Never: waits.

use shared::event_log::EventLog;
use shared::progress::Positions;
use shared::time::{Day, Timestamp};

use crate::error::Error;
use crate::job::Deps;
use crate::positions::Covered;
use crate::settings::Settings;
use crate::snapshot::{DEAD_LETTERS_TOPIC, EVENTS_TOPIC, Snapshot};

/// Whether `day` can be recomputed now. `early` asks for what was logged until now where the day is still open.
///
/// # Errors
/// [`Error::NotReady`] with what is missing; those of the lake and the logs.
pub async fn ready(deps: &Deps, settings: &Settings, day: Day, early: bool) -> Result<(), Error> {
    let snapshot = Snapshot::take(&deps.root, day).await?;
    check(deps, settings, &snapshot, day, early).await.map(|_| ())
}

/// The same for a snapshot; answers what it covers.
pub(crate) async fn check(
    deps: &Deps,
    settings: &Settings,
    snapshot: &Snapshot,
    day: Day,
    early: bool,
) -> Result<Covered, Error> {
    let (now, close) = (deps.clock.now(), day.end().plus(settings.close_delay.as_micros()));
    if now < close && !early {
        return Err(Error::NotReady { day, why: format!("it closes at {close}, it is {now}") });
    }
    let until = close.min(now);
    let covered = Covered {
        events: snapshot.positions(EVENTS_TOPIC, deps.events.partitions()).await?,
        dead_letters: snapshot.positions(DEAD_LETTERS_TOPIC, deps.dead_letters.partitions()).await?,
    };
    check_log(deps.events.as_ref(), EVENTS_TOPIC, &covered.events, day, until).await?;
    check_log(deps.dead_letters.as_ref(), DEAD_LETTERS_TOPIC, &covered.dead_letters, day, until).await?;
    Ok(covered)
}

async fn check_log(
    log: &dyn EventLog,
    topic: &str,
    covered: &Positions,
    day: Day,
    until: Timestamp,
) -> Result<(), Error> {
    let wanted = log.positions_at(until).await?;
    if covered.covers(&wanted) {
        return Ok(());
    }
    let why = format!("the lake is {} records behind what {topic} held at {until}", covered.lag(&wanted));
    Err(Error::NotReady { day, why })
}

//! Gold → an empty serving store: every day that batch has run is shown again, exact, from its newest run.
//! On crash: run it again; hours that are exact already change nothing.
//! Never: publishes, or reads the log; days that are still open come back from speed.

use serde::Serialize;
use shared::rollup::RowVersion;

use crate::correct;
use crate::error::Error;
use crate::gold::Gold;
use crate::publish;
use crate::runs;
use crate::settlements::Settlements;
use crate::worker::Deps;

/// What a rebuild did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuilt {
    /// Days made exact.
    pub days: u64,
    /// Of those, days marked as settled.
    pub settled: u64,
    /// Rows written or removed.
    pub rows_changed: u64,
}

/// Rebuilds every day; `progress` is told days done and days in all.
///
/// # Errors
/// Those of lake and store; gold that is not what its run wrote is [`Error::Damaged`].
pub async fn run(deps: &Deps, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Rebuilt, Error> {
    let records = runs::newest_of_all_days(&deps.lake).await?;
    let all = u64::try_from(records.len()).unwrap_or(u64::MAX);
    let settlements = Settlements::new(deps.data.clone());
    let mut done = Rebuilt::default();
    for record in records {
        let (day, version) = (record.day, RowVersion::reconciled(record.run));
        let gold = Gold::open(deps.lake.clone(), record).await?;
        for hour in day.hours() {
            let exact = gold.hour(hour).await?;
            done.rows_changed += correct::apply(deps.store.as_ref(), hour, &exact, version).await?;
        }
        // Only lines that were published are settled: newer ones are shown as reconciled until they are.
        let content = publish::content(&gold).await?;
        if let Some(manifest) = settlements.newest(day).await?.filter(|m| content.is_settled_by(m)) {
            deps.store.mark_settled(day, manifest.version).await?;
            done.settled += 1;
        }
        done.days += 1;
        progress(done.days, all);
    }
    Ok(done)
}

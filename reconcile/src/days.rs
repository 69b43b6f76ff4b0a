//! Where every day stands: open → closing → closed → settled → restated, and through which day everything is settled.
//! Reads: the tables of the lake, the manifests. Writes: nothing. The clock only tells open, closing and closed apart.

use std::collections::{BTreeMap, BTreeSet};

use lake::tables::{BRONZE_EVENTS, LEDGER_ADJUSTMENTS, TableDef};
use lake::{LakeRoot, Table};
use serde::Serialize;
use shared::time::{Day, Timestamp};

use crate::error::Error;
use crate::manifest::Manifest;
use crate::runs;
use crate::settlements::Settlements;

/// How far a day has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not over.
    Open,
    /// It is over, and late events are still waited for.
    Closing,
    /// Nothing is waited for; it has no settlement yet.
    Closed,
    /// It has its first settlement.
    Settled,
    /// Its settlement supersedes an earlier one.
    Restated,
}

/// One day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DayStatus {
    /// The UTC billing day.
    pub day: Day,
    /// How far it has come.
    pub state: State,
    /// The newest settlement's version.
    pub version: Option<u32>,
    /// The newest batch run.
    pub run: Option<u64>,
    /// Events archived for it.
    pub archived: u64,
    /// Of these, archived after the newest settlement's run read the lake; all where there is no settlement.
    pub unsettled_events: u64,
    /// Adjustments that the newest settlement does not have.
    pub unsettled_adjustments: u64,
}

/// All days that have anything, and those between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Days {
    /// The newest day such that it and every day before it, back to the first that has an event, an adjustment or a
    /// settlement, is settled; absent while the first is not.
    pub closed_through: Option<Day>,
    /// In order, without a gap.
    pub days: Vec<DayStatus>,
}

/// Where every day stands at `now`, when days close `close_delay` microseconds after their end.
///
/// # Errors
/// Those of the lake and the settlements.
pub async fn days(lake: &LakeRoot, settlements: &Settlements, now: Timestamp, close_delay: i64) -> Result<Days, Error> {
    let archived = rows_by_day(lake, &BRONZE_EVENTS).await?;
    let adjustments = rows_by_day(lake, &LEDGER_ADJUSTMENTS).await?;
    let runs = runs::newest_of_all_days(lake).await?;
    let runs: BTreeMap<Day, u64> = runs.into_iter().map(|r| (r.day, r.run)).collect();
    let mut settled: BTreeMap<Day, Manifest> = BTreeMap::new();
    for day in settlements.days().await? {
        settled.extend(settlements.newest(day).await?.map(|manifest| (day, manifest)));
    }
    let known: BTreeSet<Day> =
        archived.keys().chain(adjustments.keys()).chain(runs.keys()).chain(settled.keys()).copied().collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else {
        return Ok(Days { closed_through: None, days: Vec::new() });
    };
    let of = |counts: &BTreeMap<Day, u64>, day: Day| counts.get(&day).copied().unwrap_or(0);
    let status = |day: Day| {
        let manifest = settled.get(&day);
        let (events, rows) = manifest.map_or((0, 0), |m| (m.conservation.archived, m.adjustments.row_count));
        DayStatus {
            day,
            state: state(day, manifest, now, close_delay),
            version: manifest.map(|m| m.version),
            run: runs.get(&day).copied(),
            archived: of(&archived, day),
            unsettled_events: of(&archived, day).saturating_sub(events),
            unsettled_adjustments: of(&adjustments, day).saturating_sub(rows),
        }
    };
    let days: Vec<DayStatus> = (first.0..=last.0).map(|day| status(Day(day))).collect();
    let closed_through = days.iter().take_while(|d| d.version.is_some()).last().map(|d| d.day);
    Ok(Days { closed_through, days })
}

fn state(day: Day, manifest: Option<&Manifest>, now: Timestamp, close_delay: i64) -> State {
    match manifest {
        Some(manifest) if manifest.supersedes.is_some() => State::Restated,
        Some(_) => State::Settled,
        None if now < day.end() => State::Open,
        None if now < day.end().plus(close_delay) => State::Closing,
        None => State::Closed,
    }
}

async fn rows_by_day(lake: &LakeRoot, def: &'static TableDef) -> Result<BTreeMap<Day, u64>, Error> {
    let mut rows = BTreeMap::new();
    for file in Table::open(lake, def).await?.files()? {
        *rows.entry(file.day).or_default() += file.rows;
    }
    Ok(rows)
}

//! The serving store in memory: the model that other stores are compared with, and the store of other crates' tests.
//! Guarantee: the whole port, under one lock. Clones are the same store, so a test can "restart" its user.
//! On crash: everything is gone. Never: used outside tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::id::{AdId, CampaignId};
use crate::money::Currency;
use crate::rollup::{Counts, Finality, RollupKey, RollupRow, RowVersion, TimeRange};
use crate::serving_store::{
    CampaignHourPoint, Correction, Flush, HourRows, SeriesPoint, ServingStore, StoreError, TopBy, TopCampaign,
    Upserted, WriterStatus,
};
use crate::sketch::Sketch;
use crate::time::{DAY, Day, HOUR, Timestamp};

/// Who wrote a row: reconcile, or a speed worker by its number.
type Writer = Option<u32>;

#[derive(Debug, Clone)]
struct Cell {
    version: RowVersion,
    counts: Counts,
    uniques: Option<Sketch>,
}

#[derive(Debug, Default)]
struct State {
    cells: BTreeMap<RollupKey, BTreeMap<Writer, Cell>>,
    owned: BTreeMap<Timestamp, RowVersion>,
    settled: BTreeMap<Day, u32>,
    generations: BTreeMap<u32, u32>,
    writers: BTreeMap<u32, (RowVersion, WriterStatus)>,
    unavailable: bool,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct MemoryServingStore(Arc<Mutex<State>>);

impl MemoryServingStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// While `true` every call fails with [`StoreError::Unavailable`] and changes nothing.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state().unavailable = unavailable;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, doing: &str) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.unavailable {
            return Err(StoreError::Unavailable {
                doing: doing.to_owned(),
                why: "switched off by the test".to_owned(),
            });
        }
        Ok(state)
    }
}

impl State {
    fn finality(&self, at: Timestamp) -> Finality {
        match (self.owned.contains_key(&at.floor(HOUR)), self.settled.contains_key(&at.day())) {
            (false, _) => Finality::Provisional,
            (true, false) => Finality::Reconciled,
            (true, true) => Finality::Settled,
        }
    }

    /// What is shown for every key whose window starts in `range`, in key order.
    fn shown(&self, range: &TimeRange, wanted: impl Fn(&RollupKey) -> bool) -> Result<Vec<RollupRow>, StoreError> {
        let inside = |k: &RollupKey| range.contains(&k.window_start()) && wanted(k);
        self.cells
            .iter()
            .filter(|(k, _)| inside(k))
            .map(|(key, cells)| {
                let (counts, uniques) = sum(cells)?;
                Ok(RollupRow { key: key.clone(), counts, uniques })
            })
            .collect()
    }

    fn series(
        &self,
        range: &TimeRange,
        wanted: impl Fn(&RollupKey) -> Option<Currency>,
    ) -> Result<Vec<SeriesPoint>, StoreError> {
        let mut points: BTreeMap<(Timestamp, Currency), Counts> = BTreeMap::new();
        for row in self.shown(range, |k| wanted(k).is_some())? {
            let currency = wanted(&row.key).unwrap_or(Currency::NONE);
            let point = points.entry((row.key.window_start(), currency)).or_default();
            *point = add(point, &row.counts)?;
        }
        let point =
            |((at, currency), counts)| SeriesPoint { window_start: at, currency, counts, finality: self.finality(at) };
        Ok(points.into_iter().map(point).collect())
    }
}

fn add(a: &Counts, b: &Counts) -> Result<Counts, StoreError> {
    a.merge(b).map_err(|e| StoreError::Corrupt(format!("a sum over rows: {e}")))
}

fn sum(cells: &BTreeMap<Writer, Cell>) -> Result<(Counts, Option<Sketch>), StoreError> {
    let (mut counts, mut uniques) = (Counts::default(), None::<Sketch>);
    for cell in cells.values() {
        counts = add(&counts, &cell.counts)?;
        uniques = match (uniques, &cell.uniques) {
            (Some(a), Some(b)) => Some(a.merge(b)),
            (a, b) => a.or_else(|| b.clone()),
        };
    }
    Ok((counts, uniques))
}

fn bytes(sketch: Option<&Sketch>) -> Option<Vec<u8>> {
    sketch.map(Sketch::to_bytes)
}

fn measure(counts: &Counts, by: TopBy) -> i128 {
    match by {
        TopBy::Clicks => i128::from(counts.clicks),
        TopBy::Impressions => i128::from(counts.impressions),
        TopBy::Conversions => i128::from(counts.conversions),
        TopBy::Cost => counts.cost_nanos,
    }
}

#[async_trait]
impl ServingStore for MemoryServingStore {
    async fn upsert_approximate(&self, flush: Flush) -> Result<Upserted, StoreError> {
        let mut state = self.open("upserting a flush")?;
        let mut done = Upserted::default();
        if flush.version.generation() < state.generations.get(&flush.writer).copied().unwrap_or(0) {
            return Ok(done);
        }
        for row in flush.rows {
            if state.owned.contains_key(&row.key.hour()) {
                done.superseded += 1;
                continue;
            }
            let cells = state.cells.entry(row.key).or_default();
            if cells.get(&Some(flush.writer)).is_none_or(|c| c.version < flush.version) {
                let cell = Cell { version: flush.version, counts: row.counts, uniques: row.uniques };
                cells.insert(Some(flush.writer), cell);
                done.written += 1;
            }
        }
        if state.writers.get(&flush.writer).is_none_or(|(v, _)| *v < flush.version) {
            state.writers.insert(flush.writer, (flush.version, flush.status));
        }
        Ok(done)
    }

    async fn next_generation(&self, writer: u32) -> Result<u32, StoreError> {
        let mut state = self.open("taking a generation")?;
        let generation = state.generations.entry(writer).or_insert(0);
        *generation += 1;
        Ok(*generation)
    }

    async fn read_hour(&self, hour: Timestamp) -> Result<HourRows, StoreError> {
        self.open("reading an hour")?.shown(&(hour..hour.plus(HOUR)), |_| true)
    }

    async fn overwrite_exact(
        &self,
        hour: Timestamp,
        correction: Correction,
        version: RowVersion,
    ) -> Result<u64, StoreError> {
        let mut state = self.open("overwriting an hour")?;
        correction.check(hour)?;
        if state.owned.get(&hour).is_some_and(|owner| *owner > version) {
            return Ok(0);
        }
        let mut changed = 0;
        for row in correction.set {
            let shown = state.cells.get(&row.key).map(sum).transpose()?;
            let same = shown.is_some_and(|(counts, uniques)| {
                counts == row.counts && bytes(uniques.as_ref()) == bytes(row.uniques.as_ref())
            });
            if !same {
                let cell = Cell { version, counts: row.counts, uniques: row.uniques };
                state.cells.insert(row.key, BTreeMap::from([(None, cell)]));
                changed += 1;
            }
        }
        for key in correction.remove {
            changed += u64::from(state.cells.remove(&key).is_some());
        }
        state.owned.insert(hour, version);
        if changed > 0 {
            state.settled.remove(&hour.day());
        }
        Ok(changed)
    }

    async fn owned_hours(&self, range: TimeRange) -> Result<BTreeMap<Timestamp, RowVersion>, StoreError> {
        let state = self.open("reading owned hours")?;
        Ok(state.owned.iter().filter(|(hour, _)| range.contains(hour)).map(|(h, v)| (*h, *v)).collect())
    }

    async fn mark_settled(&self, day: Day, version: u32) -> Result<(), StoreError> {
        let mut state = self.open("marking a day")?;
        let settled = state.settled.entry(day).or_insert(version);
        *settled = version.max(*settled);
        Ok(())
    }

    async fn ad_series(&self, ad: &AdId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        self.open("reading an ad")?.series(&range, |k| match k {
            RollupKey::AdMinute { ad_id, currency, .. } if ad_id == ad => Some(*currency),
            _ => None,
        })
    }

    async fn campaign_series(&self, campaign: &CampaignId, range: TimeRange) -> Result<Vec<SeriesPoint>, StoreError> {
        self.open("reading a campaign")?.series(&range, |k| match k {
            RollupKey::CampaignMinute { campaign_id, currency, .. } if campaign_id == campaign => Some(*currency),
            _ => None,
        })
    }

    async fn campaign_hours(
        &self,
        campaign: &CampaignId,
        range: TimeRange,
    ) -> Result<Vec<CampaignHourPoint>, StoreError> {
        let state = self.open("reading a campaign's hours")?;
        let rows = state
            .shown(&range, |k| matches!(k, RollupKey::CampaignHour { campaign_id, .. } if campaign_id == campaign))?;
        let point = |row: RollupRow| match row.key {
            RollupKey::CampaignHour { hour, country, device_type, currency, .. } => Some(CampaignHourPoint {
                hour,
                country,
                device_type,
                currency,
                counts: row.counts,
                uniques: row.uniques.unwrap_or_default(),
                finality: state.finality(hour),
            }),
            RollupKey::AdMinute { .. } | RollupKey::CampaignMinute { .. } => None,
        };
        Ok(rows.into_iter().filter_map(point).collect())
    }

    async fn top(
        &self,
        range: TimeRange,
        by: TopBy,
        n: usize,
        among: Option<&[CampaignId]>,
    ) -> Result<Vec<TopCampaign>, StoreError> {
        let state = self.open("reading the top campaigns")?;
        let mut sums: BTreeMap<(CampaignId, Currency), Counts> = BTreeMap::new();
        for row in state.shown(&range, |k| matches!(k, RollupKey::CampaignMinute { .. }))? {
            let RollupKey::CampaignMinute { campaign_id, currency, .. } = row.key else { continue };
            if among.is_none_or(|a| a.contains(&campaign_id)) {
                let counts = sums.entry((campaign_id, currency)).or_default();
                *counts = add(counts, &row.counts)?;
            }
        }
        let line = |((campaign_id, currency), counts)| TopCampaign { campaign_id, currency, counts };
        let mut lines: Vec<_> = sums.into_iter().map(line).filter(|l| measure(&l.counts, by) > 0).collect();
        // Stable: equals stay ordered by campaign and currency.
        lines.sort_by_key(|l| std::cmp::Reverse(measure(&l.counts, by)));
        if by == TopBy::Cost {
            lines.sort_by_key(|l| l.currency);
            let mut seen: BTreeMap<Currency, usize> = BTreeMap::new();
            lines.retain(|l| {
                let rank = seen.entry(l.currency).or_insert(0);
                *rank += 1;
                *rank <= n
            });
        } else {
            lines.truncate(n);
        }
        Ok(lines)
    }

    async fn forget(&self, minutes: Timestamp, hours: Timestamp, at_most: u64) -> Result<u64, StoreError> {
        let mut state = self.open("forgetting old rows")?;
        let grains: [fn(&RollupKey) -> bool; 3] = [
            |k| matches!(k, RollupKey::AdMinute { .. }),
            |k| matches!(k, RollupKey::CampaignMinute { .. }),
            |k| matches!(k, RollupKey::CampaignHour { .. }),
        ];
        let mut forgotten = 0;
        for (is_grain, before) in grains.into_iter().zip([minutes, minutes, hours]) {
            let mut old: Vec<(RollupKey, Writer)> = Vec::new();
            for (key, writers) in state.cells.iter().filter(|(key, _)| is_grain(key) && key.hour() < before) {
                old.extend(writers.keys().map(|writer| (key.clone(), *writer)));
            }
            old.sort_by_key(|(key, _)| key.hour());
            for (key, writer) in old.into_iter().take(usize::try_from(at_most).unwrap_or(usize::MAX)) {
                if let Some(writers) = state.cells.get_mut(&key) {
                    forgotten += u64::from(writers.remove(&writer).is_some());
                    if writers.is_empty() {
                        state.cells.remove(&key);
                    }
                }
            }
        }
        Ok(forgotten)
    }

    async fn writers(&self) -> Result<BTreeMap<u32, WriterStatus>, StoreError> {
        let state = self.open("reading the writers")?;
        Ok(state.writers.iter().map(|(writer, (_, status))| (*writer, status.clone())).collect())
    }
}

const _: () = assert!(DAY % HOUR == 0, "an hour lies in one day, so marking a day settles whole hours");

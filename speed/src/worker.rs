//! One partition's worker, without clock, disk or network: records in, rows out. (Ids that memory has no room for it puts
//! on a shelf that it is given; how that lies says nothing about what it does.)
//!
//! decode → forged? → dedup → repeat click? → late? → price → windows. Every record gets one [`Outcome`].
//! What it does depends on the records (and the settings and price book) alone, so a replay does the same; only the
//! times it is shown in [`Worker::status`] come from outside.
//! On crash: rebuilt from the last checkpoint, which holds all of it but the latency samples.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::event_log::Record;
use shared::price::PriceBook;
use shared::rollup::{Counts, RollupRow};
use shared::serving_store::WriterStatus;
use shared::time::Timestamp;
use shared::verdict::{Counting, IdStanding, InvalidCode, Verdict};

use crate::Error;
use crate::aggregate::{Billable, Windows};
use crate::checkpoint::{FORMAT, StateMessage, restore_windows, windows};
use crate::decode::{Agents, Seen, in_full, in_place};
use crate::dedup::shelf::Shelf;
use crate::dedup::{Memory, OnDisk};
use crate::latency::Latency;
use crate::outcome::{Outcome, Tally};
use crate::place::Append;
use crate::settings::Settings;
use crate::table::{Id, id_of};
use crate::watermark::Watermark;
use crate::window::{Assigned, assign};

/// The most hours for which late events are told apart; the oldest go first.
const LATE_HOURS: usize = 8 * 24;
/// Records whose ids are looked up together, so that waiting for memory overlaps.
const TOGETHER: usize = 16;
/// What the dedup files are called.
pub(crate) const IDS: &str = "ids";
/// What the files of remembered clicks are called.
pub(crate) const CLICKS: &str = "clicks";

/// The state of one partition.
#[derive(Debug)]
pub struct Worker {
    partition: u32,
    counting: Counting,
    allowed_lateness: i64,
    max_open_rows: usize,
    prices: Arc<PriceBook>,
    next_position: u64,
    /// The newest moment something was received: the clock by which ids are forgotten.
    heard: Timestamp,
    watermark: Watermark,
    /// Everything before it is late.
    horizon: Timestamp,
    ids: Memory<0>,
    clicks: Memory<8>,
    agents: Agents,
    windows: Windows,
    tally: Tally,
    late_by_hour: BTreeMap<Timestamp, u64>,
    max_event_time: Timestamp,
    as_of: Timestamp,
    latency: Latency,
}

impl Worker {
    /// A worker for `partition` that has seen nothing and begins at `position`. The settings' limits are its own.
    #[must_use]
    pub fn new(partition: u32, position: u64, settings: &Settings) -> Self {
        let limit = usize::try_from(settings.max_dedup_ids).unwrap_or(usize::MAX);
        let repeat_window = settings.counting.repeat_click_seconds.saturating_mul(shared::time::SECOND);
        Self {
            partition,
            counting: settings.counting.clone(),
            allowed_lateness: settings.allowed_lateness.as_micros(),
            max_open_rows: usize::try_from(settings.max_open_rows).unwrap_or(usize::MAX),
            prices: Arc::default(),
            next_position: position,
            heard: Timestamp::MIN,
            watermark: Watermark::new(Timestamp::MIN, settings.out_of_orderness.as_micros()),
            horizon: Timestamp::MIN,
            ids: Memory::new(IDS, settings.dedup_window.as_micros(), limit),
            clicks: Memory::new(CLICKS, repeat_window, limit),
            agents: Agents::default(),
            windows: Windows::default(),
            tally: Tally::default(),
            late_by_hour: BTreeMap::new(),
            max_event_time: Timestamp::MIN,
            as_of: Timestamp::MIN,
            latency: Latency::new(),
        }
    }

    /// As [`Worker::new`], with ids that are too many for memory on `shelf`.
    pub(crate) fn with_shelf(
        partition: u32,
        position: u64,
        settings: &Settings,
        shelf: Option<Box<dyn Shelf>>,
    ) -> Self {
        let mut worker = Self::new(partition, position, settings);
        if let Some(shelf) = shelf {
            worker.ids.spill_to(shelf);
            worker.limit(settings);
        }
        worker
    }

    /// Fails if the shelf did: then what the worker did since is worth nothing, and so is the worker.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.ids.failure().map_or(Ok(()), Err)
    }

    /// The prices for the events that follow.
    pub fn set_prices(&mut self, prices: Arc<PriceBook>) {
        self.prices = prices;
    }

    /// Other limits than those it began with; what is beyond them goes with the next records.
    pub(crate) fn limit(&mut self, settings: &Settings) {
        let limit = usize::try_from(settings.max_dedup_ids).unwrap_or(usize::MAX);
        self.ids.limit(limit);
        self.ids.limit_on_disk(usize::try_from(settings.max_dedup_ids_on_disk).unwrap_or(usize::MAX));
        self.clicks.limit(limit);
        self.max_open_rows = usize::try_from(settings.max_open_rows).unwrap_or(usize::MAX);
    }

    /// Takes records in, in the order of their positions.
    pub fn apply_all(&mut self, records: &[Record]) {
        for records in records.chunks(TOGETHER) {
            let seen: [_; TOGETHER] = std::array::from_fn(|at| keyed(records.get(at)?));
            let touched = seen.iter().flatten().fold(0, |all, (_, id)| all ^ self.ids.touch(id));
            // Otherwise the compiler would see that nobody needs it.
            std::hint::black_box(touched);
            for (record, event) in records.iter().zip(&seen) {
                self.take(record, event.as_ref());
            }
        }
    }

    /// Takes one record in.
    pub fn apply(&mut self, record: &Record) -> Outcome {
        self.take(record, keyed(record).as_ref())
    }

    fn take(&mut self, record: &Record, event: Option<&(Seen<'_>, Id)>) -> Outcome {
        self.next_position = record.position + 1;
        let append_time = record.append_time;
        let outcome = match event {
            Some((event, id)) => self.judge(event, *id, append_time),
            None => in_full(&record.payload, |event| self.judge(event, id_of(event.event_id), append_time))
                .unwrap_or(Outcome::DeadLetter),
        };
        self.tally.add(outcome);
        outcome
    }

    fn judge(&mut self, event: &Seen<'_>, id: Id, append_time: Timestamp) -> Outcome {
        let invalid = event.invalid.or_else(|| {
            let is_bot = event.user_agent.is_some_and(|agent| self.agents.is_bot(agent, &self.counting));
            is_bot.then_some(InvalidCode::KnownBot)
        });
        // A forged event claims nothing and moves nothing (contract 2.2).
        if invalid.is_some_and(InvalidCode::is_forged) {
            return Outcome::Invalid;
        }
        // Our own clock bounds an imported ingest time: a row from the future must not make all others late.
        let heard = event.ingest_time.min(append_time);
        self.hear(heard);
        let is_first = self.ids.claim(id, [], self.heard);
        let id = if is_first { IdStanding::First } else { IdStanding::Duplicate };
        let at = self.counting.billing_time(event.event_time, event.ingest_time).at;
        self.watermark.observe(at, heard);
        self.horizon = self.horizon.max(self.watermark.at().plus(-self.allowed_lateness));
        let repeats = self.counting.chains(event.kind, invalid, id) && self.repeats(event);
        match self.counting.verdict(invalid, id, repeats) {
            Verdict::Billable => self.count(event, at),
            Verdict::Duplicate | Verdict::Conflict => Outcome::Duplicate,
            Verdict::RepeatClick => Outcome::RepeatClick,
            Verdict::Invalid(_) => Outcome::Invalid,
        }
    }

    fn hear(&mut self, at: Timestamp) {
        if at > self.heard {
            self.heard = at;
            self.ids.advance(at);
            self.clicks.advance(at);
        }
    }

    /// Whether this click comes too soon after the one before it in its chain; remembers it either way.
    fn repeats(&mut self, event: &Seen<'_>) -> bool {
        let (user, creative) = (event.user_pseudo_id, event.creative_id);
        let key = self.counting.chain_key(event.impression_id, user, creative, event.event_time);
        let Some(key) = key else { return false };
        let id = id_of(&key);
        let previous = self.clicks.get(&id).map(|bytes| Timestamp(i64::from_le_bytes(bytes)));
        self.clicks.put(id, event.ingest_time.0.to_le_bytes(), self.heard);
        previous.is_some_and(|previous| self.counting.is_repeat_click(previous, event.ingest_time))
    }

    fn count(&mut self, event: &Seen<'_>, at: Timestamp) -> Outcome {
        let (minute, hour) = match assign(at, self.horizon) {
            Assigned::Open { minute, hour } => (minute, hour),
            Assigned::Late { hour } => {
                self.note_late(hour);
                return Outcome::Late;
            }
        };
        let price = self.prices.in_force(event.campaign_id, at);
        // The decoder bounds every amount, so an overflow is a price book that was not checked.
        let Ok(cost) = price.cost(event.kind, event.cost_micros, event.currency) else { return Outcome::DeadLetter };
        let billable = Billable {
            minute,
            hour,
            ad: event.ad_id,
            campaign: event.campaign_id,
            country: event.country,
            device: event.device_type,
            currency: cost.currency,
            user: event.user_pseudo_id,
            counts: Counts::one(event.kind, cost.nanos),
        };
        if self.windows.add(&billable).is_err() {
            return Outcome::DeadLetter;
        }
        self.max_event_time = self.max_event_time.max(at);
        self.as_of = self.as_of.max(event.ingest_time);
        if self.latency.wants()
            && let Some(campaign) = event.campaign()
        {
            self.latency.add(campaign, event.ingest_time);
        }
        self.bound_windows();
        Outcome::Counted
    }

    fn note_late(&mut self, hour: Timestamp) {
        *self.late_by_hour.entry(hour).or_default() += 1;
        if self.late_by_hour.len() > LATE_HOURS {
            self.late_by_hour.pop_first();
        }
    }

    /// Closes the oldest minute early when too many rows are open: its later events are `late`.
    fn bound_windows(&mut self) {
        if let Some(end) = self.windows.crowded(self.max_open_rows, self.horizon) {
            self.horizon = self.horizon.max(end);
        }
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The position of the record it takes next.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Every record so far, by outcome.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Before this instant it assumes to have seen every event.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark.at()
    }

    /// How many ids were forgotten before their time, for want of room.
    #[must_use]
    pub fn forgotten_ids(&self) -> u64 {
        self.ids.forgotten() + self.clicks.forgotten()
    }

    /// Whether taking records in may read or write a shelf.
    pub(crate) fn may_wait_for_disk(&self) -> bool {
        self.ids.may_wait_for_disk()
    }

    /// What the shelf holds.
    pub(crate) fn ids_on_disk(&self) -> OnDisk {
        self.ids.on_disk()
    }

    /// How many event ids are remembered in memory, and the bytes of their table (without those that are not saved yet, which
    /// take 16 more each until the next checkpoint).
    #[must_use]
    pub fn remembered_ids(&self) -> (usize, usize) {
        self.ids.size()
    }

    /// The rows that changed, sorted by key, with absolute values.
    #[must_use]
    pub fn changed_rows(&self) -> Vec<RollupRow> {
        self.windows.changed_rows()
    }

    /// Takes note that the changed rows are visible since `now`; closed windows leave the memory.
    pub fn mark_flushed(&mut self, now: Timestamp) {
        self.windows.mark_flushed(self.horizon);
        self.latency.flushed(now);
    }

    /// The rows that changed since the last call: the worker's whole output, for a caller that cannot fail.
    #[must_use]
    pub fn take_changed_rows(&mut self, now: Timestamp) -> Vec<RollupRow> {
        let rows = self.changed_rows();
        self.mark_flushed(now);
        rows
    }

    /// What it tells about itself at `now`, with what only the pipeline knows.
    #[must_use]
    pub fn status(&self, now: Timestamp, watermark: Timestamp, lag: u64) -> WriterStatus {
        let latency = self.latency.percentiles(now);
        WriterStatus {
            watermark,
            max_event_time: self.max_event_time,
            as_of: self.as_of,
            flushed_at: now,
            next_position: self.next_position,
            lag,
            outcomes: self.tally.by_word(),
            late_by_hour: self.late_by_hour.clone(),
            ingest_p95_ms: latency.all,
            campaign_p95_ms: latency.campaigns,
        }
    }

    /// The state as a checkpoint holds it, true once the appends are on disk.
    pub(crate) fn stage(&self) -> (StateMessage, Vec<Append>) {
        let (ads, hours) = windows(&self.windows);
        let (ids, mut appends) = self.ids.stage();
        let (clicks, more) = self.clicks.stage();
        appends.extend(more);
        let message = StateMessage {
            format: FORMAT,
            partition: self.partition,
            next_position: self.next_position,
            newest: self.watermark.newest().0,
            horizon: self.horizon.0,
            heard: self.heard.0,
            max_event_time: self.max_event_time.0,
            as_of: self.as_of.0,
            outcomes: self.tally.by_word(),
            late_by_hour: self.late_by_hour.iter().map(|(hour, n)| (hour.0, *n)).collect(),
            ads,
            hours,
            ids: Some(ids),
            clicks: Some(clicks),
        };
        (message, appends)
    }

    /// Takes note that what [`Worker::stage`] returned is on disk.
    pub(crate) fn mark_stored(&mut self, message: &StateMessage) {
        if let Some(ids) = &message.ids {
            self.ids.mark_stored(ids);
        }
        if let Some(clicks) = &message.clicks {
            self.clicks.mark_stored(clicks);
        }
    }

    /// The worker a checkpoint describes, every open row marked as changed; `None` when it is not whole.
    pub(crate) fn restore(
        message: &StateMessage,
        settings: &Settings,
        shelf: Option<Box<dyn Shelf>>,
        mut read: impl FnMut(&str, u64) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let mut worker = Self::with_shelf(message.partition, message.next_position, settings, shelf);
        worker.ids.restore(message.ids.as_ref()?, &mut read).ok()?;
        worker.clicks.restore(message.clicks.as_ref()?, &mut read).ok()?;
        worker.windows = restore_windows(message)?;
        worker.watermark = Watermark::new(Timestamp(message.newest), settings.out_of_orderness.as_micros());
        worker.horizon = Timestamp(message.horizon);
        worker.heard = Timestamp(message.heard);
        worker.max_event_time = Timestamp(message.max_event_time);
        worker.as_of = Timestamp(message.as_of);
        worker.late_by_hour = message.late_by_hour.iter().map(|(hour, n)| (Timestamp(*hour), *n)).collect();
        for outcome in Outcome::ALL {
            worker.tally.add_many(outcome, message.outcomes.get(outcome.as_str()).copied().unwrap_or(0));
        }
        Some(worker)
    }
}

/// The event in a record, if it can be read in place, and its id's identity.
fn keyed(record: &Record) -> Option<(Seen<'_>, Id)> {
    let seen = in_place(&record.payload)?;
    Some((seen, id_of(seen.event_id)))
}

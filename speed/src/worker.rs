//! One partition's worker, without clock, disk or network: records in, rows out. (Ids that memory has no room for it puts
//! on a shelf that it is given; how that lies says nothing about what it does.)
//!
//! decode → forged? → dedup → repeat click? → late? → price → windows. Every record gets one [`Outcome`].
//! What it does depends on the records (and the settings and price book) alone, so a replay does the same; only the
//! times it is shown in [`Worker::status`] come from outside.
//! On crash: rebuilt from the last checkpoint, which holds all of it but the latency samples (`saved`).

mod saved;

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::event_log::Record;
use shared::event_view::EventView;
use shared::id::IdRef;
use shared::price::PriceBook;
use shared::rollup::{Counts, RollupRow};
use shared::serving_store::WriterStatus;
use shared::time::Timestamp;
use shared::verdict::{Counting, IdStanding, InvalidCode, Verdict};

use crate::Error;
use crate::aggregate::{Billable, Windows};
use crate::decode::{Agents, in_full};
use crate::dedup::shelf::Shelf;
use crate::dedup::{Memory, OnDisk};
use crate::latency::Latency;
use crate::outcome::{Outcome, Tally};
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
        if !Arc::ptr_eq(&self.prices, &prices) {
            self.prices = prices;
            self.windows.forget_prices();
        }
    }

    /// Other limits than those it began with; what is beyond them goes with the next records.
    pub(crate) fn limit(&mut self, settings: &Settings) {
        let limit = usize::try_from(settings.max_dedup_ids).unwrap_or(usize::MAX);
        self.ids.limit(limit);
        self.ids.limit_on_disk(settings.ids_on_disk());
        self.clicks.limit(limit);
        self.max_open_rows = usize::try_from(settings.max_open_rows).unwrap_or(usize::MAX);
    }

    /// Takes records in, in the order of their positions.
    pub fn apply_all(&mut self, records: &[Record]) {
        let mut seen: [_; TOGETHER] = std::array::from_fn(|_| Seen::nothing());
        for records in records.chunks(TOGETHER) {
            let seen = seen.get_mut(..records.len()).unwrap_or_default();
            seen.iter_mut().zip(records).for_each(|(seen, record)| seen.read(record));
            // Otherwise the compiler would see that nobody needs what was touched.
            std::hint::black_box(self.look_ahead(seen));
            for (record, seen) in records.iter().zip(&*seen) {
                self.take(record, seen);
            }
            self.windows.settle();
        }
    }

    /// Takes one record in.
    pub fn apply(&mut self, record: &Record) -> Outcome {
        let mut seen = Seen::nothing();
        seen.read(record);
        let outcome = self.take(record, &seen);
        self.windows.settle();
        outcome
    }

    /// Reads what the events will need, kind by kind, so that waiting for memory overlaps.
    fn look_ahead(&self, events: &mut [Seen<'_>]) -> u64 {
        let mut touched = 0;
        for seen in events.iter().filter(|seen| seen.is_sure) {
            touched ^= u64::from(self.ids.touch(&seen.id));
        }
        for seen in events.iter_mut().filter(|seen| seen.is_sure) {
            seen.ad = self.windows.find(seen.event.ad_id, seen.event.campaign_id);
        }
        for seen in events.iter_mut().filter(|seen| seen.is_sure) {
            let EventView { event_time, country, device_type, .. } = seen.event;
            let found = seen.ad.and_then(|ad| self.windows.look_ahead(ad, event_time, country, device_type));
            if let Some((guess, touch)) = found {
                seen.guess = guess;
                touched ^= touch;
            }
        }
        touched
    }

    fn take(&mut self, record: &Record, seen: &Seen<'_>) -> Outcome {
        self.next_position = record.position + 1;
        let append_time = record.append_time;
        let outcome = if seen.is_sure {
            self.judge(seen, append_time)
        } else {
            let in_full = in_full(&record.payload, |event| self.judge(&Seen::of(*event), append_time));
            in_full.unwrap_or(Outcome::DeadLetter)
        };
        self.tally.add(outcome);
        outcome
    }

    fn judge(&mut self, seen: &Seen<'_>, append_time: Timestamp) -> Outcome {
        let event = &seen.event;
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
        let is_first = self.ids.claim(seen.id, [], self.heard);
        let id = if is_first { IdStanding::First } else { IdStanding::Duplicate };
        let at = self.counting.billing_time(event.event_time, event.ingest_time).at;
        self.watermark.observe(at, heard);
        self.horizon = self.horizon.max(self.watermark.at().plus(-self.allowed_lateness));
        let repeats = self.counting.chains(event.kind, invalid, id) && self.repeats(event);
        match self.counting.verdict(invalid, id, repeats) {
            Verdict::Billable => self.count(seen, at),
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
    fn repeats(&mut self, event: &EventView<'_>) -> bool {
        let [impression, user, creative] =
            [event.impression_id, event.user_pseudo_id, event.creative_id].map(|id| id.map(IdRef::as_str));
        let key = self.counting.chain_key(impression, user, creative, event.event_time);
        let Some(key) = key else { return false };
        let id = id_of(key.as_bytes());
        let previous = self.clicks.get(&id).map(|bytes| Timestamp(i64::from_le_bytes(bytes)));
        self.clicks.put(id, event.ingest_time.0.to_le_bytes(), self.heard);
        previous.is_some_and(|previous| self.counting.is_repeat_click(previous, event.ingest_time))
    }

    fn count(&mut self, seen: &Seen<'_>, at: Timestamp) -> Outcome {
        let event = &seen.event;
        let (minute, hour) = match assign(at, self.horizon) {
            Assigned::Open { minute, hour } => (minute, hour),
            Assigned::Late { hour } => {
                self.note_late(hour);
                return Outcome::Late;
            }
        };
        let ad = seen.ad.map_or_else(|| self.windows.number(event.ad_id, event.campaign_id), Ok);
        let Ok(ad) = ad else { return Outcome::DeadLetter };
        let price = self.windows.price(ad, at, &self.prices);
        // The decoder bounds every amount, so an overflow is a price book that was not checked.
        let Ok(cost) = price.cost(event.kind, event.cost_micros, event.currency) else { return Outcome::DeadLetter };
        let billable = Billable {
            minute,
            hour,
            ad,
            guess: seen.guess,
            country: event.country,
            device: event.device_type,
            currency: cost.currency,
            user: event.user_pseudo_id.map(IdRef::as_str),
            counts: Counts::one(event.kind, cost.nanos),
        };
        if self.windows.add(&billable).is_err() {
            return Outcome::DeadLetter;
        }
        self.max_event_time = self.max_event_time.max(at);
        self.as_of = self.as_of.max(event.ingest_time);
        if self.latency.wants() {
            self.latency.add(event.campaign_id.into(), event.ingest_time);
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
}

/// An event and what was found out about it before its turn.
#[derive(Debug)]
struct Seen<'a> {
    event: EventView<'a>,
    /// Whether it could be read in place; otherwise the rest means nothing.
    is_sure: bool,
    id: Id,
    /// Its ad's number, if it had one then.
    ad: Option<u32>,
    /// Where its campaign hour may be.
    guess: u32,
}

impl<'a> Seen<'a> {
    fn nothing() -> Self {
        Self { event: EventView::empty(), is_sure: false, id: [0; 16], ad: None, guess: u32::MAX }
    }

    fn of(event: EventView<'a>) -> Self {
        Self { event, is_sure: true, id: id_of(event.event_id.as_bytes()), ..Self::nothing() }
    }

    /// The event in a record, over the one before.
    fn read(&mut self, record: &'a Record) {
        self.is_sure = self.event.read(&record.payload);
        (self.id, self.ad, self.guess) = (id_of(self.event.event_id.as_bytes()), None, u32::MAX);
    }
}

//! Log records → rows that wait for a commit, by day, with the positions they bring both logs to.
//! Pure but for memory: what is lost in a crash is read again. Every record leaves exactly one row, or none because
//! the bad table has it already. Never: holds bytes without counting them towards the limit.

use std::collections::BTreeMap;

use shared::event::{RejectReason, Rejection};
use shared::event_log::Record;
use shared::event_view::EventView;
use shared::id::RefId;
use shared::progress::Positions;
use shared::time::{Day, Timestamp};
use shared::verdict::Counting;
use shared::wire::{BadRecord, MAX_BAD_BYTES};

use crate::columns::Waiting;
use crate::convert::BadRow;
use crate::error::Error;
use crate::positions::{DEAD_LETTERS, EVENTS, Progress};

const STAGE: &str = "lake";

/// What a row needs besides its record.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The counting rules that give the billing time, and so the day.
    pub(crate) counting: Counting,
    /// The region of records that do not name one.
    pub(crate) region: RefId,
}

/// Rows between two commits.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Records that become rows of `bronze/events`, by day.
    pub(crate) days: BTreeMap<Day, Vec<Waiting>>,
    /// Rows of `bronze/bad`.
    pub(crate) bad: Vec<BadRow>,
    /// The next positions to read once these rows are committed.
    pub(crate) next: Progress,
    /// Up to where undecodable events are in the bad table once these rows are.
    pub(crate) undecodable: Positions,
    /// How many rows.
    pub(crate) rows: usize,
    /// How many payload bytes they came from.
    pub(crate) bytes: usize,
    /// When the first of them was read.
    pub(crate) since: Option<Timestamp>,
}

impl Buffer {
    /// An empty buffer where the logs stand at `next` and undecodable events are known up to `undecodable`.
    pub(crate) fn new(next: Progress, undecodable: Positions) -> Self {
        let (days, bad) = (BTreeMap::new(), Vec::new());
        Self { days, bad, next, undecodable, rows: 0, bytes: 0, since: None }
    }

    /// Whether nothing was read since the last commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Takes records of the events log.
    ///
    /// # Errors
    /// `Corrupt` when a record comes before its position.
    pub(crate) fn take_events(&mut self, records: Vec<Record>, rules: &Rules, now: Timestamp) -> Result<(), Error> {
        for record in records {
            self.count(EVENTS, &record, now)?;
            let billing_time = |e: &EventView<'_>| rules.counting.billing_time(e.event_time, e.ingest_time).at;
            match Waiting::new(record.payload.clone(), record.partition, record.position, billing_time) {
                Ok(waiting) => {
                    self.days.entry(waiting.place.billing_time.day()).or_default().push(waiting);
                    self.rows += 1;
                }
                Err(rejection) => self.take_undecodable(&record, &rejection, rules)?,
            }
        }
        Ok(())
    }

    /// Takes records of the dead-letter log.
    ///
    /// # Errors
    /// `Corrupt` when a record comes before its position.
    pub(crate) fn take_dead_letters(
        &mut self,
        records: Vec<Record>,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<(), Error> {
        for record in records {
            self.count(DEAD_LETTERS, &record, now)?;
            let bad = match BadRecord::decode(&record.payload) {
                Ok(bad) => bad,
                Err(rejection) => refused(&record, &rejection, rules),
            };
            self.push_bad(DEAD_LETTERS, &record, bad);
        }
        Ok(())
    }

    fn take_undecodable(&mut self, record: &Record, why: &Rejection, rules: &Rules) -> Result<(), Error> {
        if record.position < self.undecodable.next(record.partition) {
            return Ok(()); // a run before this one committed it, and then not the events around it
        }
        advance(&mut self.undecodable, EVENTS, record)?;
        self.push_bad(EVENTS, record, refused(record, why, rules));
        Ok(())
    }

    fn push_bad(&mut self, topic: &str, record: &Record, mut bad: BadRecord) {
        let (partition, position) = (record.partition, record.position);
        if !(Timestamp::MIN..=Timestamp::MAX).contains(&Timestamp(bad.ingest_time)) {
            bad.ingest_time = record.append_time.0;
        }
        self.bad.push(BadRow { topic: topic.to_owned(), partition, position, record: bad });
        self.rows += 1;
    }

    fn count(&mut self, topic: &str, record: &Record, now: Timestamp) -> Result<(), Error> {
        let next = if topic == EVENTS { &mut self.next.events } else { &mut self.next.dead_letters };
        advance(next, topic, record)?;
        self.bytes += record.payload.len();
        self.since.get_or_insert(now);
        Ok(())
    }

    /// The bad rows by the day they were refused.
    pub(crate) fn bad_days(&mut self) -> BTreeMap<Day, Vec<BadRow>> {
        let mut days: BTreeMap<Day, Vec<BadRow>> = BTreeMap::new();
        for row in std::mem::take(&mut self.bad) {
            days.entry(Timestamp(row.record.ingest_time).day()).or_default().push(row);
        }
        days
    }
}

fn advance(positions: &mut Positions, topic: &str, record: &Record) -> Result<(), Error> {
    if record.position < positions.next(record.partition) {
        let (partition, position) = (record.partition, record.position);
        return Err(Error::Corrupt(format!("the log {topic} gave partition {partition} position {position} again")));
    }
    positions.0.insert(record.partition, record.position + 1);
    Ok(())
}

fn refused(record: &Record, why: &Rejection, rules: &Rules) -> BadRecord {
    BadRecord {
        reason: RejectReason::Undecodable.as_str().to_owned(),
        detail: why.to_string(),
        stage: STAGE.to_owned(),
        raw: record.payload.iter().take(MAX_BAD_BYTES).copied().collect(),
        count: 1,
        ingest_time: record.append_time.0,
        region: rules.region.to_string(),
    }
}

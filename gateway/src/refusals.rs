//! What is not an event: kept with its bytes on the dead-letter topic, or counted where there is nothing to keep
//! (duplicates, opt-outs, limits). Counts are coalesced and appended once a second and at shutdown; so is, once a
//! minute, the tally of what was taken in, which the archive is held against (`shared::tally`).
//! Guarantees: a refusal is durable before the client hears of it; past a budget of bytes per second refusals are
//! counted without their bytes, so that rubbish cannot fill our disk. A crash loses at most the counts of the
//! last second. Never: keeps a byte of an opted-out or limited request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use shared::event::{RejectReason, Rejection};
use shared::event_log::{Delivered, EventLog, LogError, NewRecord};
use shared::id::RefId;
use shared::tally::{TALLY, Tallies};
use shared::time::{Clock, Timestamp};
use shared::wire::{BadRecord, MAX_BAD_BYTES};

use crate::rate_limit::ByteBudget;

const STAGE: &str = "gateway";

/// One refusal with what was refused.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) rejection: Rejection,
    pub(crate) raw: Bytes,
}

/// The way to the dead-letter topic.
pub(crate) struct Refusals {
    log: Arc<dyn EventLog>,
    clock: Arc<dyn Clock>,
    region: RefId,
    budget: ByteBudget,
    counts: Mutex<BTreeMap<RejectReason, u64>>,
    next_partition: AtomicU32,
    tallies: Tallies,
}

impl Refusals {
    pub(crate) fn new(log: Arc<dyn EventLog>, clock: Arc<dyn Clock>, region: RefId, bytes_per_second: u64) -> Self {
        let budget = ByteBudget::new(bytes_per_second, Arc::clone(&clock));
        let tallies = Tallies::new(clock.now());
        Self { log, clock, region, budget, counts: Mutex::default(), next_partition: AtomicU32::new(0), tallies }
    }

    /// Counts refusals that leave no bytes.
    pub(crate) fn count(&self, reason: RejectReason, number: u64) {
        if number > 0 {
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += number;
        }
    }

    /// Makes refusals durable, with their bytes as far as the budget goes.
    ///
    /// # Errors
    /// The log's: then nothing may be said about them, and none of them was counted.
    pub(crate) async fn keep(&self, refusals: &[Refusal]) -> Result<(), LogError> {
        let now = self.clock.now();
        let mut records = Vec::new();
        let mut counted = Vec::new();
        for refusal in refusals {
            let raw = refusal.raw.get(..MAX_BAD_BYTES).unwrap_or(&refusal.raw);
            let detail = &refusal.rejection.detail;
            if self.budget.take(raw.len() + detail.len()) {
                records.push(self.record(now, refusal.rejection.reason.as_str(), detail, raw, 1));
            } else {
                counted.push(refusal.rejection.reason);
            }
        }
        if !records.is_empty() {
            let number = records.len() as u64;
            self.log.append(records).await?;
            self.tallies.refused(now, number);
        }
        counted.into_iter().for_each(|reason| self.count(reason, 1));
        Ok(())
    }

    /// Appends the counts gathered so far.
    ///
    /// # Errors
    /// The log's; the counts are kept for the next time.
    pub(crate) async fn flush(&self) -> Result<(), LogError> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let records = counts.iter().map(|(reason, n)| self.record(now, reason.as_str(), "", &[], *n)).collect();
        let appended = self.log.append(records).await;
        match appended {
            Ok(_) => self.tallies.refused(now, counts.values().sum()),
            Err(_) => counts.into_iter().for_each(|(reason, count)| self.count(reason, count)),
        }
        appended.map(|_| ())
    }

    /// Events with these ingest times are durable.
    pub(crate) fn accepted(&self, ingest_times: &[Timestamp], delivered: &[Delivered]) {
        self.tallies.accepted(ingest_times, delivered);
    }

    /// Appends what this process took in since the last time, by hour.
    ///
    /// # Errors
    /// The log's; the tallies are kept for the next time.
    pub(crate) async fn flush_tallies(&self) -> Result<(), LogError> {
        let tallies = self.tallies.take();
        if tallies.is_empty() {
            return Ok(());
        }
        let records = tallies.iter().map(|t| self.record(t.hour, TALLY, &t.to_json(), &[], 0)).collect();
        self.log.append(records).await?;
        self.tallies.settle();
        Ok(())
    }

    /// A record under the time `at`.
    fn record(&self, at: Timestamp, reason: &str, detail: &str, raw: &[u8], count: u64) -> NewRecord {
        let bad = BadRecord {
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            stage: STAGE.to_owned(),
            raw: raw.to_vec(),
            count,
            ingest_time: at.0,
            region: self.region.to_string(),
        };
        let partition = self.next_partition.fetch_add(1, Ordering::Relaxed) % self.log.partitions().max(1);
        NewRecord { partition, append_time: self.clock.now(), payload: bad.encode().into() }
    }
}

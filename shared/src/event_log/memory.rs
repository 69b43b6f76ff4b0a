//! The event log in memory: for tests, and for trying a layer without a disk.
//! Owns: one sequence of records in the order they were appended, which every consumer walks.
//! Guarantees what [`super::EventLog`] promises, except that nothing survives the process.
//! Never: fails on its own, loses a record that retention was not told to forget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Record, Retention, check_start, no_partition};
use crate::progress::Positions;
use crate::time::Timestamp;

/// An event log that lives as long as its last clone. Clones are the same log.
#[derive(Clone)]
pub struct MemoryLog(Arc<Inner>);

struct Inner {
    partitions: u32,
    state: Mutex<State>,
    /// How many records were ever appended: consumers wait for it to move.
    appended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// What is kept, in append order over all partitions.
    records: VecDeque<Record>,
    /// How many records were forgotten before the first kept one.
    forgotten: u64,
    bytes: u64,
    bounds: Bounds,
    groups: BTreeMap<String, Positions>,
}

impl MemoryLog {
    /// An empty log of `partitions` partitions.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        let zero = Positions((0..partitions).map(|p| (p, 0)).collect());
        let state = State { bounds: Bounds { start: zero.clone(), end: zero }, ..State::default() };
        Self(Arc::new(Inner { partitions, state: Mutex::new(state), appended: watch::Sender::new(0) }))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, record: NewRecord) -> Delivered {
        let NewRecord { partition, append_time, payload } = record;
        let end = self.bounds.end.0.entry(partition).or_default();
        let position = *end;
        *end += 1;
        self.bytes += size(payload.len());
        self.records.push_back(Record { partition, position, append_time, payload });
        Delivered { partition, position }
    }

    /// Forgets the oldest record; answers its size.
    fn pop(&mut self) -> u64 {
        let Some(record) = self.records.pop_front() else { return 0 };
        self.bounds.start.0.insert(record.partition, record.position + 1);
        self.forgotten += 1;
        let freed = size(record.payload.len());
        self.bytes -= freed;
        freed
    }
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[async_trait]
impl EventLog for MemoryLog {
    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        if let Some(record) = records.iter().find(|r| r.partition >= self.0.partitions) {
            return Err(no_partition(record.partition, self.0.partitions));
        }
        let mut state = self.0.state();
        let delivered: Vec<Delivered> = records.into_iter().map(|r| state.push(r)).collect();
        // Told while the lock is held, so that the count never goes back.
        self.0.appended.send_replace(state.forgotten + size(state.records.len()));
        Ok(delivered)
    }

    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        let state = self.0.state();
        check_start(from, &state.bounds, self.0.partitions)?;
        let walked = state.forgotten;
        drop(state);
        let appended = self.0.appended.subscribe();
        let group = group.to_owned();
        Ok(Box::new(MemoryConsumer { log: self.0.clone(), group, next: from.clone(), walked, appended }))
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        Ok(self.0.state().bounds.clone())
    }

    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        let state = self.0.state();
        let mut found = BTreeMap::new();
        for record in state.records.iter().filter(|r| r.append_time >= time) {
            found.entry(record.partition).or_insert(record.position);
        }
        let mut positions = state.bounds.end.clone();
        positions.0.extend(found);
        Ok(positions)
    }

    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        Ok(self.0.state().groups.clone())
    }

    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        let mut state = self.0.state();
        let oldest_kept = now.plus(-i64::try_from(retention.max_age.as_micros()).unwrap_or(i64::MAX));
        let mut freed = 0;
        while let Some(oldest) = state.records.front() {
            if oldest.append_time >= oldest_kept && state.bytes <= retention.max_bytes {
                break;
            }
            freed += state.pop();
        }
        Ok(freed)
    }
}

struct MemoryConsumer {
    log: Arc<Inner>,
    group: String,
    next: Positions,
    /// How many records of the whole sequence lie behind.
    walked: u64,
    appended: watch::Receiver<u64>,
}

impl MemoryConsumer {
    fn take(&mut self, max_records: usize) -> Result<Vec<Record>, LogError> {
        let state = self.log.state();
        check_start(&self.next, &state.bounds, self.log.partitions)?;
        self.walked = self.walked.max(state.forgotten);
        let behind = usize::try_from(self.walked - state.forgotten).unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        for record in state.records.iter().skip(behind) {
            if taken.len() == max_records {
                break;
            }
            self.walked += 1;
            if let Some(next) = self.next.0.get_mut(&record.partition)
                && *next == record.position
            {
                *next += 1;
                taken.push(record.clone());
            }
        }
        Ok(taken)
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        let patience = crate::time::sleep(wait);
        tokio::pin!(patience);
        loop {
            self.appended.mark_unchanged();
            let taken = self.take(max_records)?;
            if !taken.is_empty() || max_records == 0 {
                return Ok(taken);
            }
            tokio::select! {
                () = &mut patience => return Ok(taken),
                // The sender lives in `self.log`, so this only ends when something was appended.
                _ = self.appended.changed() => {}
            }
        }
    }

    fn positions(&self) -> Positions {
        self.next.clone()
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        let mut state = self.log.state();
        state.groups.entry(self.group.clone()).or_default().0.extend(&positions.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::conformance::event_log::{Harness, PARTITIONS, run};

    struct Memory;

    #[async_trait]
    impl Harness for Memory {
        async fn fresh(&mut self) -> Arc<dyn EventLog> {
            Arc::new(MemoryLog::new(PARTITIONS))
        }
    }

    #[tokio::test]
    async fn it_is_an_event_log() {
        run(&mut Memory).await;
    }
}

//! A member of a Kafka consumer group: Kafka deals the partitions, the caller says where each starts.
//!
//! Cooperative rebalances under a static name: a change moves only the partitions that must move, and a member that comes
//! back within the session timeout has what it had without disturbing the others. An assignment is accepted at once and
//! read only when it is started; a revocation is answered when the caller has saved, and the group waits for that.
//! On crash: after the session timeout the others get the partitions.
//! Never: starts from a committed offset, or answers a revocation before the caller does (unless the partitions are lost).

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::consumer::{READING, Reading};
use super::{KafkaLog, reader_config, unavailable};
use crate::event_log::group::{Member, Turn};
use crate::event_log::{EventLog, LogError, Record, check_start};
use crate::progress::Positions;
use crate::time::sleep;

const GROUPING: &str = "asking Kafka for partitions";
/// This share of the longest time between polls passes before [`Member::keep`] polls by itself.
const KEEP_SHARE: u32 = 3;

/// What Kafka said of the member's partitions and the caller does not know yet.
#[derive(Default)]
struct Rebalances {
    untold: Mutex<VecDeque<Turn>>,
    told: Notify,
    is_leaving: AtomicBool,
}

impl Rebalances {
    fn untold(&self) -> MutexGuard<'_, VecDeque<Turn>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    /// Called by whichever poll meets the rebalance.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: BTreeSet<u32> =
            list.elements().iter().filter_map(|e| u32::try_from(e.partition()).ok()).collect();
        let (turn, answered) = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            (Turn::Assigned(partitions), consumer.incremental_assign(&TopicPartitionList::new()))
        } else if consumer.assignment_lost() || self.is_leaving.load(Ordering::Relaxed) {
            let answered = stop(consumer, &partitions);
            (Turn::Lost(partitions), answered)
        } else {
            (Turn::Revoked(partitions), Ok(()))
        };
        if let Err(error) = answered {
            tracing::warn!(%error, ?turn, "Kafka did not take an answer to a rebalance");
        }
        self.untold().push_back(turn);
        self.told.notify_one();
    }
}

/// Stops reading those of `partitions` that are read. Kafka takes it for the answer to a revocation, also if none is.
fn stop<C: ConsumerContext>(
    consumer: &impl rdkafka::consumer::Consumer<C>,
    partitions: &BTreeSet<u32>,
) -> KafkaResult<()> {
    let mut read = TopicPartitionList::new();
    for element in consumer.assignment()?.elements() {
        if u32::try_from(element.partition()).is_ok_and(|p| partitions.contains(&p)) {
            read.add_partition(element.topic(), element.partition());
        }
    }
    consumer.incremental_unassign(&read)
}

/// A member at work.
pub(super) struct KafkaMember {
    log: KafkaLog,
    reading: Reading<Rebalances>,
    /// Read while records were to stop.
    early: VecDeque<Record>,
    is_paused: bool,
    /// Whether [`Member::keep`] stopped the records.
    is_kept: bool,
}

impl KafkaMember {
    /// Joins `group` under the static name `name`.
    pub(super) fn join(log: KafkaLog, group: &str, name: &str) -> Result<Self, LogError> {
        let settings = &log.0.settings;
        let heartbeat = (settings.session_timeout.0 / 5).min(Duration::from_secs(3));
        let mut config = reader_config(settings, group)?;
        config
            .set("group.instance.id", name)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", settings.session_timeout.0.as_millis().to_string())
            .set("heartbeat.interval.ms", heartbeat.as_millis().to_string())
            .set("max.poll.interval.ms", settings.max_poll_interval.0.as_millis().to_string());
        let reader: StreamConsumer<Rebalances> = config
            .create_with_context(Rebalances::default())
            .map_err(|e| LogError::Invalid(format!("Kafka's client does not take its settings: {e}")))?;
        reader.subscribe(&[&log.0.topic]).map_err(unavailable(GROUPING))?;
        let reading = Reading::new(reader, &log.0.topic);
        Ok(Self { log, reading, early: VecDeque::new(), is_paused: false, is_kept: false })
    }

    fn untold(&mut self) -> Option<Turn> {
        let turn = self.reading.reader.context().untold().pop_front();
        if let Some(Turn::Lost(partitions)) = &turn {
            self.forget(partitions);
            // Whoever started one of them meanwhile did not know yet.
            if let Err(error) = stop(self.reading.reader.as_ref(), partitions) {
                tracing::warn!(%error, ?partitions, "cannot stop reading");
            }
        }
        turn
    }

    fn forget(&mut self, partitions: &BTreeSet<u32>) {
        self.reading.next.0.retain(|partition, _| !partitions.contains(partition));
        self.early.retain(|record| !partitions.contains(&record.partition));
    }

    /// Stops or goes on with everything that is read.
    fn hold(&self, is_held: bool) -> Result<(), LogError> {
        let (reader, list) = (&self.reading.reader, self.reading.list(&self.reading.next)?);
        let held = if is_held { reader.pause(&list) } else { reader.resume(&list) };
        held.map_err(unavailable(READING))
    }

    /// Lets go of everything, so that closing the client waits for nobody's answer.
    fn drop_all(&mut self) {
        self.reading.reader.context().is_leaving.store(true, Ordering::Relaxed);
        let all = (0..self.log.partitions()).collect();
        if let Err(error) = stop(self.reading.reader.as_ref(), &all) {
            tracing::debug!(%error, "Kafka did not hear that partitions are given up");
        }
    }
}

#[async_trait]
impl Member for KafkaMember {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Turn, LogError> {
        if let Some(turn) = self.untold() {
            return Ok(turn);
        }
        if std::mem::take(&mut self.is_kept) && !self.is_paused {
            self.hold(false)?;
        }
        if !self.is_paused && !self.early.is_empty() {
            return Ok(Turn::Records(self.early.drain(..self.early.len().min(max_records)).collect()));
        }
        let reader = Arc::clone(&self.reading.reader);
        tokio::select! {
            records = self.reading.records(max_records, wait) => match records {
                Ok(records) if self.is_paused => self.early.extend(records),
                records => return Ok(Turn::Records(records?)),
            },
            () = reader.context().told.notified() => {}
        }
        Ok(self.untold().unwrap_or(Turn::Records(Vec::new())))
    }

    async fn start(&mut self, from: &Positions) -> Result<(), LogError> {
        check_start(from, &self.log.bounds().await?, self.log.partitions())?;
        let list = self.reading.list(from)?;
        self.reading.reader.incremental_assign(&list).map_err(unavailable(GROUPING))?;
        self.reading.next.0.extend(&from.0);
        if self.is_paused || self.is_kept { self.hold(true) } else { Ok(()) }
    }

    async fn give_up(&mut self, partitions: &BTreeSet<u32>) -> Result<(), LogError> {
        self.forget(partitions);
        stop(self.reading.reader.as_ref(), partitions).map_err(unavailable(GROUPING))
    }

    fn pause(&mut self, is_paused: bool) -> Result<(), LogError> {
        if self.is_paused != is_paused {
            self.hold(is_paused)?;
            self.is_paused = is_paused;
        }
        Ok(())
    }

    async fn keep(&mut self) -> LogError {
        sleep(self.log.0.settings.max_poll_interval.0 / KEEP_SHARE).await;
        if let Err(error) = self.hold(true) {
            return error;
        }
        self.is_kept = true;
        loop {
            match self.reading.record().await {
                Ok(record) => self.early.push_back(record),
                Err(error @ LogError::Unavailable { .. }) => {
                    tracing::warn!(%error, "the event log is away");
                    sleep(self.log.0.settings.max_poll_interval.0 / KEEP_SHARE).await;
                }
                Err(error) => return error,
            }
        }
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        self.reading.report(positions).await
    }

    async fn leave(mut self: Box<Self>) {
        self.drop_all();
        // Closing talks to the broker.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
            tracing::warn!(%error, "leaving the group failed");
        }
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.drop_all();
    }
}

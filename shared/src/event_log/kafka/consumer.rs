//! Reading some partitions of a topic: by explicit assignment, or as the member of a group ([`super::member`]) has them.
//! Guarantees: records come in position order within each partition, none is jumped over; a poll that is dropped
//! half way loses nothing, since nothing is awaited after the first record is taken.
//! On crash: nothing of value is here; positions of truth live with whoever consumes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use rdkafka::consumer::{CommitMode, Consumer as _, ConsumerContext, DefaultConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientConfig, Timestamp as KafkaTime};

use super::{ANSWER_WITHIN, ask, create, list, number, position, raw, unavailable};
use crate::event_log::{Consumer, LogError, Record};
use crate::progress::Positions;
use crate::time::Timestamp;

pub(super) const READING: &str = "reading from Kafka";

/// A client that reads, and where it stands.
pub(super) struct Reading<C: ConsumerContext + 'static> {
    pub(super) reader: Arc<StreamConsumer<C>>,
    topic: String,
    /// The next position of each partition that is read; of others nothing is handed out.
    pub(super) next: Positions,
    /// What the reader said after the records of the last poll.
    failed: Option<KafkaError>,
}

impl<C: ConsumerContext + 'static> Reading<C> {
    pub(super) fn new(reader: StreamConsumer<C>, topic: &str) -> Self {
        Self { reader: Arc::new(reader), topic: topic.to_owned(), next: Positions::default(), failed: None }
    }

    /// A list of the topic's partitions at these positions.
    pub(super) fn list(&self, positions: &Positions) -> Result<TopicPartitionList, LogError> {
        list(&self.topic, positions.0.iter().map(|(p, at)| (*p, raw(*at)))).map_err(unavailable(READING))
    }

    /// Takes a message if it is the next one of its partition. What is read twice around a pause, and what comes late of a
    /// partition that was given up, is nobody's.
    fn take(next: &mut Positions, message: &BorrowedMessage<'_>) -> Result<Option<Record>, LogError> {
        let partition = u32::try_from(message.partition()).unwrap_or(u32::MAX);
        let at = position(message.offset());
        let Some(wanted) = next.0.get_mut(&partition).filter(|wanted| at >= **wanted) else { return Ok(None) };
        if at > *wanted {
            return Err(LogError::Corrupt(format!(
                "partition {partition}: position {at} came where {wanted} was next"
            )));
        }
        *wanted += 1;
        let append_time = match message.timestamp() {
            KafkaTime::CreateTime(millis) | KafkaTime::LogAppendTime(millis) => Timestamp::from_millis(millis),
            KafkaTime::NotAvailable => None,
        };
        Ok(Some(Record {
            partition,
            position: at,
            append_time: append_time.unwrap_or(Timestamp(0)),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        }))
    }

    /// The next record, whenever it comes.
    pub(super) async fn record(&mut self) -> Result<Record, LogError> {
        if let Some(error) = self.failed.take() {
            return Err(self.explain(error).await);
        }
        loop {
            match self.reader.recv().await {
                Ok(message) => {
                    if let Some(record) = Self::take(&mut self.next, &message)? {
                        return Ok(record);
                    }
                }
                Err(error) => return Err(self.explain(error).await),
            }
        }
    }

    /// Up to `max_records` records; waits up to `wait` for the first.
    pub(super) async fn records(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        if max_records == 0 {
            return Ok(Vec::new());
        }
        let mut taken = match tokio::time::timeout(wait, self.record()).await {
            Err(_) => return Ok(Vec::new()),
            Ok(first) => vec![first?],
        };
        while taken.len() < max_records {
            match self.reader.recv().now_or_never() {
                Some(Ok(message)) => taken.extend(Self::take(&mut self.next, &message)?),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        Ok(taken)
    }

    /// What an error of the reader means. A start that retention has passed shows as "no offset to reset to".
    async fn explain(&self, error: KafkaError) -> LogError {
        if let Some((code, why)) = self.reader.client().fatal_error() {
            return LogError::Refused(format!("{code}: {why}"));
        }
        if !matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        ) {
            return unavailable(READING)(error);
        }
        for (&partition, &wanted) in &self.next.0 {
            let (reader, topic) = (Arc::clone(&self.reader), self.topic.clone());
            let marks = ask(READING, move || reader.fetch_watermarks(&topic, number(partition), ANSWER_WITHIN)).await;
            let (start, end) = match marks {
                Ok((start, end)) => (position(start), position(end)),
                Err(error) => return error,
            };
            if wanted < start {
                return LogError::Truncated { partition, start, wanted };
            }
            if wanted > end {
                return LogError::AheadOfLog { partition, end, wanted };
            }
        }
        unavailable(READING)(error)
    }

    /// Commits offsets, for lag displays.
    pub(super) async fn report(&self, positions: &Positions) -> Result<(), LogError> {
        let (list, reader) = (self.list(positions)?, Arc::clone(&self.reader));
        ask("reporting progress to Kafka", move || reader.commit(&list, CommitMode::Sync)).await
    }
}

pub(super) struct KafkaConsumer(Reading<DefaultConsumerContext>);

impl KafkaConsumer {
    /// Starts reading at `from`.
    pub(super) fn start(config: &ClientConfig, topic: &str, from: &Positions) -> Result<Self, LogError> {
        let mut reading = Reading::new(create(config)?, topic);
        reading.reader.assign(&reading.list(from)?).map_err(unavailable(READING))?;
        reading.next = from.clone();
        Ok(Self(reading))
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        self.0.records(max_records, wait).await
    }

    fn positions(&self) -> Positions {
        self.0.next.clone()
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        self.0.report(positions).await
    }
}

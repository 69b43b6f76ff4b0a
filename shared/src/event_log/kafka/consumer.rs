//! One reader of some partitions of a topic, by explicit assignment.
//! Guarantees: records come in position order within each partition, none is jumped over; a poll that is dropped
//! half way loses nothing, since nothing is awaited after the first record is taken.
//! On crash: nothing of value is here; positions of truth live with whoever consumes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Timestamp as KafkaTime};

use super::{ANSWER_WITHIN, ask, create, list, number, position, raw, unavailable};
use crate::event_log::{Consumer, LogError, Record};
use crate::progress::Positions;
use crate::time::Timestamp;

const READING: &str = "reading from Kafka";

pub(super) struct KafkaConsumer {
    reader: Arc<StreamConsumer>,
    topic: String,
    next: Positions,
    /// What the reader said after the records of the last poll.
    failed: Option<KafkaError>,
}

impl KafkaConsumer {
    /// Starts reading at `from`.
    pub(super) fn start(config: &ClientConfig, topic: &str, from: &Positions) -> Result<Self, LogError> {
        let reader: StreamConsumer = create(config)?;
        let list = list(topic, from.0.iter().map(|(p, at)| (*p, raw(*at)))).map_err(unavailable(READING))?;
        reader.assign(&list).map_err(unavailable(READING))?;
        Ok(Self { reader: Arc::new(reader), topic: topic.to_owned(), next: from.clone(), failed: None })
    }

    /// Takes a message if it is the next one of its partition.
    fn take(next: &mut Positions, message: &BorrowedMessage<'_>) -> Result<Record, LogError> {
        let partition = u32::try_from(message.partition()).unwrap_or(u32::MAX);
        let at = position(message.offset());
        let Some(wanted) = next.0.get_mut(&partition) else {
            return Err(LogError::Corrupt(format!(
                "Kafka sent a record of partition {partition}, which was not asked for"
            )));
        };
        if at != *wanted {
            return Err(LogError::Corrupt(format!(
                "partition {partition}: position {at} came where {wanted} was next"
            )));
        }
        *wanted += 1;
        let append_time = match message.timestamp() {
            KafkaTime::CreateTime(millis) | KafkaTime::LogAppendTime(millis) => Timestamp::from_millis(millis),
            KafkaTime::NotAvailable => None,
        };
        let append_time = append_time.unwrap_or(Timestamp(0));
        Ok(Record {
            partition,
            position: at,
            append_time,
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        })
    }

    /// What an error of the reader means. A start that retention has passed shows as "no offset to reset to".
    async fn explain(&self, error: KafkaError) -> LogError {
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
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        if max_records == 0 {
            return Ok(Vec::new());
        }
        if let Some(error) = self.failed.take() {
            return Err(self.explain(error).await);
        }
        let first = match tokio::time::timeout(wait, self.reader.recv()).await {
            Err(_) => return Ok(Vec::new()),
            Ok(Ok(message)) => Self::take(&mut self.next, &message)?,
            Ok(Err(error)) => return Err(self.explain(error).await),
        };
        let mut taken = vec![first];
        while taken.len() < max_records {
            match self.reader.recv().now_or_never() {
                Some(Ok(message)) => taken.push(Self::take(&mut self.next, &message)?),
                Some(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                None => break,
            }
        }
        Ok(taken)
    }

    fn positions(&self) -> Positions {
        self.next.clone()
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        let list = list(&self.topic, positions.0.iter().map(|(p, at)| (*p, raw(*at))));
        let list = list.map_err(unavailable("reporting progress to Kafka"))?;
        let reader = Arc::clone(&self.reader);
        ask("reporting progress to Kafka", move || reader.commit(&list, CommitMode::Sync)).await
    }
}

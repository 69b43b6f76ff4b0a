//! The event log on Kafka: one topic is one log. The only place that knows rdkafka.
//!
//! Guarantees what [`super::EventLog`] promises: an append is answered when every in-sync copy has the record
//! (acks=all, idempotent producer, one delivery report each); a consumer starts exactly where it is told and a start
//! that retention has passed is an error, never a jump. Positions are Kafka's offsets: without gaps, since we use no
//! transactions (decisions.md D-8). Appends keep milliseconds of `append_time`, which is Kafka's resolution.
//! On crash: what was answered is in the log; what timed out may be, and downstream dedup handles it.
//! Size-based retention is the topic's own (`retention.bytes`); [`EventLog::enforce`] applies age.
//! Partitions are assigned by whoever runs the consumer, or dealt to the members of a group.
//! Never: starts where a group's committed offset is: those are for lag displays only.

mod consumer;
mod headers;
mod member;
mod settings;
mod topic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientConfig, Offset};

use super::group::Member;
use super::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Retention, check_start, no_partition};
use crate::progress::Positions;
use crate::time::{Timestamp, sleep};

pub use headers::cloud_event;
pub use settings::Settings;
pub use topic::{Topic, ensure, shortcomings};

/// How long a question about topics, offsets or groups may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait when the producer's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// The headers of a record by its payload.
pub type Describe = fn(&[u8]) -> Vec<(&'static str, String)>;

/// A topic as an event log. Clones are the same log.
#[derive(Clone)]
pub struct KafkaLog(Arc<Inner>);

struct Inner {
    settings: Settings,
    topic: String,
    partitions: u32,
    producer: Mutex<Arc<FutureProducer>>,
    /// The headers of a record.
    describe: Describe,
    /// Asks questions; never assigned.
    asker: Arc<BaseConsumer>,
}

impl KafkaLog {
    /// Opens the log that `topic` is.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when no broker answers; [`LogError::Invalid`] when there is no such topic.
    pub async fn open(settings: &Settings, topic: &str) -> Result<Self, LogError> {
        Self::open_with(settings, topic, |_| Vec::new()).await
    }

    /// As [`KafkaLog::open`]; every record appended carries the headers that `describe` finds in it. Nothing of ours reads
    /// them: they are for whoever else reads the topic.
    ///
    /// # Errors
    /// As [`KafkaLog::open`].
    pub async fn open_with(settings: &Settings, topic: &str, describe: Describe) -> Result<Self, LogError> {
        let asker: BaseConsumer = create(&reader_config(settings, "clickledger-asks")?)?;
        let asker = Arc::new(asker);
        let partitions = topic::partitions(&asker, topic).await?;
        let partitions = partitions.ok_or_else(|| {
            LogError::Invalid(format!("there is no topic {topic}: make it with `clickledger kafka ensure`"))
        })?;
        let producer = Mutex::new(Arc::new(producer(settings)?));
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            topic: topic.to_owned(),
            partitions,
            producer,
            describe,
            asker,
        })))
    }
}

/// A consumer's properties.
fn reader_config(settings: &Settings, group: &str) -> Result<ClientConfig, LogError> {
    let mut config = client(settings)?;
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("fetch.wait.max.ms", settings.fetch_wait.0.as_millis().to_string());
    Ok(config)
}

fn producer(settings: &Settings) -> Result<FutureProducer, LogError> {
    let mut config = client(settings)?;
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", "zstd")
        .set("message.max.bytes", settings.max_message_bytes.0.to_string())
        .set("linger.ms", settings.linger.0.as_millis().to_string())
        .set("delivery.timeout.ms", settings.delivery_timeout.0.as_millis().to_string());
    create(&config)
}

fn client(settings: &Settings) -> Result<ClientConfig, LogError> {
    let unavailable = |source| LogError::Unavailable { doing: "reading a secret of Kafka's client".to_owned(), source };
    settings.client().map_err(unavailable)
}

fn create<T: rdkafka::config::FromClientConfig>(config: &ClientConfig) -> Result<T, LogError> {
    config.create().map_err(|e| LogError::Invalid(format!("Kafka's client does not take its settings: {e}")))
}

fn unavailable(doing: &str) -> impl Fn(KafkaError) -> LogError {
    move |error| LogError::Unavailable { doing: doing.to_owned(), source: std::io::Error::other(error) }
}

/// Runs one of librdkafka's blocking questions.
async fn ask<T: Send + 'static>(
    doing: &'static str,
    question: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, LogError> {
    let failed = |source| LogError::Unavailable { doing: doing.to_owned(), source };
    // Some questions have no limit of their own while no broker is there.
    match tokio::time::timeout(2 * ANSWER_WITHIN, tokio::task::spawn_blocking(question)).await {
        Ok(Ok(answer)) => answer.map_err(unavailable(doing)),
        Ok(Err(died)) => Err(failed(std::io::Error::other(died))),
        Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
    }
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn position(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// A list of this topic's partitions, each at an offset.
fn list(topic: &str, at: impl Iterator<Item = (u32, Offset)>) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in at {
        list.add_partition_offset(topic, number(partition), offset)?;
    }
    Ok(list)
}

fn raw(position: u64) -> Offset {
    Offset::Offset(i64::try_from(position).unwrap_or(i64::MAX))
}

impl Inner {
    fn producer(&self) -> Arc<FutureProducer> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An idempotent producer that lost its place never sends again: the next append gets a new one.
    fn replace_if_fatal(&self, used: &Arc<FutureProducer>) -> Result<(), LogError> {
        if used.client().fatal_error().is_none() {
            return Ok(());
        }
        let mut current = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current, used) {
            tracing::warn!(topic = self.topic, "the producer cannot go on; starting a new one");
            *current = Arc::new(producer(&self.settings)?);
        }
        Ok(())
    }

    async fn enqueue(&self, producer: &FutureProducer, record: &NewRecord) -> Result<DeliveryFuture, LogError> {
        let headers = (self.describe)(&record.payload);
        loop {
            let new: FutureRecord<'_, (), [u8]> = FutureRecord::to(&self.topic)
                .partition(number(record.partition))
                .timestamp(record.append_time.as_millis())
                .headers(headers::owned(&headers))
                .payload(record.payload.as_ref());
            match producer.send_result(new) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => sleep(QUEUE_FULL_PAUSE).await,
                Err((KafkaError::MessageProduction(code @ RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    return Err(LogError::TooLarge(format!("a record of {} bytes: {code}", record.payload.len())));
                }
                Err((error, _)) => return Err(unavailable("appending to Kafka")(error)),
            }
        }
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let (asker, topic, partitions) = (Arc::clone(&self.asker), self.topic.clone(), self.partitions);
        ask("asking Kafka where the log begins and ends", move || {
            let mut bounds = Bounds::default();
            for partition in 0..partitions {
                let (start, end) = asker.fetch_watermarks(&topic, number(partition), ANSWER_WITHIN)?;
                bounds.start.0.insert(partition, position(start));
                bounds.end.0.insert(partition, position(end));
            }
            Ok(bounds)
        })
        .await
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        if let Some(record) = records.iter().find(|r| r.partition >= self.0.partitions) {
            return Err(no_partition(record.partition, self.0.partitions));
        }
        let producer = self.0.producer();
        let mut waiting = Vec::with_capacity(records.len());
        let mut failed = None;
        for record in &records {
            match self.0.enqueue(&producer, record).await {
                Ok(delivery) => waiting.push(delivery),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        // Every report is awaited, also after a failure: nothing of this call is under way when it is answered.
        let mut delivered = Vec::with_capacity(waiting.len());
        for delivery in waiting {
            match delivery.await {
                Ok(Ok(at)) => delivered.push(Delivered {
                    partition: u32::try_from(at.partition).unwrap_or(0),
                    position: position(at.offset),
                }),
                Ok(Err((error, _))) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    failed = failed.or(Some(LogError::TooLarge(format!("topic {}: {error}", self.0.topic))));
                }
                Ok(Err((error, _))) => failed = failed.or(Some(unavailable("appending to Kafka")(error))),
                Err(cancelled) => {
                    let source = std::io::Error::other(cancelled);
                    failed = failed.or(Some(LogError::Unavailable { doing: "appending to Kafka".to_owned(), source }));
                }
            }
        }
        match failed {
            None => Ok(delivered),
            Some(error) => {
                self.0.replace_if_fatal(&producer)?;
                Err(error)
            }
        }
    }

    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        let bounds = self.0.bounds().await?;
        check_start(from, &bounds, self.0.partitions)?;
        let config = reader_config(&self.0.settings, group)?;
        Ok(Box::new(consumer::KafkaConsumer::start(&config, &self.0.topic, from)?))
    }

    async fn join(&self, group: &str, name: &str) -> Result<Option<Box<dyn Member>>, LogError> {
        Ok(Some(Box::new(member::KafkaMember::join(self.clone(), group, name)?)))
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.0.bounds().await
    }

    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        let bounds = self.0.bounds().await?;
        // Kafka keeps milliseconds: the first one that is not before `time`. Its smallest time is 0.
        let millis = Offset::Offset(time.plus(999).as_millis().max(0));
        let (asker, topic, partitions) = (Arc::clone(&self.0.asker), self.0.topic.clone(), self.0.partitions);
        let found = ask("asking Kafka for positions by time", move || {
            asker.offsets_for_times(list(&topic, (0..partitions).map(|p| (p, millis)))?, ANSWER_WITHIN)
        })
        .await?;
        let mut positions = bounds.end;
        for element in found.elements() {
            if let (Offset::Offset(offset), Ok(partition)) = (element.offset(), u32::try_from(element.partition())) {
                positions.0.insert(partition, position(offset));
            }
        }
        Ok(positions)
    }

    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        let asker = Arc::clone(&self.0.asker);
        let names = ask("listing Kafka's groups", move || {
            let groups = asker.fetch_group_list(None, ANSWER_WITHIN)?;
            Ok(groups.groups().iter().map(|g| g.name().to_owned()).collect::<Vec<_>>())
        })
        .await?;
        let mut reported = BTreeMap::new();
        for group in names {
            let reader: BaseConsumer = create(&reader_config(&self.0.settings, &group)?)?;
            let (topic, partitions) = (self.0.topic.clone(), self.0.partitions);
            let committed = ask("asking Kafka for a group's offsets", move || {
                reader.committed_offsets(list(&topic, (0..partitions).map(|p| (p, Offset::Invalid)))?, ANSWER_WITHIN)
            })
            .await?;
            let at = committed.elements().into_iter().filter_map(|e| match e.offset() {
                Offset::Offset(offset) => Some((u32::try_from(e.partition()).ok()?, position(offset))),
                _ => None,
            });
            let positions = Positions(at.collect());
            if !positions.0.is_empty() {
                reported.insert(group, positions);
            }
        }
        Ok(reported)
    }

    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        let before = self.0.bounds().await?;
        let micros = i64::try_from(retention.max_age.as_micros()).unwrap_or(i64::MAX);
        let kept = self.positions_at(now.plus(-micros)).await?;
        let old: Vec<(u32, u64)> =
            kept.0.iter().filter(|(p, at)| **at > before.start.next(**p)).map(|(p, at)| (*p, *at)).collect();
        if old.is_empty() {
            return Ok(0);
        }
        let admin: AdminClient<DefaultClientContext> = create(&client(&self.0.settings)?)?;
        let deleting = unavailable("deleting old records from Kafka");
        let list = list(&self.0.topic, old.into_iter().map(|(p, at)| (p, raw(at)))).map_err(&deleting)?;
        let answer = admin.delete_records(&list, &topic::options()).await.map_err(&deleting)?;
        answer.elements().iter().try_for_each(|e| e.error()).map_err(&deleting)?;
        let after = self.0.bounds().await?;
        let forgotten = after.start.0.iter().map(|(p, at)| at.saturating_sub(before.start.next(*p)));
        Ok(forgotten.sum())
    }
}

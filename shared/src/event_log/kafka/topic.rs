//! Topics: making them as the guarantees need them, and saying where one falls short.
//! Never: changes a topic that exists; it says what to change.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use super::{ANSWER_WITHIN, Settings, ask, client, create, reader_config, unavailable};
use crate::event_log::LogError;

/// How often a new topic is looked for, [`BETWEEN_LOOKS`] apart, before its making counts as unknown: ten seconds.
const LOOKS: u32 = 200;
/// The pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What a topic is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
}

/// How long a broker may take to make a topic.
pub(super) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN))
}

/// The partitions of a topic; `None` where there is no such topic.
pub(super) async fn partitions(asker: &Arc<BaseConsumer>, topic: &str) -> Result<Option<u32>, LogError> {
    let (asker, name) = (Arc::clone(asker), topic.to_owned());
    let metadata = ask("asking Kafka for its topics", move || asker.fetch_metadata(Some(&name), ANSWER_WITHIN)).await?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    Ok(found.map(|t| u32::try_from(t.partitions().len()).unwrap_or(u32::MAX)).filter(|n| *n > 0))
}

/// Settings a topic is made with, and held against.
fn wanted(settings: &Settings) -> [(&'static str, String); 6] {
    [
        ("min.insync.replicas", settings.min_in_sync.to_string()),
        ("max.message.bytes", settings.max_message_bytes.0.to_string()),
        ("retention.ms", settings.retention.0.as_millis().to_string()),
        ("compression.type", "producer".to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ]
}

/// Makes the topic if it is not there; answers whether it was made.
///
/// # Errors
/// When no broker answers or it refuses.
pub async fn ensure(settings: &Settings, topic: &Topic) -> Result<bool, LogError> {
    let asker: Arc<BaseConsumer> = Arc::new(create(&reader_config(settings, "clickledger-asks")?)?);
    if partitions(&asker, &topic.name).await?.is_some() {
        return Ok(false);
    }
    let admin: AdminClient<DefaultClientContext> = create(&client(settings)?)?;
    let copies = TopicReplication::Fixed(i32::try_from(settings.replication).unwrap_or(i32::MAX));
    let config = wanted(settings);
    let mut new = NewTopic::new(&topic.name, i32::try_from(topic.partitions).unwrap_or(i32::MAX), copies);
    for (name, value) in &config {
        new = new.set(name, value);
    }
    let made = admin.create_topics([&new], &options()).await.map_err(unavailable("making a topic"))?;
    for result in made {
        match result {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((name, code)) => return Err(LogError::Invalid(format!("Kafka does not make topic {name}: {code}"))),
        }
    }
    // A topic is made before every broker knows of it.
    for _ in 0..LOOKS {
        if partitions(&asker, &topic.name).await?.is_some() {
            return Ok(true);
        }
        crate::time::sleep(BETWEEN_LOOKS).await;
    }
    let source = std::io::ErrorKind::TimedOut.into();
    Err(LogError::Unavailable { doing: format!("waiting for the new topic {}", topic.name), source })
}

/// Where a topic falls short of what the guarantees need: sentences that say what to change.
///
/// # Errors
/// When no broker answers.
pub async fn shortcomings(settings: &Settings, topic: &Topic) -> Result<Vec<String>, LogError> {
    let asker: Arc<BaseConsumer> = Arc::new(create(&reader_config(settings, "clickledger-asks")?)?);
    let name = &topic.name;
    let Some(found) = partitions(&asker, name).await? else {
        return Ok(vec![format!("there is no topic {name}: make it with `clickledger kafka ensure`")]);
    };
    let mut said = Vec::new();
    if found != topic.partitions {
        said.push(format!(
            "topic {name} has {found} partitions, kafka.partitions says {}: set it to {found}",
            topic.partitions
        ));
    }
    let admin: AdminClient<DefaultClientContext> = create(&client(settings)?)?;
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(name)], &options())
        .await
        .map_err(unavailable("asking Kafka for a topic's settings"))?;
    for resource in described.into_iter().flatten() {
        for (key, value) in wanted(settings) {
            let is = resource.get(key).and_then(|e| e.value.clone()).unwrap_or_default();
            let fine = match key {
                "min.insync.replicas" => is.parse::<u32>().is_ok_and(|n| n >= settings.min_in_sync),
                "max.message.bytes" => is.parse::<u64>().is_ok_and(|n| n >= settings.max_message_bytes.0),
                "retention.ms" => is.parse::<i128>().is_ok_and(|n| n < 0 || Some(n) >= value.parse().ok()),
                _ => is == value,
            };
            if !fine {
                said.push(format!("topic {name} has {key}={is}: set it to {value}"));
            }
        }
    }
    Ok(said)
}

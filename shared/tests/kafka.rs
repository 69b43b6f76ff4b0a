//! Kafka as an event log, against a real broker: the conformance suite, and what only Kafka can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shared::config::Span;
use shared::event_log::kafka::{KafkaLog, Settings, Topic, ensure, shortcomings};
use shared::event_log::{EventLog, LogError, NewRecord};
use shared::testing::conformance::event_log::{Harness, PARTITIONS, run};
use shared::testing::parts::Part;
use shared::time::Timestamp;

struct Kafka {
    settings: Settings,
    made: u32,
}

impl Kafka {
    fn new(part: &Part) -> Self {
        let settings = Settings {
            bootstrap: part.address.clone(),
            replication: 1,
            min_in_sync: 1,
            // The suite's records are old: the broker must not forget them by itself.
            retention: Span::secs(100 * 365 * 86_400),
            ..Settings::default()
        };
        Self { settings, made: 0 }
    }

    fn topic(&self) -> String {
        format!("suite-{}-{}", std::process::id(), self.made)
    }

    async fn open(&self) -> Arc<dyn EventLog> {
        Arc::new(KafkaLog::open(&self.settings, &self.topic()).await.unwrap())
    }
}

#[async_trait]
impl Harness for Kafka {
    async fn fresh(&mut self) -> Arc<dyn EventLog> {
        self.made += 1;
        assert!(ensure(&self.settings, &Topic { name: self.topic(), partitions: PARTITIONS }).await.unwrap());
        self.open().await
    }

    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        drop(log);
        self.open().await
    }
}

/// One broker for every check here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_is_an_event_log() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::given_or_start("kafka", "KAFKA_BOOTSTRAP", folder.path());
    let mut kafka = Kafka::new(&part);
    run(&mut kafka).await;
    a_topic_is_made_once_and_its_shortcomings_are_named(&mut kafka).await;
    a_broker_that_is_away_acknowledges_nothing(&kafka).await;
}

async fn a_topic_is_made_once_and_its_shortcomings_are_named(kafka: &mut Kafka) {
    drop(kafka.fresh().await);
    let topic = Topic { name: kafka.topic(), partitions: PARTITIONS };
    assert!(!ensure(&kafka.settings, &topic).await.unwrap(), "it was there");
    assert_eq!(shortcomings(&kafka.settings, &topic).await.unwrap(), Vec::<String>::new());
    let more = Settings { min_in_sync: 2, replication: 2, ..kafka.settings.clone() };
    let said = shortcomings(&more, &Topic { partitions: 9, ..topic }).await.unwrap();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("4 partitions") && said[1].contains("min.insync.replicas=1: set it to 2"), "{said:?}");
    let nowhere = KafkaLog::open(&kafka.settings, "no-such-topic").await.err();
    assert!(matches!(&nowhere, Some(LogError::Invalid(why)) if why.contains("kafka ensure")), "{nowhere:?}");
}

async fn a_broker_that_is_away_acknowledges_nothing(kafka: &Kafka) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { bootstrap: free.to_string(), ..kafka.settings.clone() };
    let opened = tokio::time::timeout(Duration::from_secs(60), KafkaLog::open(&settings, "any")).await.unwrap();
    assert!(matches!(opened, Err(LogError::Unavailable { .. })));
    let log = kafka.open().await;
    let too_large = NewRecord { partition: 0, append_time: Timestamp(0), payload: Bytes::from(vec![0; 2 << 20]) };
    let refused = log.append(vec![too_large]).await;
    assert!(matches!(refused, Err(LogError::Invalid(_))), "{refused:?}");
}

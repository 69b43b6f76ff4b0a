//! Kafka as an event log, against a real broker: the conformance suite, and what only Kafka can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shared::config::{ByteSize, Span};
use shared::event::{Admission, Submission};
use shared::event_log::kafka::{KafkaLog, Settings, Topic, cloud_event, ensure, shortcomings};
use shared::event_log::{EventLog, LogError, NewRecord};
use shared::progress::Positions;
use shared::testing::conformance::event_log::{Harness, PARTITIONS, read_all, run};
use shared::testing::parts::Part;
use shared::time::Timestamp;
use shared::wire::{encode_event, encode_placed_event};

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
    what_is_too_large_is_told_apart_from_a_broker_that_is_away(&mut kafka).await;
    records_say_what_they_are_in_cloud_events(&mut kafka).await;
}

async fn a_topic_is_made_once_and_its_shortcomings_are_named(kafka: &mut Kafka) {
    drop(kafka.fresh().await);
    let topic = Topic { name: kafka.topic(), partitions: PARTITIONS };
    assert!(!ensure(&kafka.settings, &topic).await.unwrap(), "it was there");
    assert_eq!(shortcomings(&kafka.settings, &topic).await.unwrap(), Vec::<String>::new());
    let max_message_bytes = ByteSize::mib(3);
    let more = Settings { min_in_sync: 2, replication: 2, max_message_bytes, ..kafka.settings.clone() };
    let said = shortcomings(&more, &Topic { partitions: 9, ..topic }).await.unwrap();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].contains("4 partitions") && said[1].contains("min.insync.replicas=1: set it to 2"), "{said:?}");
    assert!(said[2].contains("max.message.bytes=2097152: set it to 3145728"), "{said:?}");
    let nowhere = KafkaLog::open(&kafka.settings, "no-such-topic").await.err();
    assert!(matches!(&nowhere, Some(LogError::Invalid(why)) if why.contains("kafka ensure")), "{nowhere:?}");
}

async fn a_broker_that_is_away_acknowledges_nothing(kafka: &Kafka) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { bootstrap: free.to_string(), ..kafka.settings.clone() };
    let opened = tokio::time::timeout(Duration::from_secs(60), KafkaLog::open(&settings, "any")).await.unwrap();
    assert!(matches!(opened, Err(LogError::Unavailable { .. })));
}

/// Too large for the client, and for the topic though not for the client; what fits goes on.
async fn what_is_too_large_is_told_apart_from_a_broker_that_is_away(kafka: &mut Kafka) {
    let log = kafka.fresh().await;
    // Noise, so that compression does not make it fit.
    let noise = |bytes: usize| {
        Bytes::from_iter((0..bytes).scan(1_u64, |state, _| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(state.to_be_bytes()[0])
        }))
    };
    let record = |bytes| NewRecord { partition: 0, append_time: Timestamp(0), payload: noise(bytes) };
    let refused = log.append(vec![record(1), record(3 << 20), record(2)]).await;
    assert!(matches!(refused, Err(LogError::TooLarge(_))), "{refused:?}");
    let larger = Settings { max_message_bytes: ByteSize::mib(8), ..kafka.settings.clone() };
    let log = KafkaLog::open(&larger, &kafka.topic()).await.unwrap();
    let refused = log.append(vec![record(3 << 20)]).await;
    assert!(matches!(refused, Err(LogError::TooLarge(_))), "{refused:?}");
    let before = log.bounds().await.unwrap().end;
    assert_eq!(log.append(vec![record(1 << 20), record(3)]).await.unwrap().len(), 2);
    assert_eq!(log.bounds().await.unwrap().end.next(0), before.next(0) + 2);
}

/// What others see of a record: its CloudEvents headers, as kcat or any consumer prints them.
async fn records_say_what_they_are_in_cloud_events(kafka: &mut Kafka) {
    drop(kafka.fresh().await);
    let log = KafkaLog::open_with(&kafka.settings, &kafka.topic(), cloud_event).await.unwrap();
    let json = br#"{"eventId":"e-1","eventType":"click","timestamp":"2026-01-05T10:00:00.123Z","adId":"ad-1"}"#;
    let event = Submission::from_json(json).unwrap().admit(Admission {
        ingest_time: Timestamp(1_767_607_200_000_001),
        region: "eu".parse().unwrap(),
        campaign_id: "c".parse().unwrap(),
        advertiser_id: None,
        invalid: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    });
    let placed = encode_placed_event(&event, 1_767_607_200_000);
    let payloads = [Bytes::from(encode_event(&event)), Bytes::from(placed), Bytes::from_static(b"not an event")];
    let new = |payload: &Bytes| NewRecord { partition: 0, append_time: Timestamp(0), payload: payload.clone() };
    assert_eq!(log.append(payloads.iter().map(new).collect()).await.unwrap().len(), 3);

    let headers = read_by_another_client(kafka, &kafka.topic());
    let wanted = [
        ("ce_id", "e-1"),
        ("ce_partitionkey", "ad-1"),
        ("ce_source", "/clickledger/eu"),
        ("ce_specversion", "1.0"),
        ("ce_time", "2026-01-05T10:00:00.123Z"),
        ("ce_type", "ads.click.v1"),
        ("content-type", "application/vnd.clickledger.event"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let wanted: BTreeMap<_, _> = wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let mut of_placed = wanted.clone();
    of_placed.insert("ce_saltmapversion".to_owned(), "1767607200000".to_owned());
    assert_eq!(headers, [wanted, of_placed, BTreeMap::new()]);
    // Our own readers see the payload as it was.
    let read = read_all(&log, &Positions([(0, 0)].into())).await;
    assert_eq!(read[&0].iter().map(|r| r.payload.clone()).collect::<Vec<_>>(), payloads);
}

/// The headers of each record of partition 0, as kcat prints them.
fn read_by_another_client(kafka: &Kafka, topic: &str) -> Vec<BTreeMap<String, String>> {
    let args = ["-C", "-q", "-e", "-o", "beginning", "-p", "0", "-f", "%h\\n", "-t", topic];
    let read = std::process::Command::new("kcat").args(["-b", &kafka.settings.bootstrap]).args(args).output();
    let read = read.expect("kcat reads the topic as others do: install kcat");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let headers = |line: &str| {
        let pairs = line.split(',').filter_map(|header| header.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    String::from_utf8(read.stdout).unwrap().lines().map(headers).collect()
}

/// A broker that asks for TLS and a password: by settings alone, and what goes wrong is said at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_behind_tls_and_a_password_is_an_event_log() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::start("kafka-tls", "KAFKA_TLS_BOOTSTRAP", folder.path());
    let password = folder.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let ca = folder.path().join("ca.pem").to_str().unwrap().to_owned();
    let settings = Settings {
        properties: [
            property("security.protocol", "SASL_SSL"),
            property("ssl.ca.location", &ca),
            property("sasl.mechanism", "PLAIN"),
            property("sasl.username", "clickledger"),
        ]
        .into(),
        property_files: [("sasl.password".to_owned(), password.clone())].into(),
        ..Kafka::new(&part).settings
    };
    assert_eq!(settings.problems(), Vec::new());
    let topic = Topic { name: "secret".to_owned(), partitions: PARTITIONS };
    assert!(ensure(&settings, &topic).await.unwrap());
    let log = KafkaLog::open(&settings, &topic.name).await.unwrap();
    let record = NewRecord { partition: 1, append_time: Timestamp(0), payload: Bytes::from_static(b"x") };
    assert_eq!(log.append(vec![record]).await.unwrap().len(), 1);
    assert_eq!(read_all(&log, &Positions([(1, 0)].into())).await[&1].len(), 1);

    let mut no_file = settings.clone();
    no_file.property_files.insert("sasl.password".to_owned(), folder.path().join("nowhere"));
    let mut no_such_property = settings.clone();
    no_such_property.properties.insert("sasl.pasword".to_owned(), "x".to_owned());
    let mut no_ca = settings.clone();
    no_ca.properties.insert("ssl.ca.location".to_owned(), "/nowhere.pem".to_owned());
    for (wrong, word) in [(no_file, "secret"), (no_such_property, "sasl.pasword"), (no_ca, "ssl.ca.location")] {
        let said = KafkaLog::open(&wrong, &topic.name).await.err().unwrap().to_string();
        assert!(said.contains(word), "{said}");
    }
    std::fs::write(&password, "guess").unwrap();
    let refused = KafkaLog::open(&settings, &topic.name).await.err();
    assert!(matches!(refused, Some(LogError::Unavailable { .. })), "{refused:?}");
}

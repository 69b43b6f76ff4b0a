//! How to reach Kafka. Values only.
//! Never: holds a secret in the settings file; a password is read from a file or the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, Problem, Span, file_text};

/// Client properties that our guarantees rest on: nobody may set them otherwise.
const OURS: [&str; 14] = [
    "acks",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "auto.offset.reset",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "request.required.acks",
];

/// Where Kafka is, and what the topics are to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `host:port,host:port`; empty: Kafka is not used, the log is the embedded one.
    pub bootstrap: String,
    /// The topic of admitted events.
    pub events_topic: String,
    /// The topic of what was refused.
    pub dead_letters_topic: String,
    /// The topic on which other systems publish adjustments; what is refused of it goes to its name and `.dlq`.
    pub adjustments_topic: String,
    /// Partitions of the events topic.
    pub partitions: u32,
    /// Copies of every partition.
    pub replication: u32,
    /// Copies that must have a record before it is acknowledged.
    pub min_in_sync: u32,
    /// The largest message, here and in the topics: a record of `log.max_record_bytes` and its headers must fit.
    pub max_message_bytes: ByteSize,
    /// How long the topics keep records. The lake must have archived them by then.
    pub retention: Span,
    /// After this long without an answer an append fails; the record may be in the log nevertheless.
    pub delivery_timeout: Span,
    /// How long a producer gathers records before it sends them.
    pub linger: Span,
    /// How long a broker may wait for records to answer a fetch with.
    pub fetch_wait: Span,
    /// A member of a group that is not heard for so long is replaced; one that comes back earlier has what it had.
    pub session_timeout: Span,
    /// So is one that hangs for so long: it saves and answers within this time when a partition is to move.
    pub max_poll_interval: Span,
    /// librdkafka properties for TLS and SASL, such as `security.protocol`. Secrets do not belong here.
    pub properties: BTreeMap<String, String>,
    /// Properties whose value is the content of a file: `sasl.password = "/run/secrets/kafka"`.
    pub property_files: BTreeMap<String, PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bootstrap: String::new(),
            events_topic: "ads.events.v1".to_owned(),
            dead_letters_topic: "ads.events.v1.dlq".to_owned(),
            adjustments_topic: "ads.adjustments.v1".to_owned(),
            partitions: 8,
            replication: 3,
            min_in_sync: 2,
            max_message_bytes: ByteSize::mib(2),
            retention: Span::secs(7 * 86_400),
            delivery_timeout: Span::secs(30),
            linger: Span::millis(5),
            fetch_wait: Span::millis(20),
            session_timeout: Span::secs(45),
            max_poll_interval: Span::secs(300),
            properties: BTreeMap::new(),
            property_files: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether Kafka is to be used.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.bootstrap.is_empty()
    }

    /// Everything that cannot be used.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(Problem::new(format!("kafka.{name}"), why));
            }
        };
        let topics = self.topics();
        for (name, topic) in &topics {
            check(is_topic(topic), name, "must be 1 to 249 of a-z A-Z 0-9 . _ - (with .dlq for the adjustments)");
            let is_alone = topics.iter().filter(|(_, other)| other == topic).count() == 1;
            check(is_alone, name, "must be a topic of its own");
        }
        check((1..=1_024).contains(&self.partitions), "partitions", "must be between 1 and 1024");
        check((1..=16).contains(&self.replication), "replication", "must be between 1 and 16");
        check(
            self.min_in_sync > 0 && self.min_in_sync <= self.replication,
            "min_in_sync",
            "must be between 1 and kafka.replication",
        );
        let sizes = ByteSize(64 * 1024)..=ByteSize::mib(256);
        check(sizes.contains(&self.max_message_bytes), "max_message_bytes", "must be between 64KiB and 256MiB");
        check(self.retention >= Span::secs(3_600), "retention", "must be at least 1h");
        check(
            (Span::secs(1)..=Span::secs(600)).contains(&self.delivery_timeout),
            "delivery_timeout",
            "must be between 1s and 10m",
        );
        check(self.linger < Span::secs(1), "linger", "must be below 1s");
        check(self.fetch_wait <= Span::secs(1), "fetch_wait", "must be at most 1s");
        let sessions = Span::secs(1)..=Span::secs(1_800);
        check(sessions.contains(&self.session_timeout), "session_timeout", "must be between 1s and 30m");
        check(
            (self.session_timeout..=Span::secs(86_400)).contains(&self.max_poll_interval),
            "max_poll_interval",
            "must be between kafka.session_timeout and 1d",
        );
        for name in self.properties.keys().chain(self.property_files.keys()) {
            let why = "is what the product's guarantees rest on: it cannot be set";
            check(!OURS.contains(&name.as_str()), &format!("properties.{name}"), why);
        }
        for name in self.properties.keys().filter(|n| n.contains("password") || n.contains("secret")) {
            check(
                false,
                &format!("properties.{name}"),
                "is a secret: put it into a file and name that in kafka.property_files",
            );
        }
        problems
    }

    /// The topic of refused adjustments.
    #[must_use]
    pub fn adjustment_refusals_topic(&self) -> String {
        format!("{}.dlq", self.adjustments_topic)
    }

    /// Every topic, by the setting that names it.
    fn topics(&self) -> [(&'static str, String); 4] {
        [
            ("events_topic", self.events_topic.clone()),
            ("dead_letters_topic", self.dead_letters_topic.clone()),
            ("adjustments_topic", self.adjustments_topic.clone()),
            ("adjustments_topic", self.adjustment_refusals_topic()),
        ]
    }

    /// What every client starts from.
    pub(super) fn client(&self) -> std::io::Result<ClientConfig> {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        for (name, file) in &self.property_files {
            config.set(name, file_text(file)?);
        }
        config.set("bootstrap.servers", &self.bootstrap).set("client.id", "clickledger");
        Ok(config)
    }
}

fn is_topic(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (1..=249).contains(&name.len()) && name.chars().all(fine) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_fine_and_what_guarantees_rest_on_cannot_be_set() {
        assert_eq!(Settings::default().problems(), Vec::new());
        let mut settings = Settings::default();
        settings.properties.insert("acks".to_owned(), "1".to_owned());
        settings.properties.insert("sasl.password".to_owned(), "x".to_owned());
        settings.min_in_sync = 4;
        let fields: Vec<String> = settings.problems().into_iter().map(|p| p.field).collect();
        assert_eq!(fields, ["kafka.min_in_sync", "kafka.properties.acks", "kafka.properties.sasl.password"]);
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret\n").unwrap();
        let mut settings = Settings { bootstrap: "localhost:9092".to_owned(), ..Settings::default() };
        settings.property_files.insert("sasl.password".to_owned(), file);
        assert_eq!(settings.client().unwrap().get("sasl.password"), Some("s3cret"));
    }
}

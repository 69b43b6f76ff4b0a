//! The real parts that a pipeline stands on instead of what is embedded. Only settings differ: the same tests run on both.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use shared::testing::parts::{Away, Part};
use shared::testing::s3::S3;

use crate::support::Ledger;

/// Real parts, each with its data in the ledger's folder.
#[derive(Default)]
pub(crate) struct Outside {
    parts: Vec<(&'static str, Part)>,
    s3: Option<S3>,
}

impl Outside {
    /// Kafka instead of the embedded log.
    pub(crate) fn kafka(ledger: &mut Ledger) -> Self {
        Self::kafka_of(ledger, 4)
    }

    /// As [`Outside::kafka`], with so many partitions.
    pub(crate) fn kafka_of(ledger: &mut Ledger, partitions: u32) -> Self {
        let mut outside = Self::default();
        let bootstrap = outside.start(ledger, "kafka", "KAFKA_BOOTSTRAP");
        ledger.set("KAFKA__BOOTSTRAP", bootstrap);
        ledger.set("KAFKA__REPLICATION", 1);
        ledger.set("KAFKA__MIN_IN_SYNC", 1);
        ledger.set("KAFKA__PARTITIONS", partitions);
        ledger.ok(&["kafka", "ensure"]);
        outside
    }

    /// Kafka, ClickHouse, S3 and Redis.
    pub(crate) fn everything(ledger: &mut Ledger) -> Self {
        let mut outside = Self::kafka(ledger);
        let redis = outside.start(ledger, "redis", "REDIS_URL");
        ledger.set("GATEWAY__DEDUP__REDIS__URL", redis);
        outside.add_clickhouse(ledger);
        outside.add_s3(ledger);
        outside
    }

    /// ClickHouse too.
    pub(crate) fn add_clickhouse(&mut self, ledger: &mut Ledger) {
        let clickhouse = self.start(ledger, "clickhouse", "CLICKHOUSE_URL");
        ledger.set("CLICKHOUSE__URL", clickhouse);
        ledger.ok(&["serving", "migrate"]);
    }

    /// S3 too.
    pub(crate) fn add_s3(&mut self, ledger: &mut Ledger) {
        self.s3 = Self::s3(ledger).s3;
    }

    /// S3 instead of the data folder, for the lake and what is published.
    pub(crate) fn s3(ledger: &mut Ledger) -> Self {
        let s3 = S3::start(&ledger.path().join("s3"));
        crate::object_store::keep_in(ledger, &s3);
        Self { parts: Vec::new(), s3: Some(s3) }
    }

    fn start(&mut self, ledger: &Ledger, name: &'static str, variable: &'static str) -> String {
        let part = Part::start(name, variable, &ledger.path().join(name));
        let address = part.address.clone();
        self.parts.push((name, part));
        address
    }

    /// Whether there are any: a role that starts while one is away says so and ends.
    pub(crate) fn is_any(&self) -> bool {
        !self.parts.is_empty() || self.s3.is_some()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|(n, _)| *n == name)
    }

    /// Kills the nth part, counted round and round, and starts it again on what it left.
    pub(crate) fn crash_and_restart(&mut self, n: usize) {
        let count = self.parts.len() + usize::from(self.s3.is_some());
        let (nth, s3) = (self.parts.get_mut(n % count.max(1)), self.s3.as_mut());
        match (nth, s3) {
            (Some((_, part)), _) => part.crash_and_restart(),
            (None, Some(s3)) => s3.crash_and_restart(),
            (None, None) => {}
        }
    }

    /// Kills a part by name.
    pub(crate) fn crash(&mut self, name: &str) -> Away<'_> {
        let part = self.parts.iter_mut().find(|(n, _)| *n == name);
        part.unwrap_or_else(|| panic!("{name} is none of the parts")).1.crash()
    }

    /// Publishes lines on a topic as another system does, one record each.
    pub(crate) fn publish(&self, topic: &str, lines: &str) {
        let kcat = self.kcat(topic).arg("-P").stdin(Stdio::piped()).spawn();
        let mut kcat = kcat.expect("kcat writes the topic as others do: install kcat");
        kcat.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(kcat.wait().unwrap().success(), "kcat cannot write to {topic}");
    }

    /// What a topic holds, as another system reads it: one record a line.
    pub(crate) fn published(&self, topic: &str) -> String {
        let read = self.kcat(topic).args(["-C", "-q", "-e", "-o", "beginning"]).output();
        let read = read.expect("kcat reads the topic as others do: install kcat");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        String::from_utf8(read.stdout).unwrap()
    }

    fn kcat(&self, topic: &str) -> Command {
        let (_, kafka) = self.parts.iter().find(|(name, _)| *name == "kafka").unwrap();
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &kafka.address, "-t", topic]);
        kcat
    }

    /// Makes Redis forget everything.
    pub(crate) fn flush_redis(&self) {
        let (_, redis) = self.parts.iter().find(|(name, _)| *name == "redis").unwrap();
        let mut connection = TcpStream::connect(redis.address.trim_start_matches("redis://")).unwrap();
        connection.write_all(b"FLUSHALL\r\n").unwrap();
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
    }
}

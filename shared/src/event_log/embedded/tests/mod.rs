//! Tests of the embedded log at its public edge.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::config::{ByteSize, Span};
use crate::testing::conformance::event_log::{self as conformance, Harness, PARTITIONS};

/// Options for tests: everything waits as little as it can.
fn options(segment_bytes: u64) -> Options {
    Options {
        partitions: PARTITIONS,
        segment_bytes: ByteSize(segment_bytes),
        commit_interval: Span::millis(1),
        ..Options::default()
    }
}

/// Embedded logs with segments of a given size.
struct Embedded {
    segment_bytes: u64,
    dirs: Vec<TempDir>,
    /// Whether a log is really closed and opened where the suite says so.
    reopens: bool,
}

impl Embedded {
    fn open(&self) -> Arc<dyn EventLog> {
        Arc::new(EmbeddedLog::open(self.dirs.last().unwrap().path(), options(self.segment_bytes)).unwrap())
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn fresh(&mut self) -> Arc<dyn EventLog> {
        self.dirs.push(tempfile::tempdir().unwrap());
        self.open()
    }

    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        if !self.reopens {
            return log;
        }
        assert_eq!(Arc::strong_count(&log), 1, "somebody else keeps the log open");
        drop(log);
        self.open()
    }
}

#[tokio::test]
async fn it_is_an_event_log_in_one_large_segment() {
    conformance::run(&mut Embedded { segment_bytes: 1 << 30, dirs: Vec::new(), reopens: false }).await;
}

#[tokio::test]
async fn it_is_an_event_log_in_many_small_segments() {
    conformance::run(&mut Embedded { segment_bytes: 6_000, dirs: Vec::new(), reopens: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_an_event_log_that_is_closed_and_opened_between_write_and_read() {
    conformance::run(&mut Embedded { segment_bytes: 6_000, dirs: Vec::new(), reopens: true }).await;
    conformance::run(&mut Embedded { segment_bytes: 200_000, dirs: Vec::new(), reopens: true }).await;
}

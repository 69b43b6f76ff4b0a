//! A consumer of an embedded log. Reading happens on the blocking pool; the cursor travels there and back, so dropping
//! a poll half way neither loses nor repeats a record.
//! On crash: nothing; whoever consumes keeps its own positions.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::super::{Consumer, LogError, Record};
use super::cursor::Cursor;
use super::durable::End;
use super::groups::Groups;
use super::tail::Tail;
use crate::progress::Positions;
use crate::time::sleep;

type ReadResult = (Box<Cursor>, Result<Vec<Record>, LogError>);

/// Where the cursor is.
enum Place {
    Here(Box<Cursor>),
    Reading(JoinHandle<ReadResult>),
    /// A read panicked and took it along.
    Lost,
}

pub(super) struct EmbeddedConsumer {
    group: String,
    groups: Arc<Groups>,
    tail: Tail,
    place: Place,
    /// Read, not yet handed out.
    ready: VecDeque<Record>,
    /// What comes after what was handed out.
    next: Positions,
}

impl EmbeddedConsumer {
    pub(super) fn new(group: String, groups: Arc<Groups>, tail: Tail, cursor: Cursor, next: Positions) -> Self {
        Self { group, groups, tail, place: Place::Here(Box::new(cursor)), ready: VecDeque::new(), next }
    }

    /// Reads on from the cursor towards `end`, or waits for the read that a dropped poll began.
    async fn read(&mut self, end: End, max_records: usize) -> Result<(), LogError> {
        if let Place::Here(cursor) = &self.place
            && cursor.is_at(&end)
        {
            return Ok(());
        }
        self.place = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(mut cursor) => Place::Reading(tokio::task::spawn_blocking(move || {
                let records = cursor.read(&end, max_records);
                (cursor, records)
            })),
            other => other,
        };
        let Place::Reading(reading) = &mut self.place else {
            return Err(lost(io::Error::other("an earlier read did not come back")));
        };
        let read = reading.await;
        self.place = Place::Lost;
        let (cursor, records) = read.map_err(|error| lost(io::Error::other(error)))?;
        self.place = Place::Here(cursor);
        self.ready.extend(records?);
        Ok(())
    }

    fn hand_out(&mut self, max_records: usize) -> Vec<Record> {
        let records: Vec<Record> = self.ready.drain(..max_records.min(self.ready.len())).collect();
        for record in &records {
            self.next.0.insert(record.partition, record.position + 1);
        }
        records
    }
}

fn lost(source: io::Error) -> LogError {
    LogError::Unavailable { doing: "reading the log".to_owned(), source }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Vec<Record>, LogError> {
        let patience = sleep(wait);
        tokio::pin!(patience);
        loop {
            if self.ready.is_empty() && max_records > 0 {
                let end = self.tail.end();
                self.read(end, max_records).await?;
            }
            let records = self.hand_out(max_records);
            if !records.is_empty() || max_records == 0 {
                return Ok(records);
            }
            tokio::select! {
                () = &mut patience => return Ok(records),
                () = self.tail.moved() => {}
            }
        }
    }

    fn positions(&self) -> Positions {
        self.next.clone()
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        self.groups.report(&self.group, positions);
        Ok(())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.groups.flush(&self.group);
    }
}

//! Membership of a consumer group: the log deals its partitions among the members, and tells each what it gets and loses.
//!
//! *Assigned → the caller finds its own position → [`Member::start`] → records → Revoked → the caller saves →
//! [`Member::give_up`]*. Positions stay the caller's; the log only says whose a partition is, and it may be mistaken for a
//! moment (a member that hangs is replaced while it still works), so whatever a member writes must bear an older owner.
//! Never: starts a partition by itself, or at a position that it was not told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Consumer, EventLog, LogError, Record};
use crate::progress::Positions;

/// What a poll came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Records of started partitions, in position order within each; none when nothing came in time.
    Records(Vec<Record>),
    /// These partitions are the member's from now on; each gives records once it was started.
    Assigned(BTreeSet<u32>),
    /// Another member is to have these: save, then [`Member::give_up`].
    Revoked(BTreeSet<u32>),
    /// Another member may have these already: drop them. They are given up.
    Lost(BTreeSet<u32>),
}

/// One member of a group. Dropping it is safe; the others get its partitions when the log notices.
#[async_trait]
pub trait Member: Send {
    /// What happens next: up to `max_records` records, or a change of what is the member's; waits up to `wait`. A poll that
    /// is dropped half way loses nothing.
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Turn, LogError>;

    /// Starts partitions that are the member's, each at the position given.
    ///
    /// # Errors
    /// [`LogError::Truncated`] or [`LogError::AheadOfLog`] when a start is outside the log.
    async fn start(&mut self, from: &Positions) -> Result<(), LogError>;

    /// Gives partitions up that were revoked; nothing of them comes any more.
    async fn give_up(&mut self, partitions: &BTreeSet<u32>) -> Result<(), LogError>;

    /// Records stop (`true`) or go on (`false`); changes of what is the member's are told either way.
    fn pause(&mut self, is_paused: bool) -> Result<(), LogError>;

    /// Stays a member while the caller works on something long: run it beside that work. Ends only by an error.
    async fn keep(&mut self) -> LogError;

    /// Reports progress for lag displays; never used to resume.
    async fn report(&mut self, positions: &Positions) -> Result<(), LogError>;

    /// Ends membership.
    async fn leave(self: Box<Self>);
}

/// Joins `group` as `name`. Where the log knows no groups (it has one reading process), the member gets everything.
///
/// # Errors
/// When the log is away, or refuses the member.
pub async fn join(log: &Arc<dyn EventLog>, group: &str, name: &str) -> Result<Box<dyn Member>, LogError> {
    Ok(match log.join(group, name).await? {
        Some(member) => member,
        None => Box::new(Sole::new(Arc::clone(log), group, (0..log.partitions()).collect())),
    })
}

/// A member whose partitions are given by whoever made it, once and for all.
pub struct Sole {
    log: Arc<dyn EventLog>,
    group: String,
    /// Told as assigned by the next poll.
    untold: BTreeSet<u32>,
    consumer: Option<Box<dyn Consumer>>,
    is_paused: bool,
}

impl Sole {
    /// The member that has `partitions`; it reports as `group`.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, group: &str, partitions: BTreeSet<u32>) -> Self {
        Self { log, group: group.to_owned(), untold: partitions, consumer: None, is_paused: false }
    }

    async fn read(&mut self, positions: Positions) -> Result<(), LogError> {
        self.consumer = Some(self.log.consumer(&self.group, &positions).await?);
        Ok(())
    }

    fn positions(&self) -> Positions {
        self.consumer.as_ref().map(|consumer| consumer.positions()).unwrap_or_default()
    }
}

#[async_trait]
impl Member for Sole {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Turn, LogError> {
        if !self.untold.is_empty() {
            return Ok(Turn::Assigned(std::mem::take(&mut self.untold)));
        }
        match self.consumer.as_mut().filter(|_| !self.is_paused) {
            Some(consumer) => Ok(Turn::Records(consumer.poll(max_records, wait).await?)),
            None => {
                crate::time::sleep(wait).await;
                Ok(Turn::Records(Vec::new()))
            }
        }
    }

    async fn start(&mut self, from: &Positions) -> Result<(), LogError> {
        let mut positions = self.positions();
        positions.0.extend(&from.0);
        self.read(positions).await
    }

    async fn give_up(&mut self, partitions: &BTreeSet<u32>) -> Result<(), LogError> {
        let mut positions = self.positions();
        positions.0.retain(|partition, _| !partitions.contains(partition));
        self.read(positions).await
    }

    fn pause(&mut self, is_paused: bool) -> Result<(), LogError> {
        self.is_paused = is_paused;
        Ok(())
    }

    async fn keep(&mut self) -> LogError {
        std::future::pending().await
    }

    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        match &mut self.consumer {
            Some(consumer) => consumer.report(positions).await,
            None => Ok(()),
        }
    }

    async fn leave(self: Box<Self>) {}
}

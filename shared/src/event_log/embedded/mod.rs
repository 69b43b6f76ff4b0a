//! The embedded event log: one folder, one writing process, any number of readers.
//!
//! *append → queue → `writer` (one thread, one sync for all that waits) → `active` segment → end marker
//! (`durable`) → `tail` → `consumer` → `cursor` → records.*
//!
//! Guarantees: an acknowledged record survives a crash and a power loss; what is read was durable before it was read;
//! positions have no gaps, across restarts and across retention; a byte that changed on disk is
//! [`LogError::Corrupt`], never another record and never a missing one.
//! On crash: the next writer cuts off what was half written (`recovery`); nothing acknowledged is there.
//! Never: answers an append before its sync, trusts a segment whose sync failed, deletes but from the old end.

mod active;
mod consumer;
mod cursor;
mod disk;
mod durable;
mod folder;
mod frame;
mod groups;
mod index;
mod options;
mod owner;
mod recovery;
mod retention;
mod segment;
mod tail;
#[cfg(test)]
mod tests;
mod times;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use self::active::{Active, Sealed};
use self::consumer::EmbeddedConsumer;
use self::cursor::Cursor;
use self::disk::{Disk, RealDisk};
use self::folder::{Folder, doing};
use self::groups::{Groups, check_name};
pub use self::options::{MAX_PARTITIONS, MAX_RECORD_BYTES, Options};
use self::tail::Tail;
use self::writer::{State, Writer};
use super::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Retention, no_partition};
use crate::progress::Positions;
use crate::time::Timestamp;

/// An event log in a folder of this machine. Dropping it finishes what was appended and lets another process write.
pub struct EmbeddedLog {
    folder: Folder,
    partitions: u32,
    tail: Tail,
    groups: Arc<Groups>,
    writing: Option<Writing>,
}

struct Writing {
    writer: Writer,
    max_record_bytes: usize,
}

impl EmbeddedLog {
    /// Opens the log in `dir` for writing, and makes it when there is none. Blocks while it finds the log's end.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process writes it; [`LogError::Invalid`] when `options` cannot be used or the
    /// log has another number of partitions; [`LogError::Corrupt`] when acknowledged records are damaged.
    pub fn open(dir: &Path, options: Options) -> Result<Self, LogError> {
        Self::open_on(dir, options, Arc::new(RealDisk))
    }

    fn open_on(dir: &Path, options: Options, disk: Arc<dyn Disk>) -> Result<Self, LogError> {
        if let Some(problem) = options.problems().first() {
            return Err(LogError::Invalid(problem.to_string()));
        }
        let folder = Folder::new(dir);
        let partitions = options.partitions;
        let (ownership, recovery) = owner::own(&folder)?;
        owner::settle_partitions(&folder, partitions)?;
        folder.tidy()?;
        let active = Active::open(folder.clone(), disk, partitions, options.segment_bytes.0)?;
        // Readers in other processes look at the marker, which is true from here on.
        drop(recovery);
        let tail = Tail::Here(active.publisher().subscribe());
        let sealed = sealed(&folder, active.number())?;
        let state = State { folder: folder.clone(), partitions, active, sealed, ownership, runtime: Arc::default() };
        let writer = Writer::start(state, &options)?;
        let writing = Some(Writing { writer, max_record_bytes: options.max_record_bytes.as_usize() });
        let groups = Arc::new(Groups::new(folder.clone()));
        Ok(Self { folder, partitions, tail, groups, writing })
    }

    /// Opens the log in `dir` for reading, while another process may write it. Appending is [`LogError::Locked`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when there is no log yet (try again once a writer was started);
    /// [`LogError::Corrupt`] when acknowledged records are damaged.
    pub fn open_reader(dir: &Path) -> Result<Self, LogError> {
        let folder = Folder::new(dir);
        let Some(partitions) = owner::partitions(&folder)? else { return Err(no_log(&folder)) };
        let (recovery, is_written) = owner::visit(&folder)?;
        let known = match durable::read(&folder, partitions) {
            Some(end) if is_written => end,
            // Only the writer knows what is synced.
            None if is_written => return Err(no_log(&folder)),
            // Nobody writes: what the last writer left is found as the next one will find it.
            _ => recovery::find_end(&folder, partitions)?.ok_or_else(|| no_log(&folder))?.settle()?,
        };
        drop(recovery);
        let tail = Tail::Elsewhere { folder: folder.clone(), partitions, known };
        let groups = Arc::new(Groups::new(folder.clone()));
        Ok(Self { folder, partitions, tail, groups, writing: None })
    }

    fn writing(&self) -> Result<&Writing, LogError> {
        self.writing.as_ref().ok_or_else(|| LogError::Locked(self.folder.path().display().to_string()))
    }
}

fn no_log(folder: &Folder) -> LogError {
    let source =
        io::Error::new(io::ErrorKind::NotFound, "no log can be read here yet: start the process that writes it");
    doing(format!("opening {}", folder.path().display()))(source)
}

/// The complete segments, oldest first.
fn sealed(folder: &Folder, active: u64) -> Result<VecDeque<Sealed>, LogError> {
    let older = folder.segments()?.into_iter().filter(|number| *number < active);
    older
        .map(|number| {
            let path = folder.segment(number);
            let metadata = path.metadata().map_err(doing(format!("looking at {}", path.display())))?;
            Ok(Sealed { number, bytes: metadata.len() })
        })
        .collect()
}

/// Does blocking work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(doing("reading the log".to_owned())(io::Error::other(error))),
    }
}

impl Writing {
    fn check(&self, records: &[NewRecord], partitions: u32) -> Result<(), LogError> {
        for record in records {
            if record.partition >= partitions {
                return Err(no_partition(record.partition, partitions));
            }
            let bytes = record.payload.len();
            if bytes > self.max_record_bytes {
                let limit = self.max_record_bytes;
                return Err(LogError::Invalid(format!("a record has {bytes} bytes, the limit is {limit}")));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        let writing = self.writing()?;
        writing.check(&records, self.partitions)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        writing.writer.append(records).await
    }

    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        check_name(group)?;
        let (folder, partitions, start) = (self.folder.clone(), self.partitions, from.clone());
        let mut tail = self.tail.clone();
        let (cursor, tail) = blocking(move || {
            let cursor = Cursor::open(&folder, partitions, &mut tail, &start)?;
            Ok((cursor, tail))
        })
        .await?;
        let groups = Arc::clone(&self.groups);
        Ok(Box::new(EmbeddedConsumer::new(group.to_owned(), groups, tail, cursor, from.clone())))
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let (folder, partitions, mut tail) = (self.folder.clone(), self.partitions, self.tail.clone());
        blocking(move || cursor::bounds(&folder, partitions, &mut tail)).await
    }

    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        let (folder, partitions, mut tail) = (self.folder.clone(), self.partitions, self.tail.clone());
        blocking(move || times::positions_at(&folder, partitions, &tail.end(), time)).await
    }

    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        let groups = Arc::clone(&self.groups);
        blocking(move || groups.all()).await
    }

    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        self.writing()?.writer.enforce(retention, now).await
    }
}

//! Records that the log refuses for their size: each in a file of its own until the log takes it. They were acknowledged,
//! so they are not refusals: a note in the dead-letter log names each, and batch publishes nothing without it. (Its tally
//! alone would not do: as many events that no tally has, or that came twice, would stand in for it.)
//! Guarantee: file and note are durable before the forwarder's place moves past the record. On crash: a record is in a file,
//! or in the spool, or in both, and then it is the duplicate it is; so is its note. Never: drops one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared::event_log::{EventLog, LogError, NewRecord, Record};
use shared::id::RefId;
use shared::tally::SET_ASIDE;
use shared::time::Timestamp;
use shared::wire::{BadRecord, decode_event};

/// The folder of one forwarder's files, each named `PARTITION-POSITION`: 8 bytes of append time, and the payload.
pub(super) struct Aside(PathBuf);

impl Aside {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// The files there are, in the order of their records.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut files: Vec<((u32, u64), PathBuf)> =
            paths?.into_iter().filter_map(|path| Some((place_of(&path)?, path))).collect();
        files.sort();
        Ok(files.into_iter().map(|(_, path)| path).collect())
    }

    /// Keeps a record: whole and on disk, or not at all.
    pub(super) fn keep(&self, record: &Record) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let path = self.0.join(format!("{}-{}", record.partition, record.position));
        let new = path.with_extension("new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&record.append_time.0.to_le_bytes())?;
        file.write_all(&record.payload)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        self.sync()?;
        self.0.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    }

    /// The record in a file.
    pub(super) fn read(path: &Path) -> io::Result<NewRecord> {
        let bytes = std::fs::read(path)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is no record that was set aside");
        let (time, payload) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let (partition, _) = place_of(path).ok_or_else(wrong)?;
        Ok(NewRecord {
            partition,
            append_time: Timestamp(i64::from_le_bytes(*time)),
            payload: bytes::Bytes::copy_from_slice(payload),
        })
    }

    /// Forgets a record that has arrived.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        std::fs::File::open(&self.0)?.sync_all()
    }
}

/// Says in the dead-letter log which events are set aside.
pub(super) struct Notes {
    dead_letters: Arc<dyn EventLog>,
    region: RefId,
}

impl Notes {
    pub(super) fn new(dead_letters: Arc<dyn EventLog>, region: RefId) -> Self {
        Self { dead_letters, region }
    }

    /// Names the event, under the time it came. What is no event, and so is counted nowhere, is not named.
    pub(super) async fn write(&self, record: &Record) -> Result<(), LogError> {
        let Ok(event) = decode_event(&record.payload) else { return Ok(()) };
        let note = BadRecord {
            reason: SET_ASIDE.to_owned(),
            detail: event.event_id.to_string(),
            stage: "forward".to_owned(),
            ingest_time: event.ingest_time.0,
            region: self.region.to_string(),
            ..BadRecord::default()
        };
        let note = NewRecord { partition: 0, append_time: record.append_time, payload: note.encode().into() };
        self.dead_letters.append(vec![note]).await.map(|_| ())
    }
}

fn place_of(path: &Path) -> Option<(u32, u64)> {
    let (partition, position) = path.file_name()?.to_str()?.split_once('-')?;
    Some((partition.parse().ok()?, position.parse().ok()?))
}

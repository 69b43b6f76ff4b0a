//! `import`: history into the log. Lines are appended in file order; what is refused goes to the dead letters.
//! A crash leaves a prefix in the log; importing the file again is safe, since every event is then a duplicate.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use bytes::Bytes;
use gateway::intake::{self, Source, admit};
use gateway::keys::SigningKeys;
use serde_json::json;
use shared::directory::Directory;
use shared::event::{Rejection, Submission};
use shared::event_log::NewRecord;
use shared::id::RefId;
use shared::partition::partition_of;
use shared::tally::{TALLY, Tallies, Tally};
use shared::time::Timestamp;
use shared::wire::{BadRecord, MAX_BAD_BYTES, encode_event};

use crate::cli::Output;
use crate::logs::Logs;
use crate::output::{last_line, progress};
use crate::wiring::Parts;

/// Lines per append: one sync each.
const BATCH_LINES: usize = 4_096;

/// What an import did.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Imported {
    pub(super) lines: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
}

pub(super) async fn run(parts: &Parts, files: &[PathBuf], _output: Output) -> super::Done {
    let logs = parts.log_writer().await?;
    parts.fetch_directory().await;
    let importer = Importer::new(parts, logs)?;
    let mut all = Imported::default();
    for file in files {
        importer.file(file, &mut all).await.with_context(|| format!("importing {}", file.display()))?;
    }
    importer.finish().await?;
    last_line(&json!({ "lines": all.lines, "accepted": all.accepted, "refused": all.refused }))?;
    Ok(0)
}

/// Turns lines into log records.
pub(super) struct Importer {
    logs: Logs,
    directory: Directory,
    keys: SigningKeys,
    region: RefId,
    parts: Parts,
    stage: &'static str,
    tallies: Tallies,
}

impl Importer {
    pub(super) fn new(parts: &Parts, logs: Logs) -> anyhow::Result<Self> {
        Ok(Self {
            logs,
            directory: Directory::load(&parts.folder().ads())?,
            keys: SigningKeys::load(&parts.folder().signing_keys())?,
            region: parts.region()?,
            parts: parts.clone(),
            stage: "import",
            tallies: Tallies::new(parts.clock().now()),
        })
    }

    async fn file(&self, file: &Path, all: &mut Imported) -> anyhow::Result<()> {
        let source = File::open(file)?;
        let bar = progress(&format!("importing {}", file.display()), source.metadata()?.len());
        let mut lines = BufReader::with_capacity(1 << 20, source).split(b'\n');
        loop {
            let batch: Vec<Vec<u8>> = lines.by_ref().take(BATCH_LINES).collect::<Result<_, _>>()?;
            if batch.is_empty() {
                break;
            }
            bar.inc(batch.iter().map(|l| l.len() as u64 + 1).sum());
            let done = self.append(&batch).await?;
            all.lines += done.lines;
            all.accepted += done.accepted;
            all.refused += done.refused;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Appends what the lines are; every line that is not blank ends in one of the two logs.
    pub(super) async fn append(&self, lines: &[Vec<u8>]) -> anyhow::Result<Imported> {
        let mut done = Imported::default();
        let (mut events, mut times, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        let now = self.parts.clock().now();
        for line in lines.iter().map(|l| l.trim_ascii()).filter(|l| !l.is_empty()) {
            done.lines += 1;
            match self.judge(line) {
                Ok((record, ingest_time)) => {
                    events.push(record);
                    times.push(ingest_time);
                }
                Err(rejection) => bad.push(self.refuse(now, line, &rejection)),
            }
        }
        done.accepted = events.len() as u64;
        done.refused = bad.len() as u64;
        if !events.is_empty() {
            let delivered = self.logs.events.append(events).await?;
            self.tallies.accepted(&times, &delivered);
        }
        if !bad.is_empty() {
            self.logs.dead_letters.append(bad).await?;
            self.tallies.refused(now, done.refused);
        }
        Ok(done)
    }

    /// Writes what was taken in, by hour, so that the archive can be held against it.
    pub(super) async fn finish(&self) -> anyhow::Result<()> {
        let record = |t: &Tally| self.bad_record(t.hour, TALLY, &t.to_json(), Vec::new(), 0);
        let records: Vec<NewRecord> = self.tallies.take().iter().map(record).collect();
        if !records.is_empty() {
            self.logs.dead_letters.append(records).await?;
        }
        self.tallies.settle();
        Ok(())
    }

    /// The record of an event and its ingest time.
    pub(super) fn judge(&self, line: &[u8]) -> Result<(NewRecord, Timestamp), Rejection> {
        let now = self.parts.clock().now();
        let context = intake::Context {
            directory: &self.directory,
            keys: &self.keys,
            region: &self.region,
            now,
            max_validity: self.parts.settings().gateway.dedup.window,
        };
        let event = admit(Submission::from_json(line)?, Source::History, &context)?;
        let partition = partition_of(event.ad_id.as_str(), self.logs.events.partitions());
        let record = NewRecord { partition, append_time: now, payload: Bytes::from(encode_event(&event)) };
        Ok((record, event.ingest_time))
    }

    fn refuse(&self, now: Timestamp, line: &[u8], rejection: &Rejection) -> NewRecord {
        let raw = line.iter().copied().take(MAX_BAD_BYTES).collect();
        self.bad_record(now, rejection.reason.as_str(), &rejection.detail, raw, 1)
    }

    fn bad_record(&self, at: Timestamp, reason: &str, detail: &str, raw: Vec<u8>, count: u64) -> NewRecord {
        let record = BadRecord {
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            stage: self.stage.to_owned(),
            raw,
            count,
            ingest_time: at.0,
            region: self.region.to_string(),
        };
        let append_time = self.parts.clock().now();
        NewRecord { partition: 0, append_time, payload: Bytes::from(record.encode()) }
    }
}

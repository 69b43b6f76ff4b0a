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
    let importer = Importer::new(parts, logs)?;
    let mut all = Imported::default();
    for file in files {
        importer.file(file, &mut all).await.with_context(|| format!("importing {}", file.display()))?;
    }
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
        let (mut events, mut bad) = (Vec::new(), Vec::new());
        for line in lines.iter().map(|l| l.trim_ascii()).filter(|l| !l.is_empty()) {
            done.lines += 1;
            match self.judge(line) {
                Ok(record) => events.push(record),
                Err(rejection) => bad.push(self.refuse(line, &rejection)),
            }
        }
        done.accepted = events.len() as u64;
        done.refused = bad.len() as u64;
        if !events.is_empty() {
            self.logs.events.append(events).await?;
        }
        if !bad.is_empty() {
            self.logs.dead_letters.append(bad).await?;
        }
        Ok(done)
    }

    pub(super) fn judge(&self, line: &[u8]) -> Result<NewRecord, Rejection> {
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
        Ok(NewRecord { partition, append_time: now, payload: Bytes::from(encode_event(&event)) })
    }

    fn refuse(&self, line: &[u8], rejection: &Rejection) -> NewRecord {
        let now = self.parts.clock().now();
        let record = BadRecord {
            reason: rejection.reason.as_str().to_owned(),
            detail: rejection.detail.clone(),
            stage: self.stage.to_owned(),
            raw: line.iter().copied().take(MAX_BAD_BYTES).collect(),
            count: 1,
            ingest_time: now.0,
            region: self.region.to_string(),
        };
        NewRecord { partition: 0, append_time: now, payload: Bytes::from(record.encode()) }
    }
}

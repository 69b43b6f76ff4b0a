//! Publishing a settlement: lines → staged files → a signed manifest → a claimed number → the folder, manifest last.
//! Guarantee: readers see a whole settlement or none; a published one never changes; the sequence has no gap;
//! the same lines over the same billed events with the same adjustments are never published twice.
//! On crash: before the claim nothing is visible; after it, the next publisher (of any day) completes it.
//! Never: overwrites a manifest, or publishes lines of a run older than the one already settled.

use std::collections::BTreeMap;

use lake::run_record::RunRecord;
use shared::merkle::Root;
use shared::time::Timestamp;

use crate::adjusted::Adjusted;
use crate::attachments::{self, Adjustments};
use crate::balance;
use crate::checksum::{Sha256Sum, sha256};
use crate::error::Error;
use crate::gold::{BILLING_DAY, Gold, PROOF_BLOCKS, SILVER};
use crate::line_file::Form;
use crate::lines::{COLUMNS, Line, LineKey, from_gold};
use crate::manifest::{Conservation, File, Generator, Input, Manifest, SCHEMA_VERSION, Sums};
use crate::sequence::{self, Claim, Claimed, staged_name};
use crate::settings::Settings;
use crate::settlements::{FOLDER, Settlements};
use crate::signature::Signer;

/// What publishing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// A new version is there.
    New(Manifest),
    /// The newest version has these very lines, events and adjustments: nothing was written.
    Unchanged(Manifest),
}

impl Published {
    /// The settlement that stands.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::New(manifest) | Self::Unchanged(manifest) => manifest,
        }
    }
}

/// What the lines of a run add up to, and the events behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub(crate) sums: Sums,
    /// The checksum over all lines without their version.
    pub sha256: String,
    /// The tree over the billed events.
    pub merkle: Root,
}

impl Content {
    /// Whether `manifest` settles just this. Lines alone do not say so: another event may bill in the place of one of
    /// the same price, and then a proof of the old version must not stand for the new one.
    #[must_use]
    pub fn is_settled_by(&self, manifest: &Manifest) -> bool {
        manifest.content_sha256 == self.sha256 && manifest.merkle == self.merkle
    }
}

/// Reads all lines once: their order is checked, their sums are held against the run.
///
/// # Errors
/// [`Error::Unbalanced`] when they do not balance, [`Error::Damaged`] when two lines share a key or are out of order.
pub async fn content(gold: &Gold) -> Result<Content, Error> {
    let record = gold.record();
    let mut sums = Sums::default();
    let mut checksum = Sha256Sum::default();
    let mut last: Option<LineKey> = None;
    gold.each_batch(BILLING_DAY, &[], |batch, what| {
        for line in from_gold(batch, what)? {
            if last.as_ref().is_some_and(|before| *before >= line.key) {
                return Err(Error::damaged(what, format!("lines are not in order at {:?}", line.key)));
            }
            sums.add(&line)?;
            line.feed(record.day, &mut checksum)?;
            last = Some(line.key);
        }
        Ok(())
    })
    .await?;
    let mut findings = balance::conservation(record.day, &record.hours, &record.partitions, &record.verdicts);
    findings.extend(balance::capture(record.day, &record.capture));
    findings.extend(balance::lines(&sums, record));
    if findings.is_empty() {
        Ok(Content { sums, sha256: checksum.hex(), merkle: record.merkle })
    } else {
        Err(Error::Unbalanced { day: record.day, findings })
    }
}

/// How and why a settlement is published.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// Signs the manifest.
    pub signer: &'a Signer,
    /// How lines are cut into files, how long leftovers stay.
    pub settings: &'a Settings,
    /// Why there is a new version; worked out from what changed where absent.
    pub reason: Option<&'a str>,
    /// Now.
    pub now: Timestamp,
}

/// Publishes the lines of `gold` unless the newest version of the day has them already.
///
/// # Errors
/// Those of the stores; [`Error::Superseded`] when a newer run is settled.
pub async fn publish(
    settlements: &Settlements,
    gold: &Gold,
    content: &Content,
    order: Order<'_>,
) -> Result<Published, Error> {
    let (record, Order { settings, now, .. }) = (gold.record(), order);
    loop {
        let taken = sequence::complete_newest(settlements).await?;
        let newest = settlements.newest(record.day).await?;
        // Read after the newest version is known, so that a new version never lacks an adjustment of it.
        let adjustments = Adjustments::read(gold.lake(), record.day).await?;
        if let Some(newest) = &newest {
            if content.is_settled_by(newest) && adjustments.is_in(newest) {
                remove_old_staged(settlements, settings, now).await?;
                return Ok(Published::Unchanged(newest.clone()));
            }
            if newest.run > record.run {
                return Err(Error::Superseded { day: record.day, run: record.run, by: newest.run });
            }
        }
        let version = newest.as_ref().map_or(1, |m| m.version + 1);
        let files = stage(settlements, gold, version, settings.rows_per_file).await?;
        let mut manifest = manifest(record, content, newest.as_ref(), taken + 1, files);
        let settled = newest.as_ref().map_or(0, |m| m.adjustments.row_count);
        let added = (adjustments.rows.len() as u64).checked_sub(settled);
        let added = added.ok_or_else(|| Error::damaged("ledger/adjustments", "it has fewer than were settled"))?;
        manifest.reason = order.reason.map_or_else(|| why(record, newest.as_ref(), added), str::to_owned);
        let min_micros = settings.notice_min_micros;
        attachments::attach(settlements, gold, newest.as_ref(), adjustments, &mut manifest, min_micros).await?;
        let claim = signed(&manifest, order.signer)?;
        match sequence::claim(settlements, taken + 1, &claim).await? {
            Claimed::Won => {
                sequence::complete(settlements, taken + 1).await?;
                remove_old_staged(settlements, settings, now).await?;
                return Ok(Published::New(manifest));
            }
            Claimed::Lost => tracing::info!(sequence = taken + 1, "another settlement took the number; planning anew"),
        }
    }
}

/// The manifest with its signature, as a number is claimed for them.
fn signed(manifest: &Manifest, signer: &Signer) -> Result<Claim, Error> {
    let text = |bytes: serde_json::Result<Vec<u8>>| {
        let bytes = bytes.map_err(|e| Error::damaged("the manifest", e))?;
        String::from_utf8(bytes).map_err(|e| Error::damaged("the manifest", e))
    };
    let (day, version, manifest) = (manifest.day, manifest.version, text(manifest.to_bytes())?);
    let signature = text(signer.sign(manifest.as_bytes()).to_bytes())?;
    Ok(Claim { day, version, manifest, signature })
}

/// Writes the files of lines under their checksums and answers what the manifest says of them.
async fn stage(settlements: &Settlements, gold: &Gold, version: u32, rows_per_file: u64) -> Result<Vec<File>, Error> {
    let rows = usize::try_from(rows_per_file.max(1)).unwrap_or(usize::MAX);
    let mut files = Vec::new();
    let mut reader = gold.batches(BILLING_DAY, &[])?;
    let mut waiting: Vec<Line> = Vec::new();
    let mut part = 0;
    while let Some((batch, what)) = reader.next().await? {
        waiting.extend(from_gold(&batch, &what)?);
        while waiting.len() >= rows {
            let rest = waiting.split_off(rows);
            stage_part(settlements, gold.record(), version, part, &waiting, &mut files).await?;
            waiting = rest;
            part += 1;
        }
    }
    if !waiting.is_empty() || part == 0 {
        stage_part(settlements, gold.record(), version, part, &waiting, &mut files).await?;
    }
    Ok(files)
}

async fn stage_part(
    settlements: &Settlements,
    record: &RunRecord,
    version: u32,
    part: usize,
    lines: &[Line],
    files: &mut Vec<File>,
) -> Result<(), Error> {
    let mut sums = Sums::default();
    lines.iter().try_for_each(|line| sums.add(line))?;
    for form in Form::ALL {
        let path = form.name(part);
        let bytes = form.write(record.day, version, lines).map_err(|e| Error::damaged(&path, e))?;
        let file = File {
            sha256: sha256(&bytes),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            row_count: sums.rows,
            sum_cost_micros: sums.cost_micros(),
            path,
        };
        sequence::put(settlements, &staged_name(&file.sha256), bytes.into()).await?;
        files.push(file);
    }
    Ok(())
}

fn manifest(
    record: &RunRecord,
    content: &Content,
    before: Option<&Manifest>,
    sequence: u64,
    files: Vec<File>,
) -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        day: record.day,
        version: before.map_or(1, |m| m.version + 1),
        supersedes: before.map(|m| m.version),
        reason: String::new(),
        sequence,
        run: record.run,
        columns: COLUMNS.map(str::to_owned).to_vec(),
        files,
        row_count: content.sums.rows,
        content_sha256: content.sha256.clone(),
        merkle: content.merkle,
        totals: content.sums.totals.clone(),
        verdicts: record.verdicts.clone(),
        conservation: Conservation {
            archived: record.hours.iter().map(|h| h.archived).sum(),
            hours: record.hours.clone(),
            partitions: record.partitions.clone(),
            capture: record.capture.clone(),
            quarantined: record.quarantined.clone(),
        },
        inputs: inputs(record),
        counting: record.counting.clone(),
        price_book_version: record.price_book_version,
        generator: Generator {
            name: "clickledger".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            batch_code_version: record.code_version,
        },
        warnings: record.warnings.clone(),
        attachments: Vec::new(),
        adjustments: Adjusted::default(),
        due_micros: BTreeMap::new(),
        restatement: None,
    }
}

/// What batch read, the gold the lines were read from, and what proofs will be read from.
fn inputs(record: &RunRecord) -> Vec<Input> {
    let read = record.inputs.iter().map(|(table, version)| Input { table: table.clone(), version: *version });
    let made = [BILLING_DAY, PROOF_BLOCKS, SILVER].into_iter().filter_map(|table| Some((table, record.output(table)?)));
    read.chain(made.map(|(table, o)| Input { table: table.to_owned(), version: o.version })).collect()
}

/// Why a version exists: what changed since the one before.
fn why(record: &RunRecord, before: Option<&Manifest>, adjustments_added: u64) -> String {
    let Some(before) = before else { return "first settlement of the day".to_owned() };
    let mut reasons = Vec::new();
    let archived: u64 = record.hours.iter().map(|h| h.archived).sum();
    if archived != before.conservation.archived {
        reasons.push(format!("events archived for the day: {} → {archived}", before.conservation.archived));
    }
    if record.counting != before.counting {
        let (old, new) = (before.counting.rules_version, record.counting.rules_version);
        reasons.push(format!("counting rules: {old} → {new}"));
    }
    if record.price_book_version != before.price_book_version {
        reasons.push(format!("price book: {} → {}", before.price_book_version, record.price_book_version));
    }
    if record.code_version != before.generator.batch_code_version {
        reasons.push(format!("batch code: {} → {}", before.generator.batch_code_version, record.code_version));
    }
    if adjustments_added > 0 {
        let old = before.adjustments.row_count;
        reasons.push(format!("adjustments: {old} → {}", old + adjustments_added));
    }
    if reasons.is_empty() {
        reasons.push("verdicts of the same events changed with the rest of the archive".to_owned());
    }
    reasons.join("; ")
}

/// Removes files of publications that never came to a claim, once they are old enough that nobody works on them.
async fn remove_old_staged(settlements: &Settlements, settings: &Settings, now: Timestamp) -> Result<(), Error> {
    let oldest = now.plus(-settings.keep_staged.as_micros());
    for meta in settlements.files(&format!("{FOLDER}/staging")).await? {
        let Some(name) = meta.location.filename() else { continue };
        if meta.last_modified.timestamp_micros() < oldest.0 {
            sequence::remove(settlements, &staged_name(name)).await?;
        }
    }
    Ok(())
}

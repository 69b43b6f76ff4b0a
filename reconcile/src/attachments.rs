//! What lies beside the lines of a settlement: the day's adjustments, the differences to the version before, and the
//! notice; each staged under its checksum like the lines, and summed in the manifest.
//! Guarantee: the same inputs give the same bytes; the version before plus the deltas is this version, checked here
//! before anything is claimed. Reads: `ledger/adjustments`, the folder of the version before, gold.
//! On crash: as for lines, nothing is visible before the claim.

use std::collections::BTreeMap;

use lake::LakeRoot;
use lake::tables::LEDGER_ADJUSTMENTS;
use shared::time::Day;

use crate::adjusted::due;
use crate::checksum::sha256;
use crate::deltas::{self, Delta};
use crate::error::Error;
use crate::gold::{BILLING_DAY, Gold};
use crate::ledger::{AdjustmentBook, Signed, adjustments_csv, read_adjustments};
use crate::lines::{Line, from_gold};
use crate::manifest::{ADJUSTMENTS, Attachment, DELTAS, Input, Manifest, NOTICE, Restatement};
use crate::notice::{self, Campaigns, Notice, Side};
use crate::old_lines::OldLines;
use crate::sequence::{self, staged_name};
use crate::settlements::{Settlements, folder};

/// The adjustments of a day as they stand now.
pub(crate) struct Adjustments {
    pub(crate) rows: Vec<Signed>,
    table_version: u64,
    bytes: Vec<u8>,
}

impl Adjustments {
    /// Reads them.
    pub(crate) async fn read(lake: &LakeRoot, day: Day) -> Result<Self, Error> {
        let book = AdjustmentBook::open(lake).await?;
        let rows = book.of_day(day).await?;
        let bytes = adjustments_csv(&rows).map_err(|e| Error::damaged(ADJUSTMENTS, e))?;
        Ok(Self { rows, table_version: book.version(), bytes })
    }

    /// Whether a settlement has exactly these.
    pub(crate) fn is_in(&self, manifest: &Manifest) -> bool {
        match manifest.attachment(ADJUSTMENTS) {
            Some(file) => file.sha256 == sha256(&self.bytes),
            None => self.rows.is_empty(),
        }
    }
}

/// Stages what lies beside the lines and completes the manifest by it.
pub(crate) async fn attach(
    settlements: &Settlements,
    gold: &Gold,
    before: Option<&Manifest>,
    adjustments: Adjustments,
    manifest: &mut Manifest,
    min_micros: u64,
) -> Result<(), Error> {
    for signed in &adjustments.rows {
        manifest.adjustments.add(&signed.adjustment)?;
    }
    manifest.due_micros = due(&manifest.totals, &manifest.adjustments)?;
    if !adjustments.rows.is_empty() {
        let version = adjustments.table_version;
        manifest.inputs.push(Input { table: LEDGER_ADJUSTMENTS.name.to_owned(), version });
        let rows = manifest.adjustments.row_count;
        stage(settlements, manifest, ADJUSTMENTS, adjustments.bytes, rows).await?;
    }
    match before {
        Some(before) => restate(settlements, gold, before, &adjustments.rows, manifest, min_micros).await,
        None => Ok(()),
    }
}

async fn restate(
    settlements: &Settlements,
    gold: &Gold,
    before: &Manifest,
    adjustments: &[Signed],
    manifest: &mut Manifest,
    min_micros: u64,
) -> Result<(), Error> {
    let (day, version) = (manifest.day, manifest.version);
    let (changed, mut campaigns) = differences(settlements, gold, before).await?;
    let mut totals = BTreeMap::new();
    changed.iter().try_for_each(|delta| deltas::add(&mut totals, delta))?;
    let old = published(settlements, before).await?;
    old.iter().try_for_each(|s| campaigns.adjustment(Side::Old, &s.adjustment))?;
    adjustments.iter().try_for_each(|s| campaigns.adjustment(Side::New, &s.adjustment))?;
    let bytes = deltas::write(&changed, day, version).map_err(|e| Error::damaged(DELTAS, e))?;
    stage(settlements, manifest, DELTAS, bytes, changed.len() as u64).await?;
    let (named, below) = campaigns.changes(min_micros)?;
    let rows = named.len() as u64;
    let notice = Notice {
        schema_version: notice::SCHEMA_VERSION,
        day,
        version,
        supersedes: before.version,
        reason: manifest.reason.clone(),
        threshold_micros: min_micros,
        campaigns: named,
        below,
    };
    let bytes = notice.to_bytes().map_err(|e| Error::damaged(NOTICE, e))?;
    stage(settlements, manifest, NOTICE, bytes, rows).await?;
    manifest.restatement = Some(Restatement {
        previous_totals: before.totals.clone(),
        previous_due_micros: before.due_micros.clone(),
        deltas: totals,
        adjustments_added: adjustments.len().saturating_sub(old.len()) as u64,
    });
    Ok(())
}

/// Both versions side by side, in the order of lines: what differs, and every campaign's sums.
async fn differences(
    settlements: &Settlements,
    gold: &Gold,
    before: &Manifest,
) -> Result<(Vec<Delta>, Campaigns), Error> {
    let mut old = OldLines::of(settlements, Some(before));
    let (mut changed, mut campaigns) = (Vec::new(), Campaigns::default());
    let mut reader = gold.batches(BILLING_DAY, &[])?;
    while let Some((batch, what)) = reader.next().await? {
        for new in from_gold(&batch, &what)? {
            campaigns.line(Side::New, &new)?;
            while old.peek().await?.is_some_and(|line| line.key < new.key) {
                gone(old.next().await?, &mut changed, &mut campaigns)?;
            }
            let same_key = old.peek().await?.is_some_and(|line| line.key == new.key);
            let twin = if same_key { old.next().await? } else { None };
            twin.iter().try_for_each(|line| campaigns.line(Side::Old, line))?;
            changed.extend(Delta::between(twin.as_ref(), Some(&new))?);
        }
    }
    while let Some(line) = old.next().await? {
        gone(Some(line), &mut changed, &mut campaigns)?;
    }
    Ok((changed, campaigns))
}

fn gone(line: Option<Line>, changed: &mut Vec<Delta>, campaigns: &mut Campaigns) -> Result<(), Error> {
    line.iter().try_for_each(|line| campaigns.line(Side::Old, line))?;
    changed.extend(Delta::between(line.as_ref(), None)?);
    Ok(())
}

/// The adjustments that a settlement was published with.
pub(crate) async fn published(settlements: &Settlements, manifest: &Manifest) -> Result<Vec<Signed>, Error> {
    let Some(file) = manifest.attachment(ADJUSTMENTS) else { return Ok(Vec::new()) };
    let name = format!("{}/{}", folder(manifest.day, manifest.version), file.path);
    let bytes = settlements.read(&name).await?.ok_or_else(|| Error::damaged(&name, "it is missing"))?;
    if sha256(&bytes) != file.sha256 {
        return Err(Error::damaged(name, "it is not the file that was published"));
    }
    let mut rows = Vec::new();
    read_adjustments(&bytes, &mut |_, row| rows.push(row)).map_err(|e| Error::damaged(&name, e))?;
    rows.into_iter().map(|row| row.map_err(|e| Error::damaged(&name, e))).collect()
}

async fn stage(
    settlements: &Settlements,
    manifest: &mut Manifest,
    path: &str,
    bytes: Vec<u8>,
    row_count: u64,
) -> Result<(), Error> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let attachment = Attachment { path: path.to_owned(), sha256: sha256(&bytes), bytes: size, row_count };
    sequence::put(settlements, &staged_name(&attachment.sha256), bytes.into()).await?;
    manifest.attachments.push(attachment);
    Ok(())
}

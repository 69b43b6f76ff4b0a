//! What lies beside the lines: adjustments, deltas and notice, each row by itself and each sum against the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use shared::money::Currency;

use super::Findings;
use crate::adjusted::{Adjusted, due};
use crate::checksum::sha256;
use crate::deltas;
use crate::ledger::read_adjustments;
use crate::manifest::{ADJUSTMENTS, Attachment, DELTAS, MANIFEST, Manifest, NOTICE, Restatement};
use crate::notice::Notice;

/// Checks every attachment and what the manifest says of it.
pub(super) fn check(folder: &Path, manifest: &Manifest, findings: &mut Findings) -> io::Result<()> {
    let wanted = (manifest.adjustments.row_count > 0).then_some(ADJUSTMENTS);
    let wanted = wanted.into_iter().chain(manifest.supersedes.iter().flat_map(|_| [DELTAS, NOTICE]));
    if !manifest.attachments.iter().map(|a| a.path.as_str()).eq(wanted) {
        findings.add(MANIFEST, None, "its attachments are not those that its adjustments and its version call for");
    }
    if manifest.supersedes.is_some() != manifest.restatement.is_some() {
        findings.add(MANIFEST, None, "it must say what it restates exactly where it supersedes a version");
    }
    for file in &manifest.attachments {
        if ![ADJUSTMENTS, DELTAS, NOTICE].contains(&file.path.as_str()) || !folder.join(&file.path).is_file() {
            continue; // named already; a path that is not ours is never opened
        }
        let bytes = fs::read(folder.join(&file.path))?;
        findings.expect_equal(&file.path, "its size in bytes", &(bytes.len() as u64), &file.bytes);
        findings.expect_equal(&file.path, "its sha256", &sha256(&bytes), &file.sha256);
        match file.path.as_str() {
            ADJUSTMENTS => adjustments(&bytes, manifest, file, findings),
            DELTAS => changed(&bytes, manifest, file, findings),
            _ => notice(&bytes, manifest, file, findings),
        }
    }
    match due(&manifest.totals, &manifest.adjustments) {
        Ok(sum) => findings.expect_equal(MANIFEST, "lines and adjustments", &sum, &manifest.due_micros),
        Err(e) => findings.add(MANIFEST, None, format!("what is due: {e}")),
    }
    Ok(())
}

fn adjustments(bytes: &[u8], manifest: &Manifest, file: &Attachment, findings: &mut Findings) {
    let (mut sums, mut last) = (Adjusted::default(), None);
    let read = read_adjustments(bytes, &mut |row, signed| match signed {
        Err(why) => findings.add(ADJUSTMENTS, Some(row), why),
        Ok(signed) => {
            let adjustment = signed.adjustment;
            if adjustment.day != manifest.day {
                findings.add(ADJUSTMENTS, Some(row), format!("it is of {}", adjustment.day));
            }
            if sums.add(&adjustment).is_err() {
                findings.add(ADJUSTMENTS, Some(row), "a sum overflows here");
            }
            if last.as_ref().is_some_and(|last| *last >= adjustment.id) {
                findings.add(ADJUSTMENTS, Some(row), "it is out of order, or there twice");
            }
            last = Some(adjustment.id);
        }
    });
    if let Err(why) = read {
        findings.add(ADJUSTMENTS, None, format!("it does not read: {why}"));
    }
    findings.expect_equal(ADJUSTMENTS, "its number of rows", &sums.row_count, &file.row_count);
    findings.expect_equal(ADJUSTMENTS, "its sums", &sums, &manifest.adjustments);
}

fn changed(bytes: &[u8], manifest: &Manifest, file: &Attachment, findings: &mut Findings) {
    let (mut totals, mut rows, mut last) = (BTreeMap::new(), 0_u64, None);
    let read = deltas::read(bytes, manifest.day, manifest.version, &mut |row, delta| match delta {
        Err(why) => findings.add(DELTAS, Some(row), why),
        Ok(delta) => {
            rows += 1;
            if deltas::add(&mut totals, &delta).is_err() {
                findings.add(DELTAS, Some(row), "a sum overflows here");
            }
            if last.as_ref().is_some_and(|last| *last >= delta.key) {
                findings.add(DELTAS, Some(row), "it is out of order, or there twice");
            }
            last = Some(delta.key);
        }
    });
    if let Err(why) = read {
        findings.add(DELTAS, None, format!("it does not read: {why}"));
    }
    findings.expect_equal(DELTAS, "its number of rows", &rows, &file.row_count);
    let Some(restated) = &manifest.restatement else { return };
    findings.expect_equal(DELTAS, "its sums", &totals, &restated.deltas);
    sums_up(manifest, restated, findings);
}

/// The version before plus the deltas is this version.
fn sums_up(manifest: &Manifest, restated: &Restatement, findings: &mut Findings) {
    let Ok(after) = deltas::apply(&restated.previous_totals, &restated.deltas) else {
        return findings.add(MANIFEST, None, "the totals before and the deltas do not add up");
    };
    for currency in after.keys().chain(manifest.totals.keys()).collect::<std::collections::BTreeSet<_>>() {
        let of = |totals: &BTreeMap<Currency, crate::manifest::Total>| {
            let total = totals.get(currency).copied().unwrap_or_default();
            crate::manifest::Total { row_count: 0, ..total }
        };
        let what = format!("the version before plus the deltas in {currency}");
        findings.expect_equal(MANIFEST, &what, &of(&after), &of(&manifest.totals));
    }
}

fn notice(bytes: &[u8], manifest: &Manifest, file: &Attachment, findings: &mut Findings) {
    let notice: Notice = match serde_json::from_slice(bytes) {
        Ok(notice) => notice,
        Err(why) => return findings.add(NOTICE, None, format!("it does not read: {why}")),
    };
    let of = (notice.day, notice.version, Some(notice.supersedes), &notice.reason);
    let wanted = (manifest.day, manifest.version, manifest.supersedes, &manifest.reason);
    findings.expect_equal(NOTICE, "what it is of", &of, &wanted);
    findings.expect_equal(NOTICE, "its number of campaigns", &(notice.campaigns.len() as u64), &file.row_count);
    for (row, c) in (1..).zip(&notice.campaigns) {
        let micros = c.new_micros.checked_sub(c.old_micros);
        let events = c.new_events.checked_sub(c.old_events);
        if micros != Some(c.delta_micros) || events != Some(c.delta_events) {
            findings.add(NOTICE, Some(row), format!("new minus old is not delta for campaign {}", c.campaign_id));
        }
    }
    let Some(restated) = &manifest.restatement else { return };
    let sums = notice.delta_micros().unwrap_or_default();
    for currency in sums.keys().chain(manifest.due_micros.keys()).chain(restated.previous_due_micros.keys()) {
        let of = |sums: &BTreeMap<Currency, i64>| i128::from(sums.get(currency).copied().unwrap_or(0));
        let stated = of(&manifest.due_micros) - of(&restated.previous_due_micros);
        findings.expect_equal(NOTICE, &format!("the sum of its differences in {currency}"), &of(&sums), &stated);
    }
}

//! The lines of a settlement folder: each row by itself, each file against the manifest, CSV against Parquet.
//! One part (one Parquet file and its CSV twin) is in memory at a time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::checksum::Sha256Sum;
use crate::line_file::{Cells, Form};
use crate::lines::{COLUMNS, LineKey, Printed};
use crate::manifest::{File, Manifest, Sums};

use super::{Findings, check_file};

/// What the lines add up to.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) sums: Sums,
    pub(crate) content_sha256: String,
}

/// One file's rows by key, with their number.
type Rows = BTreeMap<LineKey, (u64, Cells)>;

/// Adds up lines over all parts.
#[derive(Default)]
struct Total {
    sums: Sums,
    content: Sha256Sum,
    last: Option<LineKey>,
}

/// Checks every row of every part.
pub(crate) fn check(folder: &Path, manifest: &Manifest, findings: &mut Findings) -> io::Result<Read> {
    let mut read = Read::default();
    let mut total = Total::default();
    let mut parts: BTreeMap<&str, Vec<(&File, Form)>> = BTreeMap::new();
    for file in &manifest.files {
        if let Some(form) = Form::of(&file.path) {
            parts.entry(file.path.split('.').next().unwrap_or_default()).or_default().push((file, form));
        }
    }
    for files in parts.into_values() {
        let mut twins: Vec<(&File, Rows)> = Vec::new();
        for (file, form) in files {
            // A path with a folder in it is not ours and is never opened; `check_form` names it.
            if file.path.contains(['/', '\\']) || !folder.join(&file.path).is_file() {
                continue;
            }
            let bytes = fs::read(folder.join(&file.path))?;
            check_file(file, &bytes, findings);
            let cells = match form.read(bytes.into()) {
                Ok(cells) => cells,
                Err(why) => {
                    findings.add(&file.path, None, format!("it does not read: {why}"));
                    continue;
                }
            };
            read.files += 1;
            read.rows += u64::try_from(cells.len()).unwrap_or(u64::MAX);
            let adds = twins.is_empty().then_some(&mut total);
            let rows = check_rows(manifest, file, cells, adds, findings);
            twins.push((file, rows));
        }
        if let [(one, rows), (other, twin_rows)] = twins.as_slice() {
            compare(&one.path, rows, &other.path, twin_rows, findings);
        }
    }
    read.content_sha256 = total.content.hex();
    read.sums = total.sums;
    Ok(read)
}

fn check_rows(
    manifest: &Manifest,
    file: &File,
    cells: Vec<Cells>,
    mut total: Option<&mut Total>,
    findings: &mut Findings,
) -> Rows {
    let mut rows = Rows::new();
    let mut sums = Sums::default();
    let count = u64::try_from(cells.len()).unwrap_or(u64::MAX);
    for (number, cells) in (1..).zip(cells) {
        let printed = match Printed::from_cells(&cells) {
            Ok(printed) => printed,
            Err(why) => {
                findings.add(&file.path, Some(number), why);
                continue;
            }
        };
        if (printed.day, printed.version) != (manifest.day, manifest.version) {
            let why = format!("it is of {} version {}", printed.day, printed.version);
            findings.add(&file.path, Some(number), why);
        }
        if sums.add(&printed.line).is_err() {
            findings.add(&file.path, Some(number), "a sum overflows here");
        }
        if let Some(total) = total.as_deref_mut() {
            total.add(manifest, &printed, &file.path, number, findings);
        }
        if let Some((first, _)) = rows.insert(printed.line.key, (number, cells)) {
            findings.add(&file.path, Some(number), format!("it has the key of row {first}"));
        }
    }
    findings.expect_equal(&file.path, "its number of lines", &count, &file.row_count);
    findings.expect_equal(&file.path, "its sum of cost_micros", &sums.cost_micros(), &file.sum_cost_micros);
    rows
}

impl Total {
    fn add(&mut self, manifest: &Manifest, printed: &Printed, file: &str, number: u64, findings: &mut Findings) {
        let line = &printed.line;
        if self.last.as_ref().is_some_and(|last| *last >= line.key) {
            findings.add(file, Some(number), "it is out of order");
        }
        self.last = Some(line.key.clone());
        let summed = self.sums.add(line).and_then(|()| line.feed(manifest.day, &mut self.content));
        if summed.is_err() {
            findings.add(file, Some(number), "a total overflows here");
        }
    }
}

/// The same lines in both forms, matched by key, so that one missing row is one finding.
fn compare(one: &str, rows: &Rows, other: &str, twin_rows: &Rows, findings: &mut Findings) {
    for (key, (number, cells)) in rows {
        match twin_rows.get(key) {
            None => findings.add(other, None, format!("it lacks row {number} of {one} ({})", name(key))),
            Some((twin_number, twin)) => {
                let columns = COLUMNS.iter().zip(cells).zip(twin);
                for ((column, a), b) in columns.filter(|((_, a), b)| a != b) {
                    let what = format!("{column} is {b:?}, in row {number} of {one} it is {a:?}");
                    findings.add(other, Some(*twin_number), what);
                }
            }
        }
    }
    for (key, (number, _)) in twin_rows.iter().filter(|(key, _)| !rows.contains_key(key)) {
        findings.add(other, Some(*number), format!("{one} has no such row ({})", name(key)));
    }
}

fn name(key: &LineKey) -> String {
    let LineKey { campaign_id, ad_id, currency, price_model, price_version } = key;
    format!("campaign {campaign_id}, ad {ad_id}, {currency}, {price_model}, price version {price_version}")
}

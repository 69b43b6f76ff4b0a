//! The lines of a settlement folder: each row by itself, each file against the manifest, CSV against Parquet.
//! One part (one Parquet file and its CSV twin) is in memory at a time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::checksum::Sha256Sum;
use crate::line_file::{Cells, Form};
use crate::lines::{COLUMNS, Line, LineKey, Printed};
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

/// One file's lines by key, with their row number. A line prints as exactly the cells it was read from.
type Rows = BTreeMap<LineKey, (u64, Line)>;

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
            let adds = twins.is_empty().then_some(&mut total);
            let mut rows = FileRows { manifest, file, total: adds, rows: Rows::new(), sums: Sums::default(), count: 0 };
            match form.read(bytes.into(), &mut |cells| rows.add(&cells, findings)) {
                Ok(()) => read.files += 1,
                Err(why) => findings.add(&file.path, None, format!("it does not read: {why}")),
            }
            read.rows += rows.count;
            twins.push((file, rows.finish(findings)));
        }
        if let [(one, rows), (other, twin_rows)] = twins.as_slice() {
            compare(manifest, (&one.path, rows), (&other.path, twin_rows), findings);
        }
    }
    read.content_sha256 = total.content.hex();
    read.sums = total.sums;
    Ok(read)
}

/// The rows of one file as they are read.
struct FileRows<'a> {
    manifest: &'a Manifest,
    file: &'a File,
    total: Option<&'a mut Total>,
    rows: Rows,
    sums: Sums,
    count: u64,
}

impl FileRows<'_> {
    fn add(&mut self, cells: &Cells, findings: &mut Findings) {
        self.count += 1;
        let (name, number) = (&self.file.path, self.count);
        let printed = match Printed::from_cells(cells) {
            Ok(printed) => printed,
            Err(why) => return findings.add(name, Some(number), why),
        };
        if (printed.day, printed.version) != (self.manifest.day, self.manifest.version) {
            findings.add(name, Some(number), format!("it is of {} version {}", printed.day, printed.version));
        }
        if self.sums.add(&printed.line).is_err() {
            findings.add(name, Some(number), "a sum overflows here");
        }
        if let Some(total) = self.total.as_deref_mut() {
            total.add(self.manifest, &printed.line, name, number, findings);
        }
        if let Some((first, _)) = self.rows.insert(printed.line.key.clone(), (number, printed.line)) {
            findings.add(name, Some(number), format!("it has the key of row {first}"));
        }
    }

    fn finish(self, findings: &mut Findings) -> Rows {
        let file = self.file;
        findings.expect_equal(&file.path, "its number of lines", &self.count, &file.row_count);
        findings.expect_equal(&file.path, "its sum of cost_micros", &self.sums.cost_micros(), &file.sum_cost_micros);
        self.rows
    }
}

impl Total {
    fn add(&mut self, manifest: &Manifest, line: &Line, file: &str, number: u64, findings: &mut Findings) {
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
fn compare(manifest: &Manifest, (one, rows): (&str, &Rows), (other, twin): (&str, &Rows), findings: &mut Findings) {
    for (key, (number, line)) in rows {
        match twin.get(key) {
            None => findings.add(other, None, format!("it lacks row {number} of {one} ({})", name(key))),
            Some((_, same)) if same == line => {}
            Some((twin_number, differs)) => {
                let cells = |line: &Line| line.cells(manifest.day, manifest.version).unwrap_or_default();
                let (a, b) = (cells(line), cells(differs));
                for ((column, a), b) in COLUMNS.iter().zip(&a).zip(&b).filter(|((_, a), b)| a != b) {
                    let what = format!("{column} is {b:?}, in row {number} of {one} it is {a:?}");
                    findings.add(other, Some(*twin_number), what);
                }
            }
        }
    }
    for (key, (number, _)) in twin.iter().filter(|(key, _)| !rows.contains_key(key)) {
        findings.add(other, Some(*number), format!("{one} has no such row ({})", name(key)));
    }
}

fn name(key: &LineKey) -> String {
    let LineKey { campaign_id, ad_id, currency, price_model, price_version } = key;
    format!("campaign {campaign_id}, ad {ad_id}, {currency}, {price_model}, price version {price_version}")
}

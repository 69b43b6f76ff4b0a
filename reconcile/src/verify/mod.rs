//! `settlement verify FOLDER`: needs the folder and nothing else: no lake, no store, no network.
//! Guarantee: no finding means that every file is the one the manifest names, CSV and Parquet hold the same lines,
//! every amount is the rounding of the unrounded one beside it, every sum in the manifest is the sum of its lines, what
//! is due is lines and adjustments, and the version before plus the deltas is this one.
//! Who wrote the folder is proven by its signature, if the receiver pins the key; else a warning says so. Where the folder
//! stands among the others, its sequence number and what it supersedes are checked too.
//! Never: stops at the first finding, or changes anything.

mod attached;
mod place;
mod rows;
mod signed;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::balance;
use crate::checksum::sha256;
use crate::keys::Pin;
use crate::line_file::Form;
use crate::lines::COLUMNS;
use crate::manifest::{CHECKSUMS, File, MANIFEST, Manifest, SCHEMA_VERSION};
use crate::proof::Proof;
use crate::signature::SIGNATURE;

pub use signed::{SignedBy, Trust};

/// The most findings kept; more are counted only.
pub const MAX_FINDINGS: usize = 1_000;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file it is in.
    pub file: String,
    /// The line in it (the first after a header is 1), where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "{}, row {row}: {}", self.file, self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// What the folder says it is; absent when its manifest does not read.
    pub manifest: Option<Manifest>,
    /// Files of lines that were read.
    pub files_read: u64,
    /// Lines that were checked (each form of file counts).
    pub rows_read: u64,
    /// Who signed it; absent when nobody did, or not these bytes.
    pub signed_by: Option<SignedBy>,
    /// What a person should know though nothing is wrong.
    pub warnings: Vec<String>,
    /// What is wrong, in the order it was found.
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub findings_omitted: u64,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Collects findings up to the limit.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    omitted: u64,
}

impl Findings {
    pub(crate) fn add(&mut self, file: &str, row: Option<u64>, what: impl Into<String>) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(Finding { file: file.to_owned(), row, what: what.into() });
        } else {
            self.omitted += 1;
        }
    }

    fn expect_equal<T: PartialEq + fmt::Debug>(&mut self, file: &str, name: &str, found: &T, stated: &T) {
        if found != stated {
            self.add(file, None, format!("{name} is {found:?}, the manifest says {stated:?}"));
        }
    }
}

/// Checks a settlement folder, whoever signed it.
///
/// # Errors
/// An I/O error when the folder or a file in it cannot be read at all.
pub fn verify(folder: &Path) -> io::Result<Verified> {
    verify_as(folder, None)
}

/// Checks a settlement folder, which a pinned key must have signed.
///
/// # Errors
/// As [`verify`].
pub fn verify_as(folder: &Path, pinned: Option<&Pin>) -> io::Result<Verified> {
    let mut findings = Findings::default();
    let names = file_names(folder, &mut findings)?;
    let Some((manifest, bytes)) = read_manifest(folder, &mut findings)? else {
        return Ok(finish(None, &rows::Read::default(), signed::Signed::default(), findings));
    };
    check_form(&manifest, &bytes, &mut findings);
    check_names(&names, &manifest, &mut findings);
    let read = rows::check(folder, &manifest, &mut findings)?;
    let signed = signed::check(folder, &manifest, &bytes, pinned, &mut findings)?;
    check_checksums(folder, &manifest, (&bytes, &signed.bytes), &mut findings)?;
    check_sums(&manifest, &read, &mut findings);
    attached::check(folder, &manifest, &mut findings)?;
    place::check(folder, &manifest, (&bytes, &signed.bytes), &mut findings)?;
    Ok(finish(Some(manifest), &read, signed, findings))
}

/// Checks a proof against the manifest and the signature in `folder`, and nothing else there.
///
/// # Errors
/// As [`verify`].
pub fn verify_proof(folder: &Path, proof: &Proof, pinned: Option<&Pin>) -> io::Result<Verified> {
    let mut findings = Findings::default();
    let Some((manifest, bytes)) = read_manifest(folder, &mut findings)? else {
        return Ok(finish(None, &rows::Read::default(), signed::Signed::default(), findings));
    };
    check_form(&manifest, &bytes, &mut findings);
    let signed = signed::check(folder, &manifest, &bytes, pinned, &mut findings)?;
    if let Some(problem) = proof.problem(&manifest) {
        findings.add("the proof", None, problem);
    }
    Ok(finish(Some(manifest), &rows::Read::default(), signed, findings))
}

/// The manifest and its bytes, if it is there and reads.
fn read_manifest(folder: &Path, findings: &mut Findings) -> io::Result<Option<(Manifest, Vec<u8>)>> {
    let Some(bytes) = read(&folder.join(MANIFEST))? else {
        findings.add(MANIFEST, None, "it is missing: this is not a published settlement");
        return Ok(None);
    };
    match Manifest::from_bytes(&bytes) {
        Ok(manifest) => Ok(Some((manifest, bytes))),
        Err(error) => {
            findings.add(MANIFEST, None, format!("it does not read: {error}"));
            Ok(None)
        }
    }
}

/// A file's bytes, if it is there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn finish(manifest: Option<Manifest>, read: &rows::Read, signed: signed::Signed, findings: Findings) -> Verified {
    Verified {
        manifest,
        files_read: read.files,
        rows_read: read.rows,
        signed_by: signed.by,
        warnings: signed.warnings,
        findings: findings.list,
        findings_omitted: findings.omitted,
    }
}

fn file_names(folder: &Path, findings: &mut Findings) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() {
            names.push(name);
        } else {
            findings.add(&name, None, "it is not a plain file");
        }
    }
    names.sort();
    Ok(names)
}

/// The manifest by itself.
fn check_form(manifest: &Manifest, bytes: &[u8], findings: &mut Findings) {
    if manifest.schema_version != SCHEMA_VERSION {
        let version = manifest.schema_version;
        findings.add(MANIFEST, None, format!("schemaVersion {version} is not {SCHEMA_VERSION}: use a newer program"));
    }
    if manifest.to_bytes().is_ok_and(|printed| printed != bytes) {
        findings.add(MANIFEST, None, "it is not in the form it was written in");
    }
    if !manifest.columns.iter().map(String::as_str).eq(COLUMNS) {
        findings.add(MANIFEST, None, format!("its columns are not {}", COLUMNS.join(",")));
    }
    let before = manifest.version.checked_sub(1).filter(|v| *v > 0);
    if manifest.version == 0 || manifest.supersedes != before {
        let (version, supersedes) = (manifest.version, manifest.supersedes);
        findings.add(MANIFEST, None, format!("version {version} cannot supersede {supersedes:?}"));
    }
    if manifest.sequence == 0 {
        findings.add(MANIFEST, None, "sequence numbers start at 1");
    }
    let expected = (0..manifest.files.len().div_ceil(2)).flat_map(|part| Form::ALL.map(|form| form.name(part)));
    if !manifest.files.iter().map(|f| f.path.clone()).eq(expected) || manifest.files.is_empty() {
        findings.add(MANIFEST, None, "it does not list each part once as Parquet and once as CSV, in order");
    }
    let c = &manifest.conservation;
    let unbalanced = balance::conservation(manifest.day, &c.hours, &c.partitions, &manifest.verdicts);
    for finding in unbalanced.into_iter().chain(balance::capture(manifest.day, &c.capture)) {
        findings.add(MANIFEST, None, finding);
    }
    let judged: u128 = manifest.verdicts.values().copied().map(u128::from).sum();
    if judged != u128::from(c.archived) {
        findings.add(MANIFEST, None, format!("{} events archived, {judged} judged", c.archived));
    }
    let billed = manifest.verdicts.get("billable").copied().unwrap_or(0);
    findings.expect_equal(MANIFEST, "the number of billable events", &billed, &manifest.merkle.leaves);
}

fn check_names(names: &[String], manifest: &Manifest, findings: &mut Findings) {
    let listed = manifest.listed().map(|(path, _)| path).chain([CHECKSUMS, MANIFEST, SIGNATURE]);
    let listed: Vec<&str> = listed.collect();
    for name in &listed {
        if !names.iter().any(|n| n == name) {
            findings.add(name, None, "it is missing");
        }
    }
    for name in names.iter().filter(|n| !listed.contains(&n.as_str())) {
        findings.add(name, None, "the manifest does not list it");
    }
}

/// `SHA256SUMS` must be, to the byte, what `sha256sum` would print for the listed files.
fn check_checksums(
    folder: &Path,
    manifest: &Manifest,
    (bytes, signature): (&[u8], &[u8]),
    findings: &mut Findings,
) -> io::Result<()> {
    let Some(found) = read(&folder.join(CHECKSUMS))? else { return Ok(()) };
    let wanted = manifest.checksums(bytes, signature);
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (String::from_utf8_lossy(&found), String::from_utf8_lossy(&wanted));
    let mut differs = false;
    let mut found_lines = found.split_inclusive('\n');
    for (i, wanted) in (1..).zip(wanted.split_inclusive('\n')) {
        let found = found_lines.next().unwrap_or("");
        if found != wanted {
            differs = true;
            findings.add(
                CHECKSUMS,
                Some(i),
                format!("it is {:?} and must be {:?}", found.trim_end(), wanted.trim_end()),
            );
        }
    }
    if !differs {
        findings.add(CHECKSUMS, None, "there is more in it than the checksums");
    }
    Ok(())
}

/// The manifest's sums against the lines.
fn check_sums(manifest: &Manifest, read: &rows::Read, findings: &mut Findings) {
    findings.expect_equal(MANIFEST, "the number of lines", &read.sums.rows, &manifest.row_count);
    findings.expect_equal(MANIFEST, "the checksum of the content", &read.content_sha256, &manifest.content_sha256);
    let currencies = read.sums.totals.keys().chain(manifest.totals.keys());
    for currency in currencies.collect::<std::collections::BTreeSet<_>>() {
        let (found, stated) = (read.sums.totals.get(currency), manifest.totals.get(currency));
        findings.expect_equal(MANIFEST, &format!("the total in {currency}"), &found, &stated);
    }
    let verdicts = read.sums.verdicts.keys().chain(manifest.verdicts.keys());
    for verdict in verdicts.collect::<std::collections::BTreeSet<_>>() {
        let of = |counts: &std::collections::BTreeMap<String, u64>| counts.get(verdict).copied().unwrap_or(0);
        let (found, stated) = (of(&read.sums.verdicts), of(&manifest.verdicts));
        findings.expect_equal(MANIFEST, &format!("the sum of verdict {verdict}"), &found, &stated);
    }
}

/// A file's bytes against what the manifest says of it.
pub(crate) fn check_file(file: &File, bytes: &[u8], findings: &mut Findings) {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    findings.expect_equal(&file.path, "its size in bytes", &size, &file.bytes);
    findings.expect_equal(&file.path, "its sha256", &sha256(bytes), &file.sha256);
}

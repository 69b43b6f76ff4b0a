//! A settlement folder among the others: its name, its number in the sequence, and what it supersedes.
//! A folder that was taken elsewhere has none of this, and nothing is wrong with that.

use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::manifest::{MANIFEST, Manifest};
use crate::sequence::{Claim, claim_file};

use super::{Findings, read};

/// Checks what stands around the folder, if it is in its place under a folder of settlements.
pub(crate) fn check(
    folder: &Path,
    manifest: &Manifest,
    (bytes, signature): (&[u8], &[u8]),
    findings: &mut Findings,
) -> io::Result<()> {
    let folder = folder.canonicalize()?;
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let (Some(version), Some(day)) = (name(Some(&folder)), name(folder.parent())) else { return Ok(()) };
    let root = folder.join("../..");
    if !(version.starts_with("v=") && day.starts_with("day=") && root.join("sequence").is_dir()) {
        return Ok(());
    }
    let wanted = (format!("day={}", manifest.day), format!("v={}", manifest.version));
    if (&day, &version) != (&wanted.0, &wanted.1) {
        findings.add(MANIFEST, None, format!("it belongs in {}/{} and stands in {day}/{version}", wanted.0, wanted.1));
    }
    check_claim(&root, manifest, (bytes, signature), findings)?;
    for sequence in 1..manifest.sequence {
        if !root.join(claim_file(sequence)).is_file() {
            findings.add(&claim_file(sequence), None, "it is missing: the sequence has a gap");
        }
    }
    check_superseded(&folder, manifest, findings)
}

/// The number's claim must have decided for this very manifest and signature.
fn check_claim(
    root: &Path,
    manifest: &Manifest,
    (bytes, signature): (&[u8], &[u8]),
    findings: &mut Findings,
) -> io::Result<()> {
    let name = claim_file(manifest.sequence);
    let Some(claim) = read(&root.join(&name))? else {
        findings.add(&name, None, "it is missing: nothing claims this settlement's number");
        return Ok(());
    };
    match serde_json::from_slice::<Claim>(&claim) {
        Err(error) => findings.add(&name, None, format!("it does not read: {error}")),
        Ok(claim) if claim.manifest.as_bytes() != bytes => {
            let (day, version) = (claim.day, claim.version);
            findings.add(
                &name,
                None,
                format!("number {} was given to another manifest ({day} version {version})", manifest.sequence),
            );
        }
        Ok(claim) if claim.signature.as_bytes() != signature => {
            findings.add(&name, None, "the manifest's signature is not the one that was claimed");
        }
        Ok(_) => {}
    }
    Ok(())
}

/// The version before must be there, of the same day, with a smaller number.
fn check_superseded(folder: &Path, manifest: &Manifest, findings: &mut Findings) -> io::Result<()> {
    #[derive(Deserialize)]
    struct Before {
        sequence: u64,
    }
    let Some(before) = manifest.supersedes else { return Ok(()) };
    let name = format!("../v={before}/{MANIFEST}");
    match read(&folder.join(&name))?.map(|bytes| serde_json::from_slice::<Before>(&bytes)) {
        None => findings.add(&name, None, "it is missing: this settlement supersedes it"),
        Some(Err(error)) => findings.add(&name, None, format!("it does not read: {error}")),
        Some(Ok(older)) if older.sequence >= manifest.sequence => {
            let what = format!("its sequence {} is not before {}", older.sequence, manifest.sequence);
            findings.add(&name, None, what);
        }
        Some(Ok(_)) => {}
    }
    Ok(())
}

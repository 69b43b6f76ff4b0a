//! Who signed a folder, and how far that can be trusted: pinned (the receiver brought the key), listed (the key stands in
//! `keys.json` beside the settlements) or only claimed by the signature itself.
//! Never: takes a key that came with the folder for proof of who wrote it; a warning says so.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::keys::{PUBLIC_KEYS, Pin, PublicKeys};
use crate::manifest::Manifest;
use crate::signature::{PublicKey, SIGNATURE, Signature};

use super::{Findings, read};

/// How far a signature's key can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// The receiver brought it.
    Pinned,
    /// It stands in the list beside the settlements.
    Listed,
    /// It came with the signature.
    Claimed,
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedBy {
    /// The key's id.
    pub key_id: String,
    /// The key.
    pub public_key: PublicKey,
    /// How far it can be trusted.
    pub trust: Trust,
}

/// What the signature says.
#[derive(Debug, Default)]
pub(crate) struct Signed {
    pub(crate) by: Option<SignedBy>,
    pub(crate) warnings: Vec<String>,
    /// The bytes of the signature file; none where it is missing.
    pub(crate) bytes: Vec<u8>,
}

/// Checks the signature of a manifest's `bytes`.
pub(crate) fn check(
    folder: &Path,
    manifest: &Manifest,
    bytes: &[u8],
    pinned: Option<&Pin>,
    findings: &mut Findings,
) -> io::Result<Signed> {
    let Some(file) = read(&folder.join(SIGNATURE))? else {
        findings.add(SIGNATURE, None, "it is missing: nobody signed this");
        return Ok(Signed::default());
    };
    let mut signed = Signed { bytes: file, ..Signed::default() };
    let signature = match Signature::from_bytes(&signed.bytes) {
        Ok(signature) => signature,
        Err(error) => {
            findings.add(SIGNATURE, None, format!("it does not read: {error}"));
            return Ok(signed);
        }
    };
    if signature.to_bytes().is_ok_and(|printed| printed != signed.bytes) {
        findings.add(SIGNATURE, None, "it is not in the form it was written in");
    }
    if let Some(problem) = signature.problem(bytes) {
        findings.add(SIGNATURE, None, problem);
        return Ok(signed);
    }
    let Signature { key_id, public_key, .. } = signature;
    let trust = match pinned {
        Some(pinned) if pinned.covers(&public_key, manifest.sequence) => Trust::Pinned,
        Some(_) => {
            findings.add(SIGNATURE, None, format!("key {key_id} signed it, which is not pinned for this settlement"));
            Trust::Claimed
        }
        None => unpinned(folder, manifest, &public_key, &mut signed.warnings, findings)?,
    };
    signed.by = Some(SignedBy { key_id, public_key, trust });
    Ok(signed)
}

fn unpinned(
    folder: &Path,
    manifest: &Manifest,
    key: &PublicKey,
    warnings: &mut Vec<String>,
    findings: &mut Findings,
) -> io::Result<Trust> {
    warnings.push(format!("the key is not pinned: compare {key} with what you were told, or give it as --key"));
    let Some(bytes) = read(&folder.join("../..").join(PUBLIC_KEYS))? else { return Ok(Trust::Claimed) };
    let name = format!("../../{PUBLIC_KEYS}");
    match serde_json::from_slice::<PublicKeys>(&bytes) {
        Err(error) => findings.add(&name, None, format!("it does not read: {error}")),
        Ok(list) if list.covers(key, manifest.sequence) => return Ok(Trust::Listed),
        Ok(_) => {
            let (id, sequence) = (key.id(), manifest.sequence);
            findings.add(&name, None, format!("key {id} signed settlement {sequence} and is not listed for it"));
        }
    }
    Ok(Trust::Claimed)
}

//! The sequence of settlements: one number each, over all days, without a gap.
//! Claim n is the file `settlement/sequence/<n>.json`, created only where absent; it holds the whole manifest and its
//! signature.
//! So a claim is a decision: whoever comes next first completes it (`complete`), then claims n + 1. Manifests
//! therefore appear in sequence order, a crash after a claim burns no number, and of two publishers one wins.
//! Never: deletes or changes a claim.

use bytes::Bytes;
use lake::create_once::create_once;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use shared::time::Day;

use crate::checksum::sha256;
use crate::error::Error;
use crate::manifest::{CHECKSUMS, MANIFEST, Manifest};
use crate::settlements::{FOLDER, Settlements, folder};
use crate::signature::SIGNATURE;

/// What one number was given to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Claim {
    /// The day settled.
    pub(crate) day: Day,
    /// The version of its settlement.
    pub(crate) version: u32,
    /// The bytes of its manifest, as text.
    pub(crate) manifest: String,
    /// The bytes of the manifest's signature, as text.
    pub(crate) signature: String,
}

/// Whether a number became ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimed {
    Won,
    Lost,
}

/// The file of claim `sequence`, within the settlements' folder.
pub(crate) fn claim_file(sequence: u64) -> String {
    format!("sequence/{sequence:010}.json")
}

fn claim_name(sequence: u64) -> String {
    format!("{FOLDER}/{}", claim_file(sequence))
}

/// Where a file of lines waits until a claim decides for it: by its checksum, so two writers never collide.
pub(crate) fn staged_name(sha256: &str) -> String {
    format!("{FOLDER}/staging/{sha256}")
}

/// The newest number that was given; 0 before the first.
pub(crate) async fn newest(settlements: &Settlements) -> Result<u64, Error> {
    let names = settlements.files(&format!("{FOLDER}/sequence")).await?;
    let number = |name: &str| name.strip_suffix(".json")?.parse::<u64>().ok();
    Ok(names.iter().filter_map(|meta| number(meta.location.filename()?)).max().unwrap_or(0))
}

/// Tries to take `sequence`. An unclear answer is settled by reading what is there.
pub(crate) async fn claim(settlements: &Settlements, sequence: u64, claim: &Claim) -> Result<Claimed, Error> {
    let name = claim_name(sequence);
    let bytes = serde_json::to_vec(claim).map_err(|e| Error::damaged(&name, e))?;
    Ok(if create(settlements, &name, bytes.into()).await? { Claimed::Won } else { Claimed::Lost })
}

/// Creates a file that must not be replaced; answers whether it now holds `bytes`.
async fn create(settlements: &Settlements, name: &str, bytes: Bytes) -> Result<bool, Error> {
    let (store, path) = settlements.at(name);
    create_once(&*store, &path, bytes).await.map_err(Error::objects(format!("creating {path}")))
}

/// Completes the newest claim if its manifest is not there yet; answers that number.
pub(crate) async fn complete_newest(settlements: &Settlements) -> Result<u64, Error> {
    let sequence = newest(settlements).await?;
    if sequence > 0 {
        complete(settlements, sequence).await?;
    }
    Ok(sequence)
}

/// Publishes what claim `sequence` decided: files, signature, checksums, and last the manifest. Doing it twice, or in
/// two processes, gives the same bytes.
pub(crate) async fn complete(settlements: &Settlements, sequence: u64) -> Result<Manifest, Error> {
    let (claim, manifest) = decided(settlements, sequence).await?;
    let folder = folder(claim.day, claim.version);
    let manifest_name = format!("{folder}/{MANIFEST}");
    if settlements.read(&manifest_name).await?.is_none() {
        for (path, sha256) in manifest.listed() {
            let bytes = staged_or_published(settlements, &folder, path, sha256).await?;
            put(settlements, &format!("{folder}/{path}"), bytes).await?;
        }
        let checksums = manifest.checksums(claim.manifest.as_bytes(), claim.signature.as_bytes());
        put(settlements, &format!("{folder}/{SIGNATURE}"), claim.signature.into()).await?;
        put(settlements, &format!("{folder}/{CHECKSUMS}"), checksums.into()).await?;
    }
    if !create(settlements, &manifest_name, claim.manifest.clone().into()).await? {
        return Err(Error::damaged(manifest_name, format!("it is not what sequence {sequence} decided")));
    }
    for (_, sha256) in manifest.listed() {
        remove(settlements, &staged_name(sha256)).await?;
    }
    Ok(manifest)
}

/// What a number was given to.
async fn decided(settlements: &Settlements, sequence: u64) -> Result<(Claim, Manifest), Error> {
    let name = claim_name(sequence);
    let bytes = settlements.read(&name).await?.ok_or_else(|| Error::damaged(&name, "it is missing"))?;
    let claim: Claim = serde_json::from_slice(&bytes).map_err(|e| Error::damaged(&name, e))?;
    let manifest = Manifest::from_bytes(claim.manifest.as_bytes()).map_err(|e| Error::damaged(&name, e))?;
    Ok((claim, manifest))
}

/// The settlement that a number was given to.
pub(crate) async fn settled(settlements: &Settlements, sequence: u64) -> Result<Manifest, Error> {
    decided(settlements, sequence).await.map(|(_, manifest)| manifest)
}

async fn staged_or_published(
    settlements: &Settlements,
    folder: &str,
    file: &str,
    expected: &str,
) -> Result<Bytes, Error> {
    for name in [staged_name(expected), format!("{folder}/{file}")] {
        if let Some(bytes) = settlements.read(&name).await?
            && sha256(&bytes) == expected
        {
            return Ok(bytes);
        }
    }
    Err(Error::damaged(format!("{folder}/{file}"), format!("no file with sha256 {expected} is staged")))
}

/// Writes a file that may be written again with the same bytes.
pub(crate) async fn put(settlements: &Settlements, name: &str, bytes: Bytes) -> Result<(), Error> {
    let (store, path) = settlements.at(name);
    store.put(&path, bytes.into()).await.map_err(Error::objects(format!("writing {path}")))?;
    Ok(())
}

/// Removes a file; one that is gone already is fine.
pub(crate) async fn remove(settlements: &Settlements, name: &str) -> Result<(), Error> {
    let (store, path) = settlements.at(name);
    match store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(e) => Err(Error::objects(format!("removing {path}"))(e)),
    }
}

//! Settlement keys of a data folder: made, rotated, revoked, and listed beside the settlements for receivers.
//! The first settlement makes its key itself and says so. Never: shows a secret.

use anyhow::Context;
use reconcile::keys::{self, KeyFile, ListedKey, PublicKeys, SettlementKeys};
use reconcile::settlements::Settlements;

use crate::wiring::Parts;

/// Bytes from the system's cryptographic generator.
pub(crate) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random bytes: {e}"))?;
    Ok(bytes)
}

/// The newest key's signer; where there is none, one is made.
pub(crate) async fn signer(parts: &Parts) -> anyhow::Result<reconcile::Signer> {
    if let Some(signer) = file(parts).load()?.signer() {
        keys::export(&Settlements::new(parts.data_root()?), &list(parts)?).await?;
        return Ok(signer);
    }
    let made = edit(parts, |keys, seed, sequence| match keys.signer() {
        Some(_) => Ok(None), // another process was first
        None => keys.rotate(seed, parts.clock().now(), sequence).map(Some),
    })
    .await?;
    if let Some(key) = made {
        eprintln!("made settlement key {}: tell receivers its public key, {}", key.key_id, key.public_key);
    }
    file(parts).load()?.signer().context("the settlement key that was made is gone")
}

/// Makes the first key.
pub(crate) async fn create(parts: &Parts) -> anyhow::Result<ListedKey> {
    edit(parts, |keys, seed, sequence| keys.create(seed, parts.clock().now(), sequence)).await
}

/// Makes the next key.
pub(crate) async fn rotate(parts: &Parts) -> anyhow::Result<ListedKey> {
    edit(parts, |keys, seed, sequence| keys.rotate(seed, parts.clock().now(), sequence)).await
}

/// Ends a key from the next settlement on; says whether it stood.
pub(crate) async fn revoke(parts: &Parts, key_id: &str) -> anyhow::Result<bool> {
    edit(parts, |keys, _, sequence| keys.revoke(key_id, sequence)).await
}

/// Every key as receivers see it, oldest first.
pub(crate) fn list(parts: &Parts) -> anyhow::Result<PublicKeys> {
    Ok(file(parts).load()?.public())
}

fn file(parts: &Parts) -> KeyFile {
    KeyFile::new(parts.folder().settlement_keys())
}

/// Changes the keys, given a fresh seed and the number of the next settlement, and lists them to receivers.
async fn edit<T>(
    parts: &Parts,
    change: impl FnOnce(&mut SettlementKeys, [u8; 32], u64) -> Result<T, keys::KeyError>,
) -> anyhow::Result<T> {
    let settlements = Settlements::new(parts.data_root()?);
    let (seed, sequence) = (random()?, keys::next_sequence(&settlements).await?);
    let done = file(parts).edit(|keys| change(keys, seed, sequence))?;
    keys::export(&settlements, &list(parts)?).await?;
    Ok(done)
}

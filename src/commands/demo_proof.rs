//! The demo's last step: a followed click is proven billed and a forged one not billed, to somebody who has only the
//! manifest, its signature and our public key.

use std::path::Path;

use anyhow::{Context, ensure};
use reconcile::keys::Pin;
use reconcile::proof::{Proof, Statement};
use reconcile::prove::prove;
use reconcile::settlements::Settlements;
use reconcile::verify::verify_proof;
use shared::event::EventKind;
use shared::id::EventId;
use shared::time::Day;

use crate::settlement_keys;
use crate::wiring::Parts;

/// Proves both of the settlement of `day` in `folder`; a link is an ad and an impression.
pub(super) async fn show(
    parts: &Parts,
    (day, folder): (Day, &Path),
    followed: &[(String, String)],
    forged: &(String, String),
) -> anyhow::Result<()> {
    let keys = Pin::List(settlement_keys::list(parts)?);
    let mut billed = None;
    for link in followed {
        let proof = of_link(parts, day, link).await?;
        if proof.is_billed() {
            billed = Some(proof);
            break;
        }
    }
    let billed = billed.context("no followed link was billed")?;
    let absent = of_link(parts, day, forged).await?;
    ensure!(!absent.is_billed(), "the forged click {} is billed", absent.event_id);
    for proof in [&billed, &absent] {
        let checked = verify_proof(folder, proof, Some(&keys))?;
        ensure!(checked.is_sound(), "a proof does not hold: {:?}", checked.findings);
    }
    let hashes = if let Statement::Billed(b) = &billed.proves { b.path.len() } else { 0 };
    eprintln!("\nProofs, from the signed manifest alone and without showing any other event:");
    eprintln!("  the click {} is billed: {hashes} hashes lead from it to the signed root", billed.event_id);
    eprintln!("  the forged click {} is not: two neighbouring leaves leave no place for it", absent.event_id);
    eprintln!("  prove it yourself: clickledger settlement prove --event {} --date {day}", billed.event_id);
    Ok(())
}

async fn of_link(parts: &Parts, day: Day, (ad, impression): &(String, String)) -> anyhow::Result<Proof> {
    let id = EventId::new(gateway::link_event_id(EventKind::Click, ad, impression))?;
    Ok(prove(&parts.lake_root()?, &Settlements::new(parts.data_root()?), &id, (day, None)).await?)
}

//! Proofs: every event of a settled day is proven billed or not, from the manifest and its signature alone, and no proof
//! can be bent to say anything else.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reconcile::keys::Pin;
use reconcile::proof::{Proof, Statement};
use reconcile::prove::{find, prove};
use reconcile::settlements::Settlements;
use reconcile::verify::verify_proof;
use shared::id::EventId;
use shared::merkle::Hash256;
use shared::time::Day;
use shared::verdict::Verdict;

use crate::publish::clicks;
use crate::world::{DAY, Fact, World, event_id, signer};

/// More than two blocks of leaves, with every verdict among the events.
fn facts() -> Vec<Fact> {
    let verdict = |i: i64| Verdict::ALL[usize::try_from(i).unwrap() % (2 * Verdict::ALL.len()) / 2];
    let fact = |i: i64| {
        let click = Fact::click(i % 1_440, u8::try_from(i % 5).unwrap(), u8::try_from(i % 7).unwrap(), 1_000 + i);
        if i % 4 == 0 { click.with_verdict(verdict(i / 4)) } else { click }
    };
    (0..2_800).map(fact).collect()
}

async fn settled(facts: &[Fact]) -> World {
    let world = World::new();
    world.batch(DAY, 1, facts).await;
    world.run(DAY).await.unwrap();
    world
}

async fn proof(world: &World, id: &str, day: Day) -> Result<Proof, reconcile::Error> {
    let settlements = Settlements::new(world.data.clone());
    prove(&world.lake, &settlements, &EventId::new(id).unwrap(), (day, None)).await
}

/// What a receiver needs: the manifest and its signature.
fn receiver(world: &World) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["manifest.json", "manifest.sig"] {
        std::fs::copy(world.settlement(DAY, 1).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

fn holds(folder: &Path, proof: &Proof) -> bool {
    let verified = verify_proof(folder, proof, Some(&Pin::Key(signer().public_key()))).unwrap();
    verified.is_sound()
}

#[tokio::test]
async fn every_event_is_proven_billed_or_not_with_the_manifest_alone() {
    let facts = facts();
    let world = settled(&facts).await;
    let folder = receiver(&world);
    for i in (0..facts.len()).step_by(9) {
        let proof = proof(&world, &event_id(i), DAY).await.unwrap();
        assert!(holds(folder.path(), &proof), "{i}: {proof:?}");
        assert_eq!(proof.is_billed(), facts[i].verdict == Verdict::Billable, "{i}");
        if let Statement::Billed(billed) = &proof.proves {
            assert!(billed.body.contains(&format!("|{}|", facts[i].nanos)), "{}", billed.body);
            assert!(billed.path.len() <= 12, "log2 of 2,800 leaves");
        }
    }
    for id in ["nobody", "0", "zz"] {
        let proof = proof(&world, id, DAY).await.unwrap();
        assert!(!proof.is_billed() && holds(folder.path(), &proof), "{id}");
    }
}

#[tokio::test]
async fn a_day_of_few_leaves_or_none_has_proofs_too() {
    for n in 0..4 {
        let world = settled(&clicks(n)).await;
        let folder = receiver(&world);
        for i in 0..4 {
            for id in [event_id(i), format!("other-{i}")] {
                let proof = proof(&world, &id, DAY).await.unwrap();
                assert!(holds(folder.path(), &proof), "{n} leaves, {id}: {proof:?}");
                assert_eq!(proof.is_billed(), id == event_id(i) && i < usize::from(n));
            }
        }
    }
}

#[tokio::test]
async fn without_a_day_the_one_that_bills_is_found() {
    let world = settled(&clicks(3)).await;
    let settlements = Settlements::new(world.data.clone());
    let found = |id: &str| EventId::new(id).unwrap();
    assert!(find(&world.lake, &settlements, &found(&event_id(2))).await.unwrap().unwrap().is_billed());
    assert_eq!(find(&world.lake, &settlements, &found("nobody")).await.unwrap(), None);
    assert!(proof(&world, "nobody", DAY.plus(1)).await.is_err(), "that day is not settled");
}

#[tokio::test]
async fn a_proof_holds_for_its_own_settlement_only() {
    let world = settled(&clicks(20)).await;
    let first = receiver(&world);
    let proof_of_first = proof(&world, &event_id(3), DAY).await.unwrap();
    world.batch(DAY, 2, &clicks(21)).await;
    world.run(DAY).await.unwrap();
    let proof_of_second = proof(&world, &event_id(3), DAY).await.unwrap();
    let second = world.settlement(DAY, 2);
    assert!(holds(first.path(), &proof_of_first) && holds(&second, &proof_of_second));
    assert!(!holds(first.path(), &proof_of_second) && !holds(&second, &proof_of_first));
    let relabelled = Proof { version: 2, ..proof_of_first.clone() };
    assert!(!holds(&second, &relabelled), "the root is another");
    let settlements = Settlements::new(world.data.clone());
    let older = prove(&world.lake, &settlements, &proof_of_first.event_id, (DAY, Some(1))).await;
    assert_eq!(older.unwrap(), proof_of_first, "older versions stay provable");
}

#[tokio::test]
async fn a_proof_bent_in_any_way_is_none() {
    let facts = facts();
    let world = settled(&facts).await;
    let folder = receiver(&world);
    let billed = proof(&world, &event_id(1), DAY).await.unwrap();
    let absent = proof(&world, "nobody", DAY).await.unwrap();
    let other = EventId::new(event_id(2)).unwrap();
    assert!(!holds(folder.path(), &Proof { event_id: other.clone(), ..billed.clone() }), "another click's proof");
    assert!(!holds(folder.path(), &Proof { event_id: other, ..absent.clone() }), "a billed event is not absent");

    let strategy = (any::<bool>(), any::<prop::sample::Index>(), any::<[u8; 32]>(), 0..4_u8, 1..3_000_u64);
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let result = runner.run(&strategy, |(is_billed, at, hash, what, by)| {
        let mut bent = if is_billed { billed.clone() } else { absent.clone() };
        match &mut bent.proves {
            Statement::Billed(b) => match what {
                0 => b.index = (b.index + by) % 3_000,
                1 => b.body = b.body.replacen("|click|", "|impression|", 1),
                2 => b.path.push(Hash256(hash)),
                _ => *at.get_mut(b.path.as_mut_slice()) = Hash256(hash),
            },
            Statement::NotBilled(n) => {
                let (before, after) = (n.before.as_mut().unwrap(), n.after.as_mut().unwrap());
                match what {
                    0 => before.index = (before.index + by) % 3_000,
                    1 => after.key = Hash256(hash),
                    2 => n.before = None,
                    _ => *at.get_mut(after.path.as_mut_slice()) = Hash256(hash),
                }
            }
        }
        prop_assert!(!holds(folder.path(), &bent), "{bent:?}");
        Ok(())
    });
    result.unwrap();
}

#[tokio::test]
async fn silver_that_is_not_what_was_settled_gives_no_proof() {
    let world = World::new();
    let record = world.batch(DAY, 1, &facts()).await;
    world.run(DAY).await.unwrap();
    for table in ["silver/events", "gold/proof_blocks"] {
        let file = format!("{table}/{}", record.outputs[table].files[0].path);
        world.damage_lake_file(&file).await;
        for i in [1, 500, 1_500] {
            match proof(&world, &event_id(i), DAY).await {
                Ok(proof) => assert!(holds(&world.settlement(DAY, 1), &proof), "a block that was not hit"),
                Err(e) => assert_eq!(e.kind(), shared::error::ErrorKind::Corrupt, "{e}"),
            }
        }
    }
}

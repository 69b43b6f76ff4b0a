//! What `settlement verify` finds: everything.

use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reconcile::Signer;
use reconcile::keys::{ListedKey, Pin, PublicKeys, export};
use reconcile::manifest::Manifest;
use reconcile::settlements::Settlements;
use reconcile::verify::{Finding, Trust, verify, verify_as};
use sha2::{Digest, Sha256};

use crate::publish::{clicks, files};
use crate::world::{DAY, World, adjustment, signer};

type EditRows = fn(&mut Vec<String>);
type EditManifest = fn(&mut Manifest);

async fn settlement() -> World {
    let world = World::new();
    world.batch(DAY, 1, &clicks(5)).await;
    world.run(DAY).await.unwrap();
    world
}

/// The folder of a settlement as a receiver has it: taken away from the others.
async fn taken_away() -> tempfile::TempDir {
    copy_of(&settlement().await.settlement(DAY, 1))
}

/// The same of version 2: a line more, and two adjustments.
async fn restated() -> tempfile::TempDir {
    let world = settlement().await;
    world.batch(DAY, 2, &clicks(6)).await;
    world.adjust(&[adjustment("adj-1", DAY, 1, -700), adjustment("adj-2", DAY, 2, 3)]).await.unwrap();
    world.run(DAY).await.unwrap();
    copy_of(&world.settlement(DAY, 2))
}

fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in files(folder) {
        std::fs::write(copy.path().join(name), bytes).unwrap();
    }
    copy
}

fn findings(folder: &Path) -> Vec<Finding> {
    verify(folder).unwrap().findings
}

#[tokio::test]
async fn every_changed_byte_is_found_and_its_file_named() {
    let copy = restated().await;
    let folder = copy.path().to_owned();
    assert_eq!(findings(&folder), []);
    for (name, bytes) in files(&folder) {
        let path = folder.join(&name);
        // All bytes of the small files, every 11th of the manifest and the Parquet file; the bit differs each time.
        let step = if bytes.len() > 2_000 { 11 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            let findings = findings(&folder);
            let named = findings.iter().any(|f| f.file == name || f.file == "SHA256SUMS");
            assert!(named, "{name}, byte {at}: {findings:?}");
        }
        for changed in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), b"\n"].concat(), &[]] {
            std::fs::write(&path, changed).unwrap();
            assert_ne!(findings(&folder), [], "{name} with {} bytes", changed.len());
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(findings(&folder), []);
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn rewrite_csv(folder: &Path, edit: impl Fn(&mut Vec<String>)) {
    let path = folder.join("lines-0000.csv.gz");
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    edit(&mut lines);
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    gz.write_all((lines.join("\r\n") + "\r\n").as_bytes()).unwrap();
    std::fs::write(path, gz.finish().unwrap()).unwrap();
}

/// A careful forger: makes every checksum in the folder right again, and signs it, with a key of their own.
fn forge(folder: &Path, edit: impl Fn(&mut Manifest)) {
    let path = folder.join("manifest.json");
    let mut manifest = Manifest::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    for file in &mut manifest.files {
        let bytes = std::fs::read(folder.join(&file.path)).unwrap();
        (file.sha256, file.bytes) = (sha256(&bytes), bytes.len() as u64);
    }
    edit(&mut manifest);
    let bytes = manifest.to_bytes().unwrap();
    let signature = forger().sign(&bytes).to_bytes().unwrap();
    std::fs::write(folder.join("SHA256SUMS"), manifest.checksums(&bytes, &signature)).unwrap();
    std::fs::write(folder.join("manifest.sig"), signature).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn forger() -> Signer {
    Signer::from_seed(&[66; 32]).unwrap()
}

#[tokio::test]
async fn a_dropped_an_added_and_a_changed_row_are_named_even_behind_right_checksums() {
    let copy = taken_away().await;
    let folder = copy.path();
    let clean = files(folder);
    let cases: [(EditRows, &str); 4] = [
        (|lines| drop(lines.remove(2)), "lines-0000.csv.gz: it lacks row 2 of lines-0000.parquet"),
        (|lines| lines.push(lines[1].clone()), "lines-0000.csv.gz, row 6: it has the key of row 1"),
        (
            |lines| lines[3] = lines[3].replace(",EUR,", ",USD,"),
            "lines-0000.csv.gz, row 3: lines-0000.parquet has no such row",
        ),
        (|lines| lines[1] = lines[1].replace(",0.000002,", ",0.000003,"), "lines-0000.csv.gz, row 1: cost is"),
    ];
    for (edit, named) in cases {
        rewrite_csv(folder, edit);
        forge(folder, |_| ());
        let found = findings(folder);
        assert!(found.iter().any(|f| f.to_string().starts_with(named)), "{named}: {found:#?}");
        for (name, bytes) in &clean {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    assert_eq!(findings(folder), []);
}

#[tokio::test]
async fn every_number_of_the_manifest_is_held_against_the_lines() {
    let copy = restated().await;
    let folder = copy.path();
    let clean = files(folder);
    let edits: [(&str, EditManifest); 24] = [
        ("rowCount", |m| m.row_count += 1),
        ("content", |m| m.content_sha256 = "0".repeat(64)),
        ("cost_micros of a file", |m| *m.files[0].sum_cost_micros.values_mut().next().unwrap() += 1),
        ("rows of a file", |m| m.files[1].row_count += 1),
        ("total micros", |m| m.totals.values_mut().next().unwrap().cost_micros += 1),
        ("total nanos", |m| m.totals.values_mut().next().unwrap().cost_nanos += 1),
        ("verdicts", |m| *m.verdicts.get_mut("duplicate").unwrap() += 1),
        ("leaves", |m| m.merkle.leaves += 1),
        ("archived", |m| m.conservation.archived += 1),
        ("hours", |m| m.conservation.hours[2].archived += 1),
        ("capture", |m| m.conservation.capture[3].received += 1),
        ("partitions", |m| m.conservation.partitions[0].bad += 1),
        ("supersedes", |m| m.supersedes = Some(7)),
        ("sequence", |m| m.sequence = 0),
        ("order of files", |m| m.files.swap(0, 1)),
        ("columns", |m| drop(m.columns.pop())),
        ("what is due", |m| *m.due_micros.values_mut().next().unwrap() += 1),
        ("adjustments", |m| m.adjustments.row_count += 1),
        ("adjusted amount", |m| m.adjustments.totals.values_mut().next().unwrap().amount_micros += 1),
        ("rows of an attachment", |m| m.attachments[1].row_count += 1),
        ("no attachments", |m| m.attachments.clear()),
        ("nothing restated", |m| m.restatement = None),
        ("deltas", |m| m.restatement.as_mut().unwrap().deltas.values_mut().next().unwrap().cost_nanos += 1),
        ("totals before", |m| {
            m.restatement.as_mut().unwrap().previous_totals.values_mut().next().unwrap().clicks += 1;
        }),
    ];
    for (what, edit) in edits {
        forge(folder, edit);
        assert_ne!(findings(folder), [], "{what}");
        for (name, bytes) in &clean {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn missing_and_foreign_files_are_named() {
    let world = settlement().await;
    let folder = world.settlement(DAY, 1);
    std::fs::write(folder.join("lines-0001.csv.gz"), "x").unwrap();
    std::fs::create_dir(folder.join("more")).unwrap();
    std::fs::remove_file(folder.join("lines-0000.parquet")).unwrap();
    let found = findings(&folder);
    for name in ["lines-0001.csv.gz", "more", "lines-0000.parquet"] {
        assert!(found.iter().any(|f| f.file == name), "{name}: {found:?}");
    }
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    assert!(findings(&folder).iter().any(|f| f.file == "manifest.json"));
    assert!(verify(&folder.join("nowhere")).is_err());
}

#[tokio::test]
async fn a_folder_forged_with_another_key_is_refused_by_whoever_pins_ours() {
    let copy = taken_away().await;
    let (ours, folder) = (Pin::Key(signer().public_key()), copy.path());
    let verified = verify_as(folder, Some(&ours)).unwrap();
    assert!(verified.is_sound() && verified.warnings.is_empty(), "{:?}", verified.findings);
    assert_eq!(verified.signed_by.unwrap().trust, Trust::Pinned);

    forge(folder, |m| m.reason = "more".to_owned());
    let unpinned = verify(folder).unwrap();
    assert!(unpinned.is_sound() && !unpinned.warnings.is_empty(), "only the key can tell");
    assert_eq!(unpinned.signed_by.unwrap().trust, Trust::Claimed);
    let pinned = verify_as(folder, Some(&ours)).unwrap();
    assert!(pinned.findings.iter().any(|f| f.file == "manifest.sig" && f.what.contains("pinned")));
}

#[tokio::test]
async fn a_signature_of_another_manifest_is_none() {
    let copy = taken_away().await;
    let manifest = std::fs::read(copy.path().join("manifest.json")).unwrap();
    let other = [manifest.as_slice(), b" "].concat();
    for signature in [signer().sign(&other), Signer::from_seed(&[8; 32]).unwrap().sign(&other)] {
        std::fs::write(copy.path().join("manifest.sig"), signature.to_bytes().unwrap()).unwrap();
        let found = findings(copy.path());
        assert!(found.iter().any(|f| f.file == "manifest.sig" && f.what.contains("did not sign")), "{found:?}");
    }
    std::fs::remove_file(copy.path().join("manifest.sig")).unwrap();
    assert!(findings(copy.path()).iter().any(|f| f.file == "manifest.sig" && f.what.contains("nobody signed")));
}

#[tokio::test]
async fn a_folder_among_the_others_is_held_against_sequence_keys_and_what_it_supersedes() {
    let world = settlement().await;
    world.batch(DAY, 2, &clicks(6)).await;
    world.run(DAY).await.unwrap();
    let (folder, public_key) = (world.settlement(DAY, 2), signer().public_key());
    let listed = |from, revoked_from_sequence| ListedKey {
        key_id: public_key.id(),
        public_key,
        created_at: "2026-01-05T00:00:00Z".to_owned(),
        valid_from_sequence: from,
        revoked_from_sequence,
    };
    let settlements = Settlements::new(world.data.clone());
    for (key, good) in
        [(listed(1, None), true), (listed(2, Some(3)), true), (listed(3, None), false), (listed(1, Some(2)), false)]
    {
        export(&settlements, &PublicKeys { keys: vec![key] }).await.unwrap();
        let verified = verify(&folder).unwrap();
        assert_eq!(verified.is_sound(), good, "{:?}", verified.findings);
        assert_eq!(verified.signed_by.unwrap().trust == Trust::Listed, good);
    }
    export(&settlements, &PublicKeys { keys: vec![listed(1, None)] }).await.unwrap();
    assert_eq!(findings(&folder), []);

    let root = world.folder.path().join("settlement");
    let name = |n: u64| root.join(format!("sequence/{n:010}.json"));
    let claims = [1, 2].map(|n| std::fs::read(name(n)).unwrap());
    std::fs::write(name(2), &claims[0]).unwrap();
    assert!(
        findings(&folder).iter().any(|f| f.file == "sequence/0000000002.json" && f.what.contains("another manifest"))
    );
    std::fs::write(name(2), &claims[1]).unwrap();
    std::fs::remove_file(name(1)).unwrap();
    assert!(findings(&folder).iter().any(|f| f.what.contains("gap")));
    std::fs::write(name(1), &claims[0]).unwrap();
    std::fs::rename(world.settlement(DAY, 1), world.settlement(DAY, 3)).unwrap();
    assert!(findings(&folder).iter().any(|f| f.file == "../v=1/manifest.json"));
    assert!(findings(&world.settlement(DAY, 3)).iter().any(|f| f.what.contains("belongs in")));
}

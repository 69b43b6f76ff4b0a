//! What `settlement verify` finds: everything.

use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use reconcile::manifest::Manifest;
use reconcile::verify::{Finding, verify};
use sha2::{Digest, Sha256};

use crate::publish::{clicks, files};
use crate::world::{DAY, World};

type EditRows = fn(&mut Vec<String>);
type EditManifest = fn(&mut Manifest);

async fn settlement() -> World {
    let world = World::new();
    world.batch(DAY, 1, &clicks(5)).await;
    world.run(DAY).await.unwrap();
    world
}

fn findings(folder: &Path) -> Vec<Finding> {
    verify(folder).unwrap().findings
}

#[tokio::test]
async fn every_changed_byte_is_found_and_its_file_named() {
    let world = settlement().await;
    let folder = world.settlement(DAY, 1);
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

/// A careful forger: makes every checksum in the folder right again.
fn forge(folder: &Path, edit: impl Fn(&mut Manifest)) {
    let path = folder.join("manifest.json");
    let mut manifest = Manifest::from_bytes(&std::fs::read(&path).unwrap()).unwrap();
    for file in &mut manifest.files {
        let bytes = std::fs::read(folder.join(&file.path)).unwrap();
        (file.sha256, file.bytes) = (sha256(&bytes), bytes.len() as u64);
    }
    edit(&mut manifest);
    let bytes = manifest.to_bytes().unwrap();
    std::fs::write(folder.join("SHA256SUMS"), manifest.checksums(&sha256(&bytes))).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_dropped_an_added_and_a_changed_row_are_named_even_behind_right_checksums() {
    let world = settlement().await;
    let folder = world.settlement(DAY, 1);
    let clean = files(&folder);
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
        rewrite_csv(&folder, edit);
        forge(&folder, |_| ());
        let found = findings(&folder);
        assert!(found.iter().any(|f| f.to_string().starts_with(named)), "{named}: {found:#?}");
        for (name, bytes) in &clean {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    assert_eq!(findings(&folder), []);
}

#[tokio::test]
async fn every_number_of_the_manifest_is_held_against_the_lines() {
    let world = settlement().await;
    let folder = world.settlement(DAY, 1);
    let clean = files(&folder);
    let edits: [(&str, EditManifest); 14] = [
        ("rowCount", |m| m.row_count += 1),
        ("content", |m| m.content_sha256 = "0".repeat(64)),
        ("cost_micros of a file", |m| *m.files[0].sum_cost_micros.values_mut().next().unwrap() += 1),
        ("rows of a file", |m| m.files[1].row_count += 1),
        ("total micros", |m| m.totals.values_mut().next().unwrap().cost_micros += 1),
        ("total nanos", |m| m.totals.values_mut().next().unwrap().cost_nanos += 1),
        ("verdicts", |m| *m.verdicts.get_mut("duplicate").unwrap() += 1),
        ("archived", |m| m.conservation.archived += 1),
        ("hours", |m| m.conservation.hours[2].archived += 1),
        ("partitions", |m| m.conservation.partitions[0].bad += 1),
        ("supersedes", |m| m.supersedes = Some(7)),
        ("sequence", |m| m.sequence = 0),
        ("order of files", |m| m.files.swap(0, 1)),
        ("columns", |m| drop(m.columns.pop())),
    ];
    for (what, edit) in edits {
        forge(&folder, edit);
        assert_ne!(findings(&folder), [], "{what}");
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

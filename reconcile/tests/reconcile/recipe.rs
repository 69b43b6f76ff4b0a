//! The recipe in docs/settlement.md, run as a receiver would run it.

use std::path::Path;
use std::process::{Command, Output};

use crate::publish::clicks;
use crate::world::{DAY, World};

fn recipe() -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settlement.md")).unwrap();
    let start = text.find("```python\n").unwrap() + "```python\n".len();
    let end = text[start..].find("```").unwrap() + start;
    text[start..end].to_owned()
}

fn python(folder: &Path) -> Output {
    Command::new("python3").arg("-c").arg(recipe()).arg(folder).output().unwrap()
}

#[tokio::test]
async fn the_python_recipe_accepts_a_settlement_and_refuses_a_changed_one() {
    let mut world = World::new();
    world.settings.rows_per_file = 4;
    world.batch(DAY, 1, &clicks(9)).await;
    world.run(DAY).await.unwrap();
    let folder = world.settlement(DAY, 1);
    let sound = python(&folder);
    assert!(sound.status.success(), "{sound:?}");

    let sums = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder).output();
    assert!(sums.unwrap().status.success(), "coreutils cannot check SHA256SUMS");

    for name in ["lines-0001.csv.gz", "lines-0000.parquet", "manifest.json", "SHA256SUMS"] {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let refused = python(&folder);
        assert!(!refused.status.success(), "{name}: {refused:?}");
        std::fs::write(&path, bytes).unwrap();
    }
}

//! The recipe in docs/settlement.md, run as a receiver would run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use reconcile::prove::prove;
use reconcile::settlements::Settlements;
use shared::id::EventId;

use crate::publish::clicks;
use crate::world::{DAY, World, adjustment, event_id, signer};

/// The nth recipe.
fn recipe(n: usize) -> String {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settlement.md")).unwrap();
    let (recipe, _) = text.split("```python\n").nth(n).unwrap().split_once("```").unwrap();
    recipe.to_owned()
}

#[test]
fn the_recipe_for_a_settlement_has_twenty_lines() {
    assert_eq!(recipe(1).lines().count(), 20);
}

/// The Python with the recipe's one package: that of the oracle, made once though tests run side by side.
fn interpreter() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(make_interpreter)
}

fn make_interpreter() -> PathBuf {
    if let Some(path) = std::env::var_os("CLICKLEDGER_PYTHON") {
        return path.into();
    }
    let make = ". tests/oracle/venv.sh && printf %s \"$CLICKLEDGER_PYTHON\"";
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let made = Command::new("bash").args(["-c", make]).current_dir(root).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().lines().last().unwrap_or_default().into()
}

fn python(recipe: &str, folder: &Path, argument: &str) -> Output {
    Command::new(interpreter()).arg("-c").arg(recipe).arg(folder).arg(argument).output().unwrap()
}

fn settlement(folder: &Path, key: &str) -> Output {
    python(&recipe(1), folder, key)
}

fn proven(folder: &Path, proof: &Path) -> Output {
    python(&recipe(2), folder, proof.to_str().unwrap())
}

async fn settled() -> (World, PathBuf, String) {
    let mut world = World::new();
    world.settings.rows_per_file = 4;
    world.batch(DAY, 1, &clicks(9)).await;
    world.adjust(&[adjustment("adj-1", DAY, 1, -5)]).await.unwrap();
    world.run(DAY).await.unwrap();
    let folder = world.settlement(DAY, 1);
    (world, folder, signer().public_key().to_string())
}

#[tokio::test]
async fn the_python_recipe_accepts_a_settlement_and_refuses_a_changed_one() {
    let (_world, folder, key) = settled().await;
    let sound = settlement(&folder, &key);
    assert!(sound.status.success(), "{sound:?}");
    let other = reconcile::Signer::from_seed(&[66; 32]).unwrap().public_key().to_string();
    assert!(!settlement(&folder, &other).status.success(), "another key");

    let sums = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder).output();
    assert!(sums.unwrap().status.success(), "coreutils cannot check SHA256SUMS");

    for name in ["lines-0001.csv.gz", "lines-0000.parquet", "adjustments.csv", "manifest.json", "manifest.sig"] {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let refused = settlement(&folder, &key);
        assert!(!refused.status.success(), "{name}: {refused:?}");
        std::fs::write(&path, bytes).unwrap();
    }
}

#[tokio::test]
async fn the_python_recipe_accepts_a_proof_and_refuses_a_bent_one() {
    let (world, folder, _) = settled().await;
    let settlements = Settlements::new(world.data.clone());
    let path = world.folder.path().join("proof.json");
    let unknown = (0..9).map(|i| format!("unknown-{i}"));
    for (i, id) in (0..9).map(event_id).chain(unknown).enumerate() {
        let id = EventId::new(id).unwrap();
        let proof = prove(&world.lake, &settlements, &id, (DAY, None)).await.unwrap();
        assert_eq!(proof.is_billed(), i < 9);
        let text = serde_json::to_string(&proof).unwrap();
        std::fs::write(&path, &text).unwrap();
        let accepted = proven(&folder, &path);
        assert!(accepted.status.success(), "{i}: {accepted:?}");
        let said = String::from_utf8(accepted.stdout).unwrap();
        assert_eq!(said.contains("not billed"), i >= 9, "{said}");
        // Another type, another event, another place: of a neighbour, where the event is not billed.
        let bent = if i < 9 {
            [text.replace("|click|", "|impression|"), text.replace(id.as_str(), "event-99")]
        } else {
            [text.replace("\"key\":\"", "\"key\":\"00"), text.replace(id.as_str(), &event_id(1))]
        };
        for bent in bent {
            assert_ne!(bent, text);
            std::fs::write(&path, bent).unwrap();
            assert!(!proven(&folder, &path).status.success(), "{i}");
        }
    }
}

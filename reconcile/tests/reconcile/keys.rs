//! Settlement keys: which one signs, what receivers are told, and what the file keeps to itself.

use reconcile::keys::{KeyError, KeyFile, Pin, PublicKeys};
use reconcile::{PublicKey, Signer};
use shared::time::Timestamp;

const NOW: Timestamp = Timestamp(1_767_571_200_000_000);

fn file() -> (tempfile::TempDir, KeyFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::new(folder.path().join("keys/settlement_keys.json"));
    (folder, file)
}

fn signing(file: &KeyFile) -> Option<PublicKey> {
    file.load().unwrap().signer().map(|s| s.public_key())
}

#[test]
fn the_newest_key_that_is_not_revoked_signs() {
    let (_folder, file) = file();
    assert_eq!(signing(&file), None);
    let first = file.edit(|keys| keys.create([1; 32], NOW, 1)).unwrap();
    assert_eq!(signing(&file), Some(first.public_key));
    let again = file.edit(|keys| keys.create([2; 32], NOW, 4));
    assert!(matches!(again, Err(KeyError::Exists(id)) if id == first.key_id));
    let second = file.edit(|keys| keys.rotate([2; 32], NOW, 4)).unwrap();
    assert_eq!(signing(&file), Some(second.public_key));
    assert!(file.edit(|keys| keys.revoke(&second.key_id, 7)).unwrap());
    assert!(!file.edit(|keys| keys.revoke(&second.key_id, 9)).unwrap(), "it was revoked before");
    assert_eq!(signing(&file), Some(first.public_key));
    assert!(file.edit(|keys| keys.revoke(&first.key_id, 8)).unwrap());
    assert_eq!(signing(&file), None);
    assert!(matches!(file.edit(|keys| keys.revoke("nobody", 8)), Err(KeyError::Unknown(_))));

    let listed = file.load().unwrap().public();
    let covered = |key: &PublicKey| (1..=10).filter(|n| listed.covers(key, *n)).collect::<Vec<u64>>();
    assert_eq!((covered(&first.public_key), covered(&second.public_key)), ((1..8).collect(), (4..7).collect()));
    let stranger = Signer::from_seed(&[3; 32]).unwrap().public_key();
    assert!(covered(&stranger).is_empty() && !Pin::List(listed).covers(&stranger, 5));
    assert!(Pin::Key(stranger).covers(&stranger, 5));
}

#[test]
fn the_file_is_its_owners_and_no_answer_shows_a_secret() {
    let (folder, file) = file();
    file.edit(|keys| keys.create([1; 32], NOW, 1)).unwrap();
    let path = folder.path().join("keys/settlement_keys.json");
    let secret = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [1_u8; 32]);
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(stored.contains(&secret));
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o600
    );
    let keys = file.load().unwrap();
    let shown = [format!("{keys:?} {:?}", keys.signer()), serde_json::to_string(&keys.public()).unwrap()].concat();
    assert!(!shown.contains(&secret) && !shown.contains("[1, 1"), "{shown}");

    std::fs::write(&path, stored.replace("\"seed\"", "\"sead\"")).unwrap();
    let error = file.load().unwrap_err().to_string();
    assert!(error.contains("line") && !error.contains(&secret), "{error}");
    assert!(file.edit(|keys| keys.rotate([2; 32], NOW, 2)).is_err(), "a file we do not understand is not replaced");
}

#[test]
fn a_public_key_reads_back_and_other_text_is_none() {
    let key = Signer::from_seed(&[9; 32]).unwrap().public_key();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert_eq!(key.id().len(), 16);
    for text in ["", "abc", "AAAA", &key.to_string()[..43]] {
        assert!(text.parse::<PublicKey>().is_err(), "{text}");
    }
    let list = PublicKeys::default();
    assert_eq!(serde_json::from_str::<PublicKeys>(&serde_json::to_string(&list).unwrap()).unwrap(), list);
}

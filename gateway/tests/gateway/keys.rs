//! Signing keys: rotation, retirement, the file.

use gateway::keys::{KeyError, KeyRing, KeyStatus, SigningKeys};
use gateway::signature::{Fault, LinkClaims, Signed, Validity};
use shared::error::ErrorKind;
use shared::time::{DAY, HOUR};

use crate::support::*;

fn verify(keys: &SigningKeys, claims: &LinkClaims<'_>, key_id: Option<&str>, signature: &str) -> Result<(), Fault> {
    let validity = Validity { now: NOW, max_ahead: DAY };
    keys.verify(Some(signature), key_id, |k| claims.canonical(k), claims.expires_at, validity)
}

#[test]
fn links_signed_before_a_rotation_hold_after_it_and_not_after_the_next() {
    let mut keys = SigningKeys::default();
    let claims = link("ad-1", "imp-1");
    assert_eq!(keys.sign_link(&claims), None);
    keys.create(id("k1"), [1; 32], NOW).unwrap();
    let Signed { key_id, signature } = keys.sign_link(&claims).unwrap();
    for (next, expected) in [("k2", Ok(())), ("k3", Err(Fault::UnknownKey))] {
        keys.rotate(id(next), [next.as_bytes()[1]; 32], NOW).unwrap();
        assert_eq!(verify(&keys, &claims, Some(&key_id), &signature), expected, "after {next}");
        assert_eq!(keys.sign_link(&claims).unwrap().key_id, next);
    }
    keys.revoke(&id("k2")).unwrap();
    let active: Vec<&str> =
        keys.keys().iter().filter(|k| k.status == KeyStatus::Active).map(|k| k.id.as_str()).collect();
    assert_eq!(active, ["k3"]);
    assert!(matches!(keys.create(id("k1"), [9; 32], NOW), Err(KeyError::Taken(_))));
    assert!(matches!(keys.revoke(&id("k9")), Err(KeyError::Unknown(_))));
    keys.create(id("k4"), [4; 32], NOW).unwrap();
    assert!(matches!(keys.create(id("k5"), [5; 32], NOW), Err(KeyError::TooMany)));
}

#[test]
fn without_a_key_id_either_active_key_will_do() {
    use base64::Engine;
    use hmac::{Hmac, KeyInit, Mac};
    let keys = signing_keys();
    let claims = link("ad-1", "imp-1");
    for (secret, holds) in [([7; 32], true), ([8; 32], true), ([9; 32], false)] {
        // Signed by hand, from the published rule alone.
        let text = format!("v1||ad-1|imp-1|{}", NOW.plus(HOUR).0 / 1_000_000);
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        mac.update(text.as_bytes());
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        assert_eq!(verify(&keys, &claims, None, &signature).is_ok(), holds);
    }
}

#[test]
fn only_one_way_of_writing_a_signature_is_taken() {
    let keys = signing_keys();
    let claims = link("ad-1", "imp-1");
    let Signed { key_id, signature } = keys.sign_link(&claims).unwrap();
    assert_eq!(verify(&keys, &claims, Some(&key_id), &signature), Ok(()));
    let (start, last) = signature.split_at(signature.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for other in alphabet.chars().filter(|c| last != c.to_string()) {
        // Some of these decode to the same bytes with other unused bits.
        assert!(verify(&keys, &claims, Some(&key_id), &format!("{start}{other}")).is_err());
    }
    for other in ["", "=", " ", "\n"] {
        let other = format!("{signature}{other}");
        assert_eq!(verify(&keys, &claims, Some(&key_id), &other).is_ok(), other == signature);
    }
    assert_eq!(verify(&keys, &claims, Some(""), &signature), Err(Fault::UnknownKey));
    assert_eq!(verify(&keys, &claims, Some(&key_id), ""), Err(Fault::Mismatch));
}

#[test]
fn the_file_is_private_and_reads_back_and_secrets_do_not_print() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/signing_keys.json");
    let keys = signing_keys();
    keys.save(&path).unwrap();
    keys.save(&path).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let read = SigningKeys::load(&path).unwrap();
    let claims = link("ad-1", "imp-1");
    assert_eq!(read.sign_link(&claims), keys.sign_link(&claims));
    let text = std::fs::read_to_string(&path).unwrap();
    let secret = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg"; // 32 times 8
    assert!(text.contains(secret));
    assert!(!format!("{read:?}").contains(secret) && !format!("{read:?}").contains("8, 8"));
    std::fs::write(&path, text.replace(secret, "c2hvcnQ")).unwrap();
    let error = SigningKeys::load(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!error.to_string().contains("c2hvcnQ"));
    assert!(SigningKeys::load(&folder.path().join("none.json")).unwrap().keys().is_empty());
}

#[test]
fn a_key_ring_follows_its_file_and_keeps_what_it_has_when_the_new_one_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing_keys.json");
    let ring = KeyRing::open(&path).unwrap();
    assert!(ring.current().keys().is_empty() && !ring.refresh().unwrap());
    signing_keys().save(&path).unwrap();
    assert!(ring.refresh().unwrap() && !ring.refresh().unwrap());
    std::fs::write(&path, "{\"keys\": [").unwrap();
    assert!(ring.refresh().is_err());
    assert_eq!(ring.current().keys().len(), 2);
}

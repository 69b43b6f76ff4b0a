//! API keys: `cl_<id>_<secret>`, each for one tenant and some scopes. The file knows only SHA-256 hashes.
//! Guarantees: a key's text is shown once, when it is made; hashes are compared in constant time; the file is
//! replaced whole and synced, so a crash leaves the old or the new one; two editors wait for each other.
//! Never: prints or stores a secret, deletes a key's record.
//!
//! A secret is 256 random bits, so a plain hash is enough: there is nothing to guess.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::id::AdvertiserId;
use shared::private_file;
use shared::time::Timestamp;

use crate::error::KeysError;

/// Random bytes that make one key: 6 for the id, 32 for the secret.
pub const KEY_RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
const PREFIX: &str = "cl_";
/// A key's text is shorter than this; longer ones are not looked at.
const MAX_TEXT_BYTES: usize = 128;

/// Whose data a key shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tenant {
    /// Everybody's: the operator. Written `*`.
    Operator,
    /// One advertiser's.
    Advertiser(AdvertiserId),
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("*"),
            Self::Advertiser(id) => id.fmt(f),
        }
    }
}

impl std::str::FromStr for Tenant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Operator),
            id => AdvertiserId::new(id).map(Self::Advertiser).map_err(|e| format!("{e}; or * for all tenants")),
        }
    }
}

impl TryFrom<String> for Tenant {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.to_string()
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Reports, drift, the live stream and the dashboard.
    Reports,
    /// Settlement files (they hold all tenants, so the key must also be the operator's).
    Settlement,
    /// The state of the pipeline and its metrics.
    Ops,
    /// Signed links: `POST /v1/impressions` at the gateway.
    Sign,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Reports, Self::Settlement, Self::Ops, Self::Sign];

    /// The word used in files and commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reports => "reports",
            Self::Settlement => "settlement",
            Self::Ops => "ops",
            Self::Sign => "sign",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|s| s.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is not a scope: use reports, settlement, ops or sign"))
    }
}

/// Whether a key opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStatus {
    /// It does.
    Active,
    /// It does not any more.
    Revoked,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiKey {
    /// Its public part.
    pub id: String,
    /// SHA-256 of the whole text, lower-case hex.
    sha256: String,
    /// Whose data it shows.
    pub tenant: Tenant,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Whether it opens anything.
    pub status: KeyStatus,
    /// When it was made, UTC microseconds.
    pub created_at: Timestamp,
}

/// A key as it is shown, once, to whoever asked for it.
pub struct NewKey {
    /// Its public part.
    pub id: String,
    /// The whole text: a secret.
    pub text: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewKey({}, secret)", self.id)
    }
}

/// All keys: a value. [`ApiKeyFile`] loads and stores it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
}

impl ApiKeys {
    /// Every key, oldest first, revoked ones too.
    #[must_use]
    pub fn list(&self) -> &[ApiKey] {
        &self.keys
    }

    /// Makes a key out of `random`, which must come from a cryptographic generator.
    pub fn create(
        &mut self,
        random: [u8; KEY_RANDOM_BYTES],
        tenant: Tenant,
        scopes: BTreeSet<Scope>,
        now: Timestamp,
    ) -> NewKey {
        let (id, secret) = random.split_at(ID_BYTES);
        let id = hex(id);
        let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let sha256 = hex(&Sha256::digest(text.as_bytes()));
        self.keys.push(ApiKey { id: id.clone(), sha256, tenant, scopes, status: KeyStatus::Active, created_at: now });
        NewKey { id, text }
    }

    /// Makes a key with the tenant and scopes of `id`. The old one stays active until it is revoked, so that its
    /// user can change over without a gap.
    ///
    /// # Errors
    /// [`KeysError::Unknown`].
    pub fn rotate(&mut self, id: &str, random: [u8; KEY_RANDOM_BYTES], now: Timestamp) -> Result<NewKey, KeysError> {
        let old = self.keys.iter().find(|k| k.id == id).ok_or_else(|| KeysError::Unknown(id.to_owned()))?;
        let (tenant, scopes) = (old.tenant.clone(), old.scopes.clone());
        Ok(self.create(random, tenant, scopes, now))
    }

    /// Ends a key; says whether it was active.
    ///
    /// # Errors
    /// [`KeysError::Unknown`].
    pub fn revoke(&mut self, id: &str) -> Result<bool, KeysError> {
        let key = self.keys.iter_mut().find(|k| k.id == id).ok_or_else(|| KeysError::Unknown(id.to_owned()))?;
        let was_active = key.status == KeyStatus::Active;
        key.status = KeyStatus::Revoked;
        Ok(was_active)
    }

    /// The active key with this text.
    #[must_use]
    pub fn verify(&self, text: &str) -> Option<&ApiKey> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let hash = hex(&Sha256::digest(text.as_bytes()));
        let key = self.keys.iter().find(|k| k.id == id)?;
        (same(key.sha256.as_bytes(), hash.as_bytes()) && key.status == KeyStatus::Active).then_some(key)
    }

    /// Whether the key with this id is still active.
    #[must_use]
    pub fn is_active(&self, id: &str) -> bool {
        self.keys.iter().any(|k| k.id == id && k.status == KeyStatus::Active)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Equality that takes as long for any two texts of one length.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0_u8, |d, (x, y)| std::hint::black_box(d | (x ^ y)));
    a.len() == b.len() && difference == 0
}

/// Where the keys are kept.
#[derive(Debug, Clone)]
pub struct ApiKeyFile {
    path: PathBuf,
}

impl ApiKeyFile {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The keys in the file; none while there is no file. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read or is something else.
    pub fn load(&self) -> Result<ApiKeys, KeysError> {
        let Some(bytes) = private_file::read(&self.path)? else { return Ok(ApiKeys::default()) };
        let corrupt = |e: serde_json::Error| KeysError::Corrupt { path: self.path.clone(), why: e.to_string() };
        serde_json::from_slice(&bytes).map_err(corrupt)
    }

    /// Loads, changes and stores the keys while no other editor does. Blocks.
    ///
    /// # Errors
    /// Those of the file, or of `change`: then nothing is stored.
    pub fn edit<T>(&self, change: impl FnOnce(&mut ApiKeys) -> Result<T, KeysError>) -> Result<T, KeysError> {
        let _lock = private_file::lock(&self.path)?;
        let mut keys = self.load()?;
        let done = change(&mut keys)?;
        private_file::replace(&self.path, &keys)?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: u8) -> [u8; KEY_RANDOM_BYTES] {
        std::array::from_fn(|i| seed.wrapping_mul(31).wrapping_add(u8::try_from(i).unwrap()))
    }

    fn reports() -> BTreeSet<Scope> {
        BTreeSet::from([Scope::Reports])
    }

    #[test]
    fn a_key_opens_until_it_is_revoked_and_its_rotation_goes_on() {
        let mut keys = ApiKeys::default();
        let tenant: Tenant = "adv-1".parse().unwrap();
        let old = keys.create(random(1), tenant.clone(), reports(), Timestamp(1));
        assert_eq!(keys.verify(&old.text).unwrap().tenant, tenant);
        let new = keys.rotate(&old.id, random(2), Timestamp(2)).unwrap();
        assert!(keys.verify(&old.text).is_some(), "both work while the user changes over");
        assert!(keys.revoke(&old.id).unwrap());
        assert!(!keys.revoke(&old.id).unwrap());
        assert!(keys.verify(&old.text).is_none() && !keys.is_active(&old.id));
        assert_eq!(keys.verify(&new.text).unwrap().scopes, reports());
        assert!(matches!(keys.revoke("nope"), Err(KeysError::Unknown(_))));
        assert!(matches!(keys.rotate("nope", random(3), Timestamp(3)), Err(KeysError::Unknown(_))));
    }

    proptest! {
        #[test]
        fn no_other_text_opens(place in 0_usize..59, flip in 1_u8..128, tail in ".{0,200}") {
            let mut keys = ApiKeys::default();
            let key = keys.create(random(7), Tenant::Operator, reports(), Timestamp(1));
            let mut bytes = key.text.clone().into_bytes();
            bytes[place % key.text.len()] ^= flip;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(keys.verify(&text).is_none(), "{}", text);
            }
            prop_assert!(keys.verify(&tail).is_none());
            prop_assert_eq!(keys.verify(&format!("{}{tail}", key.text)).is_some(), tail.is_empty());
        }
    }

    #[test]
    fn the_file_holds_no_secret_is_private_and_edits_do_not_lose_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = ApiKeyFile::new(folder.path().join("keys/api_keys.json"));
        assert!(file.load().unwrap().list().is_empty());
        let editors: Vec<_> = (0..8)
            .map(|n| {
                let file = file.clone();
                let tenant = Tenant::Operator;
                let make = move |keys: &mut ApiKeys| Ok(keys.create(random(n), tenant, reports(), Timestamp(1)));
                std::thread::spawn(move || file.edit(make).unwrap().text)
            })
            .collect();
        let texts: Vec<String> = editors.into_iter().map(|e| e.join().unwrap()).collect();
        let keys = file.load().unwrap();
        assert!(texts.iter().all(|t| keys.verify(t).is_some()), "every editor's key is there");
        let stored = std::fs::read_to_string(folder.path().join("keys/api_keys.json")).unwrap();
        for text in &texts {
            let secret = text.splitn(3, '_').nth(2).unwrap();
            assert!(!stored.contains(secret));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("keys/api_keys.json")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let refused = file.edit(|keys| keys.revoke("nope"));
        assert!(refused.is_err() && file.load().unwrap() == keys, "a refused change stores nothing");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api_keys.json");
        for damaged in ["", "{\"keys\":[{}]}", "[]", "{\"keys\":[],\"more\":1}"] {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(ApiKeyFile::new(&path).load(), Err(KeysError::Corrupt { .. })), "{damaged:?}");
        }
    }
}

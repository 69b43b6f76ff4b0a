//! Settlement keys: the private file they live in, how they come and go, and the public list that receivers take
//! (`settlement/keys.json`). The newest key that is not revoked signs; older ones stay good for what they signed.
//! Guarantee: one editor at a time; the file is replaced whole and only its owner may read it.
//! On crash: the old file or the new one; the public list is written anew from it by whoever signs next.
//! Never: shows a secret; says in an error what a file holds.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use shared::error::ErrorKind;
use shared::private_file::{self, FileError};
use shared::time::Timestamp;

use crate::error::Error;
use crate::sequence;
use crate::settlements::{FOLDER, Settlements};
use crate::signature::{NotAKey, PublicKey, Signer};

/// The public list, beside the settlements.
pub const PUBLIC_KEYS: &str = "keys.json";

/// An operation on keys failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is a key that signs already.
    #[error("settlement key {0} signs already: rotate it")]
    Exists(String),
    /// The seed makes no key.
    #[error(transparent)]
    Seed(#[from] NotAKey),
    /// No such key.
    #[error("there is no settlement key {0}")]
    Unknown(String),
    /// The file does not read as keys.
    #[error("{path} is not a settlement key file: line {line}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it stops to be one.
        line: usize,
    },
    /// The disk said no.
    #[error(transparent)]
    Io(#[from] FileError),
}

impl KeyError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists(_) | Self::Seed(_) | Self::Unknown(_) | Self::Malformed { .. } => ErrorKind::Invalid,
            Self::Io(error) => error.kind(),
        }
    }
}

/// A key as receivers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListedKey {
    /// [`PublicKey::id`].
    pub key_id: String,
    /// The key.
    pub public_key: PublicKey,
    /// When it was made.
    pub created_at: String,
    /// The first settlement it may sign.
    pub valid_from_sequence: u64,
    /// The first settlement it may not sign any more; absent while it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_from_sequence: Option<u64>,
}

impl ListedKey {
    /// Whether it may have signed the settlement with this number.
    #[must_use]
    pub fn covers(&self, sequence: u64) -> bool {
        self.valid_from_sequence <= sequence && self.revoked_from_sequence.is_none_or(|end| sequence < end)
    }
}

/// The public list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKeys {
    /// Every key there ever was, oldest first.
    pub keys: Vec<ListedKey>,
}

impl PublicKeys {
    /// Whether `key` stands in the list and may have signed the settlement with this number.
    #[must_use]
    pub fn covers(&self, key: &PublicKey, sequence: u64) -> bool {
        self.keys.iter().any(|listed| listed.public_key == *key && listed.covers(sequence))
    }
}

/// What a receiver trusts, because they got it from us by another way than the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// One key, for every settlement.
    Key(PublicKey),
    /// A list, each key for its settlements.
    List(PublicKeys),
}

impl Pin {
    /// Whether `key` may have signed the settlement with this number.
    #[must_use]
    pub fn covers(&self, key: &PublicKey, sequence: u64) -> bool {
        match self {
            Self::Key(pinned) => pinned == key,
            Self::List(list) => list.covers(key, sequence),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    listed: ListedKey,
    /// 32 bytes in base64.
    seed: Seed,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Seed([u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}

impl TryFrom<String> for Seed {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).ok().and_then(|b| b.try_into().ok());
        bytes.map(Self).ok_or("a seed is 32 bytes in base64")
    }
}

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        STANDARD.encode(seed.0)
    }
}

/// All settlement keys, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettlementKeys {
    keys: Vec<StoredKey>,
}

impl SettlementKeys {
    /// What receivers may see.
    #[must_use]
    pub fn public(&self) -> PublicKeys {
        PublicKeys { keys: self.keys.iter().map(|k| k.listed.clone()).collect() }
    }

    /// The key that signs.
    #[must_use]
    pub fn signer(&self) -> Option<Signer> {
        let standing = self.keys.iter().rfind(|k| k.listed.revoked_from_sequence.is_none());
        standing.and_then(|k| Signer::from_seed(&k.seed.0).ok())
    }

    /// Adds the first key, from a seed out of a cryptographic generator, for settlements from `sequence` on.
    ///
    /// # Errors
    /// [`KeyError::Exists`] while one signs.
    pub fn create(&mut self, seed: [u8; 32], now: Timestamp, sequence: u64) -> Result<ListedKey, KeyError> {
        match self.signer() {
            Some(signer) => Err(KeyError::Exists(signer.public_key().id())),
            None => self.rotate(seed, now, sequence),
        }
    }

    /// Adds a key that signs from settlement `sequence` on.
    ///
    /// # Errors
    /// [`KeyError::Seed`].
    pub fn rotate(&mut self, seed: [u8; 32], now: Timestamp, sequence: u64) -> Result<ListedKey, KeyError> {
        let public_key = Signer::from_seed(&seed)?.public_key();
        let listed = ListedKey {
            key_id: public_key.id(),
            public_key,
            created_at: now.to_string(),
            valid_from_sequence: sequence,
            revoked_from_sequence: None,
        };
        self.keys.push(StoredKey { listed: listed.clone(), seed: Seed(seed) });
        Ok(listed)
    }

    /// Ends a key: it may not have signed settlement `sequence` or a later one. Says whether it stood.
    ///
    /// # Errors
    /// [`KeyError::Unknown`].
    pub fn revoke(&mut self, key_id: &str, sequence: u64) -> Result<bool, KeyError> {
        let key = self.keys.iter_mut().find(|k| k.listed.key_id == key_id);
        let listed = &mut key.ok_or_else(|| KeyError::Unknown(key_id.to_owned()))?.listed;
        let stood = listed.revoked_from_sequence.is_none();
        listed.revoked_from_sequence.get_or_insert(sequence);
        Ok(stood)
    }
}

/// Where the keys are kept.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The file at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The keys in the file; none while there is no file. Blocks.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::Io`].
    pub fn load(&self) -> Result<SettlementKeys, KeyError> {
        match private_file::read(&self.path)? {
            // serde's own message may quote the content, so only the place is told.
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| KeyError::Malformed { path: self.path.clone(), line: e.line() }),
            None => Ok(SettlementKeys::default()),
        }
    }

    /// Loads, changes and stores the keys while no other editor does. Blocks.
    ///
    /// # Errors
    /// Those of the file, or of `change`: then nothing is stored.
    pub fn edit<T>(&self, change: impl FnOnce(&mut SettlementKeys) -> Result<T, KeyError>) -> Result<T, KeyError> {
        let _lock = private_file::lock(&self.path)?;
        let mut keys = self.load()?;
        let done = change(&mut keys)?;
        private_file::replace(&self.path, &keys)?;
        Ok(done)
    }
}

/// The number of the settlement that comes next.
///
/// # Errors
/// [`Error::Objects`].
pub async fn next_sequence(settlements: &Settlements) -> Result<u64, Error> {
    Ok(sequence::newest(settlements).await? + 1)
}

/// Writes the public list where it is another.
///
/// # Errors
/// [`Error::Objects`].
pub async fn export(settlements: &Settlements, keys: &PublicKeys) -> Result<(), Error> {
    let name = format!("{FOLDER}/{PUBLIC_KEYS}");
    let mut bytes = serde_json::to_vec_pretty(keys).map_err(|e| Error::damaged(&name, e))?;
    bytes.push(b'\n');
    match settlements.read(&name).await? {
        Some(found) if found == bytes => Ok(()),
        _ => sequence::put(settlements, &name, bytes.into()).await,
    }
}

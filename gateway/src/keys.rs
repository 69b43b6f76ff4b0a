//! Signing keys: the file they live in and how they come and go.
//! At most two are active, so that links signed before a rotation still count after it.
//! The file is `{"keys": [{"id", "secret" (base64url, 32 bytes), "status", "createdAt"}]}`, oldest first, mode 0600,
//! replaced atomically. Randomness comes in as a parameter. Never: prints a secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use shared::error::ErrorKind;
use shared::id::RefId;
use shared::private_file::{self, FileError};
use shared::time::Timestamp;

/// The most keys that verify at once.
pub const MAX_ACTIVE_KEYS: usize = 2;

/// Whether a key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStatus {
    /// It signs (the newest one) and verifies.
    Active,
    /// It does nothing any more; kept so that its id is not used again.
    Retired,
}

/// One signing key.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// `keyId`.
    pub id: RefId,
    /// Whether it may be used.
    pub status: KeyStatus,
    /// When it was made.
    pub created_at: Timestamp,
    secret: Secret,
}

impl SigningKey {
    /// HMAC-SHA256 under this key, nothing signed yet.
    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        self.secret.keyed.clone()
    }
}

/// 32 secret bytes that do not print, and what HMAC makes of them before it sees a text.
#[derive(Clone)]
struct Secret {
    bytes: [u8; 32],
    keyed: Hmac<Sha256>,
}

impl Secret {
    fn new(bytes: [u8; 32]) -> Self {
        // `new` takes a key of block size (64 bytes), which is what HMAC pads a shorter key to.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Self { bytes, keyed: Hmac::new(&block) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Something is wrong with the keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The id is taken.
    #[error("there is a key {0} already: choose another id")]
    Taken(RefId),
    /// Too many active keys.
    #[error("{MAX_ACTIVE_KEYS} keys are active already: rotate, or revoke one first")]
    TooMany,
    /// No such key.
    #[error("there is no key {0}")]
    Unknown(RefId),
    /// The file does not read as keys.
    #[error("{path} is not a key file: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong (never its content).
        why: String,
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
            Self::Taken(_) | Self::TooMany | Self::Unknown(_) | Self::Malformed { .. } => ErrorKind::Invalid,
            Self::Io(error) => error.kind(),
        }
    }
}

/// All signing keys, oldest first.
#[derive(Debug, Clone, Default)]
pub struct SigningKeys {
    keys: Vec<SigningKey>,
}

impl SigningKeys {
    /// Every key, oldest first.
    #[must_use]
    pub fn keys(&self) -> &[SigningKey] {
        &self.keys
    }

    /// Reads the file at `path`; a missing file is no keys.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::Io`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        private_file::read(path)?.map_or_else(|| Ok(Self::default()), |bytes| Self::parse(&bytes, path))
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, KeyError> {
        let malformed = |why: String| KeyError::Malformed { path: path.to_owned(), why };
        // serde's own message may quote the content, so only the place is told.
        let file: KeyFile = serde_json::from_slice(bytes)
            .map_err(|e| malformed(format!("line {}, column {}", e.line(), e.column())))?;
        let mut keys = Self::default();
        for stored in file.keys {
            let bytes = URL_SAFE_NO_PAD.decode(&stored.secret).ok().and_then(|b| <[u8; 32]>::try_from(b).ok());
            let secret = bytes.ok_or_else(|| malformed(format!("the secret of {} is not 32 bytes", stored.id)))?;
            let created_at = Timestamp::parse(&stored.created_at)
                .ok_or_else(|| malformed(format!("createdAt of {} is not a time", stored.id)))?;
            if keys.keys.iter().any(|k| k.id == stored.id) {
                return Err(malformed(format!("key {} is there twice", stored.id)));
            }
            keys.keys.push(SigningKey {
                id: stored.id,
                status: stored.status,
                created_at,
                secret: Secret::new(secret),
            });
        }
        if keys.count_active() > MAX_ACTIVE_KEYS {
            return Err(malformed(format!("more than {MAX_ACTIVE_KEYS} keys are active")));
        }
        Ok(keys)
    }

    /// Writes the file at `path` for its owner only: beside it, synced, then renamed over it.
    ///
    /// # Errors
    /// [`KeyError::Io`]; the old file is then still there.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let keys = self.keys.iter().map(|k| StoredKey {
            id: k.id.clone(),
            secret: URL_SAFE_NO_PAD.encode(k.secret.bytes),
            status: k.status,
            created_at: k.created_at.to_string(),
        });
        Ok(private_file::replace(path, &KeyFile { keys: keys.collect() })?)
    }

    /// Adds an active key made of `secret` (32 random bytes).
    ///
    /// # Errors
    /// [`KeyError::Taken`], or [`KeyError::TooMany`] when two are active.
    pub fn create(&mut self, id: RefId, secret: [u8; 32], now: Timestamp) -> Result<(), KeyError> {
        if self.count_active() >= MAX_ACTIVE_KEYS {
            return Err(KeyError::TooMany);
        }
        if self.keys.iter().any(|k| k.id == id) {
            return Err(KeyError::Taken(id));
        }
        self.keys.push(SigningKey { id, status: KeyStatus::Active, created_at: now, secret: Secret::new(secret) });
        Ok(())
    }

    /// Adds an active key and retires all but it and the one before.
    ///
    /// # Errors
    /// [`KeyError::Taken`].
    pub fn rotate(&mut self, id: RefId, secret: [u8; 32], now: Timestamp) -> Result<(), KeyError> {
        if self.keys.iter().any(|k| k.id == id) {
            return Err(KeyError::Taken(id));
        }
        let retire = self.count_active().saturating_sub(MAX_ACTIVE_KEYS - 1);
        self.keys.iter_mut().filter(|k| k.status == KeyStatus::Active).take(retire).for_each(|k| {
            k.status = KeyStatus::Retired;
        });
        self.create(id, secret, now)
    }

    /// Retires a key at once: whatever it signed counts no more.
    ///
    /// # Errors
    /// [`KeyError::Unknown`].
    pub fn revoke(&mut self, id: &RefId) -> Result<(), KeyError> {
        match self.keys.iter_mut().find(|k| k.id == *id) {
            Some(key) => {
                key.status = KeyStatus::Retired;
                Ok(())
            }
            None => Err(KeyError::Unknown(id.clone())),
        }
    }

    fn count_active(&self) -> usize {
        self.keys.iter().filter(|k| k.status == KeyStatus::Active).count()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    id: RefId,
    secret: String,
    status: KeyStatus,
    created_at: String,
}

/// The keys in use: [`KeyRing::current`] for readers, [`KeyRing::refresh`] on a timer.
#[derive(Debug)]
pub struct KeyRing {
    path: Option<PathBuf>,
    current: RwLock<(Vec<u8>, Arc<SigningKeys>)>,
}

impl KeyRing {
    /// The keys in the file at `path` (none while it is missing), which is read again by [`KeyRing::refresh`].
    ///
    /// # Errors
    /// As [`SigningKeys::load`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyError> {
        let ring = Self { path: Some(path.into()), current: RwLock::default() };
        ring.refresh()?;
        Ok(ring)
    }

    /// Keys that never change.
    #[must_use]
    pub fn fixed(keys: SigningKeys) -> Self {
        Self { path: None, current: RwLock::new((Vec::new(), Arc::new(keys))) }
    }

    /// The keys in use.
    #[must_use]
    pub fn current(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Takes over the file's content if it is another one; says whether it did.
    ///
    /// # Errors
    /// As [`SigningKeys::load`]; the keys in use stay.
    pub fn refresh(&self) -> Result<bool, KeyError> {
        let Some(path) = &self.path else { return Ok(false) };
        let bytes = private_file::read(path)?.unwrap_or_default();
        if bytes == self.current.read().unwrap_or_else(PoisonError::into_inner).0 {
            return Ok(false);
        }
        let keys = if bytes.is_empty() { SigningKeys::default() } else { SigningKeys::parse(&bytes, path)? };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (bytes, Arc::new(keys));
        Ok(true)
    }
}

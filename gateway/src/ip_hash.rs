//! `ipHash`: a client's address → a keyed hash that links events for one epoch and nothing beyond it.
//! HMAC-SHA256 of the address (IPv6: its /64, what one subscriber has) under a salt that changes every epoch, its
//! first 16 bytes in hex. Salts live in one private file, replaced atomically; one older than `keep` is destroyed, and
//! with it the only way to tell whose hash it was. Randomness comes in as a parameter.
//! On crash: the file has the salt before the first hash under it is used, so one epoch has one salt.
//! Never: keeps, prints or answers an address. Where there is no salt to hash it with, there is no hash.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use shared::config::{Problem, Span};
use shared::http::address::limit_key;
use shared::private_file::{self, FileError};
use shared::time::Timestamp;

use crate::keys::KeyError;

/// Fills a buffer with random bytes from the system's cryptographic generator.
pub type Chance = Arc<dyn Fn(&mut [u8]) -> io::Result<()> + Send + Sync>;

/// How long hashes link, and how long salts are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether links get an `ipHash` at all.
    pub enabled: bool,
    /// How long one salt is used: events of one address are linked within it and not beyond.
    pub epoch: Span,
    /// How long after the end of its epoch a salt is destroyed.
    pub keep: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { enabled: true, epoch: Span::secs(86_400), keep: Span::secs(7 * 86_400) }
    }
}

impl Settings {
    /// Everything wrong with these settings; `prefix` is their place in the file.
    #[must_use]
    pub fn problems(&self, prefix: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(Span::secs(3_600)..=Span::secs(366 * 86_400)).contains(&self.epoch) {
            problems.push(Problem::new(format!("{prefix}.epoch"), "must be between 1h and 366d"));
        }
        if self.keep > Span::secs(366 * 86_400) {
            problems.push(Problem::new(format!("{prefix}.keep"), "must be 366d or less"));
        }
        problems
    }
}

/// The salts in use, by the first instant of their epoch.
type ByEpoch = BTreeMap<i64, Salt>;

/// 32 secret bytes that do not print.
#[derive(Clone)]
struct Salt([u8; 32]);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What turns addresses into hashes.
pub struct Salts {
    path: Option<PathBuf>,
    settings: Settings,
    chance: Chance,
    salts: RwLock<ByEpoch>,
}

impl Salts {
    /// The salts in the file at `path` (made when first needed), or in memory only.
    ///
    /// # Errors
    /// When the file does not read as salts.
    pub fn open(path: Option<PathBuf>, settings: Settings, chance: Chance) -> Result<Self, KeyError> {
        let salts = RwLock::new(path.as_deref().map(load).transpose()?.unwrap_or_default());
        Ok(Self { path, settings, chance, salts })
    }

    /// The hash of `address` at `now`; `None` when switched off, or when there is no salt and none can be kept.
    #[must_use]
    pub fn hash(&self, address: IpAddr, now: Timestamp) -> Option<String> {
        if !self.settings.enabled {
            return None;
        }
        let epoch = now.floor(self.settings.epoch.as_micros()).0;
        let known = self.salts.read().unwrap_or_else(PoisonError::into_inner).get(&epoch).cloned();
        let salt = match known {
            Some(salt) => salt,
            None => self.roll(now).map_err(|error| tracing::error!(%error, "no salt: events get no ipHash")).ok()?,
        };
        Some(keyed(&salt, address))
    }

    /// Makes the salt of the epoch of `now`, durably, where there is none yet, and destroys those past their time.
    fn roll(&self, now: Timestamp) -> Result<Salt, KeyError> {
        let mut salts = self.salts.write().unwrap_or_else(PoisonError::into_inner);
        let epoch = now.floor(self.settings.epoch.as_micros()).0;
        let mut next = salts.clone();
        self.forget_old(&mut next, now);
        let salt = match next.get(&epoch) {
            Some(salt) => salt.clone(),
            None => {
                let mut bytes = [0; 32];
                let none = |source| FileError { doing: "draw a salt for", path: PathBuf::from("ipHash"), source };
                (self.chance)(&mut bytes).map_err(none)?;
                Salt(bytes)
            }
        };
        next.insert(epoch, salt.clone());
        self.keep(&mut salts, next)?;
        Ok(salt)
    }

    /// Destroys the salts whose time is over at `now`.
    ///
    /// # Errors
    /// When the file cannot be replaced; the salts then stay until the next try.
    pub fn destroy_old(&self, now: Timestamp) -> Result<(), KeyError> {
        let mut salts = self.salts.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = salts.clone();
        self.forget_old(&mut next, now);
        if next.len() == salts.len() { Ok(()) } else { self.keep(&mut salts, next) }
    }

    fn forget_old(&self, salts: &mut ByEpoch, now: Timestamp) {
        let lives = self.settings.epoch.as_micros().saturating_add(self.settings.keep.as_micros());
        salts.retain(|epoch, _| now.since(Timestamp(*epoch)) < lives);
    }

    fn keep(&self, salts: &mut ByEpoch, next: ByEpoch) -> Result<(), KeyError> {
        if let Some(path) = &self.path {
            save(path, &next)?;
        }
        *salts = next;
        Ok(())
    }
}

fn keyed(salt: &Salt, address: IpAddr) -> String {
    // `new` takes a key of block size (64 bytes), which is what HMAC pads a shorter key to.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(salt.0).for_each(|(to, from)| *to = from);
    let mut mac = Hmac::<Sha256>::new(&block);
    mac.update(limit_key(address).to_string().as_bytes());
    mac.finalize().into_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaltFile {
    salts: Vec<StoredSalt>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredSalt {
    epoch_start: String,
    secret: String,
}

fn load(path: &Path) -> Result<ByEpoch, KeyError> {
    let malformed = |why: String| KeyError::Malformed { path: path.to_owned(), why };
    let Some(bytes) = private_file::read(path)? else { return Ok(ByEpoch::new()) };
    let file: SaltFile =
        serde_json::from_slice(&bytes).map_err(|e| malformed(format!("line {}, column {}", e.line(), e.column())))?;
    let salt = |stored: StoredSalt| {
        let epoch = Timestamp::parse(&stored.epoch_start)?;
        let secret = URL_SAFE_NO_PAD.decode(&stored.secret).ok()?;
        Some((epoch.0, Salt(secret.try_into().ok()?)))
    };
    let salts: Option<ByEpoch> = file.salts.into_iter().map(salt).collect();
    salts.ok_or_else(|| malformed("a salt has no time or not 32 bytes".to_owned()))
}

fn save(path: &Path, salts: &ByEpoch) -> Result<(), KeyError> {
    let stored = salts.iter().map(|(epoch, salt)| StoredSalt {
        epoch_start: Timestamp(*epoch).to_string(),
        secret: URL_SAFE_NO_PAD.encode(salt.0),
    });
    Ok(private_file::replace(path, &SaltFile { salts: stored.collect() })?)
}

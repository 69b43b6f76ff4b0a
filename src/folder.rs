//! The data folder of the embedded mode (contract 6): which file is where. Names only; nothing is opened here.

use std::path::{Path, PathBuf};

/// A data folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Its own path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The log of admitted events.
    #[must_use]
    pub fn events_log(&self) -> PathBuf {
        self.0.join("log/events")
    }

    /// The log of what was refused.
    #[must_use]
    pub fn dead_letters_log(&self) -> PathBuf {
        self.0.join("log/dead_letters")
    }

    /// Checkpoints of the speed layer.
    #[must_use]
    pub fn speed_state(&self) -> PathBuf {
        self.0.join("state/speed")
    }

    /// The ad directory.
    #[must_use]
    pub fn ads(&self) -> PathBuf {
        self.0.join("state/ads.dir")
    }

    /// Price books.
    #[must_use]
    pub fn prices(&self) -> PathBuf {
        self.0.join("state/prices")
    }

    /// Scratch space of batch (spills), removed when it ends.
    #[must_use]
    pub fn spill(&self) -> PathBuf {
        self.0.join("state/spill")
    }

    /// Delta tables.
    #[must_use]
    pub fn lake(&self) -> PathBuf {
        self.0.join("lake")
    }

    /// The serving store.
    #[must_use]
    pub fn serving(&self) -> PathBuf {
        self.0.join("serving/rollups.sqlite")
    }

    /// Published settlements.
    #[must_use]
    pub fn settlement(&self) -> PathBuf {
        self.0.join("settlement")
    }

    /// API keys (hashes).
    #[must_use]
    pub fn api_keys(&self) -> PathBuf {
        self.0.join("keys/api_keys.json")
    }

    /// Settlement keys (secrets).
    #[must_use]
    pub fn settlement_keys(&self) -> PathBuf {
        self.0.join("keys/settlement_keys.json")
    }

    /// Salts of address hashes (secrets).
    #[must_use]
    pub fn ip_salts(&self) -> PathBuf {
        self.0.join("keys/ip_salts.json")
    }

    /// The key that hides who was erased (a secret).
    #[must_use]
    pub fn erasure_key(&self) -> PathBuf {
        self.0.join("keys/erasure_key.json")
    }

    /// Click-signing keys (secrets).
    #[must_use]
    pub fn signing_keys(&self) -> PathBuf {
        self.0.join("keys/signing_keys.json")
    }
}

//! Who published a settlement: an Ed25519 signature over the exact bytes of the manifest, in `manifest.sig` beside it.
//! The signed message is one line that says what is signed, then the manifest, so that a signature made for anything
//! else is none for a settlement.
//! Guarantee: one key and one manifest give one signature (RFC 8032), so whoever completes a claim writes the same
//! bytes. Never: shows a secret.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use shared::merkle::Hash256;

/// The signature's file name.
pub const SIGNATURE: &str = "manifest.sig";
const ALGORITHM: &str = "Ed25519";
/// What stands before the manifest in the signed message.
const DOMAIN: &[u8] = b"clickledger settlement manifest v2\n";
/// Digits of a key id.
const ID_DIGITS: usize = 16;

/// What a receiver checks signatures with; base64 as text.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Its id: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes.
    #[must_use]
    pub fn id(&self) -> String {
        Hash256::of(&self.0).to_string().chars().take(ID_DIGITS).collect()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes or text that are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key: 32 bytes in base64")]
pub struct NotAKey;

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NotAKey)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// Signs manifests.
#[derive(Clone)]
pub struct Signer {
    pair: Arc<Ed25519KeyPair>,
    public_key: PublicKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public_key.id())
    }
}

impl Signer {
    /// The signer of a seed, which must come from a cryptographic generator.
    ///
    /// # Errors
    /// [`NotAKey`] when the seed makes no key (none of 32 bytes does).
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NotAKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NotAKey)?;
        let public_key = pair.public_key().as_ref().try_into().map(PublicKey).map_err(|_| NotAKey)?;
        Ok(Self { pair: Arc::new(pair), public_key })
    }

    /// The key that checks its signatures.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The signature of a manifest's bytes.
    #[must_use]
    pub fn sign(&self, manifest: &[u8]) -> Signature {
        let public_key = self.public_key;
        Signature {
            algorithm: ALGORITHM.to_owned(),
            key_id: public_key.id(),
            public_key,
            signature: STANDARD.encode(self.pair.sign(&message(manifest))),
        }
    }
}

/// The content of `manifest.sig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// `Ed25519`.
    pub algorithm: String,
    /// [`PublicKey::id`] of the key.
    pub key_id: String,
    /// The key. Whoever pins it compares; by itself it proves nothing.
    pub public_key: PublicKey,
    /// 64 bytes in base64.
    pub signature: String,
}

impl Signature {
    /// The file's bytes: indented JSON and a line feed.
    ///
    /// # Errors
    /// When a value cannot be written (none here can fail).
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// From the file's bytes.
    ///
    /// # Errors
    /// When they are no signature file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// What is wrong with it as the signature of `manifest`; nothing where its key signed these bytes.
    #[must_use]
    pub fn problem(&self, manifest: &[u8]) -> Option<String> {
        if self.algorithm != ALGORITHM {
            return Some(format!("its algorithm {:?} is not {ALGORITHM}", self.algorithm));
        }
        if self.key_id != self.public_key.id() {
            return Some(format!("its keyId must be {}", self.public_key.id()));
        }
        let Ok(signature) = STANDARD.decode(&self.signature) else {
            return Some("its signature is not base64".to_owned());
        };
        let verified = UnparsedPublicKey::new(&ED25519, self.public_key.0).verify(&message(manifest), &signature);
        verified.err().map(|_| format!("key {} did not sign this manifest", self.key_id))
    }
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [DOMAIN, manifest].concat()
}

//! SHA-256 in lower-case hex, as coreutils prints it.

use sha2::{Digest, Sha256};

/// A checksum being fed.
#[derive(Default)]
pub(crate) struct Sha256Sum(Sha256);

impl Sha256Sum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn hex(self) -> String {
        self.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The checksum of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let mut sum = Sha256Sum::default();
    sum.update(bytes);
    sum.hex()
}

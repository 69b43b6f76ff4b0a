//! The hash of keys that are hashes already (SHA-256): two multiplications instead of SipHash's rounds.
//! Guarantee: seeded for each table, so that nobody can choose ids whose keys fall into one place of it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// What one table hashes with.
#[derive(Debug, Clone)]
pub(super) struct Seed {
    start: u64,
    factor: u64,
}

impl Default for Seed {
    fn default() -> Self {
        let chance = RandomState::new();
        Self { start: chance.hash_one(0_u8), factor: chance.hash_one(1_u8) | 1 }
    }
}

impl BuildHasher for Seed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.start, factor: self.factor }
    }
}

/// Eight bytes at a time: the two halves of a product of 128 bits, laid over each other.
pub(super) struct Folded {
    state: u64,
    factor: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        let [low, high] = [product, product >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        self.state = low ^ high;
    }

    fn write_usize(&mut self, length: usize) {
        // The length of a key, which is always the same.
        self.state = self.state.wrapping_add(length as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

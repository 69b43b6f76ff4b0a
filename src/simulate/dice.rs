//! Chance: ChaCha8 from one seed, with the few draws the generator needs.
//! Guarantees: the same seed and calls give the same draws on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub(super) struct Dice(ChaCha8Rng);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A whole number in `0..n` (0 when `n` is 0).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.bits()) * u128::from(n);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A whole number in `low..=high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = u64::try_from(high.saturating_sub(low)).unwrap_or(0).saturating_add(1);
        low.saturating_add(i64::try_from(self.below(width)).unwrap_or(0))
    }

    /// A number in `[0, 1)`.
    #[allow(clippy::cast_precision_loss)] // 53 bits are exact
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True with the given share.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// One of `items`.
    pub(super) fn pick<T: Copy + Default>(&mut self, items: &[T]) -> T {
        let i = self.below(items.len() as u64);
        usize::try_from(i).ok().and_then(|i| items.get(i)).copied().unwrap_or_default()
    }

    /// `prefix` and `digits` hexadecimal digits.
    pub(super) fn hex(&mut self, prefix: &str, digits: usize) -> String {
        let mut text = String::with_capacity(prefix.len() + digits);
        text.push_str(prefix);
        let mut bits = 0;
        for i in 0..digits {
            if i % 16 == 0 {
                bits = self.bits();
            }
            let digit = usize::try_from(bits & 15).ok().and_then(|d| HEX.get(d));
            text.push(char::from(digit.copied().unwrap_or(b'0')));
            bits >>= 4;
        }
        text
    }
}

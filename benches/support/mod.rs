//! What the bench programs share: chance from a seed, and what the process has used, as the kernel counts it.
//! Never: times anything itself.

use anyhow::Context;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Clock ticks in a second, as `/proc` counts them (fixed in the kernel's interface).
const TICKS_PER_SECOND: f64 = 100.0;

/// Chance: the same seed gives the same draws.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A whole number in `0..n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        u64::try_from((u128::from(self.bits()) * u128::from(n)) >> 64).unwrap_or(0)
    }
}

/// CPU seconds of this process so far, user and system, of all its threads.
///
/// # Errors
/// Without Linux's `/proc`.
pub(crate) fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let after_name = stat.rsplit_once(')').context("/proc/self/stat has no name")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks: Vec<u32> = ticks.collect::<Result<_, _>>()?;
    Ok(ticks.into_iter().map(f64::from).sum::<f64>() / TICKS_PER_SECOND)
}

/// Bytes of memory of this process that are resident now (`VmRSS`), or were at most (`VmHWM`).
///
/// # Errors
/// Without Linux's `/proc`.
pub(crate) fn resident_bytes(field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).context("no such field")?;
    let kib: u64 = line.split_whitespace().next().context("an empty field")?.parse()?;
    Ok(kib * 1_024)
}

//! Progress as a value: how far each partition has been taken.
//! An overlap, or a log that starts after our position, is an error, never a warning: it means lost or doubled data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The next position to read in each partition; an absent partition starts at 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<u32, u64>);

impl Positions {
    /// The next position to read in `partition`.
    #[must_use]
    pub fn next(&self, partition: u32) -> u64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Moves `partition` on to `next`.
    ///
    /// # Errors
    /// [`WentBack`] when that is behind where it stands.
    pub fn advance(&mut self, partition: u32, next: u64) -> Result<(), WentBack> {
        let at = self.0.entry(partition).or_insert(0);
        if next < *at {
            return Err(WentBack { partition, at: *at, to: next });
        }
        *at = next;
        Ok(())
    }

    /// Whether every partition stands at or beyond `other`'s.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(p, next)| self.next(*p) >= *next)
    }

    /// How many records `end` is ahead, over all partitions.
    #[must_use]
    pub fn lag(&self, end: &Self) -> u64 {
        end.0.iter().map(|(p, next)| next.saturating_sub(self.next(*p))).sum()
    }
}

/// A position would move backward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} stands at {at} and cannot go back to {to}")]
pub struct WentBack {
    /// The partition.
    pub partition: u32,
    /// Where it stands.
    pub at: u64,
    /// Where it was told to go.
    pub to: u64,
}

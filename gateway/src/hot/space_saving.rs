//! Space-Saving (Metwally, Agrawal, El Abbadi, 2005): who comes often in a stream, in memory that does not grow with it.
//! Guarantees for every key it holds: what came ≤ what it says ≤ what came + `error`, and `error` ≤ seen / capacity;
//! whoever came more often than seen / capacity is held. Pure; counting one key costs constant time on average.
//! A crash forgets it, and the next window learns it again.

use std::collections::HashMap;
use std::hash::Hash;

/// One key that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted<K> {
    pub(super) key: K,
    /// At most this often it came.
    pub(super) most: u64,
    /// By so much `most` may be too high.
    pub(super) error: u64,
}

impl<K> Counted<K> {
    /// At least this often it came.
    pub(super) fn least(&self) -> u64 {
        self.most - self.error
    }
}

/// The summary of a stream.
#[derive(Debug)]
pub(super) struct SpaceSaving<K> {
    capacity: usize,
    held: Vec<Counted<K>>,
    places: HashMap<K, usize>,
    seen: u64,
    /// The least count held, and the first place that may have it: those before it have more.
    least: u64,
    hand: usize,
}

impl<K: Clone + Eq + Hash> SpaceSaving<K> {
    /// Holds at most `capacity` keys (at least 1).
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), held: Vec::new(), places: HashMap::new(), seen: 0, least: 0, hand: 0 }
    }

    /// Counts one occurrence.
    pub(super) fn count(&mut self, key: &K) {
        self.seen += 1;
        if let Some(counted) = self.places.get(key).and_then(|place| self.held.get_mut(*place)) {
            counted.most += 1;
        } else if self.held.len() < self.capacity {
            self.places.insert(key.clone(), self.held.len());
            self.held.push(Counted { key: key.clone(), most: 1, error: 0 });
        } else {
            self.replace(key);
        }
    }

    /// The key that came least gives its place, and its count as the newcomer's error. The hand goes round once for each
    /// value that the least count takes, and that is at most seen / capacity: constant time on average.
    fn replace(&mut self, key: &K) {
        let found = self.held.iter().skip(self.hand).position(|c| c.most == self.least);
        let place = found.map(|ahead| self.hand + ahead).unwrap_or_else(|| {
            self.least = self.held.iter().map(|c| c.most).min().unwrap_or_default();
            self.held.iter().position(|c| c.most == self.least).unwrap_or_default()
        });
        self.hand = place + 1;
        let Some(old) = self.held.get_mut(place) else { return };
        let new = Counted { key: key.clone(), most: old.most + 1, error: old.most };
        self.places.remove(&old.key);
        self.places.insert(key.clone(), place);
        *old = new;
    }

    /// How many occurrences were counted.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// What is held, in no order that means anything.
    pub(super) fn held(&self) -> &[Counted<K>] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Streams in which some keys come often and most come rarely.
    fn stream() -> impl Strategy<Value = Vec<u16>> {
        let key = prop_oneof![4 => 0..4_u16, 2 => 0..40_u16, 3 => any::<u16>()];
        prop::collection::vec(key, 0..2_000)
    }

    proptest! {
        #[test]
        fn what_came_is_at_most_what_it_says_and_at_least_that_less_the_error(
            stream in stream(), capacity in 1..60_usize,
        ) {
            let mut summary = SpaceSaving::new(capacity);
            let mut truth: BTreeMap<u16, u64> = BTreeMap::new();
            for key in &stream {
                summary.count(key);
                *truth.entry(*key).or_default() += 1;
            }
            let bound = stream.len() as u64 / capacity as u64;
            prop_assert_eq!(summary.seen(), stream.len() as u64);
            prop_assert_eq!(summary.held().len(), truth.len().min(capacity));
            prop_assert_eq!(summary.held().iter().map(|c| c.most).sum::<u64>(), summary.seen());
            for counted in summary.held() {
                let came = truth[&counted.key];
                prop_assert!(counted.least() <= came && came <= counted.most && counted.error <= bound, "{counted:?}");
            }
            for (key, came) in truth {
                prop_assert!(came <= bound || summary.held().iter().any(|c| c.key == key), "{key} came {came} times");
            }
        }
    }
}

//! The cells of one window, in the order in which they came, found by key.
//! Keys are small numbers (see `names`), so a cell of an ad minute is one cache line.
//! Pure; on crash it is rebuilt from the checkpoint. Never: holds two cells of one key.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use shared::rollup::Counts;

/// What tells the cells of a window apart.
pub(crate) trait Key: Copy + Eq {
    /// The same for equal keys. ([`spread`] it: its lowest and its highest bits are used.)
    fn hash(self) -> u64;
}

/// One row.
#[derive(Debug)]
pub(crate) struct Cell<K, X> {
    pub(crate) counts: Counts,
    pub(crate) key: K,
    is_changed: bool,
    pub(crate) extra: X,
}

/// The rows of one window.
#[derive(Debug)]
pub(crate) struct Grid<K, X> {
    index: HashTable<u32>,
    cells: Vec<Cell<K, X>>,
    /// Which cells changed since the last flush.
    changed: Vec<u32>,
}

impl<K, X> Default for Grid<K, X> {
    fn default() -> Self {
        Self { index: HashTable::new(), cells: Vec::new(), changed: Vec::new() }
    }
}

impl<K: Key, X: Default> Grid<K, X> {
    /// The cell of `key`, made if it is not there, marked as changed. `guess` says where it may be, and then where it
    /// is; a wrong one costs a look-up. `None` when there are 2³² cells.
    pub(crate) fn cell(&mut self, key: K, guess: &mut u32) -> Option<&mut Cell<K, X>> {
        if self.cells.get(*guess as usize).is_none_or(|cell| cell.key != key) {
            *guess = self.look_up(key)?;
        }
        let cell = self.cells.get_mut(*guess as usize)?;
        if !cell.is_changed {
            cell.is_changed = true;
            self.changed.push(*guess);
        }
        Some(cell)
    }

    /// Where the cell of `key` is, if it is there.
    pub(crate) fn find(&self, key: K) -> Option<u32> {
        self.index.find(key.hash(), |at| self.cells.get(*at as usize).is_some_and(|cell| cell.key == key)).copied()
    }

    /// Where the cell of `key` is, made if it is not there.
    fn look_up(&mut self, key: K) -> Option<u32> {
        let Self { index, cells, .. } = self;
        let key_at = |at: &u32| cells.get(*at as usize).map(|cell| cell.key);
        let entry = index.entry(key.hash(), |at| key_at(at) == Some(key), |at| key_at(at).map_or(0, Key::hash));
        match entry {
            Entry::Occupied(found) => Some(*found.get()),
            Entry::Vacant(place) => {
                let at = u32::try_from(cells.len()).ok()?;
                place.insert(at);
                cells.push(Cell { counts: Counts::default(), key, is_changed: false, extra: X::default() });
                Some(at)
            }
        }
    }

    /// Makes room for so many more cells, all of them changed.
    pub(crate) fn reserve(&mut self, more: usize) {
        let Self { index, cells, changed } = self;
        index.reserve(more, |at| cells.get(*at as usize).map_or(0, |cell| cell.key.hash()));
        cells.reserve(more);
        changed.reserve(more);
    }
}

impl<K, X> Grid<K, X> {
    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The cell at a place.
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Cell<K, X>> {
        self.cells.get_mut(at as usize)
    }

    /// Every cell.
    pub(crate) fn cells(&self) -> &[Cell<K, X>] {
        &self.cells
    }

    /// How many cells changed since the last flush.
    pub(crate) fn changed_len(&self) -> usize {
        self.changed.len()
    }

    /// The cells that changed since the last flush.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &Cell<K, X>> {
        self.changed.iter().filter_map(|at| self.cells.get(*at as usize))
    }

    /// Takes note that what changed was flushed.
    pub(crate) fn mark_flushed(&mut self) {
        for at in self.changed.drain(..) {
            if let Some(cell) = self.cells.get_mut(at as usize) {
                cell.is_changed = false;
            }
        }
    }
}

/// One hash of two numbers: a product folded to half its width, which every bit of both reaches.
pub(crate) fn spread(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9E37_79B9_7F4A_7C15) * u128::from(b ^ 0xD6E8_FEB8_6659_FD93);
    let [low, high] = [product, product >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
    low ^ high
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Key for u8 {
        fn hash(self) -> u64 {
            // Some share one.
            spread(u64::from(self / 2), 0)
        }
    }

    proptest! {
        #[test]
        fn a_grid_does_what_a_map_does_whatever_the_guesses(
            steps in prop::collection::vec((any::<u8>(), 0..300_u32, prop::bool::weighted(0.05)), 0..600),
        ) {
            let (mut grid, mut map, mut changed) = (Grid::<u8, ()>::default(), BTreeMap::new(), BTreeMap::new());
            for (key, guess, flush) in steps {
                if flush {
                    grid.mark_flushed();
                    changed.clear();
                }
                let mut at = guess;
                grid.cell(key, &mut at).unwrap().counts.clicks += 1;
                *map.entry(key).or_insert(0) += 1;
                changed.insert(key, map[&key]);
                prop_assert_eq!(grid.find(key), Some(at));
                prop_assert_eq!(grid.get_mut(at).map(|cell| cell.key), Some(key));
            }
            let clicks = |cell: &Cell<u8, ()>| (cell.key, cell.counts.clicks);
            prop_assert_eq!(grid.cells().iter().map(clicks).collect::<BTreeMap<_, _>>(), map);
            prop_assert_eq!((grid.changed_len(), grid.changed().count()), (changed.len(), changed.len()));
            prop_assert_eq!(grid.changed().map(clicks).collect::<BTreeMap<_, _>>(), changed);
        }
    }
}

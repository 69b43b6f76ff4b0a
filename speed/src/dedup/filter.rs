//! A blocked Bloom filter: two bytes an id in memory that spare a read of the disk for an id that is not there.
//!
//! An id belongs to one block of 64 bytes (one cache line) and sets one bit in each of its eight words. Ids are hashes
//! already: their upper half names the block, so that ids in order fill the blocks in order; the lower half names the bits.
//! At 16 bits an id about one absent id in a thousand is taken for one that may be there.
//! Pure. Never: denies an id that was put in.

use crate::table::Id;

/// Bits of memory for each id.
const BITS_PER_ID: usize = 16;
const BLOCK_BITS: usize = 512;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Block([u64; 8]);

/// Which ids may be there.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<Block>,
}

impl Filter {
    /// An empty filter, large enough for so many ids.
    pub(super) fn new(ids: usize) -> Self {
        let blocks = (ids * BITS_PER_ID).div_ceil(BLOCK_BITS).max(1);
        Self { blocks: vec![Block([0; 8]); blocks] }
    }

    pub(super) fn insert(&mut self, id: &Id) {
        let (place, bits) = self.place(id);
        if let Some(Block(words)) = self.blocks.get_mut(place) {
            words.iter_mut().zip(masks(bits)).for_each(|(word, mask)| *word |= mask);
        }
    }

    /// Whether `id` may have been put in.
    pub(super) fn may_hold(&self, id: &Id) -> bool {
        let (place, bits) = self.place(id);
        let Some(Block(words)) = self.blocks.get(place) else { return false };
        words.iter().zip(masks(bits)).fold(0, |missing, (word, mask)| missing | (!word & mask)) == 0
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
    }

    /// The block of `id`, and what its bits are made of.
    fn place(&self, id: &Id) -> (usize, u64) {
        let [a, b, c, d, e, f, g, h, upper @ ..] = *id;
        let place = (u128::from(u64::from_le_bytes(upper)) * self.blocks.len() as u128) >> 64;
        (usize::try_from(place).unwrap_or(0), u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// One bit in each of eight words, by six bits each.
fn masks(bits: u64) -> [u64; 8] {
    std::array::from_fn(|word| 1 << (bits >> (6 * word) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::id_of;

    #[test]
    fn what_is_in_is_found_and_little_else() {
        let mut filter = Filter::new(100_000);
        (0..100_000).for_each(|n| filter.insert(&id_of(n.to_string())));
        assert!((0..100_000).all(|n| filter.may_hold(&id_of(n.to_string()))));
        let wrong = (100_000..400_000).filter(|n| filter.may_hold(&id_of(n.to_string()))).count();
        assert!(wrong <= 600, "{wrong} of 300,000");
        assert!(filter.bytes() <= 200_064);
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        let filter = Filter::new(0);
        assert!((0..1_000).all(|n| !filter.may_hold(&id_of(n.to_string()))));
    }
}

//! Where each ad's record begins, by a hash of the ad's id: found in one or two steps, where a search in the sorted records
//! takes one for every doubling of their number, each of them far from the one before in memory.
//! Bounded: two slots of eight bytes for each ad. Never: says that an ad is at a place without the caller comparing its id.

use xxhash_rust::xxh3::xxh3_64;

/// Bits of a slot for the place; those above it are of the hash, so that other ads are told apart without a look at them.
const PLACE_BITS: u32 = 48;
const PLACE: u64 = (1 << PLACE_BITS) - 1;
/// No ad: no record begins at 0.
const EMPTY: u64 = 0;

/// A table with open addressing, half full, that is never changed once it is filled.
#[derive(Debug, Default)]
pub(super) struct Places {
    slots: Vec<u64>,
}

impl Places {
    /// Room for so many ads.
    pub(super) fn for_ads(ads: usize) -> Self {
        Self { slots: vec![EMPTY; ads.saturating_mul(2)] }
    }

    /// The slot an id's search begins at (its hash, scaled to the number of slots), and the mark of the id.
    fn start(&self, id: &[u8]) -> (usize, u64) {
        let hash = xxh3_64(id);
        let scaled = (u128::from(hash) * self.slots.len() as u128) >> 64;
        (usize::try_from(scaled).unwrap_or(0), hash << PLACE_BITS)
    }

    /// Notes that the record of the ad with this id begins at byte `place`; `None` when that is beyond every file.
    pub(super) fn add(&mut self, id: &[u8], place: usize) -> Option<()> {
        let place = u64::try_from(place).ok().filter(|place| (1..=PLACE).contains(place))?;
        let (first, mark) = self.start(id);
        let (before, from) = self.slots.split_at_mut(first);
        let free = from.iter_mut().chain(before).find(|slot| **slot == EMPTY)?;
        *free = mark | place;
        Some(())
    }

    /// The places at which the ad with this id may be, one of them if it is there at all.
    pub(super) fn of(&self, id: &[u8]) -> impl Iterator<Item = usize> {
        let (first, mark) = self.start(id);
        let (before, from) = self.slots.split_at_checked(first).unwrap_or_default();
        let met = from.iter().chain(before).take_while(|slot| **slot != EMPTY);
        met.filter(move |slot| **slot & !PLACE == mark).filter_map(|slot| usize::try_from(slot & PLACE).ok())
    }
}

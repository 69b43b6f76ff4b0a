//! A set of 16-byte ids (each with a tag and `N` bytes) in at most 24 + N·1.4 bytes a live id.
//!
//! Open addressing in 64 shards. A standard hash table doubles, so right after growing it takes twice what it
//! needs (36 bytes an id); a shard grows by a fifth and is never less than 72 % full, and growing stalls one
//! shard (some 50,000 ids), not the table. Ids are hashes already, so their own bytes place them.
//! Pure; on crash it is rebuilt from the dedup files. Never: forgets an id by itself.

/// The 16-byte identity of an id: xxh3 of its exact text.
pub(crate) type Id = [u8; 16];

/// The identity of `text`. (Two texts share one with probability 2⁻¹²⁸; the exact path compares the bytes.)
pub(crate) fn id_of(text: impl AsRef<[u8]>) -> Id {
    xxhash_rust::xxh3::xxh3_128(text.as_ref()).to_le_bytes()
}

/// An id as a number; a table hands ids out in this order.
pub(crate) fn number(id: &Id) -> u128 {
    u128::from_le_bytes(*id)
}

const SHARDS: usize = 64;
/// Fullest a shard gets, in percent; linear probing then looks at about a dozen neighbours on average.
const FULL_PERCENT: usize = 86;

/// Align 1, so that nothing is padded: 17 + N bytes.
#[derive(Debug, Clone, Copy)]
struct Slot<const N: usize> {
    id: Id,
    /// 0 is an empty slot.
    tag: u8,
    value: [u8; N],
}

impl<const N: usize> Slot<N> {
    const EMPTY: Self = Self { id: [0; 16], tag: 0, value: [0; N] };
}

#[derive(Debug, Clone, Default)]
struct Shard<const N: usize> {
    slots: Vec<Slot<N>>,
    used: usize,
}

/// Ids with tags (1 to 255) and values.
#[derive(Debug, Clone)]
pub(crate) struct Table<const N: usize> {
    shards: Vec<Shard<N>>,
    len: usize,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new() -> Self {
        Self { shards: vec![Shard { slots: Vec::new(), used: 0 }; SHARDS], len: 0 }
    }

    /// How many ids are in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reads where `id` would be, so that the memory is near when it is asked for. (Without waiting: a processor
    /// goes on with the next one's meanwhile.) What it returns means nothing.
    pub(crate) fn touch(&self, id: &Id) -> u8 {
        let slots = self.shards.get(shard_of(id)).map_or(&[][..], |shard| &shard.slots);
        slots.get(home_of(id, slots.len())).map_or(0, |slot| slot.tag)
    }

    /// The value of `id`.
    pub(crate) fn get(&self, id: &Id) -> Option<[u8; N]> {
        let shard = self.shards.get(shard_of(id))?;
        let at = shard.locate(id)?;
        shard.slots.get(at).filter(|slot| slot.tag != 0).map(|slot| slot.value)
    }

    /// Puts `id` in if it is not there; whether it was not.
    pub(crate) fn claim(&mut self, id: Id, tag: u8, value: [u8; N]) -> bool {
        self.place(Slot { id, tag, value }, false)
    }

    /// Puts `id` in, over what was there; whether nothing was.
    pub(crate) fn put(&mut self, id: Id, tag: u8, value: [u8; N]) -> bool {
        self.place(Slot { id, tag, value }, true)
    }

    /// Removes every id whose tag is not live. Costs about 20 ns an id.
    pub(crate) fn sweep(&mut self, is_live: impl Fn(u8) -> bool) {
        for shard in &mut self.shards {
            let live = shard.slots.iter().filter(|slot| slot.tag != 0 && is_live(slot.tag)).count();
            if live < shard.used {
                shard.rebuild(live + live / 4 + 8, &is_live);
            }
        }
        self.len = self.shards.iter().map(|shard| shard.used).sum();
    }

    /// Removes every id whose tag is leaving, and hands them out by [`number`], shard after shard. After an error the
    /// rest is still there.
    pub(crate) fn drain<E>(
        &mut self,
        is_leaving: impl Fn(u8) -> bool,
        mut take: impl FnMut(u128, u8) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in &mut self.shards {
            let leaving = shard.slots.iter().filter(|slot| slot.tag != 0 && is_leaving(slot.tag));
            let mut leaving: Vec<(u128, u8)> = leaving.map(|slot| (number(&slot.id), slot.tag)).collect();
            leaving.sort_unstable();
            leaving.iter().try_for_each(|(id, tag)| take(*id, *tag))?;
            let stay = shard.used - leaving.len();
            shard.rebuild(stay + stay / 4 + 8, &|tag| !is_leaving(tag));
            self.len -= leaving.len();
        }
        Ok(())
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.slots.capacity() * size_of::<Slot<N>>()).sum()
    }

    fn place(&mut self, slot: Slot<N>, overwrite: bool) -> bool {
        let Some(shard) = self.shards.get_mut(shard_of(&slot.id)) else { return false };
        if (shard.used + 1) * 100 > shard.slots.len() * FULL_PERCENT {
            shard.rebuild(shard.slots.len() * 6 / 5 + 8, &|_| true);
        }
        let at = shard.locate(&slot.id);
        let Some(place) = at.and_then(|at| shard.slots.get_mut(at)) else { return false };
        let is_new = place.tag == 0;
        if is_new || overwrite {
            *place = slot;
        }
        shard.used += usize::from(is_new);
        self.len += usize::from(is_new);
        is_new
    }
}

impl<const N: usize> Shard<N> {
    /// Where `id` is, or the free slot where it belongs; `None` only in a shard without slots.
    fn locate(&self, id: &Id) -> Option<usize> {
        let home = home_of(id, self.slots.len());
        let (before, after) = self.slots.split_at_checked(home)?;
        let wanted = |slot: &Slot<N>| slot.tag == 0 || slot.id == *id;
        after.iter().position(wanted).map(|steps| home + steps).or_else(|| before.iter().position(wanted))
    }

    fn rebuild(&mut self, slots: usize, is_live: &impl Fn(u8) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::EMPTY; slots]);
        self.used = 0;
        for slot in old.into_iter().filter(|slot| slot.tag != 0 && is_live(slot.tag)) {
            if let Some(place) = self.locate(&slot.id).and_then(|at| self.slots.get_mut(at)) {
                *place = slot;
                self.used += 1;
            }
        }
    }
}

/// The six highest bits.
fn shard_of(id: &Id) -> usize {
    let [.., last] = *id;
    usize::from(last) * SHARDS / 256
}

/// Eight other bytes, scaled to the number of slots.
fn home_of(id: &Id, slots: usize) -> usize {
    let [a, b, c, d, e, f, g, h, ..] = *id;
    let place = (u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])) * slots as u128) >> 64;
    usize::try_from(place).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Claim(u16, u8),
        Put(u16, u8),
        Sweep(u8),
        Drain(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..600_u16, 1..=6_u8).prop_map(|(id, tag)| Step::Claim(id, tag)),
            4 => (0..600_u16, 1..=6_u8).prop_map(|(id, tag)| Step::Put(id, tag)),
            1 => (1..=6_u8).prop_map(Step::Sweep),
            1 => (1..=6_u8).prop_map(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn a_table_does_what_a_map_does(steps in prop::collection::vec(step(), 0..2_000)) {
            let mut table = Table::<1>::new();
            let mut map = BTreeMap::<Id, u8>::new();
            for step in steps {
                match step {
                    Step::Claim(n, tag) => {
                        let id = id_of(n.to_string());
                        prop_assert_eq!(table.claim(id, tag, [tag]), !map.contains_key(&id));
                        map.entry(id).or_insert(tag);
                    }
                    Step::Put(n, tag) => {
                        let id = id_of(n.to_string());
                        prop_assert_eq!(table.put(id, tag, [tag]), map.insert(id, tag).is_none());
                    }
                    Step::Sweep(dead) => {
                        table.sweep(|tag| tag != dead);
                        map.retain(|_, tag| *tag != dead);
                    }
                    Step::Drain(leaving) => {
                        let mut drained = Vec::new();
                        let take = |id, tag| {
                            drained.push((id, tag));
                            Ok::<_, ()>(())
                        };
                        table.drain(|tag| tag == leaving, take).unwrap();
                        let mut expected: Vec<(u128, u8)> =
                            map.iter().filter(|(_, tag)| **tag == leaving).map(|(id, tag)| (number(id), *tag)).collect();
                        expected.sort_unstable();
                        prop_assert_eq!(drained, expected);
                        map.retain(|_, tag| *tag != leaving);
                    }
                }
                prop_assert_eq!(table.len(), map.len());
            }
            for n in 0..600_u16 {
                let id = id_of(n.to_string());
                prop_assert_eq!(table.get(&id), map.get(&id).map(|tag| [*tag]));
            }
        }
    }

    #[test]
    fn a_live_id_never_takes_more_than_24_bytes_once_there_are_many() {
        let mut table = Table::<0>::new();
        let mut worst = 0;
        for n in 0..400_000_u32 {
            table.claim(id_of(n.to_string()), 1, []);
            if n > 50_000 && n % 1_000 == 0 {
                worst = worst.max(table.bytes() * 100 / table.len());
            }
        }
        assert!(worst <= 2_400, "{worst} hundredths of a byte an id");
    }
}

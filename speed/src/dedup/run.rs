//! Ids of several buckets on disk, sorted once and never changed, with what memory needs to find one: a filter, and the
//! first id of every block.
//!
//! A block is 4 KiB: 227 ids, each with the number of its bucket, then a checksum. An id is looked up by one read of one
//! block, if the filter says that it may be there. On crash the run is gone, see [`super::shelf`].
//! Never: answers from a block that is not as it was written; that is an error.

use std::io::{Error, Result};

use super::filter::Filter;
use super::shelf::Scratch;
use crate::table::{Id, number};

const BLOCK: usize = 4_096;
/// 16 bytes of id, 2 of bucket.
const ENTRY: usize = 18;
const PER_BLOCK: usize = (BLOCK - 4) / ENTRY;
/// So many blocks are written or read at once where all are.
const AT_ONCE: usize = 64;

/// An id, as a number, and the number of its bucket.
pub(super) type Entry = (u128, u64);

/// A sorted file.
#[derive(Debug)]
pub(super) struct Run {
    scratch: Box<dyn Scratch>,
    /// The numbers of its first and last bucket.
    first: u64,
    last: u64,
    ids: usize,
    /// The first id of each block.
    index: Vec<u128>,
    filter: Filter,
}

impl Run {
    /// Its oldest and newest bucket.
    pub(super) fn buckets(&self) -> (u64, u64) {
        (self.first, self.last)
    }

    /// How many ids it holds.
    pub(super) fn ids(&self) -> usize {
        self.ids
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.filter.bytes() + self.index.capacity() * size_of::<u128>()
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        (self.index.len() * BLOCK) as u64
    }

    /// Whether [`Run::find`] is worth its read.
    pub(super) fn may_hold(&self, id: &Id) -> bool {
        self.filter.may_hold(id)
    }

    /// The number of the bucket of `id`. Reads one block.
    pub(super) fn find(&self, id: &Id) -> Result<Option<u64>> {
        let id = number(id);
        let Some(block) = self.index.partition_point(|first| *first <= id).checked_sub(1) else { return Ok(None) };
        let mut bytes = [0; BLOCK];
        self.scratch.read_at((block * BLOCK) as u64, &mut bytes)?;
        let entries = entries(&bytes, self.in_block(block))?;
        let (mut low, mut high) = (0, entries.len());
        while low < high {
            let middle = low.midpoint(high);
            match entries.get(middle).map(|entry| self.entry(entry)) {
                Some((found, bucket)) if found == id => return Ok(Some(bucket)),
                Some((found, _)) if found < id => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(None)
    }

    /// All it holds, in order.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { run: self, next_block: 0, decoded: Vec::new().into_iter() }
    }

    fn entry(&self, bytes: &[u8; ENTRY]) -> Entry {
        let (id, after) = bytes.split_first_chunk().map_or(([0; 16], &[][..]), |(id, rest)| (*id, rest));
        let after = after.try_into().map_or(0, u16::from_le_bytes);
        (u128::from_le_bytes(id), self.first + u64::from(after))
    }

    fn in_block(&self, block: usize) -> usize {
        self.ids.saturating_sub(block * PER_BLOCK).min(PER_BLOCK)
    }
}

/// The entries of a block, if it is whole.
fn entries(block: &[u8], count: usize) -> Result<&[[u8; ENTRY]]> {
    let damaged = || Error::other("a block of ids is not as it was written");
    let (content, sum) = block.split_last_chunk::<4>().ok_or_else(damaged)?;
    if u32::from_le_bytes(*sum) != crc32c::crc32c(content) {
        return Err(damaged());
    }
    content.as_chunks().0.get(..count).ok_or_else(damaged)
}

/// A run's entries, one after the other.
pub(super) struct Entries<'a> {
    run: &'a Run,
    next_block: usize,
    decoded: std::vec::IntoIter<Entry>,
}

impl Entries<'_> {
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        if self.decoded.len() == 0 {
            self.read_more()?;
        }
        Ok(self.decoded.next())
    }

    fn read_more(&mut self) -> Result<()> {
        let blocks = (self.run.index.len() - self.next_block).min(AT_ONCE);
        let mut bytes = vec![0; blocks * BLOCK];
        self.run.scratch.read_at((self.next_block * BLOCK) as u64, &mut bytes)?;
        let mut decoded = Vec::with_capacity(blocks * PER_BLOCK);
        for block in bytes.chunks_exact(BLOCK) {
            let entries = entries(block, self.run.in_block(self.next_block))?;
            decoded.extend(entries.iter().map(|entry| self.run.entry(entry)));
            self.next_block += 1;
        }
        self.decoded = decoded.into_iter();
        Ok(())
    }
}

/// A run in the making.
pub(super) struct Writer {
    run: Run,
    /// Whole blocks that are not written yet, and the one being filled.
    bytes: Vec<u8>,
    newest: Option<u128>,
}

impl Writer {
    /// A run for about so many ids of buckets from `first` on.
    pub(super) fn new(scratch: Box<dyn Scratch>, first: u64, ids: usize) -> Self {
        let index = Vec::with_capacity(ids.div_ceil(PER_BLOCK));
        let run = Run { scratch, first, last: first, ids: 0, index, filter: Filter::new(ids) };
        Self { run, bytes: Vec::with_capacity(AT_ONCE * BLOCK), newest: None }
    }

    /// Adds an id, which is not less than the one before; of equal ones the first stays.
    pub(super) fn push(&mut self, (id, bucket): Entry) -> Result<()> {
        if self.newest == Some(id) {
            return Ok(());
        }
        let after = bucket.checked_sub(self.run.first).and_then(|after| u16::try_from(after).ok());
        let after = after.ok_or_else(|| Error::other("a run spans too many buckets"))?;
        if self.run.ids.is_multiple_of(PER_BLOCK) {
            self.end_block()?;
            self.run.index.push(id);
        }
        let bytes = id.to_le_bytes();
        self.run.filter.insert(&bytes);
        self.bytes.extend_from_slice(&bytes);
        self.bytes.extend_from_slice(&after.to_le_bytes());
        self.newest = Some(id);
        self.run.last = self.run.last.max(bucket);
        self.run.ids += 1;
        Ok(())
    }

    /// The run, whole.
    pub(super) fn finish(mut self) -> Result<Run> {
        self.end_block()?;
        self.run.scratch.append(&self.bytes)?;
        Ok(self.run)
    }

    /// Completes the block that was begun, if one was.
    fn end_block(&mut self) -> Result<()> {
        let begun = self.bytes.len() % BLOCK;
        if begun > 0 {
            let start = self.bytes.len() - begun;
            self.bytes.resize(start + BLOCK - 4, 0);
            let sum = crc32c::crc32c(self.bytes.get(start..).unwrap_or_default());
            self.bytes.extend_from_slice(&sum.to_le_bytes());
        }
        if self.bytes.len() >= AT_ONCE * BLOCK {
            self.run.scratch.append(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::shelf::{Folder, Shelf};
    use super::*;
    use crate::table::id_of;

    fn run(ids: &BTreeMap<u128, u64>) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(Folder(folder.path().to_owned()).scratch().unwrap(), 7, ids.len());
        ids.iter().for_each(|(id, bucket)| writer.push((*id, *bucket)).unwrap());
        writer.finish().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_run_gives_back_what_was_put_in(count in 0..40_000_u64, spread in any::<bool>()) {
            // Spread like hashes, or one after the other, as an enemy might have them.
            let id = |n: u64| if spread { number(&id_of(n.to_string())) } else { u128::from(n) << 1 };
            let ids: BTreeMap<u128, u64> = (0..count).map(|n| (id(n), 7 + n % 60_000)).collect();
            let run = run(&ids);
            prop_assert_eq!(run.ids(), ids.len());
            for n in 0..count + 300 {
                let found = run.find(&id(n).to_le_bytes()).unwrap();
                prop_assert_eq!(found, ids.get(&id(n)).copied());
                prop_assert!(found.is_none() || run.may_hold(&id(n).to_le_bytes()));
            }
            prop_assert_eq!(run.find(&[0xff; 16]).unwrap(), None);
            let (mut entries, mut all) = (run.entries(), BTreeMap::new());
            while let Some((id, bucket)) = entries.next().unwrap() {
                all.insert(id, bucket);
            }
            prop_assert_eq!(all, ids);
        }
    }

    #[test]
    fn a_damaged_block_is_an_error_and_never_an_answer() {
        #[derive(Debug)]
        struct Damaged(Box<dyn Scratch>);
        impl Scratch for Damaged {
            fn append(&mut self, bytes: &[u8]) -> Result<()> {
                self.0.append(bytes)
            }
            fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
                self.0.read_at(offset, into)?;
                into[1_000] ^= 4;
                Ok(())
            }
        }
        let ids: BTreeMap<u128, u64> = (0..1_000).map(|n: u32| (number(&id_of(n.to_string())), 8)).collect();
        let mut run = run(&ids);
        run.scratch = Box::new(Damaged(run.scratch));
        assert!(ids.keys().all(|id| run.find(&id.to_le_bytes()).is_err()));
        assert!(run.entries().next().is_err());
    }
}

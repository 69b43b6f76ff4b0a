//! Pass one of the dedup: from the 8-byte `id_hash` column alone, which rows can share an id at all.
//! The day's hashes are put in order once; every other file of the archive is walked beside them. Only rows that
//! meet are ever read in full, and ids are then compared byte by byte ([`crate::standing`]).
//! Memory: 16 bytes a row of the day; a larger day takes several passes over hash ranges.
//! Never: decides anything. Works whatever the order of rows in a file; sorted files are only faster.

use std::sync::Arc;

use arrow::array::Int64Array;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::source::{Rows, Source, column};
use crate::tasks;

/// Bytes of memory that a row of the day takes here: its hash, and as much again while sorting.
const BYTES_PER_ROW: u64 = 16;

/// How many buckets of about `each` rows a day of `rows` rows has.
pub(crate) fn buckets(rows: u64, each: u64) -> u32 {
    u32::try_from(rows.div_ceil(each.max(1)).max(1)).unwrap_or(u32::MAX)
}

/// The bucket of a hash: equal ranges in the order of the column (signed).
pub(crate) fn bucket_of(hash: i64, buckets: u32) -> u32 {
    let ordered = hash.cast_unsigned() ^ (1 << 63);
    u32::try_from((u128::from(ordered) * u128::from(buckets)) >> 64).unwrap_or(0)
}

/// A row that shares its hash with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Hit {
    /// The hash.
    pub(crate) hash: i64,
    /// The row in its file.
    pub(crate) row: u32,
}

/// Where the buckets lie in a file of the day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Layout {
    /// The file is in hash order: bucket `b` is the rows from entry `b` to entry `b + 1`.
    Sorted(Vec<u64>),
    /// It is not: every bucket looks at every row.
    Unsorted,
}

/// What pass one found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// By file of the day.
    pub(crate) layouts: Vec<Layout>,
    /// By other file: rows whose hash the day has too, ordered by hash.
    pub(crate) foreign: Vec<Vec<Hit>>,
    /// By file (the day's first, then the others): rows whose hash is wanted, ordered by row.
    pub(crate) wanted: Vec<Vec<Hit>>,
}

/// The files to scan and the hashes somebody else asks for.
pub(crate) struct Request {
    /// The day's files.
    pub(crate) ours: Vec<Source>,
    /// All other files.
    pub(crate) others: Vec<Source>,
    /// Hashes to look up everywhere: ordered, distinct.
    pub(crate) wanted: Vec<i64>,
    /// How many buckets the day has.
    pub(crate) buckets: u32,
    /// How many threads.
    pub(crate) workers: usize,
    /// How much memory, in bytes.
    pub(crate) memory: u64,
}

/// Walks the hash column of every file.
///
/// # Errors
/// When a file cannot be read.
pub(crate) async fn scan(request: Request) -> Result<Scan, Error> {
    let rows: u64 = request.ours.iter().map(Source::rows).sum();
    let passes = (rows * BYTES_PER_ROW).div_ceil(request.memory.max(1)).clamp(1, u64::from(request.buckets));
    let step = u64::from(request.buckets).div_ceil(passes);
    let wanted = Arc::new(request.wanted);
    let mut scan = Scan { foreign: vec![Vec::new(); request.others.len()], ..Scan::default() };
    let mut wanted_there = vec![Vec::new(); request.others.len()];
    for pass in 0..passes {
        let range = Range { from: pass * step, to: (pass + 1) * step, buckets: request.buckets };
        let looked_for = if pass == 0 { wanted.clone() } else { Arc::default() };
        let ours = read_ours(&request.ours, range, looked_for.clone(), request.workers).await?;
        if pass == 0 {
            scan.layouts = ours.layouts;
            scan.wanted = ours.wanted;
        }
        let theirs = read_others(&request.others, Arc::new(ours.hashes), looked_for, request.workers).await?;
        for (i, (foreign, wanted)) in theirs.into_iter().enumerate() {
            scan.foreign.get_mut(i).into_iter().for_each(|all| all.extend_from_slice(&foreign));
            wanted_there.get_mut(i).into_iter().for_each(|all: &mut Vec<Hit>| all.extend_from_slice(&wanted));
        }
    }
    scan.wanted.extend(wanted_there);
    scan.foreign.iter_mut().for_each(|hits| hits.sort_unstable());
    Ok(scan)
}

/// Some of the day's buckets.
#[derive(Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
    buckets: u32,
}

impl Range {
    fn contains(self, hash: i64) -> bool {
        (self.from..self.to).contains(&u64::from(bucket_of(hash, self.buckets)))
    }
}

struct Ours {
    layouts: Vec<Layout>,
    wanted: Vec<Vec<Hit>>,
    hashes: Vec<i64>,
}

async fn read_ours(files: &[Source], range: Range, wanted: Arc<Vec<i64>>, workers: usize) -> Result<Ours, Error> {
    let read = move |source: Source| {
        let mut hashes = read_hashes(&source)?;
        let layout = layout(&hashes, range.buckets);
        let found = meet(&hashes, 0, &wanted);
        hashes.retain(|h| range.contains(*h));
        Ok((layout, found, hashes))
    };
    let parts = tasks::each(workers, files.to_vec(), read).await?;
    let mut ours = Ours { layouts: Vec::new(), wanted: Vec::new(), hashes: Vec::new() };
    ours.hashes.reserve_exact(parts.iter().map(|(_, _, h)| h.len()).sum());
    for (layout, wanted, hashes) in parts {
        ours.layouts.push(layout);
        ours.wanted.push(wanted);
        ours.hashes.extend_from_slice(&hashes);
    }
    ours.hashes.sort(); // stable on purpose: it merges runs that are in order already
    ours.hashes.dedup();
    Ok(ours)
}

async fn read_others(
    files: &[Source],
    ours: Arc<Vec<i64>>,
    wanted: Arc<Vec<i64>>,
    workers: usize,
) -> Result<Vec<(Vec<Hit>, Vec<Hit>)>, Error> {
    if ours.is_empty() && wanted.is_empty() {
        return Ok(files.iter().map(|_| (Vec::new(), Vec::new())).collect());
    }
    let read = move |source: Source| {
        let (mut foreign, mut found, mut row) = (Vec::new(), Vec::new(), 0);
        for batch in source.read(&["id_hash"], Rows::All)? {
            let batch = batch?;
            let hashes = column::<Int64Array>(&batch, "id_hash")?.values();
            foreign.extend(meet(hashes, row, &ours));
            found.extend(meet(hashes, row, &wanted));
            row += u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        }
        Ok((foreign, found))
    };
    tasks::each(workers, files.to_vec(), read).await
}

fn read_hashes(source: &Source) -> Result<Vec<i64>, Error> {
    let mut hashes = Vec::with_capacity(usize::try_from(source.rows()).unwrap_or(0));
    for batch in source.read(&["id_hash"], Rows::All)? {
        hashes.extend_from_slice(column::<Int64Array>(&batch?, "id_hash")?.values());
    }
    Ok(hashes)
}

fn layout(hashes: &[i64], buckets: u32) -> Layout {
    if !hashes.is_sorted() {
        return Layout::Unsorted;
    }
    let before = |bucket: u32| hashes.partition_point(|h| bucket_of(*h, buckets) < bucket) as u64;
    Layout::Sorted((0..buckets).map(before).chain([hashes.len() as u64]).collect())
}

/// The rows of `hashes` (the first is `base`) that are in `set` (ordered, distinct). Fast where `hashes` is ordered.
fn meet(hashes: &[i64], base: u32, set: &[i64]) -> Vec<Hit> {
    let mut hits = Vec::new();
    if set.is_empty() {
        return hits;
    }
    let mut at = 0_usize;
    for (row, hash) in (base..).zip(hashes) {
        if at.checked_sub(1).and_then(|before| set.get(before)).is_some_and(|last| last >= hash) {
            at = 0; // the column went back
        } else if set.get(at).is_none_or(|next| next > hash) {
            continue; // between two of the set, as most rows of a large archive are
        }
        at += gallop(set.get(at..).unwrap_or_default(), *hash);
        if set.get(at) == Some(hash) {
            hits.push(Hit { hash: *hash, row });
        }
    }
    hits
}

/// How many values at the front of `set` are less than `value`: looks near the front first.
fn gallop(set: &[i64], value: i64) -> usize {
    let mut reach = 1;
    while set.get(reach - 1).is_some_and(|v| *v < value) {
        reach *= 2;
    }
    let from = reach / 2;
    let within = set.get(from..reach.min(set.len())).unwrap_or_default();
    from + within.partition_point(|v| *v < value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_that_meet_are_found_whatever_their_order(
            mut hashes in proptest::collection::vec(-20_i64..20, 0..60),
            set in proptest::collection::btree_set(-20_i64..20, 0..30),
            sorted in any::<bool>(),
        ) {
            if sorted {
                hashes.sort_unstable();
            }
            let list: Vec<i64> = set.iter().copied().collect();
            let rows: BTreeSet<u32> = meet(&hashes, 100, &list).iter().map(|h| h.row).collect();
            let naive: BTreeSet<u32> =
                (100..).zip(&hashes).filter(|(_, h)| set.contains(h)).map(|(row, _)| row).collect();
            prop_assert_eq!(rows, naive);
        }

        #[test]
        fn buckets_split_the_hashes_in_their_order(hashes in proptest::collection::vec(any::<i64>(), 1..50), n in 1_u32..9) {
            let mut sorted = hashes;
            sorted.sort_unstable();
            let buckets: Vec<u32> = sorted.iter().map(|h| bucket_of(*h, n)).collect();
            prop_assert!(buckets.is_sorted());
            prop_assert!(buckets.iter().all(|b| *b < n));
            let Layout::Sorted(offsets) = layout(&sorted, n) else { panic!("sorted") };
            prop_assert_eq!(offsets.len(), n as usize + 1);
            for (row, bucket) in (0..).zip(&buckets) {
                let b = *bucket as usize;
                prop_assert!((offsets[b]..offsets[b + 1]).contains(&row));
            }
        }
    }

    #[test]
    fn the_extremes_fall_into_the_first_and_last_bucket() {
        assert_eq!(bucket_of(i64::MIN, 7), 0);
        assert_eq!(bucket_of(i64::MAX, 7), 6);
        assert_eq!((buckets(0, 5), buckets(1, 5), buckets(5, 5), buckets(6, 5)), (1, 1, 1, 2));
        assert_eq!(layout(&[2, 1], 3), Layout::Unsorted);
    }
}

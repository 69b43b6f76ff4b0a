//! One bucket of the day: the rows of every file whose id hash falls into it, in one order, each with the standing
//! of its id. Equal ids have equal hashes, so all of the day's claims on an id meet here, and those of other days
//! are read beside them.
//! Guarantee: the order (hash, whole hash of the id, archive order) is the same whatever files the rows came from, and
//! it is that of the leaves of the settlement's Merkle tree.
//! Memory: one bucket's rows, about 250 bytes each.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use compact_str::CompactString;
use shared::billed::key;
use shared::verdict::{Counting, IdStanding, InvalidCode};

use crate::claims::{self, ClaimColumns};
use crate::clicks::Repeat;
use crate::error::Error;
use crate::hashes::{Hit, Layout, bucket_of};
use crate::invalid;
use crate::source::{Rows, Source, column};
use crate::standing::{Claim, judge_ids};
use crate::words;

/// Only read to tell robots.
const AGENT: &str = "user_agent";
/// The columns of bronze that judging needs, [`AGENT`] apart.
const COLUMNS: [&str; 19] = [
    "id_hash",
    "event_id",
    "event_type",
    "event_time",
    "ingest_time",
    "billing_time",
    "ad_id",
    "campaign_id",
    "impression_id",
    "user_pseudo_id",
    "country",
    "device_type",
    "cost_micros",
    "currency",
    "invalid",
    "fingerprint",
    "region",
    "partition",
    "position",
];

/// What the buckets are made from.
pub(crate) struct Inputs {
    /// The day's files.
    pub(crate) ours: Vec<Source>,
    /// Where the buckets lie in each.
    pub(crate) layouts: Vec<Layout>,
    /// Which of each one's rows are repeat clicks, ascending, and of which click.
    pub(crate) repeats: Vec<Vec<Repeat>>,
    /// The files of other days.
    pub(crate) others: Vec<Source>,
    /// By other file: rows that share a hash with the day, ordered by hash.
    pub(crate) foreign: Vec<Vec<Hit>>,
    /// How many buckets there are.
    pub(crate) buckets: u32,
    /// The rules.
    pub(crate) counting: Arc<Counting>,
}

/// Some rows of one file.
pub(crate) struct Run {
    /// The rows, without `user_agent`.
    pub(crate) batch: RecordBatch,
    /// What is invalid about each.
    pub(crate) invalid: Vec<Option<InvalidCode>>,
    /// The id of the click that each repeats, if it may bill otherwise.
    pub(crate) repeats: Vec<Option<CompactString>>,
}

/// A row of the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    hash: i64,
    /// Which run.
    pub(crate) run: u32,
    /// Which row of it.
    pub(crate) row: u32,
}

/// A bucket, in order.
pub(crate) struct Bucket {
    /// The rows' data.
    pub(crate) runs: Vec<Run>,
    /// The rows in order.
    pub(crate) keys: Vec<Key>,
    /// The standing of each row's id, in the same order.
    pub(crate) standings: Vec<IdStanding>,
}

/// Reads bucket `bucket` and resolves its ids.
///
/// # Errors
/// When a file cannot be read or holds what cannot be.
pub(crate) fn read(inputs: &Inputs, bucket: u32) -> Result<Bucket, Error> {
    let mut runs = Vec::new();
    for (file, source) in inputs.ours.iter().enumerate() {
        let repeats = inputs.repeats.get(file).map_or(&[][..], Vec::as_slice);
        match inputs.layouts.get(file) {
            Some(Layout::Sorted(offsets)) => {
                let at = |b: u32| offsets.get(b as usize).copied().unwrap_or(0);
                let (from, to) = (at(bucket), at(bucket + 1));
                if from < to {
                    read_runs(inputs, source, Rows::Range(from, to), from, repeats, &mut runs)?;
                }
            }
            Some(Layout::Unsorted) => read_runs(inputs, source, Rows::All, 0, repeats, &mut runs)?,
            None => return Err(Error::Internal("a file of the day was not scanned".to_owned())),
        }
    }
    let mut batches: Vec<&mut RecordBatch> = runs.iter_mut().map(|r| &mut r.batch).collect();
    for name in words::COLUMNS.into_iter().filter(|name| *name != AGENT) {
        words::unite(&mut batches, name)?;
    }
    let mut keys = keys(&runs, bucket, inputs.buckets)?;
    let foreign = read_foreign(inputs, bucket)?;
    let standings = resolve(&runs, &mut keys, &foreign)?;
    Ok(Bucket { runs, keys, standings })
}

/// Reads rows of one file; the first is row `first` of it.
fn read_runs(
    inputs: &Inputs,
    source: &Source,
    rows: Rows<'_>,
    first: u64,
    repeats: &[Repeat],
    runs: &mut Vec<Run>,
) -> Result<(), Error> {
    let columns = [&COLUMNS[..], &[AGENT]].concat();
    let mut row = first;
    for batch in source.with_dictionaries(&words::COLUMNS)?.read(&columns, rows)? {
        let mut batch = batch?;
        let invalid = invalid::judge(&batch, &inputs.counting)?;
        let agent = batch.schema_ref().index_of(AGENT)?;
        batch.remove_column(agent);
        let end = row + batch.num_rows() as u64;
        let mut repeated = vec![None; batch.num_rows()];
        let from = repeats.partition_point(|(r, _)| u64::from(*r) < row);
        for (r, id) in repeats.iter().skip(from).take_while(|(r, _)| u64::from(*r) < end) {
            let place = usize::try_from(u64::from(*r) - row).ok().and_then(|at| repeated.get_mut(at));
            place.into_iter().for_each(|place| *place = Some(id.clone()));
        }
        runs.push(Run { batch, invalid, repeats: repeated });
        row = end;
    }
    Ok(())
}

/// The bucket's rows in hash order.
fn keys(runs: &[Run], bucket: u32, buckets: u32) -> Result<Vec<Key>, Error> {
    let mut keys = Vec::with_capacity(runs.iter().map(|r| r.batch.num_rows()).sum());
    for (run, data) in (0..).zip(runs) {
        let hashes: &Int64Array = column(&data.batch, "id_hash")?;
        let rows = (0..).zip(hashes.values());
        let within = rows.filter(|(_, hash)| bucket_of(**hash, buckets) == bucket);
        keys.extend(within.map(|(row, hash)| Key { hash: *hash, run, row }));
    }
    keys.sort_by_key(|k| k.hash); // stable on purpose: it merges runs that are in order already
    Ok(keys)
}

/// The claims of other days on ids that may be in this bucket, ordered by hash.
fn read_foreign(inputs: &Inputs, bucket: u32) -> Result<Vec<(i64, Claim<u32>)>, Error> {
    let mut claims = Vec::new();
    for (source, hits) in inputs.others.iter().zip(&inputs.foreign) {
        let from = hits.partition_point(|h| bucket_of(h.hash, inputs.buckets) < bucket);
        let to = hits.partition_point(|h| bucket_of(h.hash, inputs.buckets) <= bucket);
        let mut hits: Vec<Hit> = hits.get(from..to).unwrap_or_default().to_vec();
        if hits.is_empty() {
            continue;
        }
        hits.sort_unstable_by_key(|h| h.row);
        let rows: Vec<u32> = hits.iter().map(|h| h.row).collect();
        claims.extend(hits.iter().map(|h| h.hash).zip(claims::read(source, &rows)?));
    }
    claims.sort_unstable_by_key(|(hash, _)| *hash);
    Ok(claims)
}

/// Orders rows with one hash by the whole hash of the id and archive order and gives every row the standing of its id.
fn resolve(runs: &[Run], keys: &mut [Key], foreign: &[(i64, Claim<u32>)]) -> Result<Vec<IdStanding>, Error> {
    let columns = runs.iter().map(|r| ClaimColumns::of(&r.batch)).collect::<Result<Vec<_>, _>>()?;
    let mut standings = Vec::with_capacity(keys.len());
    for group in keys.chunk_by_mut(|a, b| a.hash == b.hash) {
        let Some(hash) = group.first().map(|k| k.hash) else { continue };
        let from = foreign.partition_point(|(h, _)| *h < hash);
        let outside = foreign.get(from..).unwrap_or_default().iter().take_while(|(h, _)| *h == hash);
        if group.len() == 1 && outside.clone().next().is_none() {
            standings.push(IdStanding::First);
            continue;
        }
        let mut claims: Vec<Claim<Option<Key>>> = Vec::with_capacity(group.len());
        for key in group.iter() {
            let run = columns.get(key.run as usize).ok_or_else(|| Error::Internal("a run is missing".to_owned()))?;
            claims.push(run.claim(key.row as usize, Some(*key))?);
        }
        claims.extend(outside.map(|(_, claim)| claim.clone().with_tag(None)));
        let mut judged: Vec<_> = judge_ids(&mut claims).into_iter().zip(&claims).collect();
        judged.sort_by_cached_key(|(_, claim)| key(&claim.event_id)); // stable: claims on one id stay in archive order
        let ours = judged.into_iter().filter_map(|(standing, claim)| Some((claim.tag?, standing)));
        for (place, (key, standing)) in group.iter_mut().zip(ours) {
            *place = key;
            standings.push(standing);
        }
    }
    Ok(standings)
}

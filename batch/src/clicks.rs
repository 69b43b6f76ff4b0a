//! Which clicks of the day repeat an earlier one on their impression (contract 2.3), over the whole archive.
//! First 24 bytes a click tell which can be linked at all; those are read in full, their ids resolved over the whole
//! archive like any other ([`crate::standing`]), and only then are the chains judged ([`crate::chain`]).
//! Never: takes part in a chain what is a duplicate, a conflict or invalid.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use compact_str::CompactString;
use shared::event::EventKind;
use shared::time::Timestamp;
use shared::verdict::{ArchiveOrder, Counting, IdStanding};
use xxhash_rust::xxh3::xxh3_64;

use crate::chain::{Click, Sighting, judge_chains, linked};
use crate::claims::{self, ClaimColumns};
use crate::error::Error;
use crate::hashes::Hit;
use crate::invalid;
use crate::source::{Rows, Source, column};
use crate::standing::judge_ids;
use crate::tasks;

/// Bytes of memory that a click takes while the linked ones are looked for, and as much again while sorting.
const BYTES_PER_CLICK: u64 = 2 * size_of::<Sighting>() as u64;

/// A file and a row in it, by the file's place among the day's files and then the others.
pub(crate) type Place = (u32, u32);

/// A click that may decide a verdict of the day, if its id is its own.
pub(crate) struct Linked {
    key: CompactString,
    /// When it was accepted.
    pub(crate) order: ArchiveOrder,
    id: CompactString,
    id_hash: i64,
    place: Place,
}

impl Linked {
    /// The file it stands in, by its place among all.
    pub(crate) fn file(&self) -> usize {
        self.place.0 as usize
    }

    /// Its chain's key, when it was accepted, and its id.
    pub(crate) fn into_parts(self) -> (CompactString, ArchiveOrder, CompactString) {
        (self.key, self.order, self.id)
    }
}

/// The files in which clicks are looked for.
pub(crate) struct Files {
    /// The day's, then all others.
    pub(crate) all: Vec<Source>,
    /// How many are the day's.
    pub(crate) ours: usize,
    /// Of the others, those that may hold a click near one of the day's (indices into `all`).
    pub(crate) near: Vec<usize>,
}

/// Finds the clicks that can matter: valid, on an impression, linked to one of the day's.
///
/// # Errors
/// When a file cannot be read.
pub(crate) async fn find(
    files: &Files,
    counting: &Arc<Counting>,
    workers: usize,
    memory: u64,
) -> Result<Vec<Linked>, Error> {
    let looked_at: Vec<usize> = (0..files.ours).chain(files.near.iter().copied()).collect();
    let rows: u64 = looked_at.iter().filter_map(|i| files.all.get(*i)).map(Source::rows).sum();
    let passes = (rows * BYTES_PER_CLICK).div_ceil(memory.max(1)).clamp(1, 4_096);
    let window = counting.repeat_click_seconds.saturating_mul(1_000_000);
    let ours = u32::try_from(files.ours).unwrap_or(u32::MAX);
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pass in 0..passes {
        let mut seen = sightings(files, &looked_at, workers, (pass, passes), counting).await?;
        for sighting in linked(&mut seen, window, |s| s.file < ours) {
            found.entry(sighting.file).or_default().push(sighting.row);
        }
    }
    read_linked(files, found, counting, workers).await
}

/// What a click's chain is told by, but for the impression only read where the policy asks for it.
const KEY_COLUMNS: [&str; 4] = ["impression_id", "user_pseudo_id", "creative_id", "event_time"];

/// The columns that [`ChainKeys`] reads under these rules.
fn key_columns(counting: &Counting) -> &'static [&'static str] {
    if counting.identical_clicks { &KEY_COLUMNS } else { &KEY_COLUMNS[..1] }
}

/// The chain keys of a batch of clicks ([`Counting::chain_key`]).
struct ChainKeys<'a> {
    impression: &'a StringArray,
    policy: Option<(&'a StringArray, &'a StringArray, &'a TimestampMicrosecondArray)>,
}

impl<'a> ChainKeys<'a> {
    fn of(batch: &'a RecordBatch, counting: &Counting) -> Result<Self, Error> {
        let [impression, user, creative, event_time] = KEY_COLUMNS;
        let policy = if counting.identical_clicks {
            Some((column(batch, user)?, column(batch, creative)?, column(batch, event_time)?))
        } else {
            None
        };
        Ok(Self { impression: column(batch, impression)?, policy })
    }

    fn get(&self, row: usize, counting: &Counting) -> Option<Cow<'a, str>> {
        let text = |array: &'a StringArray| (!array.is_null(row)).then(|| array.value(row));
        let (user, creative, at) = match self.policy {
            Some((user, creative, at)) => (text(user), text(creative), Timestamp(at.value(row))),
            None => (None, None, Timestamp::MIN),
        };
        counting.chain_key(text(self.impression), user, creative, at)
    }
}

/// Every click of a chain whose hash falls to this pass.
async fn sightings(
    files: &Files,
    looked_at: &[usize],
    workers: usize,
    (pass, passes): (u64, u64),
    counting: &Arc<Counting>,
) -> Result<Vec<Sighting>, Error> {
    let sources = sources(files, looked_at.iter().copied());
    let counting = counting.clone();
    let parts = tasks::each(workers, sources, move |(file, source)| {
        let rows = click_rows(&source)?;
        let mut seen = Vec::new();
        let mut places = rows.iter();
        let columns = [key_columns(&counting), &["ingest_time"]].concat();
        for batch in source.read(&columns, Rows::These(&rows))? {
            let batch = batch?;
            let keys = ChainKeys::of(&batch, &counting)?;
            let ingest: &TimestampMicrosecondArray = column(&batch, "ingest_time")?;
            for ((at, ingest), row) in ingest.values().iter().enumerate().zip(places.by_ref()) {
                let Some(key) = keys.get(at, &counting) else { continue };
                let key_hash = xxh3_64(key.as_bytes());
                if key_hash % passes == pass {
                    seen.push(Sighting { key_hash, ingest: *ingest, file, row: *row });
                }
            }
        }
        Ok(seen)
    })
    .await?;
    Ok(parts.concat())
}

/// The rows that are clicks and that capture did not find invalid.
fn click_rows(source: &Source) -> Result<Vec<u32>, Error> {
    let (mut rows, mut base) = (Vec::new(), 0);
    for batch in source.read(&["event_type", "invalid"], Rows::All)? {
        let batch = batch?;
        let (kinds, codes): (&StringArray, &StringArray) = (column(&batch, "event_type")?, column(&batch, "invalid")?);
        let is_click = |row: &usize| kinds.value(*row) == EventKind::Click.as_str() && codes.is_null(*row);
        let clicks = (0..batch.num_rows()).filter(is_click);
        rows.extend(clicks.map(|row| base + u32::try_from(row).unwrap_or(u32::MAX)));
        base += u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
    }
    Ok(rows)
}

fn sources(files: &Files, wanted: impl Iterator<Item = usize>) -> Vec<(u32, Source)> {
    wanted.filter_map(|i| Some((u32::try_from(i).ok()?, files.all.get(i)?.clone()))).collect()
}

/// The linked clicks in full, without those that the rule lists find invalid.
async fn read_linked(
    files: &Files,
    found: BTreeMap<u32, Vec<u32>>,
    counting: &Arc<Counting>,
    workers: usize,
) -> Result<Vec<Linked>, Error> {
    let counting = counting.clone();
    let items: Vec<_> = found
        .into_iter()
        .filter_map(|(file, mut rows)| {
            rows.sort_unstable();
            Some((file, files.all.get(file as usize)?.clone(), rows))
        })
        .collect();
    let parts = tasks::each(workers, items, move |(file, source, rows)| {
        let mut columns = vec!["id_hash"];
        columns.extend(key_columns(&counting));
        columns.extend(invalid::COLUMNS.iter().chain(&claims::COLUMNS));
        let (mut clicks, mut places) = (Vec::new(), rows.iter());
        for batch in source.with_dictionaries(&["user_agent", "region"])?.read(&columns, Rows::These(&rows))? {
            let batch = batch?;
            let judged = invalid::judge(&batch, &counting)?;
            let keys = ChainKeys::of(&batch, &counting)?;
            for ((row, invalid), place) in judged.into_iter().enumerate().zip(places.by_ref()) {
                if let (None, Some(key)) = (invalid, keys.get(row, &counting)) {
                    clicks.push(click(&batch, row, key, (file, *place))?);
                }
            }
        }
        Ok(clicks)
    })
    .await?;
    Ok(parts.into_iter().flatten().collect())
}

fn click(batch: &RecordBatch, row: usize, key: Cow<'_, str>, place: Place) -> Result<Linked, Error> {
    let claims = ClaimColumns::of(batch)?;
    Ok(Linked {
        key: CompactString::from(key),
        order: claims.order(row)?,
        id: CompactString::new(claims.id(row)),
        id_hash: column::<Int64Array>(batch, "id_hash")?.value(row),
        place,
    })
}

/// The hashes of the clicks' ids: whatever shares one of them, anywhere, must be known to [`repeats`].
pub(crate) fn wanted(clicks: &[Linked]) -> Vec<i64> {
    clicks.iter().map(|c| c.id_hash).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The earliest and latest ingest time that a click near one ingested within `ours` can have.
pub(crate) fn reach(ours: (Timestamp, Timestamp), counting: &Counting) -> (Timestamp, Timestamp) {
    let window = counting.repeat_click_seconds.saturating_mul(1_000_000);
    (ours.0.plus(-window), ours.1)
}

/// A row that repeats a click, and that click's id.
pub(crate) type Repeat = (u32, CompactString);

/// The rows of the day's files that are repeat clicks, by file, ascending. `hits` are, by file, all rows of the
/// archive that share a hash with one of `clicks`.
///
/// # Errors
/// When a file cannot be read.
pub(crate) async fn repeats(
    files: &Files,
    clicks: Vec<Linked>,
    hits: Vec<Vec<Hit>>,
    counting: &Counting,
    workers: usize,
) -> Result<Vec<Vec<Repeat>>, Error> {
    let firsts = firsts(files, hits, workers).await?;
    let mut chain: Vec<Click<(Place, CompactString)>> = clicks
        .into_iter()
        .filter(|c| firsts.contains(&c.place))
        .map(|c| Click { key: c.key, order: c.order, tag: (c.place, c.id) })
        .collect();
    let judged = judge_chains(&mut chain, counting);
    let mut repeats = vec![Vec::new(); files.ours];
    // One that repeats follows another click of its chain, which is the one it repeats.
    for (pair, _) in chain.windows(2).zip(judged.iter().skip(1)).filter(|(_, repeats)| **repeats) {
        if let [Click { tag: (_, id), .. }, Click { tag: ((file, row), _), .. }] = pair {
            repeats.get_mut(*file as usize).into_iter().for_each(|rows| rows.push((*row, id.clone())));
        }
    }
    repeats.iter_mut().for_each(|rows: &mut Vec<Repeat>| rows.sort_unstable());
    Ok(repeats)
}

/// Which of the rows hold their id.
async fn firsts(files: &Files, hits: Vec<Vec<Hit>>, workers: usize) -> Result<BTreeSet<Place>, Error> {
    let items: Vec<_> =
        sources(files, 0..files.all.len()).into_iter().zip(hits).filter(|(_, h)| !h.is_empty()).collect();
    let parts = tasks::each(workers, items, |((file, source), hits)| {
        let mut rows: Vec<u32> = hits.iter().map(|h| h.row).collect();
        rows.sort_unstable();
        Ok((file, claims::read(&source, &rows)?))
    })
    .await?;
    let tagged = |(file, claims): (u32, Vec<crate::standing::Claim<u32>>)| {
        claims.into_iter().map(move |c| {
            let place = (file, c.tag);
            c.with_tag(place)
        })
    };
    let mut claims: Vec<_> = parts.into_iter().flat_map(tagged).collect();
    let standings = judge_ids(&mut claims);
    let firsts = claims.iter().zip(standings).filter(|(_, s)| *s == IdStanding::First);
    Ok(firsts.map(|(c, _)| c.tag).collect())
}

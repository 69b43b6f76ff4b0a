//! Conservation of log positions, over the whole archive: every position that the lake says it has taken is exactly
//! one event or one bad record. Counts, bounds and a sum of mixed positions tell a gap, a doubled and a swapped
//! position; only the two columns with the place in the log are read, of files that no earlier run read ([`Known`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, StringArray};
use lake::run_record::PartitionConservation;
use object_store::ObjectStore;
use shared::progress::Positions;

use crate::error::{Difference, Error};
use crate::known::{FileTally, Known, Tally};
use crate::snapshot::{DEAD_LETTERS_TOPIC, EVENTS_TOPIC, Snapshot};
use crate::source::{Rows, Source, column};
use crate::tasks;

/// A log has fewer partitions than this.
const MAX_PARTITIONS: usize = 1 << 16;

/// A log partition: topic and number.
type Place = (&'static str, i64);

impl Tally {
    fn add(&mut self, position: i64) {
        self.count += 1;
        self.mixed = self.mixed.wrapping_add(mix(position.cast_unsigned()));
    }

    fn merge(self, other: Self) -> Self {
        Self { count: self.count + other.count, mixed: self.mixed.wrapping_add(other.mixed) }
    }

    /// The tally of all positions before `next`.
    fn all_before(next: u64) -> Self {
        Self { count: next, mixed: (0..next).fold(0, |sum, p| sum.wrapping_add(mix(p))) }
    }
}

/// Spreads a position over 64 bits (the finalizer of MurmurHash3), so that sums of different sets differ.
fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    n = (n ^ (n >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ (n >> 33)
}

/// What the archive should hold: the next position of each partition of both logs.
pub(crate) struct Covered {
    /// Of the events log.
    pub(crate) events: Positions,
    /// Of the dead-letter log.
    pub(crate) dead_letters: Positions,
}

/// Compares what the archive holds with what it says it holds. The day's own files are read whatever is known.
///
/// # Errors
/// When a file cannot be read.
pub(crate) async fn conserve(
    snapshot: &Snapshot,
    store: &Arc<dyn ObjectStore>,
    covered: &Covered,
    workers: usize,
    known: &mut Known,
) -> Result<(Vec<PartitionConservation>, Vec<Difference>), Error> {
    let limits = Arc::new(covered.events.clone());
    let sources = |files: Vec<lake::table::DataFile>| files.iter().map(|f| Source::new(store, f)).collect::<Vec<_>>();
    let mut events: BTreeMap<Place, Tally> = BTreeMap::new();
    let unread = snapshot.ours.iter().chain(snapshot.others.iter().filter(|f| known.of(f).is_none()));
    let unread: Vec<lake::table::DataFile> = unread.cloned().collect();
    let read = tasks::each(workers, sources(unread.clone()), |file| tally_events(&file)).await?;
    unread.iter().zip(read).for_each(|(file, tally)| known.learn(file, tally));
    for (partition, tally) in snapshot.ours.iter().chain(&snapshot.others).filter_map(|f| known.of(f)).flatten() {
        let sum = events.entry((EVENTS_TOPIC, *partition)).or_default();
        *sum = sum.merge(*tally);
    }
    let tally = move |tallies: &mut BTreeMap<Place, Tally>, file| tally_bad(tallies, &file, &limits);
    let bad = tasks::fold(workers, sources(snapshot.bad.files()?), BTreeMap::new, tally).await?;
    let bad = merge(bad);
    let mut lines = Vec::new();
    let mut differences = Vec::new();
    for (topic, positions) in [(EVENTS_TOPIC, &covered.events), (DEAD_LETTERS_TOPIC, &covered.dead_letters)] {
        for (partition, next) in &positions.0 {
            let of = |tallies: &BTreeMap<Place, Tally>| {
                tallies.get(&(topic, i64::from(*partition))).copied().unwrap_or_default()
            };
            let (events, bad) = (of(&events), of(&bad));
            differences.extend(compare(topic, *partition, events.merge(bad), Tally::all_before(*next)));
            let (events, bad) = (events.count, bad.count);
            lines.push(PartitionConservation {
                topic: topic.to_owned(),
                partition: *partition,
                start: 0,
                next: *next,
                events,
                bad,
            });
        }
    }
    differences.extend(unknown(&events, &bad, covered));
    Ok((lines, differences))
}

fn compare(topic: &str, partition: u32, found: Tally, expected: Tally) -> Option<Difference> {
    let what = if found.count == expected.count {
        "archived records (right in number, but some positions are missing and others doubled)"
    } else {
        "archived records"
    };
    (found != expected).then(|| Difference {
        place: format!("{topic} partition {partition}"),
        what: what.to_owned(),
        expected: i128::from(expected.count),
        found: i128::from(found.count),
    })
}

/// Records of partitions that the log does not have.
fn unknown<'a>(
    events: &'a BTreeMap<Place, Tally>,
    bad: &'a BTreeMap<Place, Tally>,
    covered: &'a Covered,
) -> impl Iterator<Item = Difference> + 'a {
    let is_known = |(topic, partition): &Place| {
        let positions = if *topic == EVENTS_TOPIC { &covered.events } else { &covered.dead_letters };
        u32::try_from(*partition).is_ok_and(|p| positions.0.contains_key(&p))
    };
    events.iter().chain(bad).filter(move |(place, _)| !is_known(place)).map(|((topic, partition), tally)| Difference {
        place: format!("{topic} partition {partition}"),
        what: "archived records of a partition that the log does not have".to_owned(),
        expected: 0,
        found: i128::from(tally.count),
    })
}

fn tally_events(file: &Source) -> Result<FileTally, Error> {
    let mut by_partition: Vec<Tally> = Vec::new(); // the whole archive passes here: no search per row
    for batch in file.read(&["partition", "position"], Rows::All)? {
        let batch = batch?;
        let (partitions, positions): (&Int32Array, &Int64Array) =
            (column(&batch, "partition")?, column(&batch, "position")?);
        for (partition, position) in partitions.values().iter().zip(positions.values()) {
            let place = usize::try_from(*partition).unwrap_or(usize::MAX);
            if place >= by_partition.len() {
                if place >= MAX_PARTITIONS {
                    return Err(Error::Corrupt(format!("{partition} is not a log partition")));
                }
                by_partition.resize(place + 1, Tally::default());
            }
            by_partition.get_mut(place).into_iter().for_each(|tally| tally.add(*position));
        }
    }
    Ok((0..).zip(by_partition).filter(|(_, tally)| tally.count > 0).collect())
}

/// Undecodable records of the events log are archived before the events around them: those at or beyond `limits` do
/// not belong to this snapshot yet.
fn tally_bad(tallies: &mut BTreeMap<Place, Tally>, file: &Source, limits: &Positions) -> Result<(), Error> {
    for batch in file.read(&["topic", "partition", "position"], Rows::All)? {
        let batch = batch?;
        let topics: &StringArray = column(&batch, "topic")?;
        let (partitions, positions): (&Int32Array, &Int64Array) =
            (column(&batch, "partition")?, column(&batch, "position")?);
        for row in 0..batch.num_rows() {
            let (partition, position) = (partitions.value(row), positions.value(row));
            let topic = match topics.value(row) {
                EVENTS_TOPIC => EVENTS_TOPIC,
                DEAD_LETTERS_TOPIC => DEAD_LETTERS_TOPIC,
                other => return Err(Error::Corrupt(format!("bronze/bad names a log {other:?} that there is not"))),
            };
            let limit = u32::try_from(partition).map_or(u64::MAX, |p| limits.next(p));
            if topic == DEAD_LETTERS_TOPIC || u64::try_from(position).is_ok_and(|p| p < limit) {
                tallies.entry((topic, i64::from(partition))).or_default().add(position);
            }
        }
    }
    Ok(())
}

fn merge(parts: Vec<BTreeMap<Place, Tally>>) -> BTreeMap<Place, Tally> {
    let mut all: BTreeMap<Place, Tally> = BTreeMap::new();
    for (place, tally) in parts.into_iter().flatten() {
        let sum = all.entry(place).or_default();
        *sum = sum.merge(tally);
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_all_positions_once_balance(mut positions in proptest::collection::vec(0..30_i64, 0..30), whole in any::<bool>()) {
            let next = positions.len() as u64;
            if whole {
                positions = (0..).take(positions.len()).collect();
                positions.reverse();
            }
            let mut found = Tally::default();
            positions.iter().for_each(|p| found.add(*p));
            let mut sorted = positions.clone();
            sorted.sort_unstable();
            let is_whole = sorted.into_iter().eq((0..).take(positions.len()));
            prop_assert_eq!(compare("events", 0, found, Tally::all_before(next)).is_none(), is_whole);
        }
    }
}

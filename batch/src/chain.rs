//! Chains of clicks on one impression: which click repeats the one before it (contract 2.3). Pure.
//! Guarantee: every click that takes part is compared with the one just before it in archive order, whatever that
//! one's own verdict. Never: sees a duplicate, a conflict or an invalid click (the caller leaves them out).

use compact_str::CompactString;
use shared::verdict::{ArchiveOrder, Counting};

/// A click that takes part in its impression's chain ([`Counting::chains`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Click<T> {
    /// What it is chained by ([`Counting::chain_key`]): mostly its impression.
    pub key: CompactString,
    /// When and where the click was accepted.
    pub order: ArchiveOrder,
    /// Which event this is, for the caller.
    pub tag: T,
}

/// Sorts `clicks` by key and archive order and tells of each, in that order, whether it repeats the one before it.
/// Of every key all clicks within the window before the ones in question must be among them.
pub fn judge_chains<T>(clicks: &mut [Click<T>], counting: &Counting) -> Vec<bool> {
    clicks.sort_unstable_by(|a, b| (&a.key, &a.order).cmp(&(&b.key, &b.order)));
    let mut before: Option<&Click<T>> = None;
    let mut repeats = Vec::with_capacity(clicks.len());
    for click in clicks.iter() {
        let previous = before.filter(|b| b.key == click.key);
        let is_near = |b: &Click<T>| counting.is_repeat_click(b.order.ingest_time, click.order.ingest_time);
        repeats.push(previous.is_some_and(is_near));
        before = Some(click);
    }
    repeats
}

/// Where a click on some impression was seen: enough to find, in one sort, the clicks that can matter to a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Hash of the chain key: equal keys have equal hashes, the reverse is checked later.
    pub key_hash: u64,
    /// Ingest time, UTC microseconds.
    pub ingest: i64,
    /// The file it stands in.
    pub file: u32,
    /// Its row in that file.
    pub row: u32,
}

/// The sightings that may decide the verdict of one of ours: those in a run of clicks on one impression hash, each
/// at most `window` microseconds after the one before, that holds at least two clicks and one of ours.
/// Sorts `sightings`. A superset is harmless, a miss is not.
pub fn linked(sightings: &mut [Sighting], window: i64, is_ours: impl Fn(&Sighting) -> bool) -> Vec<Sighting> {
    sightings.sort_unstable();
    let near = |a: &Sighting, b: &Sighting| a.key_hash == b.key_hash && b.ingest.saturating_sub(a.ingest) <= window;
    sightings
        .chunk_by(near)
        .filter(|run| run.len() > 1 && run.iter().any(&is_ours))
        .flat_map(|run| run.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::id::RefId;
    use shared::time::Timestamp;

    use super::*;

    fn counting() -> Counting {
        Counting { repeat_click_seconds: 10, ..Counting::default() }
    }

    fn clicks() -> impl Strategy<Value = Vec<Click<usize>>> {
        proptest::collection::vec((0..3_u8, 0..40_i64, 0..2_u32), 0..40).prop_map(|rows| {
            let made = |(tag, (impression, second, partition)): (usize, (u8, i64, u32))| Click {
                key: CompactString::new(format!("i{impression}")),
                order: ArchiveOrder {
                    ingest_time: Timestamp(second * 1_000_000),
                    region: RefId::new("r").unwrap(),
                    partition,
                    position: tag as u64,
                },
                tag,
            };
            rows.into_iter().enumerate().map(made).collect()
        })
    }

    /// The rule as the contract says it, by looking at every pair.
    fn naive(clicks: &[Click<usize>], tag: usize) -> bool {
        let click = clicks.iter().find(|c| c.tag == tag).unwrap();
        let earlier = clicks.iter().filter(|c| c.key == click.key && c.order < click.order);
        earlier
            .max_by_key(|c| c.order.clone())
            .is_some_and(|b| click.order.ingest_time.0 - b.order.ingest_time.0 < 10_000_000)
    }

    proptest! {
        #[test]
        fn a_click_repeats_when_the_one_just_before_is_near(clicks in clicks()) {
            let mut sorted = clicks.clone();
            let repeats = judge_chains(&mut sorted, &counting());
            for (click, repeat) in sorted.iter().zip(repeats) {
                prop_assert_eq!(repeat, naive(&clicks, click.tag), "{:?}", click);
            }
        }

        #[test]
        fn only_linked_clicks_can_change_the_verdict_of_ours(clicks in clicks(), ours in 0..2_u32) {
            // Whatever linked() leaves out, the verdicts of our clicks stay the same.
            let sighting = |c: &Click<usize>| Sighting {
                key_hash: u64::from(c.key.as_bytes()[1]),
                ingest: c.order.ingest_time.0,
                file: c.order.partition,
                row: u32::try_from(c.tag).unwrap(),
            };
            let mut seen: Vec<_> = clicks.iter().map(sighting).collect();
            let kept = linked(&mut seen, 10_000_000, |s| s.file == ours);
            let mut few: Vec<_> =
                clicks.iter().filter(|c| kept.iter().any(|s| s.row as usize == c.tag)).cloned().collect();
            let repeats = judge_chains(&mut few, &counting());
            for click in clicks.iter().filter(|c| c.order.partition == ours) {
                let found = few.iter().zip(&repeats).find(|(c, _)| c.tag == click.tag).is_some_and(|(_, r)| *r);
                prop_assert_eq!(found, naive(&clicks, click.tag), "{:?}", click);
            }
        }
    }
}

//! Who holds an id: the claims on it in archive order, over the whole archive (contract 2.2). Pure.
//! Guarantee: ids are compared by their exact bytes, never by a hash; the answer does not depend on the order in
//! which claims are given. Never: lets a forged event claim.

use compact_str::CompactString;
use shared::event::Fingerprint;
use shared::verdict::{ArchiveOrder, IdStanding};

/// One archived event's claim on its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<T> {
    /// The id.
    pub event_id: CompactString,
    /// When and where it was made.
    pub order: ArchiveOrder,
    /// The payload's identity.
    pub fingerprint: Fingerprint,
    /// Whether the event is forged: it then claims nothing.
    pub forged: bool,
    /// Which event this is, for the caller.
    pub tag: T,
}

impl<T> Claim<T> {
    /// The same claim under another tag.
    pub fn with_tag<U>(self, tag: U) -> Claim<U> {
        let Self { event_id, order, fingerprint, forged, .. } = self;
        Claim { event_id, order, fingerprint, forged, tag }
    }
}

/// Sorts `claims` by id and archive order and gives each, in that order, its standing.
/// All claims on the ids in question must be among them.
pub fn judge_ids<T>(claims: &mut [Claim<T>]) -> Vec<IdStanding> {
    claims.sort_unstable_by(|a, b| (&a.event_id, &a.order).cmp(&(&b.event_id, &b.order)));
    let mut standings = Vec::with_capacity(claims.len());
    let mut holder: Option<(&CompactString, Fingerprint)> = None;
    for claim in claims.iter() {
        let winner = holder.filter(|(id, _)| **id == claim.event_id).map(|(_, fingerprint)| fingerprint);
        standings.push(IdStanding::of(winner, claim.fingerprint));
        if winner.is_none() && !claim.forged {
            holder = Some((&claim.event_id, claim.fingerprint));
        }
    }
    standings
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use shared::id::RefId;
    use shared::time::Timestamp;

    use super::*;

    fn claims() -> impl Strategy<Value = Vec<Claim<usize>>> {
        let claim = (0..4_u8, 0..5_i64, 0..2_u8, 0..2_u32, 0..2_u8, any::<bool>());
        proptest::collection::vec(claim, 0..40).prop_map(|rows| {
            let made = |(tag, (id, ingest, region, partition, payload, forged)): (usize, _)| Claim {
                event_id: CompactString::new(format!("id{id}")),
                order: ArchiveOrder {
                    ingest_time: Timestamp(ingest),
                    region: RefId::new(format!("r{region}")).unwrap(),
                    partition,
                    position: tag as u64,
                },
                fingerprint: Fingerprint([payload; 16]),
                forged,
                tag,
            };
            rows.into_iter().enumerate().map(made).collect()
        })
    }

    /// The rule as the contract says it: walk the archive in order and remember who came first.
    fn naive(claims: &[Claim<usize>]) -> Vec<(usize, IdStanding)> {
        let mut in_order: Vec<_> = claims.iter().collect();
        in_order.sort_by_key(|c| c.order.clone());
        let mut first: HashMap<&str, Fingerprint> = HashMap::new();
        let mut answers = Vec::new();
        for c in in_order {
            let standing = match first.get(c.event_id.as_str()) {
                None => IdStanding::First,
                Some(f) if *f == c.fingerprint => IdStanding::Duplicate,
                Some(_) => IdStanding::Conflict,
            };
            if !c.forged {
                first.entry(c.event_id.as_str()).or_insert(c.fingerprint);
            }
            answers.push((c.tag, standing));
        }
        answers.sort_by_key(|(tag, _)| *tag);
        answers
    }

    proptest! {
        #[test]
        fn standings_are_those_of_a_walk_through_the_archive(claims in claims()) {
            let mut sorted = claims.clone();
            let standings = judge_ids(&mut sorted);
            let mut answers: Vec<_> = sorted.iter().map(|c| c.tag).zip(standings).collect();
            answers.sort_by_key(|(tag, _)| *tag);
            prop_assert_eq!(answers, naive(&claims));
        }

        #[test]
        fn exactly_one_honest_event_holds_an_id(claims in claims()) {
            let mut sorted = claims.clone();
            let standings = judge_ids(&mut sorted);
            for id in claims.iter().map(|c| &c.event_id) {
                let honest = sorted.iter().zip(&standings).filter(|(c, _)| c.event_id == *id && !c.forged);
                let firsts = honest.clone().filter(|(_, s)| **s == IdStanding::First).count();
                prop_assert_eq!(firsts, usize::from(honest.count() > 0));
            }
        }
    }
}

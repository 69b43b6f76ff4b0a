//! Bytes → what the worker needs to see of an event, borrowed from the record; and which clients are robots.
//!
//! The usual record is read in place ([`EventView::in_place`]). Anything unusual goes through
//! [`shared::wire::decode_event`], which alone decides what is an event.
//! Guarantee: what is read in place is what the full decoder reads (a property test holds them together).
//! Pure; nothing here is saved.

use hashbrown::HashTable;
use shared::event_view::EventView;
use shared::verdict::Counting;
use shared::wire::decode_event;
use xxhash_rust::xxh3::xxh3_64;

/// Shows the event in `payload`, which was not read in place, to `look`; `None` when the bytes are not an event.
pub(crate) fn in_full<R>(payload: &[u8], look: impl FnOnce(&EventView<'_>) -> R) -> Option<R> {
    let event = decode_event(payload).ok()?;
    Some(look(&EventView::from(&event)))
}

/// The most user agents remembered.
const AGENTS: usize = 1_024;

/// Which user agents are known bots: judged once each, because searching a list in every event's text would cost
/// more than the rest of counting. A cache: forgetting it changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Agents(HashTable<(u64, Box<str>, bool)>);

impl Agents {
    /// Whether `agent` is on the rules' list.
    pub(crate) fn is_bot(&mut self, agent: &str, rules: &Counting) -> bool {
        let hash = xxh3_64(agent.as_bytes());
        if let Some((_, _, is_bot)) = self.0.find(hash, |(_, text, _)| **text == *agent) {
            return *is_bot;
        }
        let is_bot = rules.is_known_bot(agent);
        if self.0.len() >= AGENTS {
            self.0.clear();
        }
        self.0.insert_unique(hash, (hash, agent.into(), is_bot), |(hash, _, _)| *hash);
        is_bot
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::event::Event;
    use shared::wire::{encode_event, encode_placed_event};

    use super::*;
    use crate::tests::events;

    /// Both decoders' answers: in place (where sure) and full.
    fn both(payload: &[u8]) -> (Option<EventView<'_>>, Option<Event>) {
        (EventView::in_place(payload), decode_event(payload).ok())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn an_event_is_read_in_place_as_the_full_decoder_reads_it(
            event in events::any_event(), salt_map in 0..1_u64 << 45,
        ) {
            let bytes = encode_placed_event(&event, salt_map);
            let (seen, full) = both(&bytes);
            prop_assert_eq!(full.as_ref(), Some(&event));
            if event.details.extra.is_empty() && event.ingest_time.0 >= 0 {
                prop_assert_eq!(seen, Some(EventView::from(&event)));
            }
        }

        #[test]
        fn damaged_bytes_are_never_read_in_place_otherwise_than_in_full(
            event in events::any_event(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let mut bytes = encode_event(&event);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let (seen, full) = both(&bytes);
            if let Some(seen) = seen {
                prop_assert_eq!(Some(seen), full.as_ref().map(EventView::from));
            }
        }

        #[test]
        fn fields_in_any_order_and_number_mean_the_same(
            a in events::any_event(), b in events::any_event(), cut in any::<prop::sample::Index>(),
        ) {
            // Two encodings joined are one message in which later fields win.
            let mut bytes = encode_event(&a);
            let more = encode_event(&b);
            bytes.extend_from_slice(&more[1..]);
            bytes.truncate(1 + cut.index(bytes.len()));
            let (seen, full) = both(&bytes);
            if let Some(seen) = seen {
                prop_assert_eq!(Some(seen), full.as_ref().map(EventView::from));
            }
        }
    }

    #[test]
    fn a_user_agent_is_judged_the_same_before_and_after_it_is_remembered() {
        let (mut agents, rules) = (Agents::default(), Counting::default());
        for _ in 0..2 {
            assert!(agents.is_bot("Googlebot/2.1", &rules));
            assert!(!agents.is_bot("Firefox/140", &rules));
        }
        (0..3 * AGENTS).for_each(|n| assert!(!agents.is_bot(&format!("agent {n}"), &rules)));
        assert!(agents.0.len() <= AGENTS);
    }
}

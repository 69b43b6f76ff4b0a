//! Bytes → what the worker needs to see of an event, borrowed from the record.
//!
//! The usual record is read in place, without copying a field. Anything unusual (a field we do not expect on the
//! log, an odd encoding, a value near a limit) goes through [`shared::wire::decode_event`], which alone decides what is
//! an event. Guarantee: what is read in place is what the full decoder reads (a property test holds them together).
//! Never: accepts what the full decoder refuses.

use hashbrown::HashTable;
use shared::event::{Country, DeviceType, Event, EventKind, MAX_TEXT_BYTES, SCHEMA_VERSION};
use shared::id::{CampaignId, is_id};
use shared::money::{Currency, MAX_MICROS};
use shared::time::Timestamp;
use shared::verdict::{Counting, InvalidCode};
use shared::wire::{WIRE_VERSION, decode_event};
use xxhash_rust::xxh3::xxh3_64;

/// The part of an event that counting looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) kind: EventKind,
    pub(crate) event_time: Timestamp,
    pub(crate) ingest_time: Timestamp,
    pub(crate) ad_id: &'a str,
    pub(crate) campaign_id: &'a str,
    pub(crate) impression_id: Option<&'a str>,
    pub(crate) creative_id: Option<&'a str>,
    pub(crate) user_pseudo_id: Option<&'a str>,
    pub(crate) country: Country,
    pub(crate) device_type: DeviceType,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) cost_micros: Option<i64>,
    pub(crate) currency: Option<Currency>,
    pub(crate) invalid: Option<InvalidCode>,
}

/// Shows the event in `payload`, which was not read in place, to `look`; `None` when the bytes are not an event.
pub(crate) fn in_full<R>(payload: &[u8], look: impl FnOnce(&Seen<'_>) -> R) -> Option<R> {
    let event = decode_event(payload).ok()?;
    Some(look(&Seen::of(&event)))
}

impl<'a> Seen<'a> {
    fn of(event: &'a Event) -> Self {
        let details = &event.details;
        Self {
            event_id: event.event_id.as_str(),
            kind: event.kind,
            event_time: event.event_time,
            ingest_time: event.ingest_time,
            ad_id: event.ad_id.as_str(),
            campaign_id: event.campaign_id.as_str(),
            impression_id: details.impression_id.as_ref().map(AsRef::as_ref),
            creative_id: details.creative_id.as_ref().map(AsRef::as_ref),
            user_pseudo_id: details.user_pseudo_id.as_ref().map(AsRef::as_ref),
            country: details.country,
            device_type: details.device_type,
            user_agent: details.user_agent.as_deref(),
            cost_micros: details.cost_micros,
            currency: details.currency,
            invalid: event.invalid,
        }
    }

    /// The campaign as an id of its own.
    pub(crate) fn campaign(&self) -> Option<CampaignId> {
        CampaignId::new(self.campaign_id).ok()
    }
}

/// The fields as they come; a later one of the same number replaces an earlier one, as protobuf wants.
#[derive(Default)]
struct Fields<'a> {
    event_id: Option<&'a str>,
    kind: Option<EventKind>,
    event_time: Option<i64>,
    ad_id: Option<&'a str>,
    campaign_id: Option<&'a str>,
    impression_id: Option<&'a str>,
    creative_id: Option<&'a str>,
    user_pseudo_id: Option<&'a str>,
    country: Option<Country>,
    device_type: Option<DeviceType>,
    user_agent: Option<&'a str>,
    cost_micros: Option<i64>,
    currency: Option<Currency>,
    ingest_time: Option<i64>,
    has_region: bool,
    invalid: Option<InvalidCode>,
    has_fingerprint: bool,
}

/// The event in `payload`, read in place; `None` is "not sure", never "not an event".
pub(crate) fn in_place(payload: &[u8]) -> Option<Seen<'_>> {
    let (version, mut rest) = payload.split_first()?;
    if *version != WIRE_VERSION {
        return None;
    }
    let mut fields = Fields::default();
    while !rest.is_empty() {
        let (key, after) = varint(rest)?;
        rest = match key & 7 {
            0 => {
                let (value, after) = varint(after)?;
                fields.number(key >> 3, value)?;
                after
            }
            2 => {
                let (length, after) = varint(after)?;
                let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                fields.bytes(key >> 3, value)?;
                after
            }
            _ => return None,
        };
    }
    fields.seen()
}

impl<'a> Fields<'a> {
    fn number(&mut self, tag: u64, value: u64) -> Option<()> {
        let value = i64::try_from(value).ok()?;
        match tag {
            3 => self.event_time = Some(value),
            18 if value <= MAX_MICROS => self.cost_micros = Some(value),
            20 if value <= i64::from(SCHEMA_VERSION) => {}
            32 => self.ingest_time = Some(value),
            37 => {}
            _ => return None,
        }
        Some(())
    }

    fn bytes(&mut self, tag: u64, value: &'a [u8]) -> Option<()> {
        if tag == 35 {
            self.has_fingerprint = value.len() == 16;
            return self.has_fingerprint.then_some(());
        }
        match tag {
            1 => self.event_id = Some(id(value)?),
            2 => self.kind = Some(EventKind::parse(text(value)?)?),
            4 => self.ad_id = Some(id(value)?),
            5 => self.campaign_id = Some(id(value)?),
            9 => self.impression_id = Some(id(value)?),
            10 => self.user_pseudo_id = Some(id(value)?),
            7 => self.creative_id = Some(id(value)?),
            6 | 8 | 11 | 12 => is_id(value).then_some(())?,
            13 => self.country = Some(Country::parse(text(value)?)?),
            14 => self.device_type = Some(DeviceType::parse(text(value)?)?),
            15 | 17 => drop(short(value)?),
            16 => self.user_agent = Some(short(value)?),
            19 => self.currency = Some(Currency::parse(text(value)?)?),
            33 => self.has_region = is_id(value).then_some(true)?,
            34 => self.invalid = Some(InvalidCode::parse(text(value)?)?),
            36 => drop(text(value)?),
            _ => return None,
        }
        Some(())
    }

    fn seen(self) -> Option<Seen<'a>> {
        if !(self.has_region && self.has_fingerprint) {
            return None;
        }
        let event_time = Timestamp(self.event_time?);
        Some(Seen {
            event_id: self.event_id?,
            kind: self.kind?,
            event_time: (event_time <= Timestamp::MAX).then_some(event_time)?,
            ingest_time: Timestamp(self.ingest_time?),
            ad_id: self.ad_id?,
            campaign_id: self.campaign_id?,
            impression_id: self.impression_id,
            creative_id: self.creative_id,
            user_pseudo_id: self.user_pseudo_id,
            country: self.country.unwrap_or_default(),
            device_type: self.device_type.unwrap_or_default(),
            user_agent: self.user_agent,
            cost_micros: self.cost_micros,
            currency: self.currency,
            invalid: self.invalid,
        })
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

fn id(value: &[u8]) -> Option<&str> {
    is_id(value).then_some(value).and_then(text)
}

fn short(value: &[u8]) -> Option<&str> {
    (value.len() <= MAX_TEXT_BYTES).then_some(value).and_then(text)
}

/// A protobuf varint of at most nine bytes (a tenth only carries negative numbers, which are unusual here).
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    if let Some((byte, rest)) = bytes.split_first()
        && *byte < 0x80
    {
        return Some((u64::from(*byte), rest));
    }
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return bytes.get(i + 1..).map(|rest| (value, rest));
        }
    }
    None
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
    use shared::wire::{encode_event, encode_placed_event};

    use super::*;
    use crate::tests::events;

    /// Both decoders' answers: in place (where sure) and full.
    fn both(payload: &[u8]) -> (Option<Seen<'_>>, Option<Event>) {
        (in_place(payload), decode_event(payload).ok())
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
                prop_assert_eq!(seen, Some(Seen::of(&event)));
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
                prop_assert_eq!(Some(seen), full.as_ref().map(Seen::of));
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
                prop_assert_eq!(Some(seen), full.as_ref().map(Seen::of));
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

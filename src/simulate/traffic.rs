//! The generator of cases: fresh events, and what follows from each of them later.
//!
//! A fresh impression may lead to a click and that to a conversion; any of them to copies, conflicts and
//! forgeries; a click to a chain of clicks on its impression. What follows waits in a heap by its due time.
//! Guarantees: a pure function of settings, seed and the instants it is asked for. Memory: one draft for each
//! follow-up not yet due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use shared::event::EventKind;
use shared::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};

use super::dice::Dice;
use super::draft::{Draft, Proof, Signer, Style};
use super::settings::Settings;
use super::world::World;
use super::{Item, Label, odd, poison};

mod cases;

/// How an event is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Unsigned,
    Signed,
    /// Signed in time, sent too late.
    Expired,
    /// A letter of the signature is another one.
    WrongSignature,
    /// The signature is that of an event a second later.
    ChangedAfterSigning,
    /// A key nobody has.
    UnknownKey,
}

/// An event that will be sent.
struct Plan {
    due: Timestamp,
    sequence: u64,
    label: Label,
    draft: Draft,
    trust: Trust,
    style: Style,
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Plan {}
impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Plan {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

/// Which life the traffic leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Days of history: ingest times are part of the lines, follow-ups take hours and days.
    History {
        /// Nothing is sent at or after this instant.
        end: Timestamp,
    },
    /// Now: follow-ups take seconds.
    Live,
}

pub(super) struct Traffic {
    settings: Settings,
    world: World,
    dice: Dice,
    pace: Pace,
    pending: BinaryHeap<Reverse<Plan>>,
    sequence: u64,
    last_at: Timestamp,
}

impl Traffic {
    pub(super) fn new(settings: Settings, pace: Pace) -> Self {
        let world = World::new(&settings);
        let dice = Dice::new(settings.seed);
        let last_at = settings.start.start();
        Self { settings, world, dice, pace, pending: BinaryHeap::new(), sequence: 0, last_at }
    }

    /// What is sent at `now`: what is due by then, else something new.
    pub(super) fn next(&mut self, now: Timestamp, signer: &Signer) -> Item {
        let due = self.pending.peek().is_some_and(|Reverse(plan)| plan.due <= now);
        let plan = if due { self.pending.pop().map(|Reverse(plan)| plan) } else { None };
        let plan = match plan {
            Some(plan) if self.is_live() => Plan { due: now, ..plan },
            Some(plan) => plan,
            None if self.dice.chance(self.settings.poison) => {
                return Item { label: Label::Poison, at: now, event_id: None, body: poison::draw(&mut self.dice) };
            }
            None => self.fresh(now),
        };
        self.last_at = plan.due;
        self.follow(&plan);
        self.render(plan, signer)
    }

    fn is_live(&self) -> bool {
        self.pace == Pace::Live
    }

    /// Puts a follow-up on the heap, if it comes before the end.
    fn push(&mut self, due: Timestamp, label: Label, draft: Draft, trust: Trust) {
        if let Pace::History { end } = self.pace
            && due >= end
        {
            return;
        }
        self.sequence += 1;
        let style = self.style();
        self.pending.push(Reverse(Plan { due, sequence: self.sequence, label, draft, trust, style }));
    }

    fn style(&mut self) -> Style {
        // Every second event is written plainly, as most clients do.
        let bits = self.dice.bits();
        Style(if bits & (1 << 40) == 0 { 0 } else { bits })
    }

    fn honest(&mut self) -> Trust {
        if self.is_live() || self.dice.chance(self.settings.signed) { Trust::Signed } else { Trust::Unsigned }
    }

    /// A new event, not a consequence of an old one.
    fn fresh(&mut self, now: Timestamp) -> Plan {
        let at = self.ingest_time(now);
        let mut draft = self.impression(at);
        if self.dice.chance(0.02) {
            draft.kind = EventKind::Click; // of an unknown impression
            draft.impression_id = None;
        } else if self.dice.chance(0.005) {
            draft.kind = EventKind::Conversion; // of an unknown click
        }
        let label = self.vary(&mut draft, at);
        let trust = self.honest();
        let style = self.style();
        let plan = Plan { due: at, sequence: 0, label, draft, trust, style };
        if self.dice.chance(self.settings.forged) { self.forge(plan) } else { plan }
    }

    /// When a fresh item of the slot `now` is taken in. A history is not quite in order of its ingest times, and some
    /// of them are equal, so that the order of the file decides nothing by itself.
    fn ingest_time(&mut self, now: Timestamp) -> Timestamp {
        if self.is_live() {
            return now;
        }
        if self.dice.chance(self.settings.ties) {
            return self.last_at;
        }
        let back = self.dice.between(0, 2 * SECOND);
        now.plus(-back).max(self.settings.start.start())
    }

    fn impression(&mut self, at: Timestamp) -> Draft {
        let ad = self.world.draw_ad(&mut self.dice);
        let dice = &mut self.dice;
        let reported = self.world.pays_reported(ad);
        let priced = reported && !dice.chance(0.05) || dice.chance(self.settings.stray_costs);
        let user = dice.below(self.settings.users);
        // Half of the clients know microseconds, the others milliseconds.
        let happened = at.plus(-dice.between(0, 20 * SECOND));
        let happened = if dice.chance(0.5) { happened.floor(1_000) } else { happened };
        Draft {
            event_id: dice.hex("", 32),
            kind: EventKind::Impression,
            event_time: happened,
            ad_id: World::ad_id(ad),
            campaign_id: self.world.campaign_id(ad),
            advertiser_id: dice.chance(0.8).then(|| self.world.advertiser_id(ad)),
            creative_id: Some(format!("cr-{}", ad % 7)),
            publisher_id: dice.chance(0.9).then(|| format!("pub-{}", user % 50)),
            impression_id: Some(dice.hex("imp-", 20)),
            user_pseudo_id: dice.chance(0.95).then(|| format!("u-{user}")),
            session_id: dice.chance(0.3).then(|| format!("s-{user}-{}", at.day())),
            country: dice.chance(0.97).then(|| dice.pick(&cases::COUNTRIES)),
            device_type: dice.chance(0.97).then(|| dice.pick(&cases::DEVICES)),
            user_agent: dice.chance(0.95).then(|| dice.pick(&cases::BROWSERS)),
            url: dice.chance(0.3).then(|| dice.pick(&cases::PAGES)),
            cost_micros: priced.then(|| dice.between(0, 4_000_003)),
            currency: (priced && dice.chance(0.8)).then(|| self.world.draw_currency(dice)),
            schema_version: dice.chance(0.3).then_some(1),
            nonce: dice.chance(0.2).then(|| dice.hex("n-", 12)),
            ad,
            extra: dice.chance(0.05).then(|| dice.pick(&cases::EXTRAS)),
        }
    }

    /// The item to send. Signatures last an hour from the instant they are sent.
    fn render(&self, plan: Plan, signer: &Signer) -> Item {
        let Plan { due: at, label, draft, trust, style, .. } = plan;
        let expires_at = match trust {
            Trust::Expired => at.plus(-HOUR).max(Timestamp::MIN).floor(SECOND),
            _ => at.plus(HOUR).floor(SECOND),
        };
        let proof = prove(&draft, expires_at, trust, signer);
        let ingest = (!self.is_live()).then_some(at);
        let body = draft.write(style, proof.as_ref().map(|p| (p, expires_at)), ingest);
        Item { label, at, event_id: Some(draft.event_id), body }
    }
}

fn prove(draft: &Draft, expires_at: Timestamp, trust: Trust, signer: &Signer) -> Option<Proof> {
    match trust {
        Trust::Unsigned => None,
        Trust::Signed | Trust::Expired => Some(signer(draft, expires_at)),
        Trust::WrongSignature => {
            let Proof { key_id, signature } = signer(draft, expires_at);
            // The first letter stands for six whole bits, so another letter is another signature.
            let other = if signature.starts_with('A') { "B" } else { "A" };
            let signature = format!("{other}{}", signature.get(1..).unwrap_or_default());
            Some(Proof { key_id, signature })
        }
        Trust::ChangedAfterSigning => {
            let before = Draft { event_time: draft.event_time.plus(SECOND), ..draft.clone() };
            Some(signer(&before, expires_at))
        }
        Trust::UnknownKey => Some(Proof { key_id: Some("nobody".to_owned()), ..signer(draft, expires_at) }),
    }
}

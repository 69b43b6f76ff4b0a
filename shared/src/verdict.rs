//! Verdicts: the counting rules of contract 2 as pure functions, used by speed (on what it remembers)
//! and by batch (on the whole archive), so that there is one kernel and not two pipelines.
//! Never: looks at a clock; every bound is a field of [`Counting`] and goes into the run record.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind, Fingerprint};
use crate::id::RefId;
use crate::time::{DAY, HOUR, MINUTE, SECOND, Timestamp};

/// Why an event is invalid traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InvalidCode {
    /// The signature is absent or wrong.
    BadSignature,
    /// The signature was right, but its time is over.
    Expired,
    /// The client software names itself a robot.
    KnownBot,
    /// The address belongs to a data centre.
    DatacenterIp,
    /// More than a person can do.
    Rate,
    /// The ad was unknown or not active.
    InactiveAd,
}

impl InvalidCode {
    /// Every code.
    pub const ALL: [Self; 6] =
        [Self::BadSignature, Self::Expired, Self::KnownBot, Self::DatacenterIp, Self::Rate, Self::InactiveAd];

    /// The code used in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::KnownBot => "known_bot",
            Self::DatacenterIp => "datacenter_ip",
            Self::Rate => "rate",
            Self::InactiveAd => "inactive_ad",
        }
    }

    /// From its code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == text)
    }

    /// Whether the event is forged: it then never claims its id, so that a forger cannot suppress the
    /// real click (contract 2.2).
    #[must_use]
    #[inline]
    pub fn is_forged(self) -> bool {
        matches!(self, Self::BadSignature | Self::Expired)
    }
}

/// What became of an archived event; every one gets exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It counts and is priced.
    Billable,
    /// An earlier event has the same id and payload.
    Duplicate,
    /// An earlier event has the same id and another payload.
    Conflict,
    /// An earlier click on the same impression is too close.
    RepeatClick,
    /// Invalid traffic.
    Invalid(InvalidCode),
}

impl Verdict {
    /// Every verdict, in the order of columns and reports.
    pub const ALL: [Self; 10] = [
        Self::Billable,
        Self::Duplicate,
        Self::Conflict,
        Self::RepeatClick,
        Self::Invalid(InvalidCode::BadSignature),
        Self::Invalid(InvalidCode::Expired),
        Self::Invalid(InvalidCode::KnownBot),
        Self::Invalid(InvalidCode::DatacenterIp),
        Self::Invalid(InvalidCode::Rate),
        Self::Invalid(InvalidCode::InactiveAd),
    ];

    /// The text used in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Billable => "billable",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::RepeatClick => "repeat_click",
            Self::Invalid(InvalidCode::BadSignature) => "invalid:bad_signature",
            Self::Invalid(InvalidCode::Expired) => "invalid:expired",
            Self::Invalid(InvalidCode::KnownBot) => "invalid:known_bot",
            Self::Invalid(InvalidCode::DatacenterIp) => "invalid:datacenter_ip",
            Self::Invalid(InvalidCode::Rate) => "invalid:rate",
            Self::Invalid(InvalidCode::InactiveAd) => "invalid:inactive_ad",
        }
    }

    /// From its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }
}

/// The bounds and lists the rules use: settings, written into every run record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counting {
    /// Version of this rule set, written beside every verdict it gives.
    pub rules_version: u32,
    /// How far an event time may lie behind its ingest time and still bill (seconds).
    pub max_late_seconds: i64,
    /// How far an event time may lie ahead of its ingest time and still bill (seconds).
    pub max_future_seconds: i64,
    /// Two clicks on one impression closer than this are one (seconds).
    pub repeat_click_seconds: i64,
    /// Whether clicks without an impression chain too: those of one person on one creative within one second of
    /// event time (double clicks). Off by default.
    pub identical_clicks: bool,
    /// A user agent that contains one of these (ASCII case ignored) is `known_bot`.
    pub known_bots: Vec<String>,
}

impl Default for Counting {
    fn default() -> Self {
        Self {
            rules_version: 1,
            max_late_seconds: 7 * DAY / 1_000_000,
            max_future_seconds: 5 * MINUTE / 1_000_000,
            repeat_click_seconds: 24 * HOUR / 1_000_000,
            identical_clicks: false,
            known_bots: ["bot", "crawler", "spider", "headless", "curl/", "python-requests"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// The time an event bills at, and whether its own time was out of bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingTime {
    /// The event time, or the ingest time where the event time is out of bounds.
    pub at: Timestamp,
    /// Whether the ingest time was taken.
    pub clamped: bool,
}

impl Counting {
    /// All problems of these settings.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("max_late_seconds", self.max_late_seconds),
            ("max_future_seconds", self.max_future_seconds),
            ("repeat_click_seconds", self.repeat_click_seconds),
        ] {
            if !(0..=366 * 86_400).contains(&value) {
                problems.push(format!("counting.{name} = {value} is not between 0 and a year"));
            }
        }
        if self.known_bots.iter().any(String::is_empty) {
            problems.push("counting.known_bots has an empty entry, which would match everyone".to_owned());
        }
        problems
    }

    /// Contract 2.1: the event time when `ingest − max_late ≤ event ≤ ingest + max_future`, else the ingest time.
    #[must_use]
    #[inline]
    pub fn billing_time(&self, event_time: Timestamp, ingest_time: Timestamp) -> BillingTime {
        let from = ingest_time.plus(-self.max_late_seconds * 1_000_000);
        let to = ingest_time.plus(self.max_future_seconds * 1_000_000);
        if (from..=to).contains(&event_time) {
            BillingTime { at: event_time, clamped: false }
        } else {
            BillingTime { at: ingest_time, clamped: true }
        }
    }

    /// Whether a user agent is on the list.
    #[must_use]
    pub fn is_known_bot(&self, user_agent: &str) -> bool {
        let agent = user_agent.as_bytes();
        self.known_bots.iter().any(|bot| agent.windows(bot.len()).any(|w| w.eq_ignore_ascii_case(bot.as_bytes())))
    }

    /// Contract 2.4: what capture found invalid, else what the lists say.
    #[must_use]
    pub fn invalid(&self, captured: Option<InvalidCode>, user_agent: Option<&str>) -> Option<InvalidCode> {
        captured.or_else(|| user_agent.is_some_and(|a| self.is_known_bot(a)).then_some(InvalidCode::KnownBot))
    }

    /// Contract 2.3: whether a click repeats the one just before it on the same impression.
    #[must_use]
    #[inline]
    pub fn is_repeat_click(&self, previous_ingest: Timestamp, ingest: Timestamp) -> bool {
        ingest.since(previous_ingest) < self.repeat_click_seconds * 1_000_000
    }

    /// What a click is chained by: its impression; without one, by the policy `identical_clicks`, the person, the
    /// creative and the second it happened in (`|` is in no id, so the two forms never meet). `None`: by nothing.
    #[must_use]
    pub fn chain_key<'a>(
        &self,
        impression: Option<&'a str>,
        user: Option<&str>,
        creative: Option<&str>,
        event_time: Timestamp,
    ) -> Option<Cow<'a, str>> {
        match (impression, user, creative) {
            (Some(impression), ..) => Some(Cow::Borrowed(impression)),
            (None, Some(user), Some(creative)) if self.identical_clicks => {
                Some(Cow::Owned(format!("{user}|{creative}|{}", event_time.0.div_euclid(SECOND))))
            }
            _ => None,
        }
    }

    /// The verdict on an event, given what the archive (or the speed layer's memory) knows of events before it
    /// in [`ArchiveOrder`]. Forgery decides first (it claims nothing), then the id, then other invalid
    /// traffic, then the chain of clicks.
    #[must_use]
    #[inline]
    pub fn verdict(&self, invalid: Option<InvalidCode>, id: IdStanding, repeats: bool) -> Verdict {
        match (invalid, id) {
            (Some(code), _) if code.is_forged() => Verdict::Invalid(code),
            (_, IdStanding::Duplicate) => Verdict::Duplicate,
            (_, IdStanding::Conflict) => Verdict::Conflict,
            (Some(code), IdStanding::First) => Verdict::Invalid(code),
            (None, IdStanding::First) if repeats => Verdict::RepeatClick,
            (None, IdStanding::First) => Verdict::Billable,
        }
    }

    /// Whether an event takes part in the chain of clicks on its impression: a click with an impression id
    /// that is not duplicate, conflict or invalid.
    #[must_use]
    #[inline]
    pub fn chains(&self, kind: EventKind, invalid: Option<InvalidCode>, id: IdStanding) -> bool {
        kind == EventKind::Click && invalid.is_none() && id == IdStanding::First
    }
}

/// How an event stands to earlier events with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdStanding {
    /// No earlier event claims the id.
    First,
    /// The winner has the same payload.
    Duplicate,
    /// The winner has another payload.
    Conflict,
}

impl IdStanding {
    /// The standing of an event with `mine`, where `winner` is the fingerprint that holds the id, if any.
    #[must_use]
    pub fn of(winner: Option<Fingerprint>, mine: Fingerprint) -> Self {
        match winner {
            None => Self::First,
            Some(w) if w == mine => Self::Duplicate,
            Some(_) => Self::Conflict,
        }
    }
}

/// The order that decides who was first (contract 2.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveOrder {
    /// When it was accepted.
    pub ingest_time: Timestamp,
    /// Where.
    pub region: RefId,
    /// Its log partition.
    pub partition: u32,
    /// Its log position.
    pub position: u64,
}

impl ArchiveOrder {
    /// The order key of an event read from the log.
    #[must_use]
    pub fn of(event: &Event, partition: u32, position: u64) -> Self {
        Self { ingest_time: event.ingest_time, region: event.region.clone(), partition, position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_time_takes_both_bounds_inclusive() {
        let rules = Counting::default();
        let ingest = Timestamp::parse("2026-01-10T12:00:00Z").unwrap();
        for (offset, clamped) in
            [(0, false), (-7 * DAY, false), (-7 * DAY - 1, true), (5 * MINUTE, false), (5 * MINUTE + 1, true)]
        {
            let billing = rules.billing_time(ingest.plus(offset), ingest);
            assert_eq!(billing.clamped, clamped, "{offset}");
            assert_eq!(billing.at, if clamped { ingest } else { ingest.plus(offset) });
        }
    }

    #[test]
    fn a_forged_event_is_invalid_even_when_its_id_is_taken() {
        let rules = Counting::default();
        for (invalid, id, repeats, verdict) in [
            (
                Some(InvalidCode::BadSignature),
                IdStanding::Duplicate,
                false,
                Verdict::Invalid(InvalidCode::BadSignature),
            ),
            (Some(InvalidCode::KnownBot), IdStanding::Duplicate, true, Verdict::Duplicate),
            (Some(InvalidCode::KnownBot), IdStanding::First, true, Verdict::Invalid(InvalidCode::KnownBot)),
            (None, IdStanding::Conflict, true, Verdict::Conflict),
            (None, IdStanding::First, true, Verdict::RepeatClick),
            (None, IdStanding::First, false, Verdict::Billable),
        ] {
            assert_eq!(rules.verdict(invalid, id, repeats), verdict);
        }
    }

    #[test]
    fn every_verdict_has_its_own_text_and_reads_back() {
        for v in Verdict::ALL {
            assert_eq!(Verdict::parse(v.as_str()), Some(v));
        }
        assert!(Counting::default().is_known_bot("Mozilla/5.0 (compatible; GoogleBot/2.1)"));
        assert!(!Counting::default().is_known_bot("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
    }
}

//! The cases of contract 2: how a fresh event deviates, and what follows it.

use super::*;

pub(super) const COUNTRIES: [&str; 8] = ["DE", "US", "JP", "BR", "IN", "FR", "NG", "ZZ"];
pub(super) const DEVICES: [&str; 6] = ["mobile", "mobile", "desktop", "tablet", "ctv", "other"];
pub(super) const BROWSERS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "Mozilla/5.0 (Linux; Android 16) \"quoted\\slashed\" Chrome/142.0 Mobile",
    "Navigateur/1.0 (é中🦀)",
];
const ROBOTS: [&str; 6] = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "ExampleCRAWLER/3",
    "HeadlessChrome/142.0",
    "curl/8.14.1",
    "python-requests/2.32",
    "Spider é",
];
pub(super) const PAGES: [&str; 3] =
    ["https://news.example/a?b=c&d=\"e\"", "https://news.example/", "https://zeitung.example/straße"];
pub(super) const EXTRAS: [Extra; 5] = [
    Extra { name: "experiment", text: "\"b7\"", again: "\"\\u00627\"" },
    Extra {
        name: "viewability",
        text: "{\"a\":1,\"b\":[true,null]}",
        again: "{ \"b\" : [ true , null ] , \"a\" : 1 }",
    },
    Extra { name: "score", text: "0.5", again: "5e-1" },
    Extra { name: "gross", text: "1", again: "1" },
    Extra { name: "eventid", text: "\"another case\"", again: "\"another\\u0020case\"" },
];
const OTHER_GROSS: Extra = Extra { name: "gross", text: "1.0", again: "1.0" };

use super::super::draft::Extra;

impl Traffic {
    /// Gives a fresh event at most one deviation.
    pub(super) fn vary(&mut self, draft: &mut Draft, at: Timestamp) -> Label {
        let s = &self.settings;
        let mut roll = self.dice.unit();
        let mut hit = |share: f64| {
            roll -= share;
            roll < 0.0
        };
        if hit(s.late) {
            let (least, most) = if self.is_live() { (2 * MINUTE, 30 * MINUTE) } else { (10 * MINUTE, 20 * HOUR) };
            draft.event_time = at.plus(-self.dice.between(least, most));
            Label::Late
        } else if hit(s.late_after_close) {
            self.after_close(draft, at)
        } else if hit(s.clamped) {
            draft.event_time = self.clamped(at);
            Label::Clamped
        } else if hit(s.boundary) {
            draft.event_time = self.edge(draft.ad, at);
            Label::Boundary
        } else if hit(s.bots) {
            draft.user_agent = Some(self.dice.pick(&ROBOTS));
            Label::Bot
        } else if hit(s.odd_ids) {
            self.siblings(draft, at);
            Label::OddId
        } else {
            Label::Fresh
        }
    }

    /// Moves the event two days back, if its history reaches so far.
    fn after_close(&mut self, draft: &mut Draft, at: Timestamp) -> Label {
        let day = at.day().plus(-2);
        if self.is_live() || day < self.settings.start {
            return Label::Fresh;
        }
        draft.event_time = day.start().plus(self.dice.between(0, DAY - 1));
        Label::LateAfterClose
    }

    /// An event time around the bounds of contract 2.1.
    fn clamped(&mut self, at: Timestamp) -> Timestamp {
        let (late, future) = (self.settings.max_late.as_micros(), self.settings.max_future.as_micros());
        let far = self.dice.between(1, DAY);
        let step = self.dice.pick(&[0, 1, 1_000]);
        let offset = match self.dice.below(6) {
            0 => -late - far,
            1 => future + far,
            2 => -late - step,
            3 => -late + step,
            4 => future + step,
            _ => future - step,
        };
        at.plus(offset).max(Timestamp::MIN)
    }

    /// An event time at, or a microsecond before, the start of a minute, hour, day or price.
    fn edge(&mut self, ad: u32, at: Timestamp) -> Timestamp {
        let start = match self.dice.below(4) {
            0 => at.floor(MINUTE),
            1 => at.floor(HOUR),
            2 => at.floor(DAY),
            _ => self.world.last_change(ad, at).filter(|t| at.since(*t) < 5 * DAY).unwrap_or(at.floor(MINUTE)),
        };
        start.plus(-self.dice.between(0, 1))
    }

    /// Renames the event to one of a family of ids and schedules the others.
    fn siblings(&mut self, draft: &mut Draft, at: Timestamp) {
        let mut ids = odd::family(&mut self.dice);
        draft.event_id = ids.pop().unwrap_or_default();
        for event_id in ids {
            let due = at.plus(self.dice.between(0, 3 * SECOND));
            let trust = self.honest();
            self.push(due, Label::OddId, Draft { event_id, ..draft.clone() }, trust);
        }
    }

    /// Turns a fresh event into a forgery; half of them with the real event still to come.
    pub(super) fn forge(&mut self, real: Plan) -> Plan {
        let trust = self.forgery();
        if self.dice.chance(0.5) {
            let due = real.due.plus(self.dice.between(0, 10 * SECOND));
            let trust = self.honest();
            self.push(due, real.label, real.draft.clone(), trust);
        }
        Plan { label: Label::Forged, trust, ..real }
    }

    fn forgery(&mut self) -> Trust {
        let (expired, wrong) = (Trust::Expired, Trust::WrongSignature);
        match self.dice.below(5) {
            0 | 1 => expired,
            2 => Trust::ChangedAfterSigning,
            3 => Trust::UnknownKey,
            _ => wrong,
        }
    }

    /// Schedules what follows an event that is being sent.
    pub(super) fn follow(&mut self, plan: &Plan) {
        match plan.label {
            Label::Duplicate | Label::CrossDayDuplicate | Label::Conflict | Label::Forged | Label::Poison => {}
            Label::RepeatClick => self.copies(plan),
            _ => {
                self.copies(plan);
                self.journey(plan);
            }
        }
    }

    fn copies(&mut self, plan: &Plan) {
        let (at, draft) = (plan.due, &plan.draft);
        if self.dice.chance(self.settings.duplicates) {
            let longest = if self.is_live() { 20 * SECOND } else { 10 * MINUTE };
            let due = self.soon(at, longest);
            let trust = self.honest();
            self.push(due, Label::Duplicate, draft.clone(), trust);
        }
        if !self.is_live() && self.dice.chance(self.settings.cross_day_duplicates) {
            let due = at.plus(self.dice.between(18 * HOUR, 50 * HOUR));
            let trust = self.honest();
            self.push(due, Label::CrossDayDuplicate, draft.clone(), trust);
        }
        if self.dice.chance(self.settings.conflicts) {
            let longest = if self.is_live() { 20 * SECOND } else { 30 * HOUR };
            let due = self.soon(at, longest);
            let (other, trust) = (self.contradict(draft), self.honest());
            self.push(due, Label::Conflict, other, trust);
        }
        if self.dice.chance(self.settings.forged / 2.0) {
            let (due, trust) = (self.soon(at, 20 * SECOND), self.forgery());
            self.push(due, Label::Forged, draft.clone(), trust);
        }
    }

    /// A later instant; one in eight is the very same one.
    fn soon(&mut self, at: Timestamp, longest: i64) -> Timestamp {
        if self.dice.chance(0.125) { at } else { at.plus(self.dice.between(1_000, longest)) }
    }

    /// The same id with another payload.
    fn contradict(&mut self, draft: &Draft) -> Draft {
        let mut other = draft.clone();
        match self.dice.below(9) {
            0 => other.event_time = draft.event_time.plus(1_000),
            1 => other.event_time = draft.event_time.plus(1),
            2 => other.country = if draft.country.is_none() { Some("ZZ") } else { None },
            3 => other.cost_micros = Some(draft.cost_micros.map_or(1, |c| c + 1)),
            4 => self.move_ad(&mut other),
            5 => other.schema_version = if draft.schema_version.is_none() { Some(1) } else { None },
            6 => {
                other.extra = Some(if draft.extra.is_some_and(|e| e == OTHER_GROSS) { EXTRAS[3] } else { OTHER_GROSS })
            }
            7 => other.user_agent = Some("Another/1.0 bot"),
            _ => other.user_pseudo_id = Some("u-other".to_owned()),
        }
        other
    }

    /// To the next ad: most often another partition and another campaign.
    fn move_ad(&self, draft: &mut Draft) {
        draft.ad = self.world.next_ad(draft.ad);
        draft.ad_id = World::ad_id(draft.ad);
        draft.campaign_id = self.world.campaign_id(draft.ad);
        draft.advertiser_id = Some(self.world.advertiser_id(draft.ad));
        draft.creative_id = Some("moved".to_owned());
    }

    /// Impression to click to conversion, and a click's chain.
    fn journey(&mut self, plan: &Plan) {
        let (at, draft) = (plan.due, &plan.draft);
        let live = self.is_live();
        match draft.kind {
            EventKind::Impression if self.dice.chance(self.settings.clicks) => {
                let due = at.plus(self.dice.between(SECOND / 5, if live { 5 * SECOND } else { MINUTE }));
                let (click, trust) = (self.another(draft, EventKind::Click, due), self.honest());
                self.push(due, journey_label(plan.label), click, trust);
            }
            EventKind::Click => {
                if self.dice.chance(self.settings.conversions) {
                    let due = at.plus(self.dice.between(SECOND, if live { 20 * SECOND } else { 2 * HOUR }));
                    let (conversion, trust) = (self.another(draft, EventKind::Conversion, due), self.honest());
                    self.push(due, journey_label(plan.label), conversion, trust);
                }
                if draft.impression_id.is_some() && self.dice.chance(self.settings.repeat_clicks) {
                    self.chain(at, draft);
                }
            }
            EventKind::Impression | EventKind::Conversion => {}
        }
    }

    /// Another event of the same person with the same ad.
    fn another(&mut self, draft: &Draft, kind: EventKind, due: Timestamp) -> Draft {
        let happened = due.plus(-self.dice.between(0, SECOND)).floor(1_000);
        Draft { event_id: self.dice.hex("", 32), kind, event_time: happened, ..draft.clone() }
    }

    /// More clicks on the impression of `click`, taken in at `at`: a double click, or chains that go over a day, at the
    /// very distance of the rule, in another partition at the same instant, or past clicks that do not count.
    fn chain(&mut self, at: Timestamp, click: &Draft) {
        let window = self.settings.repeat_click.as_micros();
        let pattern = if self.is_live() { self.dice.below(2) } else { self.dice.below(5) };
        match pattern {
            0 => {
                let soon = self.dice.between(1, 30 * SECOND);
                self.link(at, &[soon], click);
            }
            1 => {
                let mut moved = click.clone();
                self.move_ad(&mut moved);
                self.link(at, &[0], &moved);
            }
            2 => {
                let steps = [self.dice.between(-1, 1), self.dice.between(-1, 1)];
                self.link(at, &steps.map(|step| window + step), click);
            }
            3 => self.link(at, &[window / 6 * 5; 4], click),
            _ => {
                let robot = Draft { user_agent: Some("a bot that clicks"), ..click.clone() };
                self.link(at, &[window / 2], &robot);
                let due = at.plus(window * 3 / 4);
                let forged = self.another(click, EventKind::Click, due);
                self.push(due, Label::Forged, forged, Trust::WrongSignature);
                self.link(at, &[window + SECOND, window - SECOND], click);
            }
        }
    }

    fn link(&mut self, at: Timestamp, distances: &[i64], click: &Draft) {
        let mut due = at;
        for distance in distances {
            due = due.plus(*distance);
            let (next, trust) = (self.another(click, EventKind::Click, due), self.honest());
            self.push(due, Label::RepeatClick, next, trust);
        }
    }
}

/// A robot stays one; every other deviation is the impression's own.
fn journey_label(label: Label) -> Label {
    if label == Label::Bot { Label::Bot } else { Label::Fresh }
}

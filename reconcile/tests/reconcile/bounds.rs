//! Error bounds on simulated days: what other days taught holds on a day that taught nothing yet.

use std::collections::BTreeMap;

use reconcile::calibrate;
use reconcile::report::Report;
use shared::bound::{AGES, Coverage, KINDS, Window};
use shared::event::EventKind;
use shared::rollup::RowVersion;
use shared::serving_store::{Flush, ServingStore, WriterStatus};
use shared::time::{Day, HOUR, MINUTE, SECOND};
use shared::verdict::Verdict;

use crate::world::{DAY, Fact, World, recount};

const CAMPAIGNS: u8 = 12;
const DAYS: i32 = 6;
/// Days that only teach.
const TAUGHT: i32 = 2;
/// Speed drops what comes later than this.
const LATENESS: i64 = HOUR;

/// A small generator: the same seed, the same days.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// How late an event comes: mostly within seconds, some within minutes, few within hours.
    fn delay(&mut self, bad_day: u64) -> i64 {
        let within = |dice: &mut Self, most: i64| i64::try_from(dice.below(u64::try_from(most).unwrap())).unwrap();
        match self.below(10_000) {
            n if n < 9_600 - bad_day => within(self, 50 * SECOND),
            n if n < 9_880 => within(self, 5 * MINUTE),
            n if n < 9_980 => within(self, 50 * MINUTE),
            _ => within(self, 6 * HOUR),
        }
    }
}

/// A day's events; every thousandth is a repetition that only batch recognises.
fn events(dice: &mut Dice) -> Vec<Fact> {
    let bad_day = dice.below(200);
    let mut facts = Vec::new();
    for hour in 0..24 {
        for campaign in 0..CAMPAIGNS {
            let usual = 240 / (u64::from(campaign) + 1);
            for _ in 0..usual / 2 + dice.below(usual + 1) {
                let minute = hour * 60 + i64::try_from(dice.below(60)).unwrap();
                let kind = match dice.below(100) {
                    0..70 => EventKind::Impression,
                    70..95 => EventKind::Click,
                    _ => EventKind::Conversion,
                };
                let verdict = if dice.below(1_000) == 0 { Verdict::Duplicate } else { Verdict::Billable };
                let late_by = dice.delay(bad_day);
                facts.push(Fact { kind, verdict, late_by, ..Fact::click(minute, campaign, 0, 1_000) });
            }
        }
    }
    facts
}

/// What speed makes of the events that came by `age` after the end of their window of `length`.
fn seen(facts: &[Fact], length: i64, age: i64) -> Vec<Fact> {
    let came = |f: &&Fact| {
        let at = f.minute * MINUTE;
        let end = at.div_euclid(length) * length + length;
        f.late_by <= LATENESS && at + f.late_by <= end + age
    };
    facts.iter().filter(came).map(|f| Fact { verdict: Verdict::Billable, ..f.clone() }).collect()
}

async fn one_day(world: &World, day: Day, facts: &[Fact]) -> Coverage {
    world.batch(day, 1, facts).await;
    let status = WriterStatus { as_of: day.end().plus(3 * HOUR), ..WriterStatus::default() };
    let rows = recount(day, &seen(facts, HOUR, 100 * HOUR));
    let sequence = u64::try_from(day.0).unwrap();
    let flush = Flush { writer: 0, version: RowVersion::speed(1, sequence), rows, status };
    world.store.upsert_approximate(flush).await.unwrap();
    world.run(day).await.unwrap();
    Report::load(&world.data, day).await.unwrap().unwrap().bounds.unwrap()
}

/// Counts by window, campaign and kind.
fn counts(facts: &[Fact], length: i64) -> BTreeMap<(i64, u8, EventKind), u64> {
    let mut counts = BTreeMap::new();
    for fact in facts.iter().filter(|f| f.verdict == Verdict::Billable) {
        let window = (fact.minute * MINUTE).div_euclid(length);
        *counts.entry((window, fact.campaign, fact.kind)).or_default() += 1;
    }
    counts
}

/// Of the windows of a day as shown at `age`: how many there are, and how many held every exact count.
async fn young(world: &World, day: Day, facts: &[Fact], length: i64, age: i64) -> (u64, u64) {
    let bounds = calibrate::load(&world.data).await.unwrap().bounds(Some(day));
    let (shown, exact) = (counts(&seen(facts, length, age), length), counts(facts, length));
    let mut windows: Vec<(i64, u8)> = shown.keys().map(|(window, campaign, _)| (*window, *campaign)).collect();
    windows.dedup();
    let holds = |(window, campaign): &&(i64, u8)| {
        KINDS.iter().all(|kind| {
            let of = |counts: &BTreeMap<_, u64>| counts.get(&(*window, *campaign, *kind)).copied().unwrap_or(0);
            bounds.of(*kind, Window::of(length), age, of(&shown)).holds(of(&exact))
        })
    };
    (windows.len() as u64, windows.iter().filter(holds).count() as u64)
}

#[tokio::test]
async fn at_least_99_of_100_campaign_hours_lie_within_bounds_that_other_days_taught() {
    for seed in [3, 17, 2_026] {
        let (world, mut dice) = (World::new(), Dice(seed));
        let (mut windows, mut inside, mut widths) = (0, 0, Vec::new());
        let mut by_age: BTreeMap<(i64, i64), (u64, u64)> = BTreeMap::new();
        for n in 0..DAYS {
            let (day, facts) = (DAY.plus(n), events(&mut dice));
            if n >= TAUGHT {
                for (length, age) in [HOUR, MINUTE].into_iter().flat_map(|l| AGES.map(|age| (l, age))) {
                    let (all, held) = young(&world, day, &facts, length, age).await;
                    let sum = by_age.entry((length / MINUTE, age / MINUTE)).or_default();
                    *sum = (sum.0 + all, sum.1 + held);
                }
            }
            let coverage = one_day(&world, day, &facts).await;
            if n >= TAUGHT {
                windows += coverage.windows;
                inside += coverage.inside;
                widths.push(coverage.median_width_ppm);
            }
        }
        widths.sort_unstable();
        let width = widths[widths.len() / 2];
        println!(
            "seed {seed}: {inside} of {windows} campaign hours inside, median width {width} ppm of what was shown"
        );
        assert!(inside * 100 >= windows * 99, "seed {seed}: {inside} of {windows}");
        assert!(width < 300_000, "seed {seed}: a bound {width} ppm wide says nothing");
        for ((minutes, age), (all, held)) in by_age {
            println!("seed {seed}: windows of {minutes} min, {age} min old: {held} of {all} inside");
            assert!(held * 100 >= all * 99, "seed {seed}: windows of {minutes} min at {age} min: {held} of {all}");
        }
    }
}

#[tokio::test]
async fn a_day_without_a_calibration_is_shown_with_the_wide_defaults_and_counted() {
    let (world, mut dice) = (World::new(), Dice(5));
    let first = one_day(&world, DAY, &events(&mut dice)).await;
    assert!(first.inside_ppm >= 990_000, "{first:?}");
    let mut last = first;
    for n in 1..4 {
        last = one_day(&world, DAY.plus(n), &events(&mut dice)).await;
    }
    assert!(last.median_width_ppm < first.median_width_ppm, "learning narrows: {first:?} {last:?}");
    assert_eq!(calibrate::load(&world.data).await.unwrap().days.len(), 4);
}

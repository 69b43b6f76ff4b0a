//! Exact beats approximate for ever, a second run changes nothing, and nothing happens when the books do not balance.

use lake::run_record::RunRecord;
use proptest::prelude::*;
use reconcile::report::{Report, Status, kept_path, path};
use reconcile::{Outcome, ShownBy, rebuild};
use shared::error::ErrorKind;
use shared::event::EventKind;
use shared::rollup::{Finality, RollupRow};
use shared::serving_store::ServingStore;
use shared::testing::MemoryServingStore;
use shared::time::HOUR;
use shared::verdict::{InvalidCode, Verdict};

use crate::world::{DAY, Fact, World, printed, recount};

pub(crate) fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let kind = prop_oneof![Just(EventKind::Click), Just(EventKind::Impression), Just(EventKind::Conversion)];
    let verdict = prop_oneof![
        6 => Just(Verdict::Billable),
        1 => Just(Verdict::Duplicate),
        1 => Just(Verdict::Conflict),
        1 => Just(Verdict::RepeatClick),
        1 => Just(Verdict::Invalid(InvalidCode::KnownBot)),
    ];
    let money = (prop_oneof![Just("EUR"), Just("USD"), Just("XXX")], 0..10_000_i64);
    let fact = (0..1_440_i64, 0..3_u8, 0..3_u8, money, kind, 0..5_u8, prop_oneof![Just("DE"), Just("FR")], verdict)
        .prop_map(|(minute, campaign, ad, (currency, nanos), kind, user, country, verdict)| Fact {
            minute,
            campaign,
            ad,
            currency,
            kind,
            nanos,
            user,
            country,
            verdict,
            late_by: 0,
        });
    proptest::collection::vec(fact, 0..40)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn after_reconcile_shown_is_exact_for_ever(
        facts in facts(),
        seen in proptest::collection::vec(facts(), 1..3),
        later in facts(),
    ) {
        runtime().block_on(async {
            let world = World::new();
            world.batch(DAY, 1, &facts).await;
            for (writer, seen) in (0..).zip(&seen) {
                world.flush(writer, 1, recount(DAY, seen)).await;
            }
            let outcome = world.run(DAY).await.unwrap();
            prop_assert!(matches!(outcome, Outcome::Settled(_)), "{outcome:?}");
            let exact = printed(&recount(DAY, &facts));
            prop_assert_eq!(&world.shown(DAY).await, &exact);

            let again = world.run(DAY).await.unwrap();
            let Outcome::AlreadySettled(summary) = &again else { panic!("{again:?}") };
            prop_assert_eq!(summary.rows_changed, 0);
            prop_assert_eq!(again.exit_code(), 99);

            world.flush(0, 2, recount(DAY, &later)).await;
            world.flush(9, 1, recount(DAY, &later)).await;
            prop_assert_eq!(&world.shown(DAY).await, &exact, "a late speed flush changed an owned hour");
            Ok(())
        })?;
    }
}

/// Speed showed twice the clicks.
fn doubled(facts: &[Fact]) -> Vec<RollupRow> {
    recount(DAY, &[facts, facts].concat())
}

fn clicks(n: u8) -> Vec<Fact> {
    (0..n).map(|i| Fact::click(i64::from(i) * 20, i % 3, i % 2, 1_500 + i64::from(i))).collect()
}

#[tokio::test]
async fn over_tolerance_nothing_is_overwritten_without_force() {
    let mut world = World::new();
    world.settings.tolerance_floor_events = 10;
    let facts = clicks(60);
    world.batch(DAY, 1, &facts).await;
    world.flush(0, 1, doubled(&facts)).await;
    let before = world.shown(DAY).await;

    let outcome = world.run_with(&world.deps(), DAY, false).await.unwrap();
    assert_eq!(outcome.exit_code(), 11, "{outcome:?}");
    assert_eq!(world.shown(DAY).await, before);
    assert!(world.store.owned_hours(DAY.start()..DAY.end()).await.unwrap().is_empty());
    assert!(!world.settlement(DAY, 1).exists());
    let report = Report::load(&world.data, DAY).await.unwrap().unwrap();
    assert_eq!((report.status, report.worst_ppm), (Status::OverTolerance, 1_000_000));

    let forced = world.run_with(&world.deps(), DAY, true).await.unwrap();
    assert_eq!(forced.exit_code(), 0, "{forced:?}");
    assert_eq!(world.shown(DAY).await, printed(&recount(DAY, &facts)));
}

#[tokio::test]
async fn hours_that_show_nothing_are_filled_without_force() {
    let mut world = World::new();
    world.settings.tolerance_floor_events = 0;
    let facts = clicks(60);
    world.batch(DAY, 1, &facts).await;
    let outcome = world.run_with(&world.deps(), DAY, false).await.unwrap();
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    let report = Report::load(&world.data, DAY).await.unwrap().unwrap();
    assert_eq!(report.causes.not_shown, 60);
    assert_eq!(world.shown(DAY).await, printed(&recount(DAY, &facts)));
}

#[tokio::test]
async fn a_day_that_batch_has_not_run_is_not_ready() {
    let world = World::new();
    assert_eq!(world.run(DAY).await.unwrap().exit_code(), 10);
    assert!(!world.settlement(DAY, 1).exists());
}

#[tokio::test]
async fn the_report_says_how_far_off_each_campaign_hour_was_and_why() {
    let world = World::new();
    let mut late = Fact::click(61, 0, 0, 1_000);
    late.late_by = 5 * HOUR;
    let facts = vec![
        Fact::click(0, 0, 0, 1_000),
        late,
        Fact::click(130, 1, 0, 1_000),
        Fact::click(130, 1, 0, 1_000).with_verdict(Verdict::Duplicate),
        Fact::click(200, 2, 0, 1_000),
    ];
    world.batch(DAY, 1, &facts).await;
    // Speed missed the late click, counted the duplicate, and saw a click that nobody archived.
    let seen = [facts[0].clone(), facts[2].clone(), facts[2].clone(), facts[4].clone(), Fact::click(201, 2, 1, 7)];
    world.flush(0, 1, recount(DAY, &seen)).await;
    world.run(DAY).await.unwrap();

    let report = Report::load(&world.data, DAY).await.unwrap().unwrap();
    assert_eq!(report.status, Status::Corrected);
    let causes = &report.causes;
    assert_eq!((causes.late, causes.duplicates, causes.unexplained, causes.not_shown), (0, 1, 1, 1));
    assert_eq!(report.campaign_hours_differing, 3);
    let eur = &report.before.values().next().unwrap();
    assert_eq!((eur.sums.shown.clicks, eur.sums.exact.clicks, eur.distance.clicks.absolute), (5, 4, 3));
    assert_eq!(eur.distance.clicks.ppm, 750_000);
    let after = report.after.as_ref().unwrap().values().next().unwrap();
    assert_eq!((after.sums.shown, after.distance.is_zero()), (eur.sums.exact, true));
    assert_eq!(report.hours[1].shown_by, ShownBy::Nobody);
    assert_eq!(report.hours[0].campaigns, []);
    assert_eq!(report.hours[3].campaigns[0].candidates.late, 0);
}

#[tokio::test]
async fn a_late_click_in_a_shown_hour_is_explained_as_late() {
    let world = World::new();
    let mut late = Fact::click(5, 0, 0, 1_000);
    late.late_by = 2 * HOUR;
    world.batch(DAY, 1, &[Fact::click(0, 0, 0, 1_000), late]).await;
    world.flush(0, 1, recount(DAY, &[Fact::click(0, 0, 0, 1_000)])).await;
    world.run(DAY).await.unwrap();
    let report = Report::load(&world.data, DAY).await.unwrap().unwrap();
    assert_eq!((report.causes.late, report.causes.unexplained), (1, 0));
}

#[tokio::test]
async fn the_report_has_the_form_that_readers_know_and_each_run_keeps_its_own() {
    let world = World::new();
    world.batch(DAY, 1, &clicks(2)).await;
    world.flush(0, 1, recount(DAY, &clicks(1))).await;
    world.run(DAY).await.unwrap();
    world.batch(DAY, 2, &clicks(3)).await;
    world.run(DAY).await.unwrap();

    let read = |relative: String| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(world.folder.path().join(relative)).unwrap()).unwrap()
    };
    let first = read(kept_path(DAY, 1));
    assert_eq!(first["status"], "corrected");
    assert_eq!(first["before"]["EUR"]["shown"]["clicks"], 1);
    assert_eq!(first["before"]["EUR"]["exact"]["costNanos"], "3001");
    assert_eq!(first["before"]["EUR"]["distance"]["clicks"]["absolute"], "1");
    assert_eq!(first["after"]["EUR"]["distance"]["clicks"]["ppm"], 0);
    assert_eq!(first["hours"][0]["hour"], DAY.start().to_string());
    assert_eq!(first["hours"][0]["campaigns"][0]["campaignId"], "campaign-1");
    assert_eq!(first["hours"][0]["campaigns"][0]["shown"]["clicks"], 0);
    let latest = read(path(DAY));
    assert_eq!((&latest["run"], &latest["causes"]["restated"]), (&2.into(), &1.into()));
    assert_eq!(latest, read(kept_path(DAY, 2)));
}

/// Makes one sum of a record wrong.
type Damage = fn(&mut RunRecord);

#[tokio::test]
async fn books_that_do_not_balance_stop_everything() {
    let breaks: [(&str, Damage); 5] = [
        ("partition", |r| r.partitions[0].next += 1),
        ("archived", |r| r.hours[3].archived += 1),
        ("verdict", |r| *r.verdicts.get_mut("billable").unwrap() += 1),
        ("EUR", |r| r.totals.values_mut().next().unwrap().cost_nanos += 1),
        ("24 hours", |r| r.hours.truncate(23)),
    ];
    for (named, damage) in breaks {
        let world = World::new();
        let facts = clicks(20);
        let mut record = world.batch(DAY, 1, &facts).await;
        record.run = 2;
        damage(&mut record);
        world.save_record(&record).await;
        world.flush(0, 1, doubled(&facts)).await;
        let before = world.shown(DAY).await;
        let error = world.run(DAY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(named), "{named}: {error}");
        assert_eq!(world.shown(DAY).await, before);
        assert!(!world.settlement(DAY, 1).exists());
    }
}

#[tokio::test]
async fn gold_that_is_not_what_its_run_wrote_stops_everything() {
    for table in ["gold/ad_minute", "gold/campaign_hour", "gold/billing_day"] {
        let world = World::new();
        let record = world.batch(DAY, 1, &clicks(20)).await;
        let path = format!("{table}/{}", record.outputs[table].files[0].path);
        world.damage_lake_file(&path).await;
        let error = world.run(DAY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(world.shown(DAY).await.is_empty());
    }
}

#[tokio::test]
async fn an_empty_store_is_rebuilt_as_it_was() {
    let mut world = World::new();
    let next = DAY.plus(1);
    world.batch(DAY, 1, &clicks(30)).await;
    world.batch(next, 1, &clicks(10)).await;
    world.run(DAY).await.unwrap();
    world.run(next).await.unwrap();
    world.batch(next, 2, &clicks(11)).await; // not published: shown as reconciled
    let shown = world.shown(DAY).await;

    world.store = MemoryServingStore::new();
    let rebuilt = rebuild::run(&world.deps(), &|_, _| ()).await.unwrap();
    assert_eq!((rebuilt.days, rebuilt.settled), (2, 1));
    assert_eq!(world.shown(DAY).await, shown);
    assert_eq!(world.shown(next).await, printed(&recount(next, &clicks(11))));
    for (day, finality) in [(DAY, Finality::Settled), (next, Finality::Reconciled)] {
        let ad = "-ad-0-0".parse().unwrap();
        let series = world.store.ad_series(&ad, day.start()..day.end()).await.unwrap();
        assert!(!series.is_empty());
        assert!(series.iter().all(|p| p.finality == finality), "{day}: {series:?}");
    }
    assert_eq!(rebuild::run(&world.deps(), &|_, _| ()).await.unwrap().rows_changed, 0);
}

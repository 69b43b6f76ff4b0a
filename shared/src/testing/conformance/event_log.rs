//! What every event log must do. An implementation passes [`run`], or the single checks where it cannot do all
//! (a broker without a time index, say).
//! Each check takes an empty log of [`PARTITIONS`] partitions and reads back what it wrote, also after the log was
//! closed and opened in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::event_log::group::{Member, Turn, join};
use crate::event_log::{Consumer, Delivered, EventLog, LogError, NewRecord, Record, Retention};
use crate::progress::Positions;
use crate::time::{SECOND, Timestamp};

/// How many partitions the logs under test have.
pub const PARTITIONS: u32 = 4;

/// Long enough for any machine: a check that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shorter than anything arrives: what is there must be answered, what is not must not be waited for.
const AT_ONCE: Duration = Duration::from_millis(1);
/// When the first record of a check is appended.
const START: Timestamp = Timestamp(1_767_225_600 * SECOND);

/// Makes logs and opens them again.
#[async_trait]
pub trait Harness: Send {
    /// An empty log of [`PARTITIONS`] partitions, apart from every log made before.
    async fn fresh(&mut self) -> Arc<dyn EventLog>;

    /// Closes the log that [`Harness::fresh`] made last and opens it again. A log without a disk stays as it is.
    async fn reopen(&mut self, log: Arc<dyn EventLog>) -> Arc<dyn EventLog> {
        log
    }
}

/// Every check, one after the other.
pub async fn run(harness: &mut dyn Harness) {
    positions_count_from_zero_without_gaps(harness).await;
    records_come_back_as_they_were_appended(harness).await;
    groups_do_not_disturb_each_other(harness).await;
    a_consumer_starts_wherever_it_is_told(harness).await;
    a_start_outside_the_log_is_an_error(harness).await;
    a_poll_of_nothing_answers_nothing(harness).await;
    a_poll_sees_what_is_appended_while_it_waits(harness).await;
    a_cancelled_poll_loses_nothing(harness).await;
    concurrent_appends_get_distinct_positions(harness).await;
    large_batches_arrive_whole(harness).await;
    positions_are_found_by_time(harness).await;
    reports_are_shown_and_never_used(harness).await;
    retention_forgets_the_old_and_keeps_the_young(harness).await;
    positions_go_on_after_everything_was_forgotten(harness).await;
    a_consumer_that_retention_overtook_is_told(harness).await;
    a_member_alone_has_every_partition_from_where_it_starts_them(harness).await;
}

/// The `n`th record of a check: its payload, its partition and its time all follow from `n`.
#[must_use]
pub fn record(partition: u32, n: u64) -> NewRecord {
    let length = usize::try_from(n % 97).unwrap();
    let mut payload = format!("{partition}/{n}/").into_bytes();
    payload.extend(std::iter::repeat_n(b'x', length));
    let append_time = START.plus(i64::try_from(n).unwrap() * SECOND);
    NewRecord { partition, append_time, payload: Bytes::from(payload) }
}

/// `count` records dealt over all partitions.
#[must_use]
pub fn records(count: u64) -> Vec<NewRecord> {
    (0..count).map(|n| record(u32::try_from(n * 7 % u64::from(PARTITIONS)).unwrap(), n)).collect()
}

/// What a log that took `appended` as its only records must hold.
#[must_use]
pub fn expected(appended: &[NewRecord]) -> BTreeMap<u32, Vec<Record>> {
    let mut all: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for NewRecord { partition, append_time, payload } in appended.iter().cloned() {
        let of_partition = all.entry(partition).or_default();
        let position = u64::try_from(of_partition.len()).unwrap();
        of_partition.push(Record { partition, position, append_time, payload });
    }
    all
}

/// The start of every partition.
#[must_use]
pub fn zero() -> Positions {
    Positions((0..PARTITIONS).map(|p| (p, 0)).collect())
}

/// Polls until `consumer` stands at `end`, and sorts what came by partition.
pub async fn read_to(consumer: &mut dyn Consumer, end: &Positions, at_most: usize) -> BTreeMap<u32, Vec<Record>> {
    let mut all: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    while !consumer.positions().covers(end) {
        let polled = consumer.poll(at_most, PATIENCE).await.unwrap();
        assert!(!polled.is_empty(), "nothing came for {PATIENCE:?} at {:?}", consumer.positions());
        assert!(polled.len() <= at_most, "{} records, {at_most} were asked for", polled.len());
        for record in polled {
            all.entry(record.partition).or_default().push(record);
        }
    }
    all
}

/// Everything a log holds from `from` on.
pub async fn read_all(log: &dyn EventLog, from: &Positions) -> BTreeMap<u32, Vec<Record>> {
    let ends = log.bounds().await.unwrap().end;
    let end = Positions(from.0.keys().map(|p| (*p, ends.next(*p))).collect());
    let mut consumer = log.consumer("reader", from).await.unwrap();
    read_to(consumer.as_mut(), &end, 1_000).await
}

fn delivered(of: &[NewRecord], after: &mut Positions) -> Vec<Delivered> {
    of.iter()
        .map(|r| {
            let next = after.0.entry(r.partition).or_insert(0);
            *next += 1;
            Delivered { partition: r.partition, position: *next - 1 }
        })
        .collect()
}

/// Positions are 0, 1, 2, … in each partition, in the order of the appends, across reopening.
pub async fn positions_count_from_zero_without_gaps(harness: &mut dyn Harness) {
    let mut log = harness.fresh().await;
    assert_eq!(log.partitions(), PARTITIONS);
    assert_eq!(log.bounds().await.unwrap().start, zero());
    assert_eq!(log.bounds().await.unwrap().end, zero());
    let mut after = zero();
    for (round, batch) in records(100).chunks(9).enumerate() {
        assert_eq!(log.append(batch.to_vec()).await.unwrap(), delivered(batch, &mut after));
        assert_eq!(log.bounds().await.unwrap().end, after, "an acknowledged record is within the bounds");
        if round % 4 == 3 {
            log = harness.reopen(log).await;
        }
    }
    assert_eq!(log.append(Vec::new()).await.unwrap(), Vec::new());
    let nowhere = log.append(vec![record(0, 1), record(PARTITIONS, 1)]).await;
    assert!(matches!(nowhere, Err(LogError::Invalid(_))), "{nowhere:?}");
    assert_eq!(log.bounds().await.unwrap().end, after, "a refused call appends none of its records");
    assert_eq!(log.bounds().await.unwrap().start, zero());
}

/// Every record comes back in order with its bytes and its time: before and after reopening, in any poll size.
pub async fn records_come_back_as_they_were_appended(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let mut appended = records(300);
    appended.push(NewRecord { partition: 1, append_time: START, payload: Bytes::new() });
    for batch in appended.chunks(7) {
        assert_eq!(log.append(batch.to_vec()).await.unwrap().len(), batch.len());
    }
    assert_eq!(read_all(log.as_ref(), &zero()).await, expected(&appended));
    let log = harness.reopen(log).await;
    let end = log.bounds().await.unwrap().end;
    for at_most in [1, 3, 100_000] {
        let mut consumer = log.consumer("one", &zero()).await.unwrap();
        assert_eq!(read_to(consumer.as_mut(), &end, at_most).await, expected(&appended));
    }
}

/// Two groups read the same records, each at its own pace.
pub async fn groups_do_not_disturb_each_other(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let appended = records(60);
    assert_eq!(log.append(appended.clone()).await.unwrap().len(), 60);
    let end = log.bounds().await.unwrap().end;
    let mut slow = log.consumer("slow", &zero()).await.unwrap();
    let first = slow.poll(1, PATIENCE).await.unwrap();
    assert_eq!(first.len(), 1);
    let mut fast = log.consumer("fast", &zero()).await.unwrap();
    assert_eq!(read_to(fast.as_mut(), &end, 50).await, expected(&appended));
    let mut rest = read_to(slow.as_mut(), &end, 50).await;
    for record in first {
        rest.entry(record.partition).or_default().insert(0, record);
    }
    assert_eq!(rest, expected(&appended));
}

/// A consumer reads the partitions it names, from the positions it names, and no others.
pub async fn a_consumer_starts_wherever_it_is_told(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let appended = records(200);
    assert_eq!(log.append(appended.clone()).await.unwrap().len(), 200);
    let log = harness.reopen(log).await;
    let all = expected(&appended);
    let end = log.bounds().await.unwrap().end;
    for from in [vec![(0, 0)], vec![(1, 49), (3, 7)], vec![(0, 50), (2, 3)], vec![(0, 1), (1, 2), (2, 3), (3, 4)]] {
        let from = Positions(from.into_iter().collect());
        let mut wanted = BTreeMap::new();
        for (&partition, &start) in &from.0 {
            let rest = all[&partition][usize::try_from(start).unwrap()..].to_vec();
            if !rest.is_empty() {
                wanted.insert(partition, rest);
            }
        }
        assert_eq!(read_all(log.as_ref(), &from).await, wanted, "from {from:?}");
        let mut consumer = log.consumer("where", &from).await.unwrap();
        assert_eq!(consumer.positions(), from);
        let own_end = Positions(from.0.keys().map(|p| (*p, end.next(*p))).collect());
        read_to(consumer.as_mut(), &own_end, 1_000).await;
        assert_eq!(consumer.positions(), own_end);
    }
}

/// A position beyond the end, or a partition that does not exist, is refused when the consumer is made.
pub async fn a_start_outside_the_log_is_an_error(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    assert_eq!(log.append(vec![record(2, 0)]).await.unwrap().len(), 1);
    let log = harness.reopen(log).await;
    assert!(log.consumer("ahead", &Positions([(2, 1)].into())).await.is_ok());
    let ahead = log.consumer("ahead", &Positions([(2, 2)].into())).await.err();
    assert!(matches!(ahead, Some(LogError::AheadOfLog { partition: 2, end: 1, wanted: 2 })), "{ahead:?}");
    let nowhere = log.consumer("nowhere", &Positions([(PARTITIONS, 0)].into())).await.err();
    assert!(matches!(nowhere, Some(LogError::Invalid(_))), "{nowhere:?}");
}

/// A poll at the end waits no longer than it is told and answers with nothing.
pub async fn a_poll_of_nothing_answers_nothing(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let mut consumer = log.consumer("idle", &zero()).await.unwrap();
    assert_eq!(consumer.poll(10, AT_ONCE).await.unwrap(), Vec::new());
    assert_eq!(consumer.poll(10, Duration::ZERO).await.unwrap(), Vec::new());
    assert_eq!(log.append(vec![record(0, 0)]).await.unwrap().len(), 1);
    assert_eq!(consumer.poll(0, AT_ONCE).await.unwrap(), Vec::new());
    assert_eq!(consumer.poll(10, PATIENCE).await.unwrap().len(), 1);
    // Records of other partitions do not wake it with an empty hand before its time.
    let mut other = log.consumer("other", &Positions([(3, 0)].into())).await.unwrap();
    assert_eq!(other.poll(10, AT_ONCE).await.unwrap(), Vec::new());
}

/// A consumer that waits at the end gets what is appended then.
pub async fn a_poll_sees_what_is_appended_while_it_waits(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let mut consumer = log.consumer("waiting", &Positions([(1, 0)].into())).await.unwrap();
    for n in 0..20 {
        let append = log.append(vec![record(0, n), record(1, n)]);
        let (polled, appended) = tokio::join!(consumer.poll(10, PATIENCE), append);
        assert_eq!(appended.unwrap().len(), 2);
        let polled = polled.unwrap();
        assert_eq!(polled.len(), 1);
        assert_eq!((polled[0].position, &polled[0].payload), (n, &record(1, n).payload));
    }
}

/// Dropping a poll half way (a `select!` that another branch won) neither loses nor repeats a record.
pub async fn a_cancelled_poll_loses_nothing(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let appended = records(500);
    let mut consumer = log.consumer("cancelled", &zero()).await.unwrap();
    let mut seen: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for batch in appended.chunks(10) {
        assert_eq!(log.append(batch.to_vec()).await.unwrap().len(), batch.len());
        for turns in 0..4 {
            let polled = tokio::select! {
                biased;
                () = yield_times(turns) => continue,
                polled = consumer.poll(3, PATIENCE) => polled.unwrap(),
            };
            polled.into_iter().for_each(|r| seen.entry(r.partition).or_default().push(r));
        }
    }
    let end = log.bounds().await.unwrap().end;
    for (partition, rest) in read_to(consumer.as_mut(), &end, 64).await {
        seen.entry(partition).or_default().extend(rest);
    }
    assert_eq!(seen, expected(&appended));
}

async fn yield_times(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

/// Appenders that do not know of each other never share a position and leave no gap.
pub async fn concurrent_appends_get_distinct_positions(harness: &mut dyn Harness) {
    const APPENDERS: u64 = 16;
    const EACH: u64 = 40;
    let log = harness.fresh().await;
    let tasks: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut got = Vec::new();
                for n in 0..EACH {
                    let new = record(u32::try_from(n % u64::from(PARTITIONS)).unwrap(), appender * EACH + n);
                    let at = log.append(vec![new.clone()]).await.unwrap();
                    got.push((at[0].partition, at[0].position, new.payload));
                }
                got
            })
        })
        .collect();
    let mut acknowledged = BTreeSet::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    assert_eq!(acknowledged.len(), usize::try_from(APPENDERS * EACH).unwrap());
    let log = harness.reopen(log).await;
    let read = read_all(log.as_ref(), &zero()).await;
    for (partition, records) in &read {
        let positions: Vec<u64> = records.iter().map(|r| r.position).collect();
        let gapless: Vec<u64> = (0..u64::try_from(records.len()).unwrap()).collect();
        assert_eq!(positions, gapless, "partition {partition}");
    }
    let stored: BTreeSet<_> = read.into_values().flatten().map(|r| (r.partition, r.position, r.payload)).collect();
    assert_eq!(stored, acknowledged);
}

/// One call with very many records, and records of very many bytes.
pub async fn large_batches_arrive_whole(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let mut appended = records(20_000);
    let big = Bytes::from(vec![0xA5; 200_000]);
    appended.push(NewRecord { partition: 0, append_time: START, payload: big });
    let mut after = zero();
    assert_eq!(log.append(appended.clone()).await.unwrap(), delivered(&appended, &mut after));
    let log = harness.reopen(log).await;
    let read = read_all(log.as_ref(), &zero()).await;
    assert!(read == expected(&appended), "a large batch came back changed");
}

/// A time leads to the first record appended at or after it, in each partition; times may go back a little.
pub async fn positions_are_found_by_time(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let mut appended = records(400);
    for (n, record) in appended.iter_mut().enumerate() {
        if n % 10 == 0 {
            record.append_time = record.append_time.plus(-15 * SECOND);
        }
    }
    for batch in appended.chunks(50) {
        assert_eq!(log.append(batch.to_vec()).await.unwrap().len(), batch.len());
    }
    let log = harness.reopen(log).await;
    let end = log.bounds().await.unwrap().end;
    for seconds in [-100, 0, 1, 57, 200, 384, 385, 399, 400, 10_000] {
        let time = START.plus(seconds * SECOND);
        let mut wanted = end.clone();
        for (partition, records) in expected(&appended) {
            if let Some(first) = records.iter().find(|r| r.append_time >= time) {
                wanted.0.insert(partition, first.position);
            }
        }
        assert_eq!(log.positions_at(time).await.unwrap(), wanted, "{seconds} seconds after the first");
    }
}

/// What a group reports is shown by partition, survives the consumer, and decides nothing.
pub async fn reports_are_shown_and_never_used(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    assert_eq!(log.append(records(40)).await.unwrap().len(), 40);
    let mut left = log.consumer("speed", &Positions([(0, 0), (1, 0)].into())).await.unwrap();
    let mut right = log.consumer("speed", &Positions([(2, 0), (3, 0)].into())).await.unwrap();
    let mut lake = log.consumer("lake", &zero()).await.unwrap();
    left.report(&Positions([(0, 3), (1, 2)].into())).await.unwrap();
    right.report(&Positions([(2, 5), (3, 7)].into())).await.unwrap();
    lake.report(&Positions([(0, 1), (1, 1), (2, 1), (3, 1)].into())).await.unwrap();
    left.report(&Positions([(0, 4), (1, 2)].into())).await.unwrap();
    drop((left, right, lake));
    let log = harness.reopen(log).await;
    let reported = log.group_positions().await.unwrap();
    assert_eq!(reported["speed"], Positions([(0, 4), (1, 2), (2, 5), (3, 7)].into()));
    assert_eq!(reported["lake"], Positions([(0, 1), (1, 1), (2, 1), (3, 1)].into()));
    let mut again = log.consumer("speed", &zero()).await.unwrap();
    assert_eq!(again.poll(1, PATIENCE).await.unwrap()[0].position, 0);
}

const KEEP_ALL_BYTES: u64 = u64::MAX;

/// Retention by age never takes a record that is young enough; what is left reads as before.
pub async fn retention_forgets_the_old_and_keeps_the_young(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let appended = records(2_000);
    for batch in appended.chunks(100) {
        assert_eq!(log.append(batch.to_vec()).await.unwrap().len(), batch.len());
    }
    let now = START.plus(2_000 * SECOND);
    let hour = Retention { max_age: Duration::from_secs(3_600), max_bytes: KEEP_ALL_BYTES };
    assert_eq!(log.enforce(hour, now).await.unwrap(), 0, "everything is younger than an hour");
    assert_eq!(log.bounds().await.unwrap().start, zero());

    let recent = Retention { max_age: Duration::from_secs(500), max_bytes: KEEP_ALL_BYTES };
    let freed = log.enforce(recent, now).await.unwrap();
    check_rest(log.as_ref(), &appended, now.plus(-500 * SECOND)).await;
    let log = harness.reopen(log).await;
    let start = check_rest(log.as_ref(), &appended, now.plus(-500 * SECOND)).await;
    assert_eq!(freed > 0, start != zero(), "{freed} bytes were freed and the log starts at {start:?}");

    let small = Retention { max_age: Duration::from_secs(1 << 30), max_bytes: 1 };
    let freed = log.enforce(small, now).await.unwrap();
    let smaller = check_rest(log.as_ref(), &appended, now).await;
    assert!(smaller.covers(&start), "a log never remembers what it forgot");
    assert_eq!(freed > 0, smaller != start);
}

/// Checks that `log` holds the end of `appended`, with everything from `kept` on; answers where it starts.
async fn check_rest(log: &dyn EventLog, appended: &[NewRecord], kept: Timestamp) -> Positions {
    let bounds = log.bounds().await.unwrap();
    let mut wanted = expected(appended);
    for (partition, records) in &mut wanted {
        let start = usize::try_from(bounds.start.next(*partition)).unwrap();
        assert_eq!(bounds.end.next(*partition), u64::try_from(records.len()).unwrap());
        let forgotten: Vec<Record> = records.drain(..start).collect();
        assert!(forgotten.iter().all(|r| r.append_time < kept), "a young record of partition {partition} is gone");
    }
    wanted.retain(|_, records| !records.is_empty());
    assert_eq!(read_all(log, &bounds.start).await, wanted);
    bounds.start
}

/// When everything is past its age the log is empty, and its positions go on from where they were.
pub async fn positions_go_on_after_everything_was_forgotten(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let appended = records(100);
    assert_eq!(log.append(appended.clone()).await.unwrap().len(), 100);
    let mut end = log.bounds().await.unwrap().end;
    let nothing = Retention { max_age: Duration::ZERO, max_bytes: KEEP_ALL_BYTES };
    let later = START.plus(10_000 * SECOND);
    assert!(log.enforce(nothing, later).await.unwrap() > 0);
    let log = harness.reopen(log).await;
    let bounds = log.bounds().await.unwrap();
    assert_eq!((&bounds.start, &bounds.end), (&end, &end));
    assert_eq!(log.enforce(nothing, later).await.unwrap(), 0, "there is nothing left to forget");
    assert_eq!(log.positions_at(Timestamp::MIN).await.unwrap(), end);
    let begin = end.clone();
    let more = records(8);
    let acknowledged = log.append(more.clone()).await.unwrap();
    assert_eq!(acknowledged, delivered(&more, &mut end));
    let log = harness.reopen(log).await;
    let read: usize = read_all(log.as_ref(), &begin).await.values().map(Vec::len).sum();
    assert_eq!(read, 8);
    let lost = log.consumer("late", &zero()).await.err();
    assert!(matches!(lost, Some(LogError::Truncated { wanted: 0, .. })), "{lost:?}");
}

/// A consumer whose next record was forgotten gets an error, never a silent jump; one without loss goes on.
pub async fn a_consumer_that_retention_overtook_is_told(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    assert_eq!(log.append((0..50).map(|n| record(0, n)).collect()).await.unwrap().len(), 50);
    let mut behind = log.consumer("behind", &Positions([(0, 10)].into())).await.unwrap();
    let mut done = log.consumer("done", &Positions([(0, 50), (1, 0)].into())).await.unwrap();
    let nothing = Retention { max_age: Duration::ZERO, max_bytes: KEEP_ALL_BYTES };
    assert!(log.enforce(nothing, START.plus(10_000 * SECOND)).await.unwrap() > 0);
    assert_eq!(log.append(vec![record(1, 60), record(0, 61)]).await.unwrap().len(), 2);
    if let Some(overtaken) = read_until_error(behind.as_mut(), 51).await {
        assert!(matches!(overtaken, LogError::Truncated { partition: 0, start: 50, .. }), "{overtaken:?}");
    }
    let end = Positions([(0, 51), (1, 1)].into());
    let read = read_to(done.as_mut(), &end, 10).await;
    assert_eq!((read[&0].len(), read[&1].len()), (1, 1));
}

/// Reads partition 0 up to `end` or an error. Whatever comes follows on: a reader may finish a file it holds open.
async fn read_until_error(consumer: &mut dyn Consumer, end: u64) -> Option<LogError> {
    let mut next = consumer.positions().next(0);
    while next < end {
        match consumer.poll(7, PATIENCE).await {
            Ok(records) => {
                for record in records {
                    assert_eq!(record.position, next, "a record was jumped over");
                    next += 1;
                }
            }
            Err(error) => return Some(error),
        }
    }
    None
}

/// A member alone gets all partitions, reads each from where it starts it, in any order, and nothing while it is paused.
pub async fn a_member_alone_has_every_partition_from_where_it_starts_them(harness: &mut dyn Harness) {
    let log = harness.fresh().await;
    let appended = records(200);
    assert_eq!(log.append(appended.clone()).await.unwrap().len(), 200);
    let end = log.bounds().await.unwrap().end;
    let mut member = join(&log, "members", "alone").await.unwrap();
    let mut assigned = BTreeSet::new();
    while assigned.len() < usize::try_from(PARTITIONS).unwrap() {
        match member.poll(10, PATIENCE).await.unwrap() {
            Turn::Assigned(partitions) => assigned.extend(partitions),
            turn => assert_eq!(turn, Turn::Records(Vec::new()), "nothing was started"),
        }
    }
    let ahead = member.start(&Positions([(1, end.next(1) + 1)].into())).await;
    assert!(matches!(ahead, Err(LogError::AheadOfLog { partition: 1, .. })), "{ahead:?}");
    member.start(&Positions([(2, 7)].into())).await.unwrap();
    let mut read = BTreeMap::new();
    take(member.as_mut(), 43, &mut read).await;
    member.pause(true).unwrap();
    member.start(&Positions([(0, 0), (1, 49), (3, 0)].into())).await.unwrap();
    assert_eq!(log.append(vec![record(2, 200)]).await.unwrap().len(), 1);
    assert_eq!(member.poll(10, AT_ONCE).await.unwrap(), Turn::Records(Vec::new()));
    member.pause(false).unwrap();
    take(member.as_mut(), 50 + 1 + 50 + 1, &mut read).await;
    member.give_up(&[0, 1].into()).await.unwrap();
    assert_eq!(log.append((0..PARTITIONS).map(|p| record(p, 201)).collect()).await.unwrap().len(), 4);
    take(member.as_mut(), 2, &mut read).await;
    let wanted: BTreeMap<u32, Vec<u64>> =
        [(0, (0..50).collect()), (1, vec![49]), (2, (7..52).collect()), (3, (0..51).collect())].into();
    assert_eq!(read, wanted);
    member.leave().await;
}

/// Polls for `count` records, and sorts their positions by partition.
async fn take(member: &mut dyn Member, count: usize, read: &mut BTreeMap<u32, Vec<u64>>) {
    let mut left = count;
    while left > 0 {
        let Turn::Records(records) = member.poll(left, PATIENCE).await.unwrap() else { panic!("nothing changes") };
        left -= records.len();
        records.into_iter().for_each(|r| read.entry(r.partition).or_default().push(r.position));
    }
}

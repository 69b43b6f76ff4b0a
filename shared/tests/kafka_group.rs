//! Consumer groups on a real broker: partitions move when members come, go, come back, hang, or die, and no record is
//! jumped over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shared::config::Span;
use shared::event_log::group::{Member, Turn, join};
use shared::event_log::kafka::{KafkaLog, Settings, Topic, ensure};
use shared::event_log::{EventLog, LogError, NewRecord};
use shared::progress::Positions;
use shared::testing::parts::Part;
use shared::time::{Timestamp, sleep};

const PARTITIONS: u32 = 8;
/// The least that a broker takes.
const SESSION: Span = Span::secs(6);
const TICK: Duration = Duration::from_millis(50);

struct World {
    log: Arc<dyn EventLog>,
    group: String,
    /// Where whoever has a partition saved it last; every record must come next after it.
    saved: Mutex<Positions>,
}

impl World {
    async fn new(part: &Part, name: &str) -> Self {
        let settings = Settings {
            bootstrap: part.address.clone(),
            replication: 1,
            min_in_sync: 1,
            session_timeout: SESSION,
            max_poll_interval: SESSION,
            ..Settings::default()
        };
        let topic = Topic { name: format!("{name}-{}", std::process::id()), partitions: PARTITIONS };
        assert!(ensure(&settings, &topic).await.unwrap());
        let log = Arc::new(KafkaLog::open(&settings, &topic.name).await.unwrap());
        Self { log, group: topic.name, saved: Mutex::default() }
    }

    async fn append(&self) {
        let record = |partition| NewRecord { partition, append_time: Timestamp(0), payload: Bytes::from_static(b"x") };
        let records = (0..PARTITIONS).map(record).collect();
        assert_eq!(self.log.append(records).await.unwrap().len(), 8);
    }

    async fn join(&self, name: &str) -> Worker<'_> {
        let member = join(&self.log, &self.group, name).await.unwrap();
        Worker { world: self, member, has: BTreeSet::new(), changes: 0 }
    }

    fn end(&self) -> u64 {
        (0..PARTITIONS).map(|p| self.saved.lock().unwrap().next(p)).sum()
    }
}

/// A member that saves after every record.
struct Worker<'a> {
    world: &'a World,
    member: Box<dyn Member>,
    has: BTreeSet<u32>,
    changes: usize,
}

impl Worker<'_> {
    async fn step(&mut self) -> Result<(), LogError> {
        let turn = self.member.poll(100, TICK).await?;
        self.changes += usize::from(!matches!(turn, Turn::Records(_)));
        match turn {
            Turn::Records(records) => {
                let mut saved = self.world.saved.lock().unwrap();
                for record in records {
                    assert!(self.has.contains(&record.partition), "a record of partition {}", record.partition);
                    assert_eq!(record.position, saved.next(record.partition), "partition {}", record.partition);
                    saved.advance(record.partition, record.position + 1).unwrap();
                }
            }
            Turn::Assigned(partitions) => {
                let from = partitions.iter().map(|p| (*p, self.world.saved.lock().unwrap().next(*p))).collect();
                self.has.extend(&partitions);
                self.member.start(&Positions(from)).await?;
            }
            Turn::Revoked(partitions) => {
                self.has.retain(|p| !partitions.contains(p));
                self.member.give_up(&partitions).await?;
            }
            Turn::Lost(partitions) => self.has.retain(|p| !partitions.contains(p)),
        }
        Ok(())
    }
}

/// Lets all work until `done`.
async fn until(workers: &mut [Worker<'_>], done: impl Fn(&[Worker<'_>]) -> bool) {
    while !done(workers) {
        for worker in workers.iter_mut() {
            worker.step().await.unwrap();
        }
    }
}

fn shares(workers: &[Worker<'_>]) -> Vec<usize> {
    workers.iter().map(|w| w.has.len()).collect()
}

/// One broker for every check here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_deals_partitions_among_members() {
    let folder = tempfile::tempdir().unwrap();
    let part = Part::given_or_start("kafka", "KAFKA_BOOTSTRAP", folder.path());
    partitions_move_as_members_come_and_go(&part).await;
    a_member_that_comes_back_in_time_disturbs_nobody(&part).await;
    a_member_that_hangs_is_replaced_and_one_that_works_for_long_is_not(&part).await;
    one_name_is_one_member(&part).await;
}

async fn partitions_move_as_members_come_and_go(part: &Part) {
    let world = World::new(part, "moves").await;
    world.append().await;
    let mut workers = vec![world.join("a").await];
    until(&mut workers, |_| world.end() == 8).await;
    assert_eq!(shares(&workers), [8]);
    workers.push(world.join("b").await);
    until(&mut workers, |workers| shares(workers) == [4, 4]).await;
    workers.extend([world.join("c").await, world.join("d").await]);
    until(&mut workers, |workers| shares(workers) == [2, 2, 2, 2]).await;
    world.append().await;
    until(&mut workers, |_| world.end() == 16).await;
    // Two end, one in order and one not; the others get theirs when they have been away for too long.
    drop(workers.pop());
    workers.pop().unwrap().member.leave().await;
    world.append().await;
    until(&mut workers, |workers| shares(workers) == [4, 4] && world.end() == 24).await;
}

async fn a_member_that_comes_back_in_time_disturbs_nobody(part: &Part) {
    let world = World::new(part, "comes-back").await;
    let mut workers = vec![world.join("a").await, world.join("b").await];
    until(&mut workers, |workers| shares(workers) == [4, 4]).await;
    let had = workers[1].has.clone();
    let changes = workers[0].changes;
    workers.pop().unwrap().member.leave().await;
    world.append().await;
    workers.push(world.join("b").await);
    until(&mut workers, |_| world.end() == 8).await;
    assert_eq!((&workers[1].has, workers[0].changes), (&had, changes), "b has what it had, a noticed nothing");
}

async fn a_member_that_hangs_is_replaced_and_one_that_works_for_long_is_not(part: &Part) {
    let world = World::new(part, "hangs").await;
    let mut workers = vec![world.join("a").await, world.join("b").await];
    until(&mut workers, |workers| shares(workers) == [4, 4]).await;
    let changes = workers[0].changes;
    // a works for long and stays a member; meanwhile b goes on.
    let (busy, rest) = workers.split_at_mut(1);
    tokio::select! {
        () = sleep(SESSION.0 * 2) => {}
        error = busy[0].member.keep() => panic!("{error}"),
        () = until(rest, |_| false) => {}
    }
    world.append().await;
    until(&mut workers, |_| world.end() == 8).await;
    assert_eq!((shares(&workers), workers[0].changes), (vec![4, 4], changes));
    // a hangs: b gets everything, and a is told when it wakes up.
    until(&mut workers[1..], |workers| shares(workers) == [8]).await;
    world.append().await;
    until(&mut workers[1..], |_| world.end() == 16).await;
    loop {
        // The first poll says why it was put out.
        match workers[0].step().await {
            Err(LogError::Unavailable { .. }) => {}
            other => other.unwrap(),
        }
        if workers[0].has.is_empty() {
            break;
        }
    }
    until(&mut workers, |workers| shares(workers) == [4, 4]).await;
    world.append().await;
    until(&mut workers, |_| world.end() == 24).await;
}

async fn one_name_is_one_member(part: &Part) {
    let world = World::new(part, "names").await;
    let mut workers = vec![world.join("a").await];
    until(&mut workers, |workers| shares(workers) == [8]).await;
    workers.push(world.join("a").await);
    until(&mut workers[1..], |workers| shares(workers) == [8]).await;
    let refused = loop {
        if let Err(error) = workers[0].step().await {
            break error;
        }
    };
    assert!(matches!(&refused, LogError::Refused(why) if why.contains("instance")), "{refused}");
}

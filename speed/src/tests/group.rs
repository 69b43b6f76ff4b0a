//! Partitions that move among workers, in order or not, at any moment: the rows are those of a recount.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use shared::event_log::group::{Member, Sole, Turn};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Retention};
use shared::progress::Positions;
use shared::shutdown::Shutdown;
use shared::time::Timestamp;

use super::events::{Happening, records, traffic};
use super::harness::{PARTITIONS, World, block_on};
use crate::pipeline::Pipeline;
use crate::{Deps, Error, Settings};

const WORKERS: usize = 3;

/// What a member is told next.
type Untold = Arc<Mutex<VecDeque<Turn>>>;

/// The log, for one member of a group that the test deals.
struct Dealing {
    log: MemoryLog,
    untold: Untold,
}

#[async_trait]
impl EventLog for Dealing {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        self.log.append(records).await
    }
    async fn consumer(&self, group: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        self.log.consumer(group, from).await
    }
    async fn join(&self, group: &str, _: &str) -> Result<Option<Box<dyn Member>>, LogError> {
        let reads = Sole::new(Arc::new(self.log.clone()), group, BTreeSet::new());
        Ok(Some(Box::new(Dealt { reads, untold: Arc::clone(&self.untold) })))
    }
    async fn bounds(&self) -> Result<Bounds, LogError> {
        self.log.bounds().await
    }
    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        self.log.positions_at(time).await
    }
    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        self.log.group_positions().await
    }
    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        self.log.enforce(retention, now).await
    }
}

struct Dealt {
    reads: Sole,
    untold: Untold,
}

#[async_trait]
impl Member for Dealt {
    async fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Turn, LogError> {
        let told = self.untold.lock().unwrap().pop_front();
        match told {
            Some(Turn::Lost(partitions)) => {
                self.reads.give_up(&partitions).await?;
                Ok(Turn::Lost(partitions))
            }
            Some(turn) => Ok(turn),
            None => self.reads.poll(max_records, wait).await,
        }
    }
    async fn start(&mut self, from: &Positions) -> Result<(), LogError> {
        self.reads.start(from).await
    }
    async fn give_up(&mut self, partitions: &BTreeSet<u32>) -> Result<(), LogError> {
        self.reads.give_up(partitions).await
    }
    fn pause(&mut self, is_paused: bool) -> Result<(), LogError> {
        self.reads.pause(is_paused)
    }
    async fn keep(&mut self) -> LogError {
        self.reads.keep().await
    }
    async fn report(&mut self, positions: &Positions) -> Result<(), LogError> {
        self.reads.report(positions).await
    }
    async fn leave(self: Box<Self>) {}
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(usize),
    /// A worker takes so many turns.
    Work(usize, usize),
    /// It flushes and saves.
    Save(usize),
    /// A partition goes to a worker, in order: who had it gives it up first.
    Move(u32, usize),
    /// A partition goes to a worker while who had it does not know.
    Snatch(u32, usize),
    /// Who lost something hears of it.
    Tell(usize),
    /// A worker dies and is started again.
    Crash(usize),
    /// Time passes, so that flushes are due.
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_usize).prop_map(Step::Append),
        8 => (0..WORKERS, 1..6_usize).prop_map(|(w, n)| Step::Work(w, n)),
        3 => (0..WORKERS).prop_map(Step::Save),
        3 => (0..PARTITIONS, 0..WORKERS).prop_map(|(p, w)| Step::Move(p, w)),
        2 => (0..PARTITIONS, 0..WORKERS).prop_map(|(p, w)| Step::Snatch(p, w)),
        1 => (0..WORKERS).prop_map(Step::Tell),
        1 => (0..WORKERS).prop_map(Step::Crash),
        1 => (1..20_i64).prop_map(Step::Wait),
    ]
}

/// Workers of one group on one world.
struct Group {
    world: World,
    workers: Vec<(Pipeline, Untold)>,
    owners: BTreeMap<u32, usize>,
    /// What each worker lost and does not know of yet.
    lost: BTreeMap<usize, BTreeSet<u32>>,
}

async fn worker(world: &World, has: BTreeSet<u32>) -> (Pipeline, Untold) {
    let untold = Untold::default();
    if !has.is_empty() {
        untold.lock().unwrap().push_back(Turn::Assigned(has));
    }
    let log = Arc::new(Dealing { log: world.log.clone(), untold: Arc::clone(&untold) });
    let settings = Settings { group_member: "w".into(), state_url: "file:///state".into(), ..world.settings.clone() };
    let deps = Deps { events: log, ..world.deps() };
    (Pipeline::start(settings, deps).await.unwrap(), untold)
}

impl Group {
    async fn new() -> Self {
        let world = World::on_objects();
        let mut workers = Vec::new();
        for n in 0..WORKERS {
            workers.push(worker(&world, if n == 0 { (0..PARTITIONS).collect() } else { BTreeSet::new() }).await);
        }
        let owners = (0..PARTITIONS).map(|p| (p, 0)).collect();
        Self { world, workers, owners, lost: BTreeMap::new() }
    }

    async fn crash(&mut self, n: usize) {
        let has = self.owners.iter().filter(|(_, owner)| **owner == n).map(|(p, _)| *p).collect();
        self.lost.remove(&n);
        self.workers[n] = worker(&self.world, has).await;
    }

    /// One that was replaced unawares may find out when it saves, and so may its successor if it was still restoring:
    /// whoever finds out ends and is started again. Answers whether nobody did.
    async fn or_again(&mut self, n: usize, outcome: Result<(), Error>) -> bool {
        match outcome {
            Ok(()) => return true,
            Err(Error::Superseded { .. }) => self.crash(n).await,
            Err(error) => panic!("{error}"),
        }
        false
    }

    async fn save(&mut self, n: usize) -> bool {
        let outcome = self.workers[n].0.flush_and_save(true).await;
        self.or_again(n, outcome).await
    }

    /// A worker takes turns until it has heard everything.
    async fn listen(&mut self, n: usize) {
        while !self.workers[n].1.lock().unwrap().is_empty() {
            self.work(n, 1).await;
        }
    }

    async fn work(&mut self, n: usize, turns: usize) {
        for _ in 0..turns {
            let outcome = self.workers[n].0.step(&Shutdown::new()).await;
            self.or_again(n, outcome).await;
        }
    }

    fn say(&self, n: usize, turn: Turn) {
        self.workers[n].1.lock().unwrap().push_back(turn);
    }

    fn tell(&mut self, n: usize) {
        if let Some(partitions) = self.lost.remove(&n) {
            self.say(n, Turn::Lost(partitions));
        }
    }

    async fn hand_over(&mut self, partition: u32, to: usize, in_order: bool) {
        let from = self.owners.insert(partition, to).unwrap();
        if from == to {
            return;
        }
        if in_order {
            self.tell(from);
            self.say(from, Turn::Revoked([partition].into()));
            self.listen(from).await;
        } else {
            self.lost.entry(from).or_default().insert(partition);
        }
        // A worker that gets back what it lost hears of the loss first.
        self.tell(to);
        self.say(to, Turn::Assigned([partition].into()));
    }

    async fn play(&mut self, happenings: &[Happening], steps: &[Step]) {
        let mut waiting = records(happenings, PARTITIONS).into_iter();
        for step in steps {
            match *step {
                Step::Append(n) => self.world.append(waiting.by_ref().take(n).collect()).await,
                Step::Work(n, turns) => self.work(n, turns).await,
                Step::Save(n) => {
                    self.save(n).await;
                }
                Step::Move(partition, to) => self.hand_over(partition, to, true).await,
                Step::Snatch(partition, to) => self.hand_over(partition, to, false).await,
                Step::Tell(n) => self.tell(n),
                Step::Crash(n) => self.crash(n).await,
                Step::Wait(seconds) => self.world.clock.advance(seconds * shared::time::SECOND),
            }
        }
        self.world.append(waiting.collect()).await;
        let end = self.world.log.bounds().await.unwrap().end;
        for n in 0..WORKERS {
            self.tell(n);
            self.listen(n).await;
        }
        for n in 0..WORKERS {
            let own = self.owners.iter().filter(|(_, owner)| **owner == n);
            let own = Positions(own.map(|(p, _)| (*p, end.next(*p))).collect());
            // It holds what is its own and nothing else, to the end.
            while self.workers[n].0.positions() != own || !self.save(n).await {
                self.work(n, 1).await;
            }
        }
        self.world.assert_counted().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_rows_are_those_of_a_recount_however_partitions_move(
        happenings in traffic(200),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        block_on(async { Group::new().await.play(&happenings, &steps).await });
    }
}

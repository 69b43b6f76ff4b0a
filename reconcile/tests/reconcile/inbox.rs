//! Adjustments on a topic: every record ends in exactly one outcome, whoever takes in how often and at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use reconcile::Error;
use reconcile::ledger::{Adjustment, AdjustmentBook, Received, Signed, receive};
use serde_json::{Value, json};
use shared::event_log::memory::MemoryLog;
use shared::event_log::{Bounds, Consumer, Delivered, EventLog, LogError, NewRecord, Record, Retention};
use shared::progress::Positions;
use shared::testing::conformance::event_log::read_all;
use shared::time::Timestamp;

use crate::law::runtime;
use crate::world::{DAY, World};

const PARTITIONS: u32 = 2;

/// Something published.
#[derive(Debug, Clone, Copy)]
enum Sent {
    /// An adjustment by id and amount.
    Adjustment(u8, i64),
    Junk,
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![6 => (0..6_u8, 1..3_i64).prop_map(|(id, micros)| Sent::Adjustment(id, micros)), 1 => Just(Sent::Junk)]
}

/// An id stays in its partition, so that which of its records is the first is certain.
fn record(sent: Sent) -> NewRecord {
    let (partition, payload) = match sent {
        Sent::Junk => (0, "{\"adjustmentId\":".to_owned()),
        Sent::Adjustment(id, micros) => {
            let row = json!({
                "adjustmentId": format!("adj-{id}"), "day": DAY.plus(i32::from(id) % 2).to_string(), "campaignId": "c-1",
                "currency": "EUR", "amountMicros": micros, "reason": "fraud_review", "actor": "review",
            });
            (u32::from(id) % PARTITIONS, row.to_string())
        }
    };
    NewRecord { partition, append_time: DAY.start(), payload: Bytes::from(payload) }
}

struct Topic {
    log: MemoryLog,
    refusals: MemoryLog,
}

impl Topic {
    fn new() -> Self {
        Self { log: MemoryLog::new(PARTITIONS), refusals: MemoryLog::new(1) }
    }

    async fn receive(&self, world: &World) -> Result<Received, Error> {
        let mut book = AdjustmentBook::open(&world.lake).await.unwrap();
        let sign = |adjustment: Adjustment, source_sha256| {
            Ok(Signed { adjustment, source_sha256, key_id: "k1".to_owned(), signature: "signed".to_owned() })
        };
        receive(&mut book, ("adjustments", &self.log), &self.refusals, sign, DAY.end()).await
    }

    /// The records refused, by partition and position, and how often each was told.
    async fn refused(&self) -> BTreeMap<(u64, u64), usize> {
        let mut refused = BTreeMap::new();
        for letter in read_all(&self.refusals, &Positions([(0, 0)].into())).await.remove(&0).unwrap_or_default() {
            let letter: Value = serde_json::from_slice(&letter.payload).unwrap();
            let place = (letter["partition"].as_u64().unwrap(), letter["position"].as_u64().unwrap());
            *refused.entry(place).or_default() += 1;
        }
        refused
    }
}

async fn amounts(world: &World) -> BTreeMap<String, i64> {
    let book = AdjustmentBook::open(&world.lake).await.unwrap();
    let there = [book.of_day(DAY).await.unwrap(), book.of_day(DAY.plus(1)).await.unwrap()].concat();
    there.iter().map(|s| (s.adjustment.id.to_string(), s.adjustment.amount_micros)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_record_is_added_there_already_or_refused_once(
        sendings in proptest::collection::vec((proptest::collection::vec(sent(), 0..9), 1..3_usize), 1..5),
    ) {
        runtime().block_on(async {
            let (world, topic) = (World::new(), Topic::new());
            let (mut first, mut refused) = (BTreeMap::new(), BTreeSet::new());
            let (mut positions, mut repeated) = ([0_u64; PARTITIONS as usize], 0);
            let (mut received, mut were_alone) = (Received::default(), true);
            for (sent, receivers) in sendings {
                for sent in sent {
                    let new = record(sent);
                    let position = &mut positions[new.partition as usize];
                    match sent {
                        Sent::Junk => drop(refused.insert((u64::from(new.partition), *position))),
                        Sent::Adjustment(id, micros) => match *first.entry(format!("adj-{id}")).or_insert((micros, *position)) {
                            (_, at) if at == *position => {}
                            (there, _) if there == micros => repeated += 1,
                            _ => drop(refused.insert((u64::from(new.partition), *position))),
                        },
                    }
                    *position += 1;
                    topic.log.append(vec![new]).await.unwrap();
                }
                were_alone &= receivers == 1;
                for one in futures::future::join_all((0..receivers).map(|_| topic.receive(&world))).await {
                    let one = one.unwrap();
                    received.records += one.records;
                    received.added += one.added;
                    received.repeated += one.repeated;
                    received.refused += one.refused;
                }
            }
            let told = [received.records, received.added, received.repeated, received.refused];
            let true_counts = [positions.iter().sum(), first.len() as u64, repeated, refused.len() as u64];
            // Two at the same records may both tell of them.
            let at_least = told.iter().zip(&true_counts).all(|(told, is)| told >= is);
            prop_assert!(told == true_counts || (!were_alone && at_least), "{told:?} {true_counts:?}");
            prop_assert_eq!(topic.refused().await.into_keys().collect::<BTreeSet<_>>(), refused);
            prop_assert_eq!(amounts(&world).await, first.into_iter().map(|(id, (micros, _))| (id, micros)).collect());
            prop_assert_eq!(topic.receive(&world).await.unwrap(), Received::default());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn records_that_retention_removed_before_they_were_taken_in_are_an_error_and_no_jump() {
    let (world, topic) = (World::new(), Topic::new());
    topic.log.append(vec![record(Sent::Adjustment(0, 1))]).await.unwrap();
    assert_eq!(topic.receive(&world).await.unwrap().added, 1);
    topic.log.append(vec![record(Sent::Adjustment(2, 1))]).await.unwrap();
    let none = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    topic.log.enforce(none, DAY.end()).await.unwrap();
    let lost = topic.receive(&world).await.unwrap_err();
    assert!(lost.to_string().contains("retention removed records"), "{lost}");
}

/// A topic whose last position is a transaction's mark: it has an end, and gives nothing.
struct Marked(MemoryLog);

#[async_trait]
impl EventLog for Marked {
    fn partitions(&self) -> u32 {
        self.0.partitions()
    }
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Delivered>, LogError> {
        self.0.append(records).await
    }
    async fn consumer(&self, _: &str, from: &Positions) -> Result<Box<dyn Consumer>, LogError> {
        Ok(Box::new(Silent(from.clone())))
    }
    async fn bounds(&self) -> Result<Bounds, LogError> {
        let mut bounds = self.0.bounds().await?;
        bounds.end.0.insert(0, 1);
        Ok(bounds)
    }
    async fn positions_at(&self, time: Timestamp) -> Result<Positions, LogError> {
        self.0.positions_at(time).await
    }
    async fn group_positions(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        self.0.group_positions().await
    }
    async fn enforce(&self, retention: Retention, now: Timestamp) -> Result<u64, LogError> {
        self.0.enforce(retention, now).await
    }
}

struct Silent(Positions);

#[async_trait]
impl Consumer for Silent {
    async fn poll(&mut self, _: usize, _: Duration) -> Result<Vec<Record>, LogError> {
        Ok(Vec::new())
    }
    fn positions(&self) -> Positions {
        self.0.clone()
    }
    async fn report(&mut self, _: &Positions) -> Result<(), LogError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_topic_that_ends_without_a_record_is_told_of_and_not_waited_for() {
    let (world, refusals) = (World::new(), MemoryLog::new(1));
    let mut book = AdjustmentBook::open(&world.lake).await.unwrap();
    let sign = |_: Adjustment, _| panic!("there is nothing to sign");
    let log = Marked(MemoryLog::new(1));
    let told = receive(&mut book, ("adjustments", &log), &refusals, sign, DAY.end()).await.unwrap_err();
    assert!(told.to_string().contains("without transactions"), "{told}");
}

//! The embedded log against a model that is a few vectors: random appends, failures, reopenings, power losses and
//! retention. The model knows what was acknowledged; everything else in the log must be something that was tried.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::faults::FaultyDisk;
use super::*;
use crate::time::SECOND;

#[derive(Debug, Clone)]
enum Step {
    Append {
        sizes: Vec<u16>,
    },
    /// The next appends meet a disk with so much room, or failing calls.
    Fail {
        room: Option<u16>,
        syncs: u32,
        creates: u32,
        truncates: u32,
        loses_unsynced: bool,
    },
    Heal,
    Reopen,
    /// The machine stops: bytes behind the last sync are lost or garbled, and the marker is as old as it likes.
    PowerLoss {
        kept: prop::sample::Index,
        garbage: Vec<u8>,
        marker: prop::sample::Index,
    },
    Forget {
        seconds: u16,
        max_bytes: Option<u16>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let failures = (proptest::option::of(0..2_000_u16), 0..3_u32, 0..2_u32, 0..2_u32, any::<bool>());
    let step = prop_oneof![
        8 => proptest::collection::vec(0..300_u16, 1..12).prop_map(|sizes| Step::Append { sizes }),
        2 => failures.prop_map(|(room, syncs, creates, truncates, loses_unsynced)| {
            Step::Fail { room, syncs, creates, truncates, loses_unsynced }
        }),
        2 => Just(Step::Heal),
        1 => Just(Step::Reopen),
        2 => (any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 0..80), any::<prop::sample::Index>())
            .prop_map(|(kept, garbage, marker)| Step::PowerLoss { kept, garbage, marker }),
        1 => (0..100_u16, proptest::option::of(0..3_000_u16))
            .prop_map(|(seconds, max_bytes)| Step::Forget { seconds, max_bytes }),
    ];
    proptest::collection::vec(step, 1..40)
}

const SEGMENT_BYTES: u64 = 900;

struct World {
    dir: TempDir,
    disk: Arc<FaultyDisk>,
    log: Option<EmbeddedLog>,
    /// What must be there, until retention forgets it.
    acknowledged: BTreeMap<(u32, u64), Record>,
    /// What may be there.
    tried: BTreeSet<Bytes>,
    count: u64,
    /// The end marker after every step.
    markers: Vec<Vec<u8>>,
    start: Positions,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            dir: scratch(),
            disk: Arc::default(),
            log: None,
            acknowledged: BTreeMap::new(),
            tried: BTreeSet::new(),
            count: 0,
            markers: Vec::new(),
            start: conformance::zero(),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        self.disk.plan(|plan| *plan = super::faults::Plan::default());
        let disk = Arc::clone(&self.disk) as Arc<dyn Disk>;
        self.log = Some(EmbeddedLog::open_on(self.dir.path(), options(SEGMENT_BYTES), disk).unwrap());
    }

    fn log(&self) -> &EmbeddedLog {
        self.log.as_ref().unwrap()
    }

    fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(self.count).unwrap() * SECOND)
    }

    async fn append(&mut self, sizes: &[u16]) {
        let mut records = Vec::new();
        for size in sizes {
            self.count += 1;
            let mut payload = format!("{}/", self.count).into_bytes();
            payload.resize(payload.len() + usize::from(*size), b'.');
            let partition = u32::from(*size) % PARTITIONS;
            records.push(NewRecord { partition, append_time: self.now(), payload: payload.into() });
        }
        self.tried.extend(records.iter().map(|r| r.payload.clone()));
        let Ok(delivered) = self.log().append(records.clone()).await else { return };
        assert_eq!(delivered.len(), records.len());
        for (at, NewRecord { partition, append_time, payload }) in delivered.into_iter().zip(records) {
            assert_eq!(at.partition, partition);
            let record = Record { partition, position: at.position, append_time, payload };
            assert_eq!(self.acknowledged.insert((partition, at.position), record), None, "a position was given twice");
        }
    }

    /// Stops the machine: only what was synced and whatever the disk made of the rest is there afterwards.
    fn lose_power(&mut self, kept: prop::sample::Index, garbage: &[u8], marker: prop::sample::Index) {
        // The durable end is the marker's, as nothing is being appended.
        let folder = Folder::new(self.dir.path());
        let end = durable::read(&folder, PARTITIONS).unwrap();
        let mut image = Image::of(self.dir.path());
        self.log = None;
        let tail = image.file(&folder.segment(end.segment));
        let synced = usize::try_from(end.offset).unwrap();
        let unsynced = tail.len() - synced;
        tail.truncate(synced + kept.index(unsynced + 1));
        tail.extend(garbage);
        match marker.index(self.markers.len() + 2).checked_sub(2) {
            Some(older) => image.file(&folder.marker()).clone_from(&self.markers[older]),
            None if kept.index(2) == 0 => image.remove(&folder.marker()),
            None => image.file(&folder.marker()).truncate(20),
        }
        // Markers written after the one that survived never were.
        let survived = image.0.get(Path::new(folder.marker().file_name().unwrap())).cloned();
        self.markers.retain(|known| Some(known) == survived.as_ref());
        self.dir = image.restore();
        self.open();
    }

    async fn forget(&mut self, seconds: u16, max_bytes: Option<u16>) {
        let retention = Retention {
            max_age: Duration::from_secs(seconds.into()),
            max_bytes: max_bytes.map_or(u64::MAX, u64::from),
        };
        let oldest_kept = self.now().plus(-i64::from(seconds) * SECOND);
        let enforced = self.log().enforce(retention, self.now()).await;
        let start = self.log().bounds().await.unwrap().start;
        let gone = |(partition, position): &(u32, u64)| *position < start.next(*partition);
        if max_bytes.is_none() {
            let too_young = |(at, r): (&(u32, u64), &Record)| gone(at) && r.append_time >= oldest_kept;
            assert!(!self.acknowledged.iter().any(too_young), "a young record was forgotten");
        }
        assert!(enforced.is_err() || enforced.unwrap() > 0 || start == self.start);
        self.acknowledged.retain(|at, _| !gone(at));
        self.start = start;
    }

    async fn check(&mut self) {
        let bounds = self.log().bounds().await.unwrap();
        assert_eq!(bounds.start, self.start, "only retention moves the start");
        let stored = contents(self.log()).await;
        let mut missing = self.acknowledged.clone();
        for (partition, records) in stored {
            let positions = bounds.start.next(partition)..bounds.end.next(partition);
            assert!(records.iter().map(|r| r.position).eq(positions), "partition {partition} has a gap");
            for record in records {
                assert!(self.tried.contains(&record.payload), "a record nobody appended");
                if let Some(wanted) = missing.remove(&(partition, record.position)) {
                    assert_eq!(record, wanted);
                }
            }
        }
        assert!(missing.is_empty(), "acknowledged and gone: {:?}", missing.keys());
        self.markers.push(fs::read(Folder::new(self.dir.path()).marker()).unwrap());
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append { sizes } => self.append(&sizes).await,
            Step::Fail { room, syncs, creates, truncates, loses_unsynced } => self.disk.plan(|plan| {
                plan.room = room.map(usize::from);
                plan.failing_syncs = syncs;
                plan.failing_creates = creates;
                plan.failing_truncates = truncates;
                plan.loses_unsynced = loses_unsynced;
            }),
            Step::Heal => self.disk.plan(|plan| *plan = super::faults::Plan::default()),
            Step::Reopen => {
                self.log = None;
                self.open();
            }
            Step::PowerLoss { kept, garbage, marker } => self.lose_power(kept, &garbage, marker),
            Step::Forget { seconds, max_bytes } => self.forget(seconds, max_bytes).await,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_was_acknowledged_is_there_and_nothing_else_appears(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.disk.plan(|plan| *plan = super::faults::Plan::default());
            world.append(&[1, 2, 3, 4]).await;
            world.check().await;
        });
    }
}

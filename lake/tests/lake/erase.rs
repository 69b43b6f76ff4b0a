//! Erasing a person: nobody else loses anything, no crash leaves half of it, and what is pinned stays readable.

use std::sync::Arc;

use arrow::array::AsArray;
use futures::TryStreamExt;
use lake::erase::{Request, erase, finish};
use lake::erasures::{Erasures, Policy, State, current_files};
use lake::maintenance::{Pin, Settings, optimize, vacuum};
use lake::run_record::OutputFile;
use lake::subject::Subject;
use lake::tables::BRONZE_EVENTS;
use lake::{LakeRoot, Table};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::config::Span;
use shared::time::{DAY, ManualClock};
use shared::verdict::{Counting, InvalidCode};

use crate::help::{Fault, Faulty, World, bronze, eager, memory_lake, start};

const PERSON: &str = "u2";

fn subject() -> Subject {
    Subject::new(PERSON, "erased-1", Counting::default()).unwrap()
}

fn request() -> Request {
    Request {
        subject_hash: "hash".to_owned(),
        policy: Policy::Keep,
        log_forgets_at: start().plus(7 * DAY),
        dry_run: false,
    }
}

/// How many values of any Parquet file in the store have the person in them.
async fn traces(store: &dyn ObjectStore) -> usize {
    let mut traces = 0;
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        if object.location.extension() != Some("parquet") {
            assert!(!bytes.windows(4).any(|w| w == b"\"u2\""), "{} names the person", object.location);
            continue;
        }
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            for column in batch.unwrap().columns() {
                let texts = column.as_string_opt::<i32>().into_iter().flatten().flatten();
                traces += texts.filter(|text| *text == PERSON || text.contains("=u2&")).count();
                let raws = column.as_binary_opt::<i32>().into_iter().flatten().flatten();
                traces += raws.filter(|raw| raw.windows(4).any(|w| w == b"\"u2\"")).count();
            }
        }
    }
    traces
}

async fn assert_only_the_person_is_gone(world: &World, root: &LakeRoot) {
    let (mut model, _) = world.model().await;
    for row in &mut model {
        let details = &mut row.event.details;
        if details.user_pseudo_id.as_ref().is_some_and(|u| u.as_str() == PERSON) {
            let bot = details.user_agent.as_deref().is_some_and(|a| Counting::default().is_known_bot(a));
            row.event.invalid = row.event.invalid.or(bot.then_some(InvalidCode::KnownBot));
            details.user_pseudo_id = Some("erased-1".parse().unwrap());
            (details.session_id, details.ip_hash, details.user_agent, details.url) = (None, None, None, None);
            details.extra.clear();
            row.event.traceparent = None;
        }
    }
    model.sort_by_key(|r| (r.partition, r.position));
    let stored = bronze(root).await.0;
    assert_eq!(stored.len(), model.len());
    for (stored, expected) in stored.iter().zip(&model) {
        assert_eq!(stored, expected);
    }
}

#[tokio::test]
async fn only_the_person_is_gone_and_the_archiver_goes_on_where_it_was() {
    let (world, disk) = (World::with(0..200, 0..12).await, Arc::new(InMemory::new()));
    let root = memory_lake(disk.clone());
    world.archiver(&root, eager(30)).drain().await.unwrap();
    assert!(traces(disk.as_ref()).await > 0);
    let dry = Request { dry_run: true, ..request() };
    let planned = erase(&root, &subject(), &[], &dry).await.unwrap();
    let rows = planned[0].tables["bronze/events"].rows;
    assert!(rows > 0 && Erasures::load(&root).await.unwrap().records().is_empty());
    let done = erase(&root, &subject(), &[], &request()).await.unwrap();
    assert_eq!((done.len(), done[0].state, done[0].tables["bronze/events"].rows), (1, State::Done, rows));
    assert_eq!(traces(disk.as_ref()).await, 0);
    assert_only_the_person_is_gone(&world, &root).await;
    assert_eq!(erase(&root, &subject(), &[], &request()).await.unwrap(), [], "nothing is left to do");
    world.archiver(&root, eager(30)).drain().await.unwrap();
    assert_only_the_person_is_gone(&world, &root).await;
}

#[tokio::test]
async fn a_crash_at_any_write_is_completed_by_asking_again() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        for nth_put in 0.. {
            let (world, disk) = (World::with(0..120, 0..6).await, Arc::new(InMemory::new()));
            let healthy = memory_lake(disk.clone());
            world.archiver(&healthy, eager(40)).drain().await.unwrap();
            let faulty = Faulty::new(disk.clone(), fault, nth_put, 1);
            let root = memory_lake(faulty.clone());
            let (person, asked) = (subject(), request());
            let ended = tokio::select! {
                done = erase(&root, &person, &[], &asked) => { done.unwrap(); true }
                () = faulty.crashed.notified() => false,
            };
            if !ended {
                erase(&healthy, &subject(), &[], &request()).await.unwrap();
            }
            assert_eq!(traces(disk.as_ref()).await, 0, "{fault:?} at put {nth_put}");
            assert_only_the_person_is_gone(&world, &healthy).await;
            let records = Erasures::load(&healthy).await.unwrap();
            assert!(records.records().iter().all(|r| r.state == State::Done));
            assert_eq!(finish(&healthy).await.unwrap(), 0);
            if ended {
                break;
            }
        }
    }
}

#[tokio::test]
async fn what_a_settlement_pins_is_erased_too_and_still_found() {
    let (world, disk) = (World::with(0..200, 0..0).await, Arc::new(InMemory::new()));
    let clock = ManualClock::at(start());
    let root = memory_lake(disk.clone()).with_clock(Arc::new(clock.clone()));
    world.archiver(&root, eager(30)).drain().await.unwrap();
    let mut table = Table::open(&root, &BRONZE_EVENTS).await.unwrap();
    let named = |f: &lake::table::DataFile| OutputFile {
        path: f.path.clone(),
        bytes: f.size,
        rows: f.rows,
        sha256: String::new(),
    };
    let pinned: Vec<OutputFile> = table.files().unwrap().iter().map(named).collect();
    let pins = [Pin { table: BRONZE_EVENTS.name.to_owned(), version: table.version() }];
    // The pinned files are merged away, and are still there for the pin.
    optimize(&mut table, &Settings::default(), None).await.unwrap();
    erase(&root, &subject(), &pins, &request()).await.unwrap();
    assert_eq!(traces(disk.as_ref()).await, 0);
    assert_only_the_person_is_gone(&world, &root).await;
    let kept = |files: Vec<OutputFile>| {
        let (root, disk) = (root.clone(), disk.clone());
        async move {
            for file in files {
                let path = root.path(&format!("{}/{}", BRONZE_EVENTS.name, file.path));
                assert_eq!(disk.head(&path).await.unwrap().size, file.bytes, "{path}");
            }
        }
    };
    let today = current_files(&root, BRONZE_EVENTS.name, &pinned).await.unwrap();
    assert!(today.iter().zip(&pinned).any(|(new, old)| new.path != old.path && new.rows == old.rows));
    kept(today.clone()).await;
    clock.advance(1_000 * DAY);
    table.refresh().await.unwrap();
    let removed = vacuum(&mut table, Span::secs(3_600), &pins, false).await.unwrap();
    kept(today).await;
    assert_only_the_person_is_gone(&world, &root).await;
    vacuum(&mut table, Span::secs(3_600), &[], false).await.unwrap();
    assert!(removed.files < pinned.len() as u64);
    let second = Subject::new("u1", "erased-2", Counting::default()).unwrap();
    erase(&root, &second, &[], &request()).await.unwrap();
    assert_eq!(Erasures::load(&root).await.unwrap().next_number(), 3);
}

//! The lake on a real S3 server: what memory and a disk cannot get wrong. Races of separate clients, answers that get
//! lost, a store that goes away, files that are sent in parts.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use futures::TryStreamExt;
use lake::file::NewFile;
use lake::maintenance::vacuum;
use lake::probe::probe;
use lake::stores::Settings as Stores;
use lake::table::{Committed, Txn};
use lake::tables::{BRONZE_EVENTS, Column, ColumnType, TableDef};
use lake::{LakeRoot, Table};
use object_store::PutMode;
use object_store::memory::InMemory;
use shared::config::Span;
use shared::error::ErrorKind;
use shared::testing::s3::S3;
use shared::time::Day;

use crate::help::{Fault, Faulty, Watched, World, append, bronze, eager, memory_lake, payload};

const WRITERS: i64 = 4;
/// Commits of each writer.
const COMMITS: i64 = 30;

static NUMBERS: TableDef = TableDef {
    name: "numbers",
    columns: &[
        Column { name: "number", kind: ColumnType::Long, nullable: false, doc: "a number" },
        Column { name: "day", kind: ColumnType::Day, nullable: false, doc: "a day" },
    ],
    sort: &["number"],
    stats: &["number"],
    append_only: false,
};

/// How to reach the server. Nothing is repeated for long: these tests decide when it is away.
fn stores(s3: &S3, folder: &std::path::Path) -> Stores {
    let secret = folder.join("secret");
    std::fs::write(&secret, format!("{}\n", s3.secret_access_key)).unwrap();
    Stores {
        endpoint: s3.endpoint().to_owned(),
        allow_http: true,
        access_key_id: s3.access_key_id.clone(),
        secret_access_key_file: secret,
        max_retries: 1,
        request_timeout: Span::secs(20),
        ..Stores::default()
    }
}

/// A lake of its own, seen by a client of its own each time.
fn lake(s3: &S3, stores: &Stores, name: &str) -> LakeRoot {
    let url = format!("s3://{}/tests-{}/{name}", s3.bucket, std::process::id());
    stores.root(&url, std::path::Path::new("")).unwrap()
}

async fn write(table: &Table, numbers: Vec<i64>) -> NewFile {
    let stem = format!("from-{}", numbers[0]);
    let rows = RecordBatch::try_new(NUMBERS.file_schema(), vec![Arc::new(Int64Array::from(numbers))]).unwrap();
    table.write_parquet(vec![rows], Day(20_000), &stem).await.unwrap()
}

/// One server for the checks that break nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_a_lake() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::given_or_start(&folder.path().join("objects"));
    let stores = stores(&s3, folder.path());
    an_object_is_created_once(&lake(&s3, &stores, "probe")).await;
    four_writers_of_one_table_win_one_version_each_and_lose_nothing(&s3, &stores).await;
    archivers_on_the_same_partitions_archive_every_record_once(&s3, &stores).await;
    a_large_file_goes_in_parts_and_comes_back_whole(&lake(&s3, &stores, "large")).await;
    a_stranger_is_turned_away(&s3, &stores).await;
}

async fn an_object_is_created_once(root: &LakeRoot) {
    let found = probe(root, "try").await.unwrap();
    assert!(found.creates_once, "{found:?}");
    assert!(found.ahead_micros.abs() < 5_000_000, "{found:?}");
    let objects: Vec<_> = root.store().list(Some(&root.path(""))).try_collect().await.unwrap();
    assert_eq!(objects, [], "nothing is left of the try");
}

async fn four_writers_of_one_table_win_one_version_each_and_lose_nothing(s3: &S3, stores: &Stores) {
    let first = Table::open(&lake(s3, stores, "writers"), &NUMBERS).await.unwrap();
    let write_all = |writer: i64| {
        let root = lake(s3, stores, "writers");
        tokio::spawn(async move {
            let (mut table, mut versions) = (Table::open(&root, &NUMBERS).await.unwrap(), Vec::new());
            let app = format!("writer/{writer}");
            for n in 0..COMMITS {
                let file = write(&table, vec![writer * COMMITS + n]).await;
                let done = table.append(vec![file], &[Txn::advance(app.clone(), n, n + 1)]).await.unwrap();
                assert!(matches!(done, Committed::Now(_)), "nobody else commits for {app}: {done:?}");
                versions.push(done.version());
            }
            versions
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(write_all).collect();
    let mut won: Vec<u64> = Vec::new();
    for versions in futures::future::join_all(writers).await {
        won.extend(versions.unwrap());
    }
    won.sort_unstable();
    let all = (WRITERS * COMMITS) as u64;
    assert_eq!(won, (1..=all).collect::<Vec<_>>(), "every version has one winner");
    let mut table = first;
    table.refresh().await.unwrap();
    let mut numbers: Vec<i64> = table.files().unwrap().iter().map(|f| f.ranges["number"].0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..WRITERS * COMMITS).collect::<Vec<_>>(), "every commit is in the table");
}

async fn archivers_on_the_same_partitions_archive_every_record_once(s3: &S3, stores: &Stores) {
    let world = World::with(0..400, 0..20).await;
    let archivers = [7, 20, 33].map(|rows| world.archiver(&lake(s3, stores, "archivers"), eager(rows)));
    let runs = archivers.map(|a| tokio::spawn(async move { a.drain().await.map(drop) }));
    for run in runs {
        run.await.unwrap().unwrap();
    }
    world.assert_archived(&lake(s3, stores, "archivers")).await;
}

async fn a_large_file_goes_in_parts_and_comes_back_whole(root: &LakeRoot) {
    let mut table = Table::open(root, &NUMBERS).await.unwrap();
    // In no order, so that they do not pack.
    let next = |x: &i64| [13, -7, 17].iter().fold(*x, |x, by| x ^ if *by > 0 { x << by } else { x >> -by });
    let numbers: Vec<i64> =
        std::iter::successors(Some(88_172_645_463_325_252), |x| Some(next(x))).take(2_500_000).collect();
    let file = write(&table, numbers.clone()).await;
    assert!(file.size > 17 << 20, "{} bytes", file.size);
    assert!(table.append(vec![file], &[]).await.is_ok());
    let stored = &table.files().unwrap()[0];
    let read: Result<Vec<_>, _> = table.read(stored, None).await.unwrap().collect();
    let column = |b: &RecordBatch| b.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    assert!(read.unwrap().iter().flat_map(column).eq(numbers));
    let done = vacuum(&mut table, Span::secs(0), &[], false).await.unwrap();
    assert_eq!((done.files, done.staged), (0, 0), "parts are no files of the table");
}

async fn a_stranger_is_turned_away(s3: &S3, stores: &Stores) {
    let strangers = Stores { access_key_id: "stranger".to_owned(), ..stores.clone() };
    let root = lake(s3, &strangers, "writers");
    for error in [probe(&root, "try").await.unwrap_err(), Table::open(&root, &NUMBERS).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn a_store_that_creates_an_object_twice_is_found_out() {
    let careless = Faulty::new(Arc::new(InMemory::new()), Fault::ReplaceExisting, 0, i64::MAX);
    assert!(!probe(&memory_lake(careless), "try").await.unwrap().creates_once);
    assert!(probe(&memory_lake(Arc::new(InMemory::new())), "try").await.unwrap().creates_once);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_happened_once_and_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let s3 = S3::start(&folder.path().join("objects"));
    let stores = stores(&s3, folder.path());
    let root = lake(&s3, &stores, "lost");
    let mut table = Table::open(&root, &NUMBERS).await.unwrap();
    // `failed` makes the client repeat the put and meet its own object; `lost` leaves it without an answer.
    for (n, kind) in (0..).zip(["failed", "lost", "500", "503", "cut"]) {
        let file = write(&table, vec![n]).await;
        s3.fail(kind, "PUT", "_delta_log", 1);
        let done = table.append(vec![file], &[Txn::advance("app", n, n + 1)]).await;
        assert!(done.is_ok() || ["500", "503", "cut"].contains(&kind), "{kind}: {done:?}");
        s3.fail(kind, "PUT", "_delta_log", 0);
        if done.is_err() {
            let again = write(&table, vec![n]).await;
            assert!(table.append(vec![again], &[Txn::advance("app", n, n + 1)]).await.is_ok());
        }
    }
    assert_eq!((table.version(), table.files().unwrap().len()), (5, 5), "one commit each");
    let path = root.path("decided.json");
    for kind in ["failed", "lost"] {
        s3.fail(kind, "PUT", "decided.json", 1);
        let ours = lake::create_once::create_once(&*root.store(), &path, "ours".into()).await.unwrap();
        assert!(ours, "{kind}: it is there, so it is ours");
    }
    assert!(!lake::create_once::create_once(&*root.store(), &path, "theirs".into()).await.unwrap());
    let plain = root.store().put_opts(&path, "theirs".into(), PutMode::Create.into()).await;
    assert!(matches!(plain, Err(object_store::Error::AlreadyExists { .. })), "{plain:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_away_while_archiving_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut s3 = S3::start(&folder.path().join("objects"));
    let stores = stores(&s3, folder.path());
    let root = lake(&s3, &stores, "away");
    let mut world = World::with(0..300, 0..20).await;
    world.archiver(&root, eager(40)).drain().await.unwrap();
    let plain = Arc::clone(&world.events);
    let watched = Arc::new(Watched::new(Arc::clone(&plain)));
    world.events = watched.clone();
    let opened = watched.opened();
    let archiver = world.archiver(&root, eager(40));
    // Refused from here on; then it dies where it stands, and comes back.
    s3.fail("503", "PUT", "tests-", u64::MAX);
    append(plain.as_ref(), (300..700).map(|n| (n, payload(n)))).await;
    let run = tokio::spawn(async move { archiver.drain().await });
    while watched.opened() < opened + 2 {
        shared::time::sleep(Duration::from_millis(5)).await; // until it has failed and begun again
    }
    s3.crash_and_restart();
    run.await.unwrap().unwrap();
    world.events = plain;
    world.assert_archived(&root).await;
    assert_eq!(bronze(&root).await.0.len(), world.model().await.0.len());
    assert!(world.events.bounds().await.unwrap().end.next(0) > 200);
    assert!(Table::open(&root, &BRONZE_EVENTS).await.unwrap().version() > 2);
    let nowhere = lake(&s3, &stores_of_nobody(&stores), "away");
    assert_eq!(Table::open(&nowhere, &BRONZE_EVENTS).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// The same settings with an address where nobody listens.
fn stores_of_nobody(stores: &Stores) -> Stores {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Stores { endpoint: format!("http://{free}"), ..stores.clone() }
}

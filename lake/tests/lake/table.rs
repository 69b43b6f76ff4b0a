//! Tables: creating, committing exactly once, replacing days, time travel, checkpoints, new columns.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use lake::file::NewFile;
use lake::table::{Committed, Txn};
use lake::tables::{BRONZE_EVENTS, Column, ColumnType, RUNS, TableDef};
use lake::{LakeRoot, Table};
use object_store::memory::InMemory;
use shared::error::ErrorKind;
use shared::time::Day;

use crate::help::{Fault, Faulty, memory_lake};

fn lake() -> LakeRoot {
    memory_lake(Arc::new(InMemory::new()))
}

fn day(n: i32) -> Day {
    Day(20_000 + n)
}

/// One row of the `numbers` table.
fn rows(run: i64) -> RecordBatch {
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![run])), Arc::new(StringArray::from(vec![format!("text {run}")]))];
    RecordBatch::try_new(NUMBERS.file_schema(), columns).unwrap()
}

const RUN: Column = Column { name: "run", kind: ColumnType::Long, nullable: false, doc: "a number" };
const TEXT: Column = Column { name: "text", kind: ColumnType::Text, nullable: true, doc: "a text" };
const DAY: Column = Column { name: "day", kind: ColumnType::Day, nullable: false, doc: "a day" };

static NUMBERS: TableDef =
    TableDef { name: "numbers", columns: &[RUN, TEXT, DAY], sort: &["run"], stats: &["run"], append_only: false };

async fn write(table: &Table, d: Day, run: i64) -> NewFile {
    table.write_parquet(vec![rows(run)], d, &format!("run-{run}")).await.unwrap()
}

async fn runs_of(table: &Table, d: Day) -> Vec<(i64, i64)> {
    table.files_of(d).unwrap().iter().map(|f| f.ranges["run"]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_may_create_one_table_at_once() {
    let root = lake();
    let opened = (0..8).map(|_| {
        let root = root.clone();
        tokio::spawn(async move { Table::open(&root, &BRONZE_EVENTS).await.unwrap().version() })
    });
    for version in futures::future::join_all(opened).await {
        assert_eq!(version.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_append_is_committed_once_however_often_it_is_asked_for() {
    let mut table = Table::open(&lake(), &NUMBERS).await.unwrap();
    let file = write(&table, day(0), 1).await;
    let txn = [Txn::advance("app/0", 0, 10), Txn::raise("app/1", 3)];
    assert_eq!(table.append(vec![file.clone()], &txn).await.unwrap(), Committed::Now(1));
    assert_eq!(table.append(vec![file], &txn).await.unwrap(), Committed::Already(1));
    assert_eq!(table.files().unwrap().len(), 1);
    assert_eq!(table.transaction_version("app/0").await.unwrap(), Some(10));
    assert_eq!(table.transaction_version("app/1").await.unwrap(), Some(3));
    assert_eq!(table.transaction_version("app/2").await.unwrap(), None);
}

#[tokio::test]
async fn a_writer_that_does_not_stand_where_the_table_does_is_told_so() {
    let root = lake();
    let (mut a, mut b) = (Table::open(&root, &NUMBERS).await.unwrap(), Table::open(&root, &NUMBERS).await.unwrap());
    let (one, two) = (write(&a, day(0), 1).await, write(&b, day(0), 2).await);
    assert!(a.append(vec![one], &[Txn::advance("log/0", 0, 10)]).await.is_ok());
    // b has read further from the same start: its rows overlap a's.
    let late = b.append(vec![two.clone()], &[Txn::advance("log/0", 0, 15)]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "{late}");
    // One number moved and the other did not: not our commit.
    let mixed = [Txn::advance("log/0", 0, 10), Txn::advance("log/1", 0, 5)];
    assert_eq!(b.append(vec![two.clone()], &mixed).await.unwrap_err().kind(), ErrorKind::Conflict);
    // From the right place it goes in, beside whatever else was committed.
    assert_eq!(b.append(vec![two], &[Txn::advance("log/0", 10, 15)]).await.unwrap(), Committed::Now(2));
}

#[tokio::test]
async fn stale_handles_append_beside_each_other() {
    let root = lake();
    let (mut a, mut b) = (Table::open(&root, &NUMBERS).await.unwrap(), Table::open(&root, &NUMBERS).await.unwrap());
    for n in 0..5 {
        let (one, two) = (write(&a, day(0), n).await, write(&b, day(0), 100 + n).await);
        assert!(a.append(vec![one], &[Txn::advance("a", n, n + 1)]).await.is_ok());
        assert!(b.append(vec![two], &[Txn::advance("b", n, n + 1)]).await.is_ok());
    }
    a.refresh().await.unwrap();
    assert_eq!((a.version(), a.files().unwrap().len()), (10, 10));
}

#[tokio::test]
async fn a_lost_answer_is_success_with_and_without_numbers() {
    for txns in [vec![Txn::advance("a", 0, 1)], vec![]] {
        let disk = Arc::new(InMemory::new());
        let healthy = Table::open(&memory_lake(disk.clone()), &NUMBERS).await.unwrap();
        let file = write(&healthy, day(0), 1).await;
        let mut table = Table::open(&memory_lake(Faulty::new(disk, Fault::LoseAnswer, 0, 1)), &NUMBERS).await.unwrap();
        assert!(table.append(vec![file], &txns).await.is_ok());
        assert_eq!((table.version(), table.files().unwrap().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_replaced_day_holds_exactly_the_new_files_and_other_days_stay() {
    let mut table = Table::open(&lake(), &NUMBERS).await.unwrap();
    for (d, run) in [(0, 1), (1, 1), (0, 2)] {
        let file = write(&table, day(d), run).await;
        let app = format!("gold/numbers/{}", day(d));
        let before = table.version();
        assert_eq!(table.replace_day(day(d), vec![file.clone()], &app, run).await.unwrap(), Committed::Now(before + 1));
        assert_eq!(table.replace_day(day(d), vec![file], &app, run).await.unwrap(), Committed::Already(before + 1));
    }
    assert_eq!(runs_of(&table, day(0)).await, [(2, 2)]);
    assert_eq!(runs_of(&table, day(1)).await, [(1, 1)]);
    let empty = table.replace_day(day(0), vec![], "gold/numbers/0", 3).await.unwrap();
    assert_eq!((empty, table.files_of(day(0)).unwrap().len()), (Committed::Now(4), 0));
}

#[tokio::test]
async fn of_two_runs_of_one_day_one_wins_and_the_other_is_told_so() {
    let root = lake();
    let (mut a, mut b) = (Table::open(&root, &NUMBERS).await.unwrap(), Table::open(&root, &NUMBERS).await.unwrap());
    let (one, two) = (write(&a, day(0), 1).await, write(&b, day(0), 2).await);
    assert!(a.replace_day(day(0), vec![one], "gold/numbers/0", 1).await.is_ok());
    let second = b.replace_day(day(0), vec![two.clone()], "gold/numbers/0", 1).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict, "{second}");
    assert_eq!(runs_of(&b, day(0)).await, [(1, 1)]);
    assert!(b.replace_day(day(1), vec![two], "gold/numbers/1", 1).await.is_ok(), "another day is no conflict");
}

#[tokio::test]
async fn old_versions_stay_readable_and_later_ones_are_refused() {
    let mut table = Table::open(&lake(), &NUMBERS).await.unwrap();
    for run in 1..=3 {
        let file = write(&table, day(0), run).await;
        assert!(table.replace_day(day(0), vec![file], "gold/numbers/0", run).await.is_ok());
    }
    for version in 1..=3_u64 {
        let then = table.at_version(version).await.unwrap();
        assert_eq!(runs_of(&then, day(0)).await, [(version as i64, version as i64)]);
        let file = &then.files().unwrap()[0];
        let batches: Vec<_> = then.read(file, Some(&["text"])).await.unwrap().map(Result::unwrap).collect();
        assert_eq!((batches.len(), batches[0].num_columns(), batches[0].num_rows()), (1, 1, 1));
    }
    assert_eq!(table.at_version(9).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_numbers_and_ranges_survive_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let root = LakeRoot::open_folder(dir.path()).unwrap();
    let mut table = Table::open(&root, &NUMBERS).await.unwrap();
    for run in 1..=45 {
        let file = write(&table, day(run as i32 % 3), run).await;
        assert!(table.append(vec![file], &[Txn::advance("log/0", run - 1, run)]).await.is_ok());
    }
    let checkpoint = dir.path().join("numbers/_delta_log/00000000000000000040.checkpoint.parquet");
    assert!(checkpoint.exists());
    for version in 0..40 {
        // Only what the checkpoint carries is left of these.
        std::fs::remove_file(dir.path().join(format!("numbers/_delta_log/{version:020}.json"))).unwrap();
    }
    let again = Table::open(&root, &NUMBERS).await.unwrap();
    assert_eq!(again.version(), 45);
    assert_eq!(again.files().unwrap(), table.files().unwrap());
    let mut runs: Vec<_> = again.files().unwrap().iter().map(|f| f.ranges["run"].0).collect();
    runs.sort_unstable();
    assert_eq!(runs, (1..=45).collect::<Vec<_>>());
    assert_eq!(again.transaction_version("log/0").await.unwrap(), Some(45));
}

static WIDER: TableDef = TableDef {
    columns: &[RUN, TEXT, Column { name: "more", kind: ColumnType::Text, nullable: true, doc: "more" }, DAY],
    ..TableDef { name: "numbers", columns: &[], sort: &["run"], stats: &["run"], append_only: false }
};
static OTHER: TableDef = TableDef {
    columns: &[Column { kind: ColumnType::Text, ..RUN }, DAY],
    ..TableDef { name: "numbers", columns: &[], sort: &["run"], stats: &[], append_only: false }
};

#[tokio::test]
async fn a_new_column_is_added_once_and_writers_of_the_old_form_go_on() {
    let root = lake();
    let mut old = Table::open(&root, &NUMBERS).await.unwrap();
    let file = write(&old, day(0), 1).await;
    assert_eq!(Table::open(&root, &WIDER).await.unwrap().version(), 1);
    assert_eq!(Table::open(&root, &WIDER).await.unwrap().version(), 1);
    assert_eq!(old.append(vec![file], &[Txn::advance("a", 0, 1)]).await.unwrap(), Committed::Now(2));
    let wider = Table::open(&root, &WIDER).await.unwrap();
    let files = wider.files().unwrap();
    assert_eq!(files.len(), 1);
    let batches: Vec<_> = wider.read(&files[0], None).await.unwrap().map(Result::unwrap).collect();
    assert_eq!(batches[0].schema(), WIDER.file_schema(), "what was written before has no value there");
    assert_eq!(batches[0]["more"].null_count(), 1);
}

#[tokio::test]
async fn a_table_with_another_type_is_refused() {
    let root = lake();
    Table::open(&root, &NUMBERS).await.unwrap();
    let refused = Table::open(&root, &OTHER).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("numbers.run"), "{refused}");
}

#[tokio::test]
async fn an_append_only_table_refuses_to_lose_rows() {
    let mut table = Table::open(&lake(), &RUNS).await.unwrap();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(StringArray::from(vec!["computed"])),
        Arc::new(StringArray::from(vec!["{}"])),
    ];
    let batch = RecordBatch::try_new(RUNS.file_schema(), columns).unwrap();
    let file = table.write_parquet(vec![batch], day(0), "one").await.unwrap();
    assert!(table.append(vec![file], &[Txn::raise("runs/1", 1)]).await.is_ok());
    assert!(table.replace_day(day(0), vec![], "runs/1", 2).await.is_err());
    assert_eq!(table.files().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable_and_nothing_was_committed() {
    let disk = Arc::new(InMemory::new());
    let healthy = Table::open(&memory_lake(disk.clone()), &NUMBERS).await.unwrap();
    let file = write(&healthy, day(0), 1).await;
    let mut table = Table::open(&memory_lake(Faulty::new(disk, Fault::Fail, 0, 1)), &NUMBERS).await.unwrap();
    let away = table.append(vec![file.clone()], &[Txn::advance("a", 0, 1)]).await.unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unavailable, "{away}");
    assert_eq!(table.files().unwrap().len(), 0);
    assert_eq!(table.append(vec![file], &[Txn::advance("a", 0, 1)]).await.unwrap(), Committed::Now(1));
}

//! Several openings of one folder, as several processes have them: one writes, all read.

use super::faults::FaultyDisk;
use super::*;

#[tokio::test]
async fn one_writes_and_the_others_are_told() {
    let dir = scratch();
    assert!(matches!(EmbeddedLog::open_reader(dir.path()), Err(LogError::Unavailable { .. })), "no log yet");
    let log = EmbeddedLog::open(dir.path(), options(1_000)).unwrap();
    assert!(matches!(EmbeddedLog::open(dir.path(), options(1_000)), Err(LogError::Locked(_))));
    let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
    assert!(matches!(reader.append(conformance::records(1)).await, Err(LogError::Locked(_))));
    let retention = Retention { max_age: Duration::ZERO, max_bytes: 0 };
    assert!(matches!(reader.enforce(retention, Timestamp::MAX).await, Err(LogError::Locked(_))));
    drop(log);
    assert!(EmbeddedLog::open(dir.path(), options(1_000)).is_ok(), "a reader does not keep a writer out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_elsewhere_follows_the_writer_through_its_segments() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(700)).unwrap();
    let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
    assert_eq!(reader.partitions(), PARTITIONS);
    let mut consumer = reader.consumer("elsewhere", &conformance::zero()).await.unwrap();
    let records = conformance::records(200);
    let mut appended = 0;
    let mut seen = Contents::new();
    for batch in records.chunks(7) {
        assert_eq!(log.append(batch.to_vec()).await.unwrap().len(), batch.len());
        appended += batch.len();
        assert_eq!(reader.bounds().await.unwrap(), log.bounds().await.unwrap());
        let end = log.bounds().await.unwrap().end;
        for (partition, new) in conformance::read_to(consumer.as_mut(), &end, 5).await {
            seen.entry(partition).or_default().extend(new);
        }
        assert_eq!(seen, conformance::expected(&records[..appended]));
    }
    let time = records[77].append_time;
    assert_eq!(reader.positions_at(time).await.unwrap(), log.positions_at(time).await.unwrap());
    consumer.report(&Positions([(2, 9)].into())).await.unwrap();
    drop(consumer);
    assert_eq!(log.group_positions().await.unwrap()["elsewhere"], Positions([(2, 9)].into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_elsewhere_gets_what_is_appended_then() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(700)).unwrap();
    let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
    let mut consumer = reader.consumer("waiting", &Positions([(2, 0)].into())).await.unwrap();
    for n in 0..10 {
        let append = log.append(vec![conformance::record(1, n), conformance::record(2, n)]);
        let (polled, appended) = tokio::join!(consumer.poll(10, PATIENCE), append);
        assert_eq!(appended.unwrap().len(), 2);
        assert_eq!(polled.unwrap()[0].position, n);
    }
}

#[tokio::test]
async fn nobody_sees_a_record_that_is_written_but_not_synced() {
    let dir = scratch();
    let disk = Arc::new(FaultyDisk::default());
    let log = EmbeddedLog::open_on(dir.path(), options(1 << 20), Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
    let first = conformance::records(3);
    assert_eq!(log.append(first.clone()).await.unwrap().len(), 3);
    let (mut here, mut elsewhere) = (
        log.consumer("here", &conformance::zero()).await.unwrap(),
        reader.consumer("elsewhere", &conformance::zero()).await.unwrap(),
    );
    // The records stand in the file, whole and with their checksums, but their sync failed and nothing cut them off.
    disk.plan(|plan| (plan.failing_syncs, plan.failing_truncates, plan.failing_creates) = (1, 9, 9));
    let bytes = || fs::metadata(Folder::new(dir.path()).segment(0)).unwrap().len();
    let before = bytes();
    assert!(log.append(conformance::records(3)).await.is_err());
    assert!(bytes() > before, "the record was written");
    for (log, consumer) in [(&log, &mut here), (&reader, &mut elsewhere)] {
        assert_eq!(consumer.poll(10, PATIENCE).await.unwrap().len(), 3);
        assert_eq!(consumer.poll(10, Duration::from_millis(20)).await.unwrap(), Vec::new());
        assert_eq!(contents(log).await, conformance::expected(&first));
    }
}

#[tokio::test]
async fn a_reader_finds_the_end_that_a_power_loss_left_behind_an_old_marker() {
    let dir = scratch();
    let folder = Folder::new(dir.path());
    let log = EmbeddedLog::open(dir.path(), options(700)).unwrap();
    let old = fs::read(folder.marker()).unwrap();
    let records = conformance::records(60);
    assert_eq!(log.append(records.clone()).await.unwrap().len(), 60);
    drop(log);
    let end = conformance::expected(&records).iter().map(|(p, r)| (*p, u64::try_from(r.len()).unwrap())).collect();
    let end = Positions(end);
    for marker in [Some(&old[..]), Some(b"damaged"), None] {
        match marker {
            Some(bytes) => fs::write(folder.marker(), bytes).unwrap(),
            None => fs::remove_file(folder.marker()).unwrap(),
        }
        let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
        assert!(reader.consumer("resumes", &end).await.is_ok(), "its positions are not ahead of the log");
        assert_eq!(contents(&reader).await, conformance::expected(&records));
    }
    // It goes on when a writer comes back.
    fs::write(folder.marker(), &old).unwrap();
    let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
    let mut consumer = reader.consumer("resumes", &end).await.unwrap();
    let log = EmbeddedLog::open(dir.path(), options(700)).unwrap();
    assert_eq!(consumer.poll(10, Duration::ZERO).await.unwrap(), Vec::new());
    assert_eq!(log.append(vec![conformance::record(0, 60)]).await.unwrap()[0].position, end.next(0));
    assert_eq!(consumer.poll(10, PATIENCE).await.unwrap()[0].payload, conformance::record(0, 60).payload);
}

#[tokio::test]
async fn a_reader_elsewhere_is_told_when_retention_overtook_it() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(700)).unwrap();
    let reader = EmbeddedLog::open_reader(dir.path()).unwrap();
    let records = conformance::records(200);
    assert_eq!(log.append(records.clone()).await.unwrap().len(), 200);
    let mut behind = reader.consumer("behind", &conformance::zero()).await.unwrap();
    let read = behind.poll(2, PATIENCE).await.unwrap();
    assert_eq!(read.len(), 2);
    let end = log.bounds().await.unwrap().end;
    let mut done = reader.consumer("done", &end).await.unwrap();
    let retention = Retention { max_age: Duration::from_secs(20), max_bytes: u64::MAX };
    assert!(log.enforce(retention, records[199].append_time).await.unwrap() > 0);
    let start = log.bounds().await.unwrap().start;
    assert_eq!(reader.bounds().await.unwrap().start, start);
    let error = loop {
        match behind.poll(2, PATIENCE).await {
            Ok(polled) => assert!(!polled.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Truncated { .. }), "{error}");
    assert!(!behind.positions().covers(&start), "it stopped before what was lost");
    assert_eq!(log.append(vec![conformance::record(3, 200)]).await.unwrap().len(), 1);
    assert_eq!(done.poll(10, PATIENCE).await.unwrap().len(), 1);
}

//! A disk that fails when told to: nothing is acknowledged that could be lost, and the log goes on when the disk does.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Mutex;

use super::*;

/// What goes wrong next.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// How many bytes there still is room for, if there is a limit.
    pub(super) room: Option<usize>,
    pub(super) failing_syncs: u32,
    pub(super) failing_creates: u32,
    pub(super) failing_truncates: u32,
    /// Whether a failed sync also loses what it should have kept, as the page cache of some systems does.
    pub(super) loses_unsynced: bool,
    /// Written since the last sync of its file: the file's inode, where, and how much.
    unsynced: Vec<(u64, u64, usize)>,
}

/// A real disk with planned failures.
#[derive(Default)]
pub(super) struct FaultyDisk(Mutex<Plan>);

impl FaultyDisk {
    pub(super) fn plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.0.lock().unwrap());
    }
}

fn fails(count: &mut u32) -> io::Result<()> {
    match count.checked_sub(1) {
        Some(left) => {
            *count = left;
            Err(io::Error::from_raw_os_error(5)) // EIO
        }
        None => Ok(()),
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        fails(&mut self.0.lock().unwrap().failing_creates)?;
        let file = RealDisk.create(path)?;
        let inode = file.metadata()?.ino();
        self.0.lock().unwrap().unsynced.retain(|(of, ..)| *of != inode);
        Ok(file)
    }

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut plan = self.0.lock().unwrap();
        let fitting = plan.room.unwrap_or(usize::MAX).min(bytes.len());
        plan.room = plan.room.map(|room| room - fitting);
        plan.unsynced.push((file.metadata()?.ino(), offset, fitting));
        RealDisk.write(file, &bytes[..fitting], offset)?;
        if fitting < bytes.len() { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) } // ENOSPC
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut plan = self.0.lock().unwrap();
        let inode = file.metadata()?.ino();
        let unsynced: Vec<_> = plan.unsynced.extract_if(.., |(of, ..)| *of == inode).collect();
        let failed = fails(&mut plan.failing_syncs);
        if failed.is_err() && plan.loses_unsynced {
            for (_, offset, bytes) in unsynced {
                file.write_all_at(&vec![0; bytes], offset)?;
            }
        }
        failed?;
        RealDisk.sync(file)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        fails(&mut self.0.lock().unwrap().failing_truncates)?;
        RealDisk.truncate(file, length)
    }
}

fn open(dir: &TempDir, disk: &Arc<FaultyDisk>, segment_bytes: u64) -> EmbeddedLog {
    EmbeddedLog::open_on(dir.path(), options(segment_bytes), Arc::clone(disk) as Arc<dyn Disk>).unwrap()
}

async fn refused(log: &EmbeddedLog, records: &[NewRecord], code: i32) {
    let error = log.append(records.to_vec()).await.unwrap_err();
    let LogError::Unavailable { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(code), "{error}");
}

async fn taken(log: &EmbeddedLog, records: &[NewRecord]) {
    assert_eq!(log.append(records.to_vec()).await.unwrap().len(), records.len());
}

#[tokio::test]
async fn a_full_disk_refuses_appends_and_takes_them_again_when_there_is_room() {
    let records = conformance::records(30);
    for room in 0..200 {
        let (dir, disk) = (scratch(), Arc::new(FaultyDisk::default()));
        let log = open(&dir, &disk, 1 << 20);
        taken(&log, &records[..5]).await;
        disk.plan(|plan| plan.room = Some(room));
        for _ in 0..3 {
            refused(&log, &records[5..15], 28).await;
        }
        let bounds = log.bounds().await.unwrap();
        assert_eq!(contents(&log).await, conformance::expected(&records[..5]), "nothing was acknowledged");
        let folder = Folder::new(dir.path());
        let end = durable::read(&folder, PARTITIONS).unwrap();
        assert_eq!(fs::metadata(folder.segment(0)).unwrap().len(), end.offset, "what did not fit was cut off again");
        disk.plan(|plan| plan.room = None);
        taken(&log, &records[5..]).await;
        assert_eq!(contents(&log).await, conformance::expected(&records), "positions go on without a gap");
        assert!(log.bounds().await.unwrap().end.covers(&bounds.end));
        drop(log);
        assert_eq!(contents(&open(&dir, &disk, 1 << 20)).await, conformance::expected(&records));
    }
}

#[tokio::test]
async fn a_full_disk_in_the_middle_of_a_segment_change_is_overcome_too() {
    let records = conformance::records(60);
    for room in (0..1_200).step_by(13) {
        let (dir, disk) = (scratch(), Arc::new(FaultyDisk::default()));
        let log = open(&dir, &disk, 400);
        disk.plan(|plan| plan.room = Some(room));
        let mut acknowledged = Vec::new();
        for record in &records {
            match log.append(vec![record.clone()]).await {
                Ok(delivered) => assert_eq!(delivered.len(), 1),
                Err(_) => break,
            }
            acknowledged.push(record.clone());
        }
        assert!(acknowledged.len() < records.len());
        assert_eq!(contents(&log).await, conformance::expected(&acknowledged));
        disk.plan(|plan| plan.room = None);
        taken(&log, &records[acknowledged.len()..]).await;
        drop(log);
        assert_eq!(contents(&open(&dir, &disk, 400)).await, conformance::expected(&records));
    }
}

#[tokio::test]
async fn after_a_failed_sync_the_segment_is_left_and_nothing_in_it_is_believed() {
    let records = conformance::records(30);
    for (loses_unsynced, failing_truncates) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        let (dir, disk) = (scratch(), Arc::new(FaultyDisk::default()));
        let log = open(&dir, &disk, 1 << 20);
        taken(&log, &records[..10]).await;
        disk.plan(|plan| {
            (plan.failing_syncs, plan.loses_unsynced, plan.failing_truncates) = (1, loses_unsynced, failing_truncates);
        });
        refused(&log, &records[10..20], 5).await;
        assert_eq!(contents(&log).await, conformance::expected(&records[..10]));
        taken(&log, &records[10..]).await;
        assert_eq!(Folder::new(dir.path()).segments().unwrap(), [0, 1], "a new segment was begun");
        assert_eq!(contents(&log).await, conformance::expected(&records));
        drop(log);
        assert_eq!(contents(&open(&dir, &disk, 1 << 20)).await, conformance::expected(&records));
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_created_refuses_the_append_and_is_created_by_the_next() {
    let (dir, disk) = (scratch(), Arc::new(FaultyDisk::default()));
    let log = open(&dir, &disk, 200);
    let records = conformance::records(20);
    taken(&log, &records[..3]).await;
    disk.plan(|plan| plan.failing_creates = 1);
    let at = log.bounds().await.unwrap().end;
    refused(&log, &records[3..], 5).await;
    // What fitted into the old segment was durable before the new one failed; the caller's retry doubles it.
    let doubled = log.bounds().await.unwrap().end.lag(&at);
    assert_eq!(doubled, 0);
    taken(&log, &records[3..]).await;
    let stored: usize = contents(&log).await.values().map(Vec::len).sum();
    assert!(stored >= records.len());
    let segments = Folder::new(dir.path()).segments().unwrap();
    assert!(segments.len() > 5, "{segments:?}");
}

#[tokio::test]
async fn appends_that_were_durable_before_the_failure_are_acknowledged() {
    let (dir, disk) = (scratch(), Arc::new(FaultyDisk::default()));
    let log = open(&dir, &disk, 1 << 20);
    let records = conformance::records(8);
    taken(&log, &records).await;
    disk.plan(|plan| plan.failing_syncs = 3);
    for _ in 0..3 {
        assert!(log.append(records.clone()).await.is_err());
        assert_eq!(contents(&log).await, conformance::expected(&records));
    }
    taken(&log, &records).await;
    assert_eq!(contents(&log).await, conformance::expected(&[&records[..], &records].concat()));
}

//! Damage to the files while nobody has the log open: what a crash leaves is repaired, what a disk loses is told.

use super::*;
use crate::event_log::embedded::segment::SegmentReader;

const HEADER: usize = 8 + 8 + 8 + 4 + 8 * PARTITIONS as usize + 4;

fn folder(dir: &TempDir) -> Folder {
    Folder::new(dir.path())
}

async fn append(log: &EmbeddedLog, records: &[NewRecord]) {
    assert_eq!(log.append(records.to_vec()).await.unwrap().len(), records.len());
}

/// A closed log of `count` records in segments of `segment_bytes`, and those records.
async fn closed(count: u64, segment_bytes: u64) -> (TempDir, Image, Vec<NewRecord>) {
    let dir = scratch();
    let records = conformance::records(count);
    let log = EmbeddedLog::open(dir.path(), options(segment_bytes)).unwrap();
    append(&log, &records).await;
    drop(log);
    let image = Image::of(dir.path());
    (dir, image, records)
}

/// Opens an image for writing and reads it whole, in both ways a log can be opened.
async fn both_ways(image: &Image) -> [Result<Contents, LogError>; 2] {
    let dir = image.restore();
    let read = match EmbeddedLog::open_reader(dir.path()) {
        Ok(log) => try_contents(&log).await,
        Err(error) => Err(error),
    };
    let written = match EmbeddedLog::open(dir.path(), options(500)) {
        Ok(log) => try_contents(&log).await,
        Err(error) => Err(error),
    };
    [read, written]
}

#[tokio::test]
async fn a_write_torn_at_any_byte_is_cut_off_and_the_log_goes_on() {
    let dir = scratch();
    let log = EmbeddedLog::open(dir.path(), options(1 << 20)).unwrap();
    let records = conformance::records(12);
    let (acknowledged, torn) = records.split_at(9);
    append(&log, acknowledged).await;
    let before = Image::of(dir.path());
    append(&log, torn).await;
    drop(log);
    let after = Image::of(dir.path());
    let (marker, segment) = (folder(&dir).marker(), folder(&dir).segment(0));
    let (start, end) = (before.clone().file(&segment).len(), after.clone().file(&segment).len());
    let whole: Vec<usize> = torn
        .iter()
        .scan(start, |at, r| {
            Some({
                *at += 28 + r.payload.len();
                *at
            })
        })
        .collect();
    for cut in start..=end {
        let survivors = 9 + whole.iter().filter(|end| **end <= cut).count();
        for garbage in [&b""[..], &[0; 50], &[0xFF; 50]] {
            let mut image = after.clone();
            // The marker of the last sync that succeeded, as the crash left it.
            *image.file(&marker) = before.clone().file(&marker).clone();
            image.file(&segment).truncate(cut);
            image.file(&segment).extend(garbage);
            let expected = conformance::expected(&records[..survivors]);
            for read in both_ways(&image).await {
                assert!(read.unwrap() == expected, "cut at {cut}");
            }
        }
        let mut image = after.clone();
        *image.file(&marker) = before.clone().file(&marker).clone();
        image.file(&segment).truncate(cut);
        let dir = image.restore();
        let log = EmbeddedLog::open(dir.path(), options(1 << 20)).unwrap();
        let more = conformance::records(5);
        append(&log, &more).await;
        drop(log);
        let log = EmbeddedLog::open(dir.path(), options(1 << 20)).unwrap();
        assert_eq!(contents(&log).await, conformance::expected(&[&records[..survivors], &more].concat()));
    }
}

#[tokio::test]
async fn a_log_cut_behind_its_end_marker_is_corrupt() {
    let (dir, image, records) = closed(12, 1 << 20).await;
    let segment = folder(&dir).segment(0);
    let length = image.clone().file(&segment).len();
    for cut in 0..length {
        let mut image = image.clone();
        image.file(&segment).truncate(cut);
        for read in both_ways(&image).await {
            let Err(LogError::Corrupt(why)) = read else { panic!("cut at {cut} of {length} bytes: {read:?}") };
            assert!(why.contains("00000.segment at byte"), "{why}");
        }
    }
    assert!(both_ways(&image).await.into_iter().all(|read| read.unwrap() == conformance::expected(&records)));
}

#[tokio::test]
async fn any_flipped_bit_in_any_file_is_noticed_or_harmless() {
    let (_dir, image, records) = closed(24, 500).await;
    let expected = conformance::expected(&records);
    assert!(image.0.keys().filter(|name| name.extension().is_some_and(|e| e == "segment")).count() >= 3);
    let mut told = 0;
    for (name, bytes) in &image.0 {
        for at in 0..bytes.len() {
            let mut damaged = image.clone();
            damaged.file(name)[at] ^= 1 << (at % 8);
            for read in both_ways(&damaged).await {
                match read {
                    Ok(contents) => assert!(contents == expected, "{} at byte {at}: wrong records", name.display()),
                    Err(LogError::Corrupt(why)) => {
                        let place = if name.extension().is_some_and(|e| e == "segment") { name } else { Path::new("") };
                        assert!(why.contains(place.to_str().unwrap()), "{why} does not name {}", name.display());
                        told += 1;
                    }
                    Err(LogError::Invalid(_)) if name == Path::new("log.json") => told += 1,
                    Err(other) => panic!("{} at byte {at}: {other}", name.display()),
                }
            }
        }
    }
    let in_segments: usize =
        image.0.iter().filter(|(n, _)| n.extension().is_some_and(|e| e == "segment")).map(|(_, b)| b.len()).sum();
    assert!(told >= 2 * in_segments, "every byte of a segment matters");
}

#[tokio::test]
async fn a_record_in_the_place_of_another_is_corrupt() {
    let dir = scratch();
    let records: Vec<NewRecord> =
        (0..8).map(|n| NewRecord { payload: vec![7; 20].into(), ..conformance::record(n % 2, n.into()) }).collect();
    let log = EmbeddedLog::open(dir.path(), options(1 << 20)).unwrap();
    append(&log, &records).await;
    drop(log);
    let image = Image::of(dir.path());
    let frame = |n: usize| HEADER + 48 * n..HEADER + 48 * (n + 1);
    for (place, other) in (0..8).flat_map(|place| (0..8).map(move |other| (place, other))) {
        let mut image = image.clone();
        // Every checksum holds, but one record is missing and another one stands there twice.
        image.file(&folder(&dir).segment(0)).copy_within(frame(other), frame(place).start);
        for read in both_ways(&image).await {
            match read {
                Ok(contents) => assert!(place == other && contents == conformance::expected(&records)),
                Err(error) => assert!(place != other && matches!(error, LogError::Corrupt(_)), "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_segment_of_another_log_is_corrupt() {
    let image = |shift: u32| async move {
        let dir = scratch();
        let record =
            |n: u32| NewRecord { payload: vec![7; 20].into(), ..conformance::record((n + shift) % 4, n.into()) };
        let log = EmbeddedLog::open(dir.path(), options(500)).unwrap();
        append(&log, &(0..30).map(record).collect::<Vec<_>>()).await;
        drop(log);
        (Image::of(dir.path()), dir)
    };
    let ((ours, dir), (theirs, _)) = (image(0).await, image(1).await);
    let folder = folder(&dir);
    // Nothing in the files differs but the partitions of the records.
    for number in folder.segments().unwrap() {
        let mut mixed = ours.clone();
        *mixed.file(&folder.segment(number)) = theirs.clone().file(&folder.segment(number)).clone();
        for read in both_ways(&mixed).await {
            assert!(matches!(read, Err(LogError::Corrupt(_))), "segment {number}: {read:?}");
        }
    }
}

#[tokio::test]
async fn a_sealed_segment_that_was_cut_is_corrupt_and_never_read_as_shorter() {
    let (dir, image, _) = closed(24, 500).await;
    let segment = folder(&dir).segment(1);
    for cut in 0..image.clone().file(&segment).len() {
        let mut image = image.clone();
        image.file(&segment).truncate(cut);
        for read in both_ways(&image).await {
            assert!(matches!(read, Err(LogError::Corrupt(_))), "cut at {cut}: {read:?}");
        }
    }
}

#[tokio::test]
async fn what_is_good_before_the_damage_is_still_read() {
    let (dir, mut image, records) = closed(24, 500).await;
    *image.file(&folder(&dir).segment(1)).last_mut().unwrap() ^= 1;
    image.remove(&folder(&dir).index(1));
    let third = SegmentReader::open(&folder(&dir), 2, PARTITIONS).unwrap().unwrap();
    let intact = usize::try_from(third.positions().iter().sum::<u64>() - 1).unwrap();
    let dir = image.restore();
    let log = EmbeddedLog::open(dir.path(), options(500)).unwrap();
    let mut consumer = log.consumer("reader", &conformance::zero()).await.unwrap();
    let mut good = Contents::new();
    let error = loop {
        match consumer.poll(3, PATIENCE).await {
            Ok(polled) => polled.into_iter().for_each(|r| good.entry(r.partition).or_default().push(r)),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, LogError::Corrupt(why) if why.contains("01.segment at byte")), "{error}");
    assert!(matches!(consumer.poll(3, PATIENCE).await, Err(LogError::Corrupt(_))), "the error stays");
    let read: usize = good.values().map(Vec::len).sum();
    assert_eq!(read, intact, "everything before the damage, and nothing after it");
    assert_eq!(good, conformance::expected(&records[..read]));
}

#[tokio::test]
async fn a_missing_file_is_corrupt_or_made_again() {
    let (dir, image, records) = closed(24, 500).await;
    let folder = folder(&dir);
    for number in 0..folder.segments().unwrap().len() - 1 {
        let number = u64::try_from(number).unwrap();
        let mut without = image.clone();
        without.remove(&folder.index(number));
        for read in both_ways(&without).await {
            assert!(read.unwrap() == conformance::expected(&records), "an index is made again");
        }
        without.remove(&folder.segment(number + 1));
        for read in both_ways(&without).await {
            assert!(matches!(read, Err(LogError::Corrupt(_))), "segment {} is gone: {read:?}", number + 1);
        }
    }
    let mut without = image.clone();
    without.remove(&folder.marker());
    for read in both_ways(&without).await {
        assert!(read.unwrap() == conformance::expected(&records), "the end is found without its marker");
    }
    let mut without = image.clone();
    without.remove(&folder.metadata());
    let [read, written] = both_ways(&without).await;
    assert!(matches!(read, Err(LogError::Unavailable { .. })), "{read:?}");
    assert!(matches!(written, Err(LogError::Corrupt(_))), "{written:?}");
}

#[tokio::test]
async fn a_deletion_that_a_crash_interrupted_only_moves_the_start() {
    let (dir, mut image, records) = closed(24, 500).await;
    image.remove(&folder(&dir).segment(0));
    let index = folder(&dir).index(0);
    let dir = image.restore();
    let log = EmbeddedLog::open(dir.path(), options(500)).unwrap();
    assert!(!dir.path().join(index.file_name().unwrap()).exists(), "an index without its segment is removed");
    let start = log.bounds().await.unwrap().start;
    let mut rest = conformance::expected(&records);
    for (partition, records) in &mut rest {
        records.drain(..usize::try_from(start.next(*partition)).unwrap());
    }
    assert!(start != conformance::zero());
    assert_eq!(contents(&log).await, rest);
}

#[tokio::test]
async fn a_segment_whose_creation_a_crash_interrupted_is_created_again() {
    let (dir, image, records) = closed(24, 500).await;
    let folder = folder(&dir);
    let last = u64::try_from(folder.segments().unwrap().len()).unwrap() - 1;
    let header = image.clone().file(&folder.segment(last))[..HEADER].to_vec();
    for cut in 0..=HEADER {
        let mut half = header[..cut].to_vec();
        if let Some(byte) = half.last_mut() {
            *byte ^= 0x10;
        }
        let mut image = image.clone();
        image.0.insert(folder.segment(last + 1).file_name().unwrap().into(), half);
        for read in both_ways(&image).await {
            assert!(read.unwrap() == conformance::expected(&records), "cut at {cut}");
        }
        let dir = image.restore();
        let log = EmbeddedLog::open(dir.path(), options(500)).unwrap();
        append(&log, &records).await;
        assert_eq!(contents(&log).await, conformance::expected(&[&records[..], &records].concat()));
    }
}

/// A crash at any moment while records are being appended: the image is taken under the writer's hands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_crash_is_there_after_it() {
    let dir = scratch();
    let log = Arc::new(EmbeddedLog::open(dir.path(), options(3_000)).unwrap());
    let acknowledged = Arc::new(std::sync::Mutex::new(Vec::new()));
    let appender = {
        let (log, acknowledged) = (Arc::clone(&log), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for batch in conformance::records(3_000).chunks(3) {
                append(&log, batch).await;
                acknowledged.lock().unwrap().extend_from_slice(batch);
            }
        })
    };
    while !appender.is_finished() {
        let known = conformance::expected(&acknowledged.lock().unwrap());
        let image = crash_image(&folder(&dir));
        for read in both_ways(&image).await {
            let read = read.unwrap();
            for (partition, known) in &known {
                assert!(read[partition].starts_with(known), "an acknowledged record of partition {partition} is gone");
            }
        }
    }
    appender.await.unwrap();
}

/// What a crash in this moment would leave: the marker first, then the newest segment, then the older ones, which do
/// not change any more.
fn crash_image(folder: &Folder) -> Image {
    let read = |path: PathBuf| (path.file_name().unwrap().into(), fs::read(path).unwrap());
    let mut image = BTreeMap::from([read(folder.metadata()), read(folder.marker())]);
    let numbers = folder.segments().unwrap();
    // A newer segment may have begun since the numbers were read; then the last of them may have grown, no more.
    image.extend(numbers.iter().rev().map(|n| read(folder.segment(*n))));
    Image(image)
}

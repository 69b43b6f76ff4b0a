//! A memory at its edges, and a memory with a disk beside one without bounds.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::shelf::{Scratch, Shelf};
use super::*;
use crate::table::id_of;

const WINDOW: i64 = 24 * 60 * SECOND;

fn disk<const N: usize>(memory: &mut Memory<N>, files: &mut BTreeMap<String, Vec<u8>>) -> MemoryMessage {
    let (message, appends) = memory.stage();
    for append in appends {
        let file = files.entry(append.file).or_default();
        file.truncate(usize::try_from(append.offset).unwrap());
        file.extend(append.bytes);
    }
    memory.mark_stored(&message);
    message
}

fn read<'a>(files: &'a BTreeMap<String, Vec<u8>>) -> impl FnMut(&str, u64) -> Option<Vec<u8>> + 'a {
    |file, length| files.get(file)?.get(..usize::try_from(length).ok()?).map(<[u8]>::to_vec)
}

/// Files in memory. After so many reads and writes the disk fails, each time.
#[derive(Debug, Clone)]
struct Paper {
    left: Arc<AtomicI64>,
    bytes: Vec<u8>,
}

impl Paper {
    fn failing_after(operations: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(operations)), bytes: Vec::new() }
    }

    fn endless() -> Self {
        Self::failing_after(i64::MAX)
    }

    fn operate(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left > 0 { Ok(()) } else { Err(io::Error::other("the disk is broken")) }
    }
}

impl Shelf for Paper {
    fn scratch(&self) -> io::Result<Box<dyn Scratch>> {
        self.operate()?;
        Ok(Box::new(Self { left: Arc::clone(&self.left), bytes: Vec::new() }))
    }

    fn path(&self) -> &Path {
        Path::new("paper")
    }
}

impl Scratch for Paper {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.operate()?;
        self.bytes.extend(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.operate()?;
        let (start, length) = (usize::try_from(offset).unwrap(), into.len());
        into.copy_from_slice(&self.bytes[start..start + length]);
        Ok(())
    }
}

/// A memory of at most so many ids in the table and on disk.
fn memory(in_table: usize, on_disk: usize, shelf: &Paper) -> Memory<0> {
    let mut memory = Memory::new("ids", WINDOW, in_table);
    memory.spill_to(Box::new(shelf.clone()));
    memory.limit_on_disk(on_disk);
    memory
}

/// An id that comes, so many seconds after the one before.
type Step = (u32, i64);

/// Mostly new ids, in all about two windows.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (prop::bool::weighted(0.3), any::<prop::sample::Index>(), 0..3_i64);
    prop::collection::vec(step, 500..2_000).prop_map(|steps| {
        let repeats =
            |n: usize, is_repeat, earlier: prop::sample::Index| if is_repeat { earlier.index(n + 1) } else { n };
        let ids = steps.into_iter().enumerate();
        ids.map(|(n, (is_repeat, earlier, pause))| (u32::try_from(repeats(n, is_repeat, earlier)).unwrap(), pause))
            .collect()
    })
}

/// Whether each id was new, as a map without bounds says: an id lives for the window from the end of its slot on.
fn expected(steps: &[Step]) -> Vec<bool> {
    let (mut claimed, mut now) = (BTreeMap::<u32, i64>::new(), 0);
    let answer = |(id, pause): &Step| {
        now += pause * SECOND;
        let slot = WINDOW / BUCKETS;
        let is_new = claimed.get(id).is_none_or(|at| now >= at / slot * slot + slot + WINDOW);
        if is_new {
            claimed.insert(*id, now);
        }
        is_new
    };
    steps.iter().map(answer).collect()
}

fn claim(memory: &mut Memory<0>, (id, pause): Step, now: &mut Timestamp) -> bool {
    *now = now.plus(pause * SECOND);
    memory.advance(*now);
    memory.claim(id_of(id.to_string()), [], *now)
}

proptest! {
    #[test]
    fn an_id_is_remembered_for_its_window_and_forgotten_a_bucket_later(
        steps in prop::collection::vec((0..40_u8, 0..600_i64), 1..300),
    ) {
        let mut memory = Memory::<0>::new("ids", WINDOW, 1_000_000);
        let mut claimed = BTreeMap::<u8, Timestamp>::new();
        let mut now = Timestamp(1_000 * SECOND);
        for (n, seconds) in steps {
            now = now.plus(seconds * SECOND);
            memory.advance(now);
            let age = claimed.get(&n).map(|at| now.since(*at));
            let is_new = memory.claim(id_of(n.to_string()), [], now);
            match age {
                Some(age) if age < WINDOW => prop_assert!(!is_new),
                Some(age) if age < WINDOW + WINDOW / BUCKETS => {}
                _ => prop_assert!(is_new),
            }
            if is_new {
                claimed.insert(n, now);
            }
        }
        prop_assert_eq!(memory.forgotten(), 0);
    }

    #[test]
    fn a_restored_memory_answers_like_the_one_that_was_saved(
        before in prop::collection::vec((0..60_u8, 0..300_i64), 0..200),
        after in prop::collection::vec((0..60_u8, 0..300_i64), 0..100),
        saves in prop::collection::vec(0..200_usize, 0..5),
    ) {
        let mut files = BTreeMap::new();
        let mut memory = Memory::<8>::new("clicks", WINDOW, 64);
        let mut now = Timestamp(0);
        for (i, (n, seconds)) in before.iter().enumerate() {
            now = now.plus(seconds * SECOND);
            memory.advance(now);
            memory.put(id_of(n.to_string()), now.0.to_le_bytes(), now);
            if saves.contains(&i) {
                disk(&mut memory, &mut files);
            }
        }
        let message = disk(&mut memory, &mut files);
        prop_assert_eq!(memory.fresh(), 0);
        // What a crash during a later save leaves behind.
        for file in files.values_mut() {
            file.extend([7; 5]);
        }
        let mut restored = Memory::<8>::new("clicks", WINDOW, 64);
        restored.restore(&message, read(&files)).unwrap();
        for (n, seconds) in after {
            now = now.plus(seconds * SECOND);
            for m in [&mut memory, &mut restored] {
                m.advance(now);
                m.put(id_of(n.to_string()), now.0.to_le_bytes(), now);
            }
            for n in 0..60_u8 {
                prop_assert_eq!(memory.get(&id_of(n.to_string())), restored.get(&id_of(n.to_string())));
            }
        }
        prop_assert_eq!(memory.stage().0, restored.stage().0);
    }
}

#[test]
fn beyond_the_limit_the_oldest_are_forgotten_and_counted() {
    let mut memory = Memory::<0>::new("ids", WINDOW, 160);
    for n in 0..10_000_u32 {
        assert!(memory.claim(id_of(n.to_string()), [], Timestamp(0)));
        assert!(memory.table.len() <= 160);
    }
    assert_eq!(memory.table.len() as u64 + memory.forgotten(), 10_000);
    assert!(!memory.claim(id_of("9999"), [], Timestamp(0)));
    assert!(memory.claim(id_of("0"), [], Timestamp(0)));
}

#[test]
fn one_id_that_comes_for_ever_takes_one_place_and_few_buckets() {
    let mut memory = Memory::<8>::new("clicks", WINDOW, 160);
    for n in 0..100_000 {
        memory.put(id_of("a"), [1; 8], Timestamp(n * SECOND / 100));
    }
    assert_eq!((memory.table.len(), memory.forgotten()), (1, 0));
    assert!(memory.buckets.len() <= 25, "{}", memory.buckets.len());
}

#[test]
fn a_damaged_or_short_file_is_refused() {
    let mut files = BTreeMap::new();
    let mut memory = Memory::<8>::new("clicks", WINDOW, 64);
    memory.put(id_of("a"), [1; 8], Timestamp(0));
    let message = disk(&mut memory, &mut files);
    let whole = files.clone();
    files.values_mut().for_each(|f| f[3] ^= 1);
    assert!(Memory::<8>::new("clicks", WINDOW, 64).restore(&message, read(&files)).is_err());
    files = whole;
    files.values_mut().for_each(|f| f.truncate(10));
    assert!(Memory::<8>::new("clicks", WINDOW, 64).restore(&message, read(&files)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_full_table_with_a_disk_answers_like_one_without_bounds(
        steps in steps(),
        saves in prop::collection::btree_set(0..2_000_usize, 0..6),
        crashes in prop::collection::btree_set(0..2_000_usize, 0..4),
    ) {
        let (expected, shelf) = (expected(&steps), Paper::endless());
        let (mut files, mut saved) = (BTreeMap::new(), (MemoryMessage::default(), 0, Timestamp(0)));
        let (mut memory, mut now, mut n, mut crashes) = (memory(64, 100_000, &shelf), Timestamp(0), 0, crashes);
        while n < steps.len() {
            if crashes.remove(&n) {
                memory = super::tests::memory(64, 100_000, &shelf);
                memory.restore(&saved.0, read(&files)).unwrap();
                (n, now) = (saved.1, saved.2);
            }
            prop_assert_eq!(claim(&mut memory, steps[n], &mut now), expected[n], "step {}", n);
            prop_assert!(memory.table.len() <= 64);
            n += 1;
            if saves.contains(&n) {
                saved = (disk(&mut memory, &mut files), n, now);
            }
        }
        prop_assert!(memory.failure().is_none());
        prop_assert_eq!(memory.forgotten(), 0);
        // What is forgotten takes little room.
        let blocks = usize::try_from(memory.on_disk().bytes / 4_096).unwrap();
        prop_assert!(blocks <= memory.on_disk().ids * 2 / 227 + 8, "{blocks} blocks, {:?}", memory.on_disk());
    }

    #[test]
    fn what_is_too_much_for_table_and_disk_is_forgotten_alike_wherever_it_was(
        steps in steps(),
        saved_at in any::<prop::sample::Index>(),
    ) {
        let (shelf, mut files, mut now) = (Paper::endless(), BTreeMap::new(), Timestamp(0));
        let mut one = memory(64, 100, &shelf);
        let saved_at = saved_at.index(steps.len());
        for step in &steps[..saved_at] {
            claim(&mut one, *step, &mut now);
            prop_assert!(one.len() <= 164);
        }
        let message = disk(&mut one, &mut files);
        let mut other = memory(64, 100, &shelf);
        other.restore(&message, read(&files)).unwrap();
        for step in &steps[saved_at..] {
            let mut again = now;
            prop_assert_eq!(claim(&mut one, *step, &mut now), claim(&mut other, *step, &mut again));
        }
        prop_assert_eq!(one.stage().0, other.stage().0);
    }

    #[test]
    fn a_disk_that_fails_is_told_before_any_answer_that_it_made_wrong(steps in steps(), operations in 0..4_000_i64) {
        let expected = expected(&steps);
        let (mut memory, mut now) = (memory(64, 100_000, &Paper::failing_after(operations)), Timestamp(0));
        for (step, expected) in steps.iter().zip(expected) {
            let is_new = claim(&mut memory, *step, &mut now);
            if let Some(error) = memory.failure() {
                let told = error.to_string();
                prop_assert!(told.contains("event ids") && told.contains("paper: the disk is broken"), "{}", told);
                return Ok(());
            }
            prop_assert_eq!(is_new, expected);
        }
    }
}

#[test]
fn a_restart_puts_no_more_into_the_table_than_fits() {
    let (shelf, mut files, mut now) = (Paper::endless(), BTreeMap::new(), Timestamp(0));
    let mut whole = Memory::<0>::new("ids", WINDOW, 100_000);
    (0..20_000).for_each(|id| assert!(claim(&mut whole, (id, 0), &mut now)));
    let message = disk(&mut whole, &mut files);
    let mut small = memory(10_000, 100_000, &shelf);
    small.restore(&message, read(&files)).unwrap();
    assert!(small.table.len() <= 10_000);
    assert!((0..20_000).all(|id| !claim(&mut small, (id, 0), &mut now)));
    // And what cannot be written is no damage of the checkpoint.
    let mut failing = memory(10_000, 100_000, &Paper::failing_after(1));
    failing.restore(&message, read(&files)).unwrap();
    assert!(failing.failure().is_some());
}

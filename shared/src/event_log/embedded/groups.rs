//! What consumer groups report, for lag displays: one small file a group, written at most once a second.
//! On crash: a report may be old. Nothing is ever resumed from here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::LogError;
use super::folder::{Folder, doing, replace};
use crate::progress::Positions;
use crate::time::stopwatch;

const WRITE_EVERY: Duration = Duration::from_secs(1);
const LONGEST_NAME: usize = 64;

/// The reports of this process, and those of others on disk.
pub(super) struct Groups {
    folder: Folder,
    own: Mutex<BTreeMap<String, Group>>,
}

#[derive(Default)]
struct Group {
    /// What this process reported.
    positions: Positions,
    written: Option<Instant>,
    is_changed: bool,
}

/// Whether a name can be a group's.
///
/// # Errors
/// [`LogError::Invalid`] when not: it becomes a file name.
pub(super) fn check_name(group: &str) -> Result<(), LogError> {
    let is_clean = group.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_clean && (1..=LONGEST_NAME).contains(&group.len()) {
        return Ok(());
    }
    Err(LogError::Invalid(format!("{group:?} is not a group name: use 1 to {LONGEST_NAME} of A-Z a-z 0-9 _ -")))
}

impl Groups {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, own: Mutex::default() }
    }

    fn own(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, group: &str) -> PathBuf {
        self.folder.groups().join(format!("{group}.json"))
    }

    /// Takes note of a report; writes it when the last one was long enough ago.
    pub(super) fn report(&self, group: &str, positions: &Positions) {
        let mut own = self.own();
        let entry = own.entry(group.to_owned()).or_default();
        entry.positions.0.extend(&positions.0);
        entry.is_changed = true;
        if entry.written.is_none_or(|written| written.elapsed() >= WRITE_EVERY) {
            self.write(group, entry);
        }
    }

    /// Writes what was reported and not yet written.
    pub(super) fn flush(&self, group: &str) {
        if let Some(entry) = self.own().get_mut(group)
            && entry.is_changed
        {
            self.write(group, entry);
        }
    }

    /// Writes beside what other processes of the group reported. A report that cannot be written is only shown late.
    fn write(&self, group: &str, entry: &mut Group) {
        entry.written = Some(stopwatch());
        let mut all = stored(&self.path(group)).unwrap_or_default();
        all.0.extend(&entry.positions.0);
        let written = serde_json::to_vec(&all).map_err(io::Error::other).and_then(|bytes| {
            fs::create_dir_all(self.folder.groups())?;
            replace(&self.path(group), &bytes)
        });
        match written {
            Ok(()) => entry.is_changed = false,
            Err(error) => tracing::debug!(%error, group, "a group's progress could not be written"),
        }
    }

    /// What every group last reported.
    pub(super) fn all(&self) -> Result<BTreeMap<String, Positions>, LogError> {
        let mut all: BTreeMap<String, Positions> = BTreeMap::new();
        let folder = self.folder.groups();
        let failed = || doing(format!("listing {}", folder.display()));
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => Some(entries),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed()(e)),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(failed())?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).map(ToOwned::to_owned);
            if path.extension().is_some_and(|e| e == "json")
                && let (Some(name), Some(positions)) = (name, stored(&path))
            {
                all.insert(name, positions);
            }
        }
        let own = self.own();
        for (name, group) in own.iter().filter(|(_, group)| group.is_changed) {
            all.entry(name.clone()).or_default().0.extend(&group.positions.0);
        }
        Ok(all)
    }
}

/// A report on disk; a damaged one is none.
fn stored(path: &std::path::Path) -> Option<Positions> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

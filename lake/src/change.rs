//! A wanted change and a table's newest state → the Delta actions that make it, nothing (it is already there), or a
//! conflict. Never: writes; the caller commits what is planned against exactly the state it was planned from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deltalake::kernel::{Action, Add, Remove};
use shared::time::Day;

use crate::error::Error;
use crate::file::NewFile;
use crate::schema::Wider;
use crate::table::{DataFile, Table, Txn};
use crate::tables::{PARTITION_COLUMN, TableDef};

/// What is to become true of a table.
pub(crate) enum Change {
    /// These files are in it and these numbers moved.
    Append {
        /// The files.
        files: Vec<NewFile>,
        /// The numbers.
        txns: Vec<Txn>,
    },
    /// A day consists of these files.
    ReplaceDay {
        /// The day.
        day: Day,
        /// All its files.
        files: Vec<NewFile>,
        /// The run that says so.
        txn: Txn,
    },
    /// Files are replaced by others with the same rows.
    Rewrite {
        /// The files that go.
        old: Vec<DataFile>,
        /// The files that come.
        new: Vec<NewFile>,
    },
    /// The table has more columns.
    Columns(Box<Wider>),
}

impl Change {
    pub(crate) fn txns(&self) -> &[Txn] {
        match self {
            Self::Append { txns, .. } => txns,
            Self::ReplaceDay { txn, .. } => std::slice::from_ref(txn),
            Self::Rewrite { .. } | Self::Columns(_) => &[],
        }
    }
}

/// The actions that make `change` from where `table` stands; `None` when nothing is left to do.
pub(crate) async fn plan(table: &Table, change: &Change) -> Result<Option<Vec<Action>>, Error> {
    let now = table.root().clock().now().as_millis();
    let plan = Plan { def: table.def(), now };
    match change {
        Change::Append { files, txns } => {
            if standing(table, txns).await? == Standing::Moved || (txns.is_empty() && plan.has_all(table, files)?) {
                return Ok(None);
            }
            Ok(Some(files.iter().map(|f| plan.add(f, true)).collect()))
        }
        Change::ReplaceDay { day, files, txn } => {
            let current = table.files_of(*day)?;
            let same = current.iter().map(|f| &f.path).eq(sorted(files).iter().map(|f| &f.path));
            match standing(table, std::slice::from_ref(txn)).await? {
                Standing::Moved if same => Ok(None),
                Standing::Moved => Err(plan.conflict(&format!("{} has reached {}", txn.app_id, txn.to))),
                Standing::Due => Ok(Some(plan.swap(&current, files, true))),
            }
        }
        Change::Rewrite { old, new } => {
            let current: BTreeSet<String> = table.files()?.into_iter().map(|f| f.path).collect();
            if old.iter().all(|f| current.contains(&f.path)) {
                return Ok(Some(plan.swap(old, new, false)));
            }
            if !new.is_empty() && new.iter().all(|f| current.contains(&f.path)) {
                return Ok(None);
            }
            Err(plan.conflict("a file to be rewritten is gone"))
        }
        Change::Columns(wider) => {
            let missing = crate::schema::wider(table.def(), table.state()?)?;
            Ok(missing.is_some().then(|| vec![Action::Metadata(wider.metadata.clone())]))
        }
    }
}

#[derive(PartialEq)]
enum Standing {
    /// No number has moved: the change is still to be made.
    Due,
    /// All have: it was made, by us (and the answer got lost) or by somebody who had read the same records.
    Moved,
}

async fn standing(table: &Table, txns: &[Txn]) -> Result<Standing, Error> {
    let mut moved = 0;
    for txn in txns {
        let at = table.transaction_version(&txn.app_id).await?.unwrap_or(0);
        if at >= txn.to {
            moved += 1;
        } else if txn.from.is_some_and(|from| from != at) {
            let why = format!("{} stands at {at}, not at {}", txn.app_id, txn.from.unwrap_or(0));
            return Err(Error::conflict(table.def().name, why));
        }
    }
    match moved {
        0 => Ok(Standing::Due),
        n if n == txns.len() => Ok(Standing::Moved),
        _ => Err(Error::conflict(table.def().name, "some numbers have moved and some have not")),
    }
}

struct Plan {
    def: &'static TableDef,
    now: i64,
}

impl Plan {
    fn conflict(&self, why: &str) -> Error {
        Error::conflict(self.def.name, why)
    }

    fn has_all(&self, table: &Table, files: &[NewFile]) -> Result<bool, Error> {
        let current: BTreeSet<String> = table.files()?.into_iter().map(|f| f.path).collect();
        Ok(!files.is_empty() && files.iter().all(|f| current.contains(&f.path)))
    }

    /// Removes `old` and adds `new`; a file in both (same name, so same bytes) stays untouched.
    fn swap(&self, old: &[DataFile], new: &[NewFile], data_change: bool) -> Vec<Action> {
        let mut leaving: BTreeMap<&str, &DataFile> = old.iter().map(|f| (f.path.as_str(), f)).collect();
        let coming: Vec<_> = new.iter().filter(|f| leaving.remove(f.path.as_str()).is_none()).collect();
        let removes = leaving.into_values().map(|f| self.remove(f, data_change));
        removes.chain(coming.into_iter().map(|f| self.add(f, data_change))).collect()
    }

    fn add(&self, file: &NewFile, data_change: bool) -> Action {
        Action::Add(Add {
            path: file.path.clone(),
            partition_values: partition(file.day),
            size: i64::try_from(file.size).unwrap_or(i64::MAX),
            modification_time: self.now,
            data_change,
            stats: Some(file.stats(self.def)),
            ..Add::default()
        })
    }

    fn remove(&self, file: &DataFile, data_change: bool) -> Action {
        Action::Remove(Remove {
            path: file.path.clone(),
            data_change,
            deletion_timestamp: Some(self.now),
            extended_file_metadata: Some(true),
            partition_values: Some(partition(file.day)),
            size: Some(i64::try_from(file.size).unwrap_or(i64::MAX)),
            ..Remove::default()
        })
    }
}

fn partition(day: Day) -> HashMap<String, Option<String>> {
    HashMap::from([(PARTITION_COLUMN.to_owned(), Some(day.to_string()))])
}

fn sorted(files: &[NewFile]) -> Vec<&NewFile> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    files
}

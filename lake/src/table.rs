//! One Delta table: its files at a version, and commits that happen exactly once (decisions.md D-12).
//! Every commit is made against the very version whose transaction numbers were read: if anybody else commits in
//! between it fails and is planned again from a fresh snapshot. After any commit error the table is reloaded and the
//! numbers decide whether the commit happened; nothing is retried blindly, no success is reported as a failure.
//! On crash: files without a commit are orphans that vacuum takes; a commit is one atomic object.
//! Never: changes a committed file, leaves a retry to the library, or trusts a lost answer.

use std::collections::BTreeMap;
use std::path::PathBuf;

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, LogicalFileView, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableError};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde_json::Value;
use shared::time::{Day, Timestamp};

use crate::change::{self, Change};
use crate::error::Error;
use crate::file::{EncodedFile, NewFile, ParquetFile, ranges_of};
use crate::root::LakeRoot;
use crate::schema;
use crate::tables::{PARTITION_COLUMN, TableDef};
use crate::upload::{upload, upload_file};

/// A checkpoint of the Delta log is written every so many versions.
pub const CHECKPOINT_EVERY: u64 = 20;
/// So many times a commit is planned again when others keep committing first.
pub const MAX_PLANS: u32 = 100;

/// A table at one version. `refresh` moves it on.
#[derive(Clone)]
pub struct Table {
    root: LakeRoot,
    def: &'static TableDef,
    delta: DeltaTable,
    metadata: BTreeMap<String, Value>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({}, version {:?})", self.def.name, self.delta.version())
    }
}

/// A file of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataFile {
    /// Its partition.
    pub day: Day,
    /// Its path within the table's folder.
    pub path: String,
    /// Its path within [`LakeRoot::store`].
    pub object_path: Path,
    /// Its length in bytes.
    pub size: u64,
    /// Its rows.
    pub rows: u64,
    /// Least and greatest value of the columns in [`TableDef::stats`] (times in microseconds).
    pub ranges: BTreeMap<&'static str, (i64, i64)>,
    /// When it was committed, epoch milliseconds.
    pub modified_millis: i64,
}

impl DataFile {
    /// The least and greatest value of a time column, if the table states them.
    #[must_use]
    pub fn times(&self, column: &str) -> Option<(Timestamp, Timestamp)> {
        self.ranges.get(column).map(|(low, high)| (Timestamp(*low), Timestamp(*high)))
    }

    /// The least and greatest ingest time of its rows.
    #[must_use]
    pub fn ingest_time(&self) -> Option<(Timestamp, Timestamp)> {
        self.times("ingest_time")
    }

    /// The least and greatest billing time of its rows.
    #[must_use]
    pub fn billing_time(&self) -> Option<(Timestamp, Timestamp)> {
        self.times("billing_time")
    }
}

/// A number that moves in the same commit as the files: how far an application has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// The application, such as `bronze/events/3`.
    pub app_id: String,
    /// Where it must stand (absent counts as 0); `None` takes any lower number.
    pub from: Option<i64>,
    /// Where it goes.
    pub to: i64,
}

impl Txn {
    /// From exactly `from` to `to`.
    pub fn advance(app_id: impl Into<String>, from: i64, to: i64) -> Self {
        Self { app_id: app_id.into(), from: Some(from), to }
    }

    /// From any lower number to `to`.
    pub fn raise(app_id: impl Into<String>, to: i64) -> Self {
        Self { app_id: app_id.into(), from: None, to }
    }
}

/// How a commit ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// It made this version.
    Now(u64),
    /// The table, at this version, has it already; nothing was written.
    Already(u64),
}

impl Committed {
    /// A version of the table that has the commit.
    #[must_use]
    pub fn version(self) -> u64 {
        match self {
            Self::Now(v) | Self::Already(v) => v,
        }
    }
}

impl Table {
    /// Opens the table at its newest version and creates it where it is absent; several may do so at once.
    /// Columns that the definition has and the stored table has not are added (they are nullable).
    ///
    /// # Errors
    /// `Unavailable`; `Invalid` when the stored table has other columns than the definition.
    pub async fn open(root: &LakeRoot, def: &'static TableDef) -> Result<Self, Error> {
        let delta = schema::open_or_create(root, def).await?;
        let mut table = Self { root: root.clone(), def, delta, metadata: BTreeMap::new() };
        if let Some(wider) = schema::wider(def, table.state()?)? {
            let version = table.commit(&Change::Columns(Box::new(wider))).await?.version();
            tracing::info!(table = def.name, version, "columns were added");
        }
        Ok(table)
    }

    /// The table as it was at `version`, for reading.
    ///
    /// # Errors
    /// `Invalid` when there is no such version (any more).
    pub async fn at_version(&self, version: u64) -> Result<Self, Error> {
        let mut delta = DeltaTable::new(self.delta.log_store());
        match delta.load_version(version).await {
            Ok(()) if delta.version() == Some(version) => Ok(Self { delta, ..self.clone() }),
            Ok(()) => Err(Error::Invalid(format!("{} has no version {version}", self.def.name))),
            Err(e) => match Error::delta("reading", e) {
                Error::Corrupt(why) => {
                    Err(Error::Invalid(format!("{} has no version {version}: {why}", self.def.name)))
                }
                away => Err(away),
            },
        }
    }

    /// Moves to the newest version.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt`.
    pub async fn refresh(&mut self) -> Result<(), Error> {
        self.delta.update_state().await.map_err(|e| Error::delta(format!("reading {}", self.def.name), e))
    }

    /// The definition.
    #[must_use]
    pub fn def(&self) -> &'static TableDef {
        self.def
    }

    /// The lake it is in.
    #[must_use]
    pub fn root(&self) -> &LakeRoot {
        &self.root
    }

    /// The version it stands at.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or(0)
    }

    /// Says what following commits carry in their commit info (for people and audits; nothing depends on it).
    pub fn set_commit_metadata(&mut self, metadata: BTreeMap<String, Value>) {
        self.metadata = metadata;
    }

    /// Its files, ordered by day and path.
    ///
    /// # Errors
    /// `Corrupt` when the log describes a file badly.
    pub fn files(&self) -> Result<Vec<DataFile>, Error> {
        let state = self.state()?;
        let log = state.snapshot().try_log_data().map_err(|e| Error::delta("reading the file list", e))?;
        let mut files = log.iter().map(|view| self.data_file(&view)).collect::<Result<Vec<_>, _>>()?;
        files.sort_unstable();
        Ok(files)
    }

    /// Its files of one day, ordered by path.
    ///
    /// # Errors
    /// `Corrupt` when the log describes a file badly.
    pub fn files_of(&self, day: Day) -> Result<Vec<DataFile>, Error> {
        Ok(self.files()?.into_iter().filter(|f| f.day == day).collect())
    }

    fn data_file(&self, view: &LogicalFileView) -> Result<DataFile, Error> {
        let path = view.path().into_owned();
        let day = view.partition_values_map().get(PARTITION_COLUMN).cloned().flatten();
        let day = day
            .and_then(|d| Day::parse(&d))
            .ok_or_else(|| Error::Corrupt(format!("{}: {path} names no day", self.def.name)))?;
        let stats = view.stats().unwrap_or_default();
        let rows = view.num_records().and_then(|n| u64::try_from(n).ok());
        Ok(DataFile {
            day,
            object_path: self.object_path(&path),
            size: u64::try_from(view.size()).unwrap_or(0),
            rows: rows.ok_or_else(|| Error::Corrupt(format!("{}: {path} states no row count", self.def.name)))?,
            ranges: ranges_of(self.def, &stats),
            modified_millis: view.modification_time(),
            path,
        })
    }

    pub(crate) fn object_path(&self, path: &str) -> Path {
        self.root.path(&format!("{}/{path}", self.def.name))
    }

    pub(crate) fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    pub(crate) fn state(&self) -> Result<&deltalake::table::state::DeltaTableState, Error> {
        self.delta.snapshot().map_err(|e| Error::delta("reading the table's state", e))
    }

    /// The number an application stands at, at this version of the table.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt`.
    pub async fn transaction_version(&self, app_id: &str) -> Result<Option<i64>, Error> {
        let log = self.delta.log_store();
        let read = self.state()?.transaction_version(log.as_ref(), app_id).await;
        read.map_err(|e| Error::delta(format!("reading {app_id}"), e))
    }

    /// Encodes rows as one Parquet file and stores it; a commit makes it visible. See [`ParquetFile::new`] for `stem`
    /// and [`ParquetFile::write`] for what the rows must be.
    ///
    /// # Errors
    /// `Invalid` when the rows are not the table's; `Unavailable`.
    pub async fn write_parquet(
        &self,
        batches: Vec<arrow::array::RecordBatch>,
        day: Day,
        stem: &str,
    ) -> Result<NewFile, Error> {
        let mut file = ParquetFile::new(self.def, day, stem)?;
        let encode = move || {
            batches.iter().try_for_each(|batch| file.write(batch))?;
            file.finish()
        };
        let encoded = tokio::task::spawn_blocking(encode).await??;
        self.store(encoded).await
    }

    /// Stores a finished file, durably; a commit makes it visible.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn store(&self, encoded: EncodedFile) -> Result<NewFile, Error> {
        let EncodedFile { file, bytes } = encoded;
        let put = upload(&self.root, &self.object_path(&file.path), bytes).await;
        put.map_err(|e| Error::storage(format!("writing {}/{}", self.def.name, file.path), e))?;
        Ok(file)
    }

    /// Stores a finished file that lies at `at` in the local file system and is not needed there any more: it is moved
    /// where the lake is on the same one.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn store_file(&self, file: NewFile, at: PathBuf) -> Result<NewFile, Error> {
        let place = format!("{}/{}", self.def.name, file.path);
        let stored = upload_file(&self.root, &place, at).await;
        stored.map_err(|e| Error::storage(format!("writing {place}"), e)).map(|()| file)
    }

    /// Adds files and moves numbers, all or nothing. Without `txns` the files' names tell a retry from a new commit.
    ///
    /// # Errors
    /// `Conflict` when a number stands elsewhere than its `from`; `Unavailable`.
    pub async fn append(&mut self, files: Vec<NewFile>, txns: &[Txn]) -> Result<Committed, Error> {
        self.commit(&Change::Append { files, txns: txns.to_vec() }).await
    }

    /// Makes `files` the whole content of `day`, as `version` of `app_id`.
    ///
    /// # Errors
    /// `Conflict` when another writer has made that version, or a later one; `Unavailable`.
    pub async fn replace_day(
        &mut self,
        day: Day,
        files: Vec<NewFile>,
        app_id: &str,
        version: i64,
    ) -> Result<Committed, Error> {
        self.commit(&Change::ReplaceDay { day, files, txn: Txn::raise(app_id, version) }).await
    }

    /// Puts `new` in the place of `old`, which holds the same rows.
    ///
    /// # Errors
    /// `Conflict` when one of `old` is gone; `Unavailable`.
    pub(crate) async fn rewrite(&mut self, old: Vec<DataFile>, new: Vec<NewFile>) -> Result<Committed, Error> {
        self.commit(&Change::Rewrite { old, new }).await
    }

    /// Removes stored files whose commit was refused for ever. One that cannot be removed is left to vacuum.
    pub(crate) async fn discard(&self, files: &[NewFile]) {
        let Ok(current) = self.files() else { return };
        let lost = files.iter().filter(|f| current.iter().all(|c| c.path != f.path));
        for file in lost {
            if let Err(error) = self.root.store().delete(&self.object_path(&file.path)).await {
                tracing::debug!(table = self.def.name, path = file.path, %error, "a file was left for vacuum");
            }
        }
    }

    async fn commit(&mut self, change: &Change) -> Result<Committed, Error> {
        for _ in 0..MAX_PLANS {
            let Some(actions) = change::plan(self, change).await? else {
                return Ok(Committed::Already(self.version()));
            };
            match self.try_commit(actions, change).await {
                Ok(version) => {
                    self.checkpoint(version).await;
                    return Ok(Committed::Now(version));
                }
                Err(e) => self.judge(e, change).await?,
            }
        }
        Err(Error::conflict(self.def.name, format!("others committed first {MAX_PLANS} times")))
    }

    /// After a commit error: the reloaded table says what happened. `Ok` means plan again.
    async fn judge(&mut self, error: DeltaTableError, change: &Change) -> Result<(), Error> {
        let (before, error) = (self.version(), Error::delta(format!("committing to {}", self.def.name), error));
        self.refresh().await?;
        let moved = self.version() > before;
        if moved || change::plan(self, change).await?.is_none() { Ok(()) } else { Err(error) }
    }

    /// One attempt, for exactly the version after the one this table stands at.
    async fn try_commit(&mut self, actions: Vec<Action>, change: &Change) -> Result<u64, DeltaTableError> {
        let txns = change.txns().iter().map(|t| Transaction::new(&t.app_id, t.to)).collect();
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transactions(txns)
            .with_metadata(self.metadata.clone());
        let state = self.delta.snapshot()?.clone();
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation(change))
            .await?;
        self.delta.state = Some(done.snapshot());
        Ok(done.version())
    }

    /// Checkpoints make opening fast; one that fails is only missed.
    async fn checkpoint(&self, version: u64) {
        if version.is_multiple_of(CHECKPOINT_EVERY)
            && let Err(e) = deltalake::checkpoints::create_checkpoint(&self.delta, None).await
        {
            tracing::warn!(table = self.def.name, version, error = %e, "no checkpoint was written");
        }
    }
}

fn operation(change: &Change) -> DeltaOperation {
    match change {
        Change::Append { .. } => write(SaveMode::Append, None),
        Change::ReplaceDay { day, .. } => write(SaveMode::Overwrite, Some(format!("{PARTITION_COLUMN} = '{day}'"))),
        Change::Rewrite { .. } => DeltaOperation::Optimize { predicate: None, target_size: 0 },
        Change::Columns(wider) => DeltaOperation::AddColumn { fields: wider.added.clone() },
    }
}

fn write(mode: SaveMode, predicate: Option<String>) -> DeltaOperation {
    DeltaOperation::Write { mode, partition_by: Some(vec![PARTITION_COLUMN.to_owned()]), predicate }
}

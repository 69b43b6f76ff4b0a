//! A local folder as an object store that survives power loss (decisions.md D-12 (8)).
//! Guarantee: once `put` answers, the file's bytes and every folder entry that leads to it are on disk; a reader sees
//! the whole file or none, because a file gets its name only after its bytes are synced.
//! On crash: at most a staging file (`name#number`, hidden from listings) is left; [`Synced::remove_staged`] takes it.
//! Never: overwrites a file under `PutMode::Create`, or offers the streaming upload of the plain store, which
//! does not sync.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

const STORE: &str = "Synced";

/// The local file system, synced. Paths start at the file system's root.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    inner: LocalFileSystem,
}

static STAGED: AtomicU64 = AtomicU64::new(0);

impl Synced {
    /// The whole local file system.
    pub(crate) fn new() -> Self {
        Self { inner: LocalFileSystem::new() }
    }

    /// Removes staging files under `folder` that crashed writers left before `before`; returns how many.
    ///
    /// # Errors
    /// Any I/O error but a file or folder that vanished meanwhile.
    pub(crate) fn remove_staged(folder: &FsPath, before: SystemTime) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                removed += Self::remove_staged(&entry.path(), before)?;
            } else if is_staged(&entry.file_name().to_string_lossy()) && meta.modified()? < before {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Synced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORE)
    }
}

#[async_trait]
impl ObjectStore for Synced {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let path = self.inner.path_to_filesystem(location)?;
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_implemented("put with PutMode::Update")),
        };
        tokio::task::spawn_blocking(move || put(&path, &payload, create)).await??;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented("put_multipart"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let target = self.inner.path_to_filesystem(to)?;
        self.inner.copy_opts(from, to, options).await?;
        tokio::task::spawn_blocking(move || sync_folder_of(&target).map_err(|e| failed(&target, e))).await??;
        Ok(())
    }
}

fn put(path: &FsPath, payload: &PutPayload, create: bool) -> Result<()> {
    let staged = stage(path, payload).map_err(|e| failed(path, e))?;
    let named = if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) };
    let outcome = named.and_then(|()| sync_folder_of(path));
    if create || outcome.is_err() {
        remove_quietly(&staged);
    }
    outcome.map_err(|e| failed(path, e))
}

/// Writes and syncs the bytes under a hidden name beside `path`.
fn stage(path: &FsPath, payload: &PutPayload) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        create_folders(folder)?;
    }
    let (mut file, staged) = create_staged(path)?;
    let written = payload.iter().try_for_each(|chunk| file.write_all(chunk)).and_then(|()| file.sync_all());
    if let Err(e) = written {
        drop(file);
        remove_quietly(&staged);
        return Err(e);
    }
    Ok(staged)
}

fn create_staged(path: &FsPath) -> io::Result<(File, PathBuf)> {
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{}{:06}", std::process::id(), STAGED.fetch_add(1, Ordering::Relaxed)));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
}

/// Creates `folder` and whatever above it is missing, each synced into its parent.
pub(crate) fn create_folders(folder: &FsPath) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folders(parent)?;
    }
    match fs::create_dir(folder) {
        Ok(()) => sync_folder_of(folder),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Gives a finished file of the local file system its place: its bytes are synced, then it is moved. Answers false and
/// changes nothing where that place is on another file system.
///
/// # Errors
/// Any I/O error.
pub(crate) fn adopt(file: &FsPath, place: &FsPath) -> Result<bool> {
    let moved = || {
        place.parent().map_or(Ok(()), create_folders)?;
        File::open(file)?.sync_all()?;
        match fs::rename(file, place) {
            Ok(()) => sync_folder_of(place).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => Ok(false),
            Err(e) => Err(e),
        }
    };
    moved().map_err(|e| failed(place, e))
}

fn sync_folder_of(path: &FsPath) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// A staging file that cannot be removed is only clutter: vacuum takes it later.
fn remove_quietly(staged: &FsPath) {
    if let Err(e) = fs::remove_file(staged)
        && e.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %staged.display(), error = %e, "a staging file was left");
    }
}

pub(crate) fn failed(path: &FsPath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        _ => Error::Generic { store: STORE, source: source.into() },
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    fn location(folder: &FsPath, name: &str) -> Path {
        Path::from_absolute_path(folder.join(name)).unwrap()
    }

    #[tokio::test]
    async fn create_never_replaces_and_overwrite_does() {
        let dir = tempfile::tempdir().unwrap();
        let store = Synced::new();
        let path = location(&dir.path().canonicalize().unwrap(), "new/folder/file");
        store.put_opts(&path, "one".into(), PutMode::Create.into()).await.unwrap();
        let again = store.put_opts(&path, "two".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
        store.put(&path, "three".into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "three");
        let left: Vec<_> = fs::read_dir(dir.path().join("new/folder")).unwrap().collect();
        assert_eq!(left.len(), 1, "no staging file is left: {left:?}");
    }

    #[test]
    fn a_finished_file_is_moved_to_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (file, place) = (dir.path().join("finished"), dir.path().join("new/folder/file"));
        fs::write(&file, "bytes").unwrap();
        assert!(adopt(&file, &place).unwrap());
        assert_eq!((fs::read_to_string(&place).unwrap().as_str(), file.exists()), ("bytes", false));
        assert!(adopt(&file, &place).is_err() && place.exists(), "what is not there moves nothing");
    }

    #[tokio::test]
    async fn of_many_concurrent_creates_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = location(&dir.path().canonicalize().unwrap(), "log/0.json");
        let writers = (0..16).map(|i| {
            let path = path.clone();
            async move {
                let store = Synced::new();
                store.put_opts(&path, format!("writer {i}").into(), PutMode::Create.into()).await
            }
        });
        let outcomes = futures::future::join_all(writers).await;
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    }

    #[tokio::test]
    async fn what_a_crashed_writer_staged_is_hidden_and_can_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        fs::create_dir(folder.join("day=2026-01-01")).unwrap();
        fs::write(folder.join("day=2026-01-01/part.parquet#12000001"), "half").unwrap();
        fs::write(folder.join("day=2026-01-01/part.parquet"), "whole").unwrap();
        let store = Synced::new();
        let prefix = Path::from_absolute_path(&folder).unwrap();
        let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        let later = fs::metadata(&folder).unwrap().modified().unwrap() + std::time::Duration::from_secs(60);
        assert_eq!(Synced::remove_staged(&folder, later - std::time::Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(Synced::remove_staged(&folder, later).unwrap(), 1);
        assert!(folder.join("day=2026-01-01/part.parquet").exists());
    }
}

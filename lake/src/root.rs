//! Where the lake lives: an object store and a prefix, in a local folder or in any store ([`crate::stores`]).
//! Locally every write is synced before it is acknowledged ([`crate::local_store`]); elsewhere the store promises that.
//! Never: keeps state of its own; two processes may open one lake at the same time.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use shared::time::{Clock, SystemClock};
use url::Url;

use crate::error::Error;
use crate::local_store::{Synced, create_folders};

/// A lake's place. Clones are the same place.
#[derive(Clone)]
pub struct LakeRoot {
    store: Arc<dyn ObjectStore>,
    url: Url,
    prefix: Path,
    local: Option<PathBuf>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for LakeRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LakeRoot({})", self.url)
    }
}

impl LakeRoot {
    /// The lake in a local folder, created if absent.
    ///
    /// # Errors
    /// `Unavailable` when the folder cannot be made.
    pub fn open_folder(folder: &FsPath) -> Result<Self, Error> {
        let made = create_folders(folder).and_then(|()| folder.canonicalize());
        let folder = made.map_err(|e| Error::unavailable(format!("opening {}", folder.display()), e))?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| Error::Invalid(format!("{} is not a path", folder.display())))?;
        let mut root = Self::with_store(Arc::new(Synced::new()), url)?;
        root.local = Some(folder);
        Ok(root)
    }

    /// The lake at `url` in a store that the caller built; the store's paths are those of the URL.
    ///
    /// # Errors
    /// `Invalid` when the URL's path is none.
    pub fn with_store(store: Arc<dyn ObjectStore>, mut url: Url) -> Result<Self, Error> {
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let prefix = Path::from_url_path(url.path()).map_err(|e| Error::Invalid(format!("{url}: {e}")))?;
        Ok(Self { store, url, prefix, local: None, clock: Arc::new(SystemClock::default()) })
    }

    /// The same lake by another clock (it stamps commits and decides what is old enough to vacuum).
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The store; its paths start at the storage's root, as those of [`crate::table::DataFile::object_path`] do.
    #[must_use]
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The URL, with a slash at the end.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The path of the lake, or of `relative` in it, within the store.
    #[must_use]
    pub fn path(&self, relative: &str) -> Path {
        relative.split('/').filter(|s| !s.is_empty()).fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The folder, when the lake is local.
    #[must_use]
    pub fn folder(&self) -> Option<&FsPath> {
        self.local.as_deref()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn log_store(&self, table: &str) -> Result<LogStoreRef, Error> {
        let url = self.url.join(&format!("{table}/")).map_err(|e| Error::Invalid(format!("{table}: {e}")))?;
        let tables = PrefixStore::new(Arc::clone(&self.store), self.path(table));
        Ok(default_logstore(Arc::new(tables), Arc::clone(&self.store), &url, &StorageConfig::default()))
    }
}

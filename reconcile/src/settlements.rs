//! The published settlements: where each lies, which are there, what their manifests say.
//! Owns: the layout `settlement/day=YYYY-MM-DD/v=N/`, `settlement/sequence/`, `settlement/staging/`.
//! Guarantee: a settlement is there if and only if its manifest is; only whole ones are answered.
//! Never: changes anything.

use bytes::Bytes;
use futures::TryStreamExt;
use lake::LakeRoot;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;
use shared::time::Day;

use crate::error::Error;
use crate::manifest::{MANIFEST, Manifest};

/// The folder of all settlements within the data root.
pub const FOLDER: &str = "settlement";

/// The settlements under one data root. Clones are the same.
#[derive(Debug, Clone)]
pub struct Settlements {
    root: LakeRoot,
}

/// One line of `settlement list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The folder within the data root.
    pub folder: String,
    /// Its manifest.
    pub manifest: Manifest,
}

/// The folder of one settlement within the data root.
#[must_use]
pub fn folder(day: Day, version: u32) -> String {
    format!("{FOLDER}/day={day}/v={version}")
}

impl Settlements {
    /// Those under `root`.
    #[must_use]
    pub fn new(root: LakeRoot) -> Self {
        Self { root }
    }

    /// The bytes at `relative`; `None` when there is no such file.
    pub(crate) async fn read(&self, relative: &str) -> Result<Option<Bytes>, Error> {
        let path = self.root.path(relative);
        match self.root.store().get(&path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(Error::objects(format!("reading {path}"))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::objects(format!("opening {path}"))(e)),
        }
    }

    /// The store and the path of `relative` in it.
    pub(crate) fn at(&self, relative: &str) -> (std::sync::Arc<dyn ObjectStore>, Path) {
        (self.root.store(), self.root.path(relative))
    }

    /// The names of the folders directly under `relative`, sorted.
    async fn folders(&self, relative: &str) -> Result<Vec<String>, Error> {
        let (store, path) = self.at(relative);
        let found = store.list_with_delimiter(Some(&path)).await.map_err(Error::objects(format!("listing {path}")))?;
        let names = found.common_prefixes.iter().filter_map(Path::filename).map(str::to_owned);
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// The names of the files directly under `relative`, sorted, with when they were written.
    pub(crate) async fn files(&self, relative: &str) -> Result<Vec<object_store::ObjectMeta>, Error> {
        let (store, path) = self.at(relative);
        let mut found: Vec<_> =
            store.list(Some(&path)).try_collect().await.map_err(Error::objects(format!("listing {path}")))?;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// The days that have a settlement, in order.
    ///
    /// # Errors
    /// [`Error::Objects`].
    pub async fn days(&self) -> Result<Vec<Day>, Error> {
        let names = self.folders(FOLDER).await?;
        let mut days: Vec<Day> = names.iter().filter_map(|n| Day::parse(n.strip_prefix("day=")?)).collect();
        days.sort_unstable();
        Ok(days)
    }

    /// The versions of a day whose manifest is there, in order.
    ///
    /// # Errors
    /// [`Error::Objects`], [`Error::Damaged`].
    pub async fn versions(&self, day: Day) -> Result<Vec<Listed>, Error> {
        let names = self.folders(&format!("{FOLDER}/day={day}")).await?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|n| n.strip_prefix("v=")?.parse().ok()).collect();
        numbers.sort_unstable();
        let mut versions = Vec::new();
        for version in numbers {
            if let Some(manifest) = self.manifest(day, version).await? {
                versions.push(Listed { folder: folder(day, version), manifest });
            }
        }
        Ok(versions)
    }

    /// The newest settlement of a day.
    ///
    /// # Errors
    /// As [`Settlements::versions`].
    pub async fn newest(&self, day: Day) -> Result<Option<Manifest>, Error> {
        Ok(self.versions(day).await?.pop().map(|listed| listed.manifest))
    }

    /// One manifest, if it is published.
    ///
    /// # Errors
    /// [`Error::Objects`], [`Error::Damaged`].
    pub async fn manifest(&self, day: Day, version: u32) -> Result<Option<Manifest>, Error> {
        let name = format!("{}/{MANIFEST}", folder(day, version));
        let Some(bytes) = self.read(&name).await? else { return Ok(None) };
        Manifest::from_bytes(&bytes).map(Some).map_err(|e| Error::damaged(name, e))
    }

    /// Every settlement of every day, by day and version.
    ///
    /// # Errors
    /// As [`Settlements::versions`].
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut all = Vec::new();
        for day in self.days().await? {
            all.extend(self.versions(day).await?);
        }
        Ok(all)
    }

    /// One settlement: the newest of the day where no version is given.
    ///
    /// # Errors
    /// [`Error::Unknown`] when there is none.
    pub async fn show(&self, day: Day, version: Option<u32>) -> Result<Listed, Error> {
        let found = match version {
            Some(version) => self.manifest(day, version).await?,
            None => self.newest(day).await?,
        };
        let manifest = found.ok_or(Error::Unknown { day, version })?;
        Ok(Listed { folder: folder(day, manifest.version), manifest })
    }
}

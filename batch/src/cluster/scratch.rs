//! Where a run and its cluster meet: a prefix of the lake's store that nobody else reads, `_batch/DAY-run-N-CLAIM`.
//!
//! ```text
//! inputs                    what every task needs, written once by the run
//! ATTEMPT/BUCKET.silver     (and .leaves, .facts) what one attempt at a bucket made
//! done/BUCKET               which attempt made the bucket; written last, created once: the first attempt counts
//! ```
//! Guarantee: two runs never share a prefix (claiming it is a conditional put, ADR 17); half a file is never taken for
//! one, since `done` names only what is stored whole. Nothing here is visible to readers of the lake.
//! On crash: what a killed run left goes with a later run, when its newest object is older than the setting says, by
//! the store's own times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lake::LakeRoot;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use shared::time::Day;

use crate::error::Error;

/// The folder of all scratch prefixes in the lake; no table is called so.
const FOLDER: &str = "_batch";
/// How many prefixes of one day and run number are tried; each one taken is of a run that was killed or is alive.
const MOST_CLAIMS: u32 = 1_000;

/// The scratch prefix of one run.
#[derive(Clone)]
pub(crate) struct Scratch {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Scratch {
    /// A prefix of this run's own, which begins with its inputs.
    ///
    /// # Errors
    /// When the store is away.
    pub(crate) async fn claim(root: &LakeRoot, day: Day, run: u64, inputs: Bytes) -> Result<Self, Error> {
        for claim in 0..MOST_CLAIMS {
            let prefix = root.path(&format!("{FOLDER}/{day}-run-{run}-{claim}"));
            let scratch = Self { store: root.store(), prefix };
            let put =
                scratch.store.put_opts(&scratch.inputs_path(), inputs.clone().into(), PutMode::Create.into()).await;
            match put {
                Ok(_) => return Ok(scratch),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(error) => return Err(away("storing the inputs of a run", &error)),
            }
        }
        Err(Error::Invalid(format!("{FOLDER} holds {MOST_CLAIMS} killed runs of {day} under number {run}: remove it")))
    }

    /// The prefix that a run claimed elsewhere; `inputs` is the path of its inputs.
    ///
    /// # Errors
    /// When that is no path.
    pub(crate) fn of(store: Arc<dyn ObjectStore>, inputs: &str) -> Result<Self, Error> {
        let prefix = Path::parse(inputs.strip_suffix("/inputs").unwrap_or(inputs));
        let prefix = prefix.map_err(|e| Error::Invalid(format!("{inputs} is not where inputs are: {e}")))?;
        Ok(Self { store, prefix })
    }

    /// Where the inputs are: all that a task must be told.
    pub(crate) fn inputs_path(&self) -> Path {
        self.path("inputs")
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The inputs.
    ///
    /// # Errors
    /// `Invalid` when they are not there: the run is over, or this process looks into another lake.
    pub(crate) async fn inputs(&self) -> Result<Bytes, Error> {
        let path = self.inputs_path();
        self.find("inputs").await?.ok_or_else(|| {
            Error::Invalid(format!("{path} is not in this lake: the run is over, or this executor has another lake"))
        })
    }

    /// An object, if it is there.
    ///
    /// # Errors
    /// When the store is away.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let read = async { self.store.get(&self.path(name)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(away("reading what a task made", &error)),
        }
    }

    /// Stores an object of an attempt's own.
    ///
    /// # Errors
    /// When the store is away.
    pub(crate) async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let put = self.store.put(&self.path(name), bytes.into()).await;
        put.map(drop).map_err(|e| away("storing what a task made", &e))
    }

    /// Stores an object that the first who tries decides; answers what it holds now.
    ///
    /// # Errors
    /// When the store is away.
    pub(crate) async fn decide(&self, name: &str, bytes: Bytes) -> Result<Bytes, Error> {
        if lake::create_once::create_once(&*self.store, &self.path(name), bytes.clone())
            .await
            .map_err(|e| away("storing what became of a bucket", &e))?
        {
            return Ok(bytes);
        }
        let found = self.find(name).await?;
        found.ok_or_else(|| Error::Unavailable { doing: "reading a bucket".to_owned(), why: format!("{name} is gone") })
    }

    /// How many buckets are done.
    ///
    /// # Errors
    /// When the store is away.
    pub(crate) async fn done(&self) -> Result<u64, Error> {
        let listed = self.store.list(Some(&self.path("done"))).try_fold(0_u64, |n, _| async move { Ok(n + 1) });
        listed.await.map_err(|e| away("counting what is done", &e))
    }

    /// Removes everything of this run.
    ///
    /// # Errors
    /// When the store is away; a later run removes the rest.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        remove(&self.store, &self.prefix).await
    }

    /// Removes what killed runs left `age` before this run began.
    ///
    /// # Errors
    /// When the store is away.
    pub(crate) async fn sweep(&self, root: &LakeRoot, age: Duration) -> Result<(), Error> {
        let folder = root.path(FOLDER);
        let mut newest = BTreeMap::new();
        let mut objects = self.store.list(Some(&folder));
        while let Some(object) = objects.next().await {
            let object = object.map_err(|e| away("looking for what killed runs left", &e))?;
            let Some(name) = object.location.prefix_match(&folder).and_then(|mut parts| parts.next()) else { continue };
            let at = newest.entry(folder.clone().join(name)).or_insert(object.last_modified);
            *at = object.last_modified.max(*at);
        }
        let Some(now) = newest.remove(&self.prefix) else { return Ok(()) };
        for (prefix, at) in newest {
            if (now - at).to_std().is_ok_and(|old| old >= age) {
                tracing::info!(%prefix, "removing what a killed run left");
                remove(&self.store, &prefix).await?;
            }
        }
        Ok(())
    }
}

async fn remove(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<(), Error> {
    let paths = store.list(Some(prefix)).map_ok(|object| object.location).boxed();
    let removed = store.delete_stream(paths).try_for_each(|_| async { Ok(()) }).await;
    removed.map_err(|e| away("removing the scratch of a run", &e))
}

fn away(doing: &str, error: &object_store::Error) -> Error {
    Error::Unavailable { doing: doing.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(root: &LakeRoot) -> Vec<String> {
        let mut names: Vec<String> =
            root.store().list(Some(&root.path(FOLDER))).map_ok(|o| o.location.to_string()).try_collect().await.unwrap();
        names.sort();
        names.iter().map(|n| n.rsplit_once(FOLDER).unwrap().1.to_owned()).collect()
    }

    #[tokio::test]
    async fn runs_never_share_a_prefix_and_only_old_ones_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let root = LakeRoot::open_folder(folder.path()).unwrap();
        let day = Day::parse("2026-01-05").unwrap();
        let killed = Scratch::claim(&root, day, 3, Bytes::from_static(b"a")).await.unwrap();
        killed.put("t1/00000.silver", Bytes::from_static(b"half")).await.unwrap();
        let next = Scratch::claim(&root, day, 3, Bytes::from_static(b"a")).await.unwrap();
        next.sweep(&root, Duration::from_secs(3_600)).await.unwrap();
        assert_eq!(names(&root).await.len(), 3, "the other may be alive");
        next.sweep(&root, Duration::ZERO).await.unwrap();
        assert_eq!(names(&root).await, ["/2026-01-05-run-3-1/inputs"]);
        next.remove().await.unwrap();
        assert_eq!(names(&root).await, [""; 0]);
        assert!(matches!(next.inputs().await, Err(Error::Invalid(_))));
    }

    #[tokio::test]
    async fn the_first_attempt_at_a_bucket_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = LakeRoot::open_folder(folder.path()).unwrap();
        let day = Day::parse("2026-01-05").unwrap();
        let scratch = Scratch::claim(&root, day, 1, Bytes::new()).await.unwrap();
        let same = Scratch::of(root.store(), scratch.inputs_path().as_ref()).unwrap();
        assert_eq!(scratch.decide("done/00000", Bytes::from_static(b"one")).await.unwrap(), "one");
        assert_eq!(same.decide("done/00000", Bytes::from_static(b"two")).await.unwrap(), "one");
        assert_eq!((same.done().await.unwrap(), same.find("done/00001").await.unwrap()), (1, None));
    }
}

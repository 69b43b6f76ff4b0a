//! What a store must be able to do, tried on the store itself: create an object once, whoever else tries, and in time.
//! Writes a few objects of its own under `.doctor/` and removes them; one that a crash leaves is never read.
//! Never: touches a table.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode};
use shared::time::Timestamp;

use crate::error::Error;
use crate::root::LakeRoot;

/// So many objects are tried, …
const TRIES: u32 = 5;
/// … each by so many writers at once.
const WRITERS: usize = 8;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Whether of several that create one object at once, and of those that come later, one wins and what it wrote stays.
    pub creates_once: bool,
    /// The median time of a small put.
    pub put: Duration,
    /// By how many microseconds the store's clock is ahead of ours (it counts whole seconds).
    pub ahead_micros: i64,
}

/// Tries the store. `name` is a new one for every try.
///
/// # Errors
/// `Unavailable` when the store does not answer, does not let us in, or has no such bucket.
pub async fn probe(root: &LakeRoot, name: &str) -> Result<Tried, Error> {
    let (store, folder) = (root.store(), root.path(".doctor").join(name));
    let failed = |e| Error::unavailable(format!("trying {}", root.url()), e);
    let (mut creates_once, mut times, mut ahead) = (true, Vec::new(), 0);
    for number in 0..TRIES {
        let path = folder.clone().join(number.to_string());
        creates_once &= race(&*store, &path).await.map_err(failed)?;
        let watch = shared::time::stopwatch();
        store.put(&path, Bytes::from_static(b"timed").into()).await.map_err(failed)?;
        times.push(watch.elapsed());
        let now = root.clock().now();
        let written = store.head(&path).await.map_err(failed)?.last_modified;
        ahead = Timestamp(written.timestamp_micros()).since(now);
        store.delete(&path).await.map_err(failed)?;
    }
    times.sort_unstable();
    let put = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Tried { creates_once, put, ahead_micros: ahead })
}

/// Whether exactly one of several writers at once, and of one that comes later, creates the object.
async fn race(store: &dyn ObjectStore, path: &Path) -> Result<bool, StoreError> {
    let create = |writer: usize| async move {
        let put = store.put_opts(path, format!("writer {writer}").into(), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(Some(writer)),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    };
    let racing = futures::stream::iter(0..WRITERS).map(create).buffer_unordered(WRITERS);
    let mut outcomes: Vec<Result<Option<usize>, StoreError>> = racing.collect().await;
    outcomes.push(create(WRITERS).await);
    let winners: Vec<usize> = outcomes.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let held = store.get(path).await?.bytes().await?;
    // A winner whose answer got lost counts as nobody; that is not the store's fault.
    Ok(match winners[..] {
        [] => true,
        [winner] => held == format!("writer {winner}"),
        _ => false,
    })
}

//! Reading files beside the store: drift reports and settlements. Never writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

/// A store seen from one of its folders: what [`crate::Deps::objects`] wants, where the store's own paths start
/// elsewhere (at the file system's or the bucket's root).
#[must_use]
pub fn rooted(store: Arc<dyn ObjectStore>, folder: Path) -> Arc<dyn ObjectStore> {
    Arc::new(PrefixStore::new(store, folder))
}

/// How long a report waits for what only stands beside its numbers.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is read, or `None` where the object store is away or slow: the numbers do not depend on it, so whoever asks goes
/// on with what it read before.
pub(crate) async fn soon<T>(
    what: &'static str,
    reading: impl Future<Output = Result<T, object_store::Error>>,
) -> Option<T> {
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(read)) => return Some(read),
        Ok(Err(error)) => tracing::warn!(what, %error, "cannot be read: it stays as it was"),
        Err(_) => tracing::warn!(what, waited = ?PATIENCE, "no answer from the object store: it stays as it was"),
    }
    None
}

/// The object's bytes; `None` when there is none.
pub(crate) async fn read(objects: &dyn ObjectStore, path: &Path) -> Result<Option<Bytes>, object_store::Error> {
    match objects.get(path).await {
        Ok(found) => found.bytes().await.map(Some),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is directly in a folder: the files, and the names of the folders in it.
pub(crate) async fn list(
    objects: &dyn ObjectStore,
    folder: &Path,
) -> Result<(Vec<ObjectMeta>, Vec<String>), object_store::Error> {
    let found = match objects.list_with_delimiter(Some(folder)).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok((Vec::new(), Vec::new())),
        Err(error) => return Err(error),
    };
    let folders = found.common_prefixes.iter().filter_map(Path::filename).map(str::to_owned).collect();
    Ok((found.objects, folders))
}

/// Tells one state of an object from another.
pub(crate) fn tag(meta: &ObjectMeta) -> String {
    let modified = meta.last_modified.to_rfc3339();
    format!("{}|{modified}|{}", meta.e_tag.as_deref().unwrap_or_default(), meta.size)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_not_waited_for() {
        assert_eq!(soon("test", async { Ok(1) }).await, Some(1));
        let broken = async { Err(object_store::Error::Generic { store: "test", source: "away".into() }) };
        assert_eq!(soon::<u8>("test", broken).await, None);
        assert_eq!(soon::<u8>("test", std::future::pending()).await, None);
    }

    #[tokio::test]
    async fn a_rooted_store_reads_and_lists_from_its_folder() {
        let whole: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let place = Path::from("srv/data/settlement/day=2026-01-04/v=1/manifest.json");
        whole.put(&place, Bytes::from_static(b"x").into()).await.unwrap();
        let rooted = rooted(Arc::clone(&whole), Path::from("srv/data"));
        let manifest = Path::from("settlement/day=2026-01-04/v=1/manifest.json");
        assert!(read(&*rooted, &manifest).await.unwrap().is_some());
        assert_eq!(read(&*whole, &manifest).await.unwrap(), None);
        let (_, folders) = list(&*rooted, &Path::from("settlement/day=2026-01-04")).await.unwrap();
        assert_eq!(folders, ["v=1"]);
    }
}

//! Reading files beside the store: drift reports and settlements. Never writes.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

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

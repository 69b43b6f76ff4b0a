//! Creating an object that must never be replaced, on a store whose answers can get lost.
//! A create may have happened though its answer was lost, or be answered "exists" because of the client's own
//! repetition: what is there decides (decisions.md D-12 (1), for our own files as for commits).
//! Never: replaces anything.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

/// Creates the object; answers whether it now holds `bytes`.
///
/// # Errors
/// The store's, when it cannot be said what is there: asking again is safe.
pub async fn create_once(store: &dyn ObjectStore, path: &Path, bytes: Bytes) -> Result<bool, Error> {
    let put = store.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await;
    let Err(error) = put else { return Ok(true) };
    match store.get(path).await {
        Ok(found) => Ok(found.bytes().await? == bytes),
        Err(Error::NotFound { .. }) => Err(error),
        Err(unread) => Err(unread),
    }
}

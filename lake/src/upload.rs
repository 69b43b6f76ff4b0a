//! Bytes or a finished file → one object: in one request, or in parts where they are many; a file is moved where it can.
//! Guarantee: the object is there whole or not at all. On crash: parts of an upload that was not completed stay unseen
//! until a lifecycle rule of the bucket takes them.
//! Never: uploads to a local folder in parts.

use std::path::PathBuf;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, Result};

use crate::local_store::{adopt, failed};
use crate::root::LakeRoot;

/// Bytes in a part; what is not larger goes in one request.
const PART_BYTES: usize = 16 << 20;
/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 4;

pub(crate) async fn upload(root: &LakeRoot, path: &Path, bytes: Bytes) -> Result<()> {
    if root.folder().is_some() || bytes.len() <= PART_BYTES {
        return root.store().put(path, bytes.into()).await.map(drop);
    }
    let mut upload = root.store().put_multipart(path).await?;
    let sent = send(&mut *upload, bytes).await;
    if sent.is_err()
        && let Err(error) = upload.abort().await
    {
        tracing::debug!(%path, %error, "parts of an upload were left to the bucket's lifecycle rule");
    }
    sent
}

/// A file of the local file system, which is not needed there any more, becomes the object at `place` in the lake.
pub(crate) async fn upload_file(root: &LakeRoot, place: &str, file: PathBuf) -> Result<()> {
    if let Some(lake) = root.folder() {
        let (from, to) = (file.clone(), lake.join(place));
        if tokio::task::spawn_blocking(move || adopt(&from, &to)).await?? {
            return Ok(());
        }
    }
    let read = move || std::fs::read(&file).map_err(|e| failed(&file, e));
    upload(root, &root.path(place), tokio::task::spawn_blocking(read).await??.into()).await
}

async fn send(upload: &mut dyn MultipartUpload, bytes: Bytes) -> Result<()> {
    let parts = (0..bytes.len()).step_by(PART_BYTES).map(|at| bytes.slice(at..(at + PART_BYTES).min(bytes.len())));
    let sending = parts.map(|part| upload.put_part(part.into())).collect::<Vec<_>>();
    futures::stream::iter(sending).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await?;
    upload.complete().await.map(drop)
}

//! A settlement in an object store → a folder of this machine, for whoever checks it by its files alone.
//! Never: writes outside the folder.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use futures::TryStreamExt;
use lake::LakeRoot;
use object_store::ObjectStoreExt;

use crate::error::Error;

/// Copies the files directly under `settlement` into the folder `to`; answers how many.
///
/// # Errors
/// [`Error::Objects`] when they cannot be read, [`Error::Invalid`] when they cannot be written here.
pub async fn download(settlement: &LakeRoot, to: &Path) -> Result<usize, Error> {
    let (store, folder) = (settlement.store(), settlement.path(""));
    let listed = store.list_with_delimiter(Some(&folder)).await;
    let files = listed.map_err(Error::objects(format!("listing {}", settlement.url())))?.objects;
    for file in &files {
        let Some(name) = file.location.filename() else { continue };
        let found = store.get(&file.location).await.map_err(Error::objects(format!("opening {}", file.location)))?;
        let here = |e: std::io::Error| Error::Invalid(format!("cannot write {}: {e}", to.join(name).display()));
        let mut copy = File::create(to.join(name)).map_err(here)?;
        let mut bytes = found.into_stream();
        while let Some(chunk) = bytes.try_next().await.map_err(Error::objects(format!("reading {}", file.location)))? {
            copy.write_all(&chunk).map_err(here)?;
        }
    }
    Ok(files.len())
}

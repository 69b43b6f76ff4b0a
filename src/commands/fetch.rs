//! A settlement that lies elsewhere → a folder like the published one: what the serving API offers, or what an object
//! store holds. The API is asked by plain http, as our client; a server behind TLS through its proxy.
//! Never: writes outside the folder, whatever the server calls its files.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::exit::Usage;
use crate::wiring::Parts;

/// A settlement's folder on this machine.
pub(super) enum Fetched {
    /// It lies here.
    Here(PathBuf),
    /// A copy, removed at the end.
    Copy(TempDir),
}

impl Fetched {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Here(folder) => folder,
            Self::Copy(folder) => folder.path(),
        }
    }
}

/// The settlement at `place`: a folder, the URL of its files in the serving API, or its URL in an object store.
pub(super) async fn fetch(parts: &Parts, place: &Path, api_key: Option<&str>) -> anyhow::Result<Fetched> {
    match place.to_str().filter(|p| p.contains("://")) {
        Some(url) if url.starts_with("http://") => Ok(Fetched::Copy(settlement(url, api_key).await?)),
        Some(url) => {
            let (root, copy) = (parts.settings().object_store.root(url, Path::new(""))?, tempfile::tempdir()?);
            let files = ::reconcile::download::download(&root, copy.path()).await?;
            if files == 0 {
                return Err(Usage(format!("{url} holds no files")).into());
            }
            Ok(Fetched::Copy(copy))
        }
        None => Ok(Fetched::Here(place.to_owned())),
    }
}

/// The folder with every file of the settlement at `url`: `http://HOST:PORT/v1/reports/reconcile/DAY/files`, with
/// `?version=N` for an older one.
async fn settlement(url: &str, api_key: Option<&str>) -> anyhow::Result<TempDir> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !path.contains("/files") {
        return Err(Usage(format!("{url}: a settlement's URL ends in /v1/reports/reconcile/DAY/files")).into());
    }
    let mut client = Client::of_url(&format!("http://{authority}")).await?;
    let listed: Value = serde_json::from_slice(&get(&mut client, path, api_key).await?).context("the list of files")?;
    let files = listed["files"].as_array().into_iter().flatten().map(|file| &file["url"]);
    let folder = tempfile::tempdir()?;
    for at in ["manifest", "signature", "checksums"].into_iter().map(|name| &listed[name]).chain(files) {
        let at = at.as_str().context("the server lists a file without a URL")?;
        let name = at.rsplit('/').next().unwrap_or_default();
        ensure!(!name.is_empty() && !name.starts_with('.') && !name.contains('\\'), "the server names a file {name:?}");
        std::fs::write(folder.path().join(name), get(&mut client, at, api_key).await?)?;
    }
    Ok(folder)
}

async fn get(client: &mut Client, path: &str, api_key: Option<&str>) -> anyhow::Result<Bytes> {
    let bearer = api_key.map(|key| format!("Bearer {key}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|b| ("authorization", b.as_str())).collect();
    let answer = client.send("GET", path, &headers, Bytes::new()).await?;
    let text = || String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status == 200 {
        Ok(answer.body)
    } else {
        Err(Usage(format!("GET {path}: {} {}", answer.status, text())).into())
    }
}

//! A settlement that the serving API offers → a folder like the published one, for `settlement verify URL`.
//! Plain http, as our client; a server behind TLS is asked through its proxy, or its files are taken by hand.
//! Never: writes outside the folder, whatever the server calls its files.

use anyhow::{Context, ensure};
use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::exit::Usage;

/// The folder with every file of the settlement at `url`: `http://HOST:PORT/v1/reports/reconcile/DAY/files`, with
/// `?version=N` for an older one.
pub(super) async fn settlement(url: &str, api_key: Option<&str>) -> anyhow::Result<TempDir> {
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

//! Settlement files for finance: `GET /v1/reports/reconcile/{date}/files` and the downloads it names.
//! Guarantees: only what a published manifest lists is handed out, found by its name in the manifest and never by a
//! path from the request; a download's `ETag` is the manifest's own SHA-256.
//! Never: writes, or shows a settlement whose manifest is not there yet.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shared::error::ErrorKind;
use shared::http::problem::Problem;
use shared::time::Day;
use utoipa::{IntoParams, ToSchema};

use crate::access::Caller;
use crate::answer;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::objects;
use crate::params::{self, Params};
use crate::problems::{ReportError, not_found};
use crate::tiles::Tile;

const MANIFEST: &str = "manifest.json";
const CHECKSUMS: &str = "SHA256SUMS";
const SIGNATURE: &str = "manifest.sig";
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// Which settlement.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FilesParams {
    /// A version of the day's settlement. Default: the newest.
    version: Option<u32>,
}

/// A day's published settlement.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettlementFiles {
    day: String,
    version: u32,
    /// Every published version, oldest first.
    versions: Vec<u32>,
    /// settled: published and never changed again; corrections are a new version.
    finality: String,
    /// The end of the day: every event of the day is in it.
    as_of: String,
    /// Where the manifest is.
    manifest: String,
    /// SHA-256 of the manifest, lower-case hex.
    manifest_checksum: String,
    /// Where the checksum list is (`sha256sum --check`).
    checksums: String,
    /// Where the manifest's signature is.
    signature: String,
    files: Vec<SettlementFile>,
}

/// One file of lines.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SettlementFile {
    /// Where it is, relative to this server.
    url: String,
    /// Its name.
    name: String,
    /// SHA-256, lower-case hex.
    checksum: String,
    /// Its size.
    bytes: u64,
    /// Its lines.
    row_count: u64,
}

/// What we read of a manifest.
#[derive(Debug, Deserialize)]
struct ManifestForm {
    files: Vec<FileForm>,
    #[serde(default)]
    attachments: Vec<FileForm>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileForm {
    path: String,
    sha256: String,
    bytes: u64,
    row_count: u64,
}

fn folder(day: Day, version: u32) -> String {
    format!("settlement/day={day}/v={version}")
}

/// Published versions of a day, oldest first: those whose manifest is there.
async fn versions(store: &dyn ObjectStore, day: Day) -> Result<Vec<u32>, object_store::Error> {
    let (_, names) = objects::list(store, &ObjectPath::from(format!("settlement/day={day}"))).await?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|n| n.strip_prefix("v=")?.parse().ok()).collect();
    numbers.sort_unstable();
    let mut published = Vec::new();
    for version in numbers {
        match store.head(&ObjectPath::from(format!("{}/{MANIFEST}", folder(day, version)))).await {
            Ok(_) => published.push(version),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(published)
}

/// The newest published version of a day.
pub(crate) async fn newest(store: &dyn ObjectStore, day: Day) -> Result<Option<u32>, object_store::Error> {
    Ok(versions(store, day).await?.pop())
}

async fn manifest(store: &dyn ObjectStore, day: Day, version: u32) -> Result<bytes::Bytes, ReportError> {
    let path = ObjectPath::from(format!("{}/{MANIFEST}", folder(day, version)));
    let none =
        || not_found(format!("there is no settlement {version} of {day}"), "list the day's files without a version");
    Ok(objects::read(store, &path).await?.ok_or_else(none)?)
}

/// The files of a day's settlement. Scope settlement, operator only: they hold all tenants.
#[utoipa::path(
    get, path = "/v1/reports/reconcile/{date}/files", tag = "settlement",
    params(("date" = String, Path, description = "A UTC day, such as 2026-01-05"), FilesParams),
    responses(
        (status = 200, description = "The files", body = SettlementFiles),
        (status = 304, description = "Nothing changed since If-None-Match"),
        (status = 401, description = "No valid API key"),
        (status = 403, description = "Not the operator's key, or without the scope settlement"),
        (status = 404, description = "The day is not settled"),
    ),
)]
pub(crate) async fn files(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(date): Path<String>,
    Params(asked): Params<FilesParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Settlement)?;
    caller.needs_operator()?;
    let day = params::date(&date)?;
    let key = format!("files|{day}|{:?}", asked.version);
    let tile = context.tiles.get(key, context.now(), make(&*context.objects, day, asked.version)).await?;
    Ok(answer::json(&tile, &headers))
}

async fn make(store: &dyn ObjectStore, day: Day, version: Option<u32>) -> Result<Tile, ReportError> {
    let versions = versions(store, day).await?;
    let version = match version.or(versions.last().copied()) {
        Some(version) if versions.contains(&version) => version,
        Some(version) => {
            let fix = format!("published versions: {versions:?}");
            return Err(not_found(format!("there is no settlement {version} of {day}"), fix).into());
        }
        None => return Err(not_found(format!("{day} is not settled yet"), "see /v1/sla for when it will be").into()),
    };
    let bytes = manifest(store, day, version).await?;
    let form: ManifestForm = serde_json::from_slice(&bytes)?;
    let url = |name: &str| format!("/v1/reports/reconcile/{day}/files/{version}/{name}");
    let file = |f: FileForm| SettlementFile {
        url: url(&f.path),
        name: f.path,
        checksum: f.sha256,
        bytes: f.bytes,
        row_count: f.row_count,
    };
    Tile::new(&SettlementFiles {
        day: day.to_string(),
        version,
        versions,
        finality: "settled".to_owned(),
        as_of: day.end().to_string(),
        manifest: url(MANIFEST),
        manifest_checksum: hex(&Sha256::digest(&bytes)),
        checksums: url(CHECKSUMS),
        signature: url(SIGNATURE),
        files: form.files.into_iter().chain(form.attachments).map(file).collect(),
    })
}

/// One file of a settlement, named in its manifest. Scope settlement, operator only.
#[utoipa::path(
    get, path = "/v1/reports/reconcile/{date}/files/{version}/{name}", tag = "settlement",
    params(
        ("date" = String, Path, description = "A UTC day, such as 2026-01-05"),
        ("version" = u32, Path, description = "The settlement's version"),
        ("name" = String, Path, description = "A file of the manifest, manifest.json, manifest.sig or SHA256SUMS"),
    ),
    responses(
        (status = 200, description = "The file; ETag is its SHA-256", content_type = "application/octet-stream"),
        (status = 304, description = "You have it"),
        (status = 401, description = "No valid API key"),
        (status = 403, description = "Not the operator's key, or without the scope settlement"),
        (status = 404, description = "No such settlement, or its manifest does not name the file"),
    ),
)]
pub(crate) async fn download(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path((date, version, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Settlement)?;
    caller.needs_operator()?;
    let day = params::date(&date)?;
    let version = version.parse().map_err(|_| not_found("a version is a number", "list the day's files"))?;
    Ok(send(&*context.objects, day, version, &name, &headers).await?)
}

async fn send(
    store: &dyn ObjectStore,
    day: Day,
    version: u32,
    name: &str,
    request: &HeaderMap,
) -> Result<Response, ReportError> {
    let manifest = manifest(store, day, version).await?;
    let form: ManifestForm = serde_json::from_slice(&manifest)?;
    if name == MANIFEST {
        return Ok(whole(MANIFEST, manifest, request));
    }
    // From here on the name is one we wrote, not the one that was asked for.
    let listed = form.files.iter().chain(&form.attachments).find(|f| f.path == name);
    let own_name = match listed {
        Some(file) => file.path.as_str(),
        None if name == CHECKSUMS => CHECKSUMS,
        None if name == SIGNATURE => SIGNATURE,
        None => {
            let fix = format!("see /v1/reports/reconcile/{day}/files?version={version}");
            return Err(not_found("the manifest names no such file", fix).into());
        }
    };
    let path: ObjectPath = ObjectPath::from(folder(day, version)).join(own_name);
    let Some(file) = listed else {
        let bytes = objects::read(store, &path).await?.ok_or_else(|| damaged(own_name))?;
        return Ok(whole(own_name, bytes, request));
    };
    let etag = format!("\"{}\"", file.sha256);
    if answer::knows(request, &etag) {
        return Ok(described(StatusCode::NOT_MODIFIED.into_response(), own_name, &file.sha256));
    }
    let found = match store.get(&path).await {
        Ok(found) if found.meta.size == file.bytes => found,
        Ok(_) | Err(object_store::Error::NotFound { .. }) => return Err(damaged(own_name).into()),
        Err(error) => return Err(error.into()),
    };
    let mut response = Body::from_stream(found.into_stream()).into_response();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(file.bytes));
    Ok(described(response, own_name, &file.sha256))
}

fn whole(name: &str, bytes: bytes::Bytes, request: &HeaderMap) -> Response {
    let sha256 = hex(&Sha256::digest(&bytes));
    let response = if answer::knows(request, &format!("\"{sha256}\"")) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(bytes).into_response()
    };
    described(response, name, &sha256)
}

/// Names and types the download. It never changes, so it may be kept for ever.
fn described(mut response: Response, name: &str, sha256: &str) -> Response {
    let kind = match name {
        n if n.ends_with(".parquet") => "application/vnd.apache.parquet",
        n if n.ends_with(".csv.gz") => "application/gzip",
        n if n.ends_with(".json") || n == SIGNATURE => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let digest = unhex(sha256).map(|b| format!("sha-256=:{}:", STANDARD.encode(b)));
    let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let disposition = is_plain.then(|| format!("attachment; filename=\"{name}\""));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    headers.insert(VARY, HeaderValue::from_static("authorization, cookie"));
    let more = [(ETAG, Some(format!("\"{sha256}\""))), (REPR_DIGEST, digest), (CONTENT_DISPOSITION, disposition)];
    for (header, value) in more {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
            headers.insert(header, value);
        }
    }
    response
}

fn damaged(name: &str) -> Problem {
    tracing::error!(name, "a settlement's manifest names a file that is not there or has another size");
    let fix = "tell the operator to run `clickledger settlement verify`";
    Problem::of_kind(ErrorKind::Corrupt, format!("the settlement is damaged at {name}"), fix)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

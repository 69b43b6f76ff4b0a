//! Drift reports and settlement files: what reconcile wrote is handed on whole, by manifest only.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

const DAY: &str = "2026-01-04";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a settlement as reconcile does: the manifest last.
async fn publish(api: &Api, version: u32, lines: &[u8]) {
    let folder = format!("settlement/day={DAY}/v={version}");
    api.put(&format!("{folder}/lines-0000.csv.gz"), lines.to_vec()).await;
    api.put(&format!("{folder}/SHA256SUMS"), format!("{}  lines-0000.csv.gz\n", hex(lines))).await;
    api.put(&format!("{folder}/manifest.sig"), "{}\n").await;
    api.put(&format!("{folder}/secret.txt"), "not in the manifest").await;
    let manifest = serde_json::json!({
        "schemaVersion": 1, "day": DAY, "version": version,
        "files": [{ "path": "lines-0000.csv.gz", "sha256": hex(lines), "bytes": lines.len(), "rowCount": 3 }],
    });
    api.put(&format!("{folder}/manifest.json"), manifest.to_string()).await;
}

fn counts(n: u64) -> Value {
    serde_json::json!({ "impressions": n, "clicks": n, "conversions": 0, "costNanos": (n * 1_500).to_string() })
}

fn campaign(id: &str, shown: u64, exact: u64) -> Value {
    serde_json::json!({ "campaignId": id, "currency": "EUR", "shown": counts(shown), "exact": counts(exact) })
}

pub(super) fn drift_report() -> Value {
    let pair = |shown, exact| serde_json::json!({ "EUR": { "shown": counts(shown), "exact": counts(exact) } });
    serde_json::json!({
        "schemaVersion": 1, "day": DAY, "run": 1, "status": "corrected", "campaignHoursDiffering": 2,
        "before": pair(12, 10), "after": pair(10, 10),
        "hours": [
            { "hour": "2026-01-04T07:00:00Z", "before": pair(12, 10),
              "campaigns": [campaign("c1", 7, 6), campaign("c2", 5, 4)] },
            { "hour": "2026-01-04T08:00:00Z", "before": pair(0, 0), "campaigns": [] },
        ],
    })
}

#[tokio::test]
async fn a_drift_report_is_whole_for_the_operator_and_their_own_for_a_tenant() {
    let api = Api::start().await;
    assert_problem(&api.get(&format!("/v1/drift/{DAY}"), &api.operator).await, 404);
    api.put(&format!("reports/drift/day={DAY}.json"), drift_report().to_string()).await;
    let whole = api.get(&format!("/v1/drift/{DAY}"), &api.operator).await;
    assert_eq!(whole.json(), drift_report());
    let own = api.get(&format!("/v1/drift/{DAY}"), &api.tenant).await.json();
    let expected = serde_json::json!({
        "schemaVersion": 1, "day": DAY, "run": 1, "status": "corrected",
        "hours": [{ "hour": "2026-01-04T07:00:00Z", "campaigns": [campaign("c1", 7, 6)] }],
    });
    assert_eq!(own, expected, "no sum over others, no other campaign");
}

#[tokio::test]
async fn a_settlement_is_listed_and_downloads_to_the_bytes_of_its_checksum() {
    let api = Api::start().await;
    let list = format!("/v1/reports/reconcile/{DAY}/files");
    assert_problem(&api.get(&list, &api.operator).await, 404);
    publish(&api, 1, b"first").await;
    publish(&api, 2, b"restated").await;
    // A third is being written: no manifest yet.
    api.put(&format!("settlement/day={DAY}/v=3/lines-0000.csv.gz"), "half").await;
    let body = api.get(&list, &api.operator).await.json();
    assert_eq!((&body["version"], &body["versions"]), (&2.into(), &serde_json::json!([1, 2])));
    assert_eq!((&body["finality"], &body["asOf"]), (&"settled".into(), &"2026-01-05T00:00:00Z".into()));
    let file = &body["files"][0];
    assert_eq!((&file["rowCount"], &file["checksum"]), (&3.into(), &hex(b"restated").into()));
    let download = api.get(file["url"].as_str().unwrap(), &api.operator).await;
    assert_eq!((download.status.as_u16(), &download.bytes[..]), (200, &b"restated"[..]));
    assert_eq!(download.header("etag"), format!("\"{}\"", hex(b"restated")));
    assert!(download.header("repr-digest").starts_with("sha-256=:"));
    assert_eq!(download.header("content-type"), "application/gzip");
    assert_eq!(download.header("content-disposition"), "attachment; filename=\"lines-0000.csv.gz\"");
    let manifest = api.get(body["manifest"].as_str().unwrap(), &api.operator).await;
    assert_eq!(hex(&manifest.bytes), body["manifestChecksum"].as_str().unwrap());
    let sums = api.get(body["checksums"].as_str().unwrap(), &api.operator).await;
    assert!(sums.text().contains("lines-0000.csv.gz"));
    let signature = api.get(body["signature"].as_str().unwrap(), &api.operator).await;
    assert_eq!((signature.text(), signature.header("content-type")), ("{}\n", "application/json"));
    let first = api.get(&format!("{list}?version=1"), &api.operator).await.json();
    assert_eq!(first["files"][0]["checksum"], hex(b"first"), "an older version stays to be had");
    assert_problem(&api.get(&format!("{list}?version=3"), &api.operator).await, 404);
}

#[tokio::test]
async fn who_has_the_file_is_not_sent_it_again() {
    let api = Api::start().await;
    publish(&api, 1, b"lines").await;
    let bearer = format!("Bearer {}", api.operator);
    for name in ["lines-0000.csv.gz", "manifest.json", "SHA256SUMS"] {
        let path = format!("/v1/reports/reconcile/{DAY}/files/1/{name}");
        let etag = api.get(&path, &api.operator).await.header("etag").to_owned();
        let again = [("authorization", bearer.as_str()), ("if-none-match", etag.as_str())];
        let again = api.send(Method::GET, &path, &again, "").await;
        assert_eq!((again.status.as_u16(), again.bytes.len()), (304, 0), "{name}");
    }
}

#[tokio::test]
async fn a_damaged_settlement_is_an_error_and_not_a_short_file() {
    let api = Api::start().await;
    publish(&api, 1, b"lines").await;
    let path = format!("settlement/day={DAY}/v=1/lines-0000.csv.gz");
    let url = format!("/v1/reports/reconcile/{DAY}/files/1/lines-0000.csv.gz");
    api.put(&path, "line").await;
    assert_problem(&api.get(&url, &api.operator).await, 500);
    api.objects.delete(&Path::from(path)).await.unwrap();
    assert_problem(&api.get(&url, &api.operator).await, 500);
}

fn is_refused(api: &Api, answer: &Answer, name: &str) {
    assert!([400, 404, 414].contains(&answer.status.as_u16()), "{name}: {}", answer.status);
    assert!(!answer.text().contains("not in the manifest") && !answer.text().contains("half"), "{name}");
    assert!(!api.running.is_finished());
}

#[tokio::test]
async fn no_path_leads_out_of_the_manifest() {
    let api = Api::start().await;
    publish(&api, 1, b"lines").await;
    api.put("secret.txt", "not in the manifest").await;
    for name in [
        "secret.txt",
        "..%2fv=1%2fsecret.txt",
        "..%2f..%2f..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        "..%5csecret.txt",
        "....%2f%2fsecret.txt",
        "%2fsecret.txt",
        "lines-0000.csv.gz%00",
        "lines-0000.csv.gz%2f..%2fsecret.txt",
        "LINES-0000.csv.gz",
        "lines-0000.csv.gz.",
        "..",
        ".",
        "%2e%2e",
        "%ff%fe",
        "a%0d%0aset-cookie:%20x=1",
        "v=1/secret.txt",
    ] {
        let path = format!("/v1/reports/reconcile/{DAY}/files/1/{name}");
        is_refused(&api, &api.get(&path, &api.operator).await, name);
    }
    for path in [
        "/v1/reports/reconcile/..%2f..%2fsecret/files",
        "/v1/reports/reconcile/2026-01-04%2f..%2f2026-01-04/files",
        "/v1/reports/reconcile/2026-01-04/files/..%2f1/manifest.json",
        "/v1/reports/reconcile/2026-01-04/files/01x/manifest.json",
        "/v1/reports/reconcile/2026-01-04/files/4294967296/manifest.json",
        "/v1/drift/..%2f..%2fsecret",
        "/dashboard/..%2fsecret.txt",
    ] {
        is_refused(&api, &api.get(path, &api.operator).await, path);
    }
}

#[test]
fn any_name_is_answered_with_the_listed_file_or_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let api = runtime.block_on(async {
        let api = Api::start().await;
        publish(&api, 1, b"lines").await;
        api
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    let names = prop_oneof!["[ -~]{1,40}", "(\\.\\.|%2e|%2f|%5c|secret|lines-0000|\\.txt|\\.csv\\.gz|v=1|/){1,8}"];
    let outcome = runner.run(&names, |name| {
        let clean: String = name.chars().filter(|c| !" \"<>\\^`{|}#?".contains(*c)).collect();
        let path = format!("/v1/reports/reconcile/{DAY}/files/1/x{clean}");
        if path.parse::<http::Uri>().is_ok() {
            let answer = runtime.block_on(api.get(&path, &api.operator));
            is_refused(&api, &answer, &clean);
        }
        Ok(())
    });
    outcome.unwrap();
}

/// A store whose files of lines are a tebibyte each and come to a halt after what was put.
#[derive(Debug)]
struct Endless(Arc<dyn ObjectStore>);

const TEBIBYTE: u64 = 1 << 40;

impl std::fmt::Display for Endless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endless({})", self.0)
    }
}

#[async_trait]
impl ObjectStore for Endless {
    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let mut found = self.0.get_opts(at, options).await?;
        if at.as_ref().ends_with(".csv.gz") {
            found.meta.size = TEBIBYTE;
            found.range = 0..TEBIBYTE;
            let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let payload = GetResultPayload::Stream(found.into_stream().chain(stream::pending()).boxed());
            return Ok(GetResult { payload, meta, range, attributes });
        }
        Ok(found)
    }
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.0.put_opts(at, payload, options).await
    }
    async fn put_multipart_opts(&self, at: &Path, o: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, o).await
    }
    fn delete_stream(&self, at: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(at)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_download_begins_before_the_store_has_handed_out_the_file_however_large_it_is() {
    let api = Api::start_on(|objects| Arc::new(Endless(objects)), |_| {}).await;
    publish(&api, 1, b"the first of many lines").await;
    let manifest = serde_json::json!({
        "schemaVersion": 1, "day": DAY, "version": 1,
        "files": [{ "path": "lines-0000.csv.gz", "sha256": hex(b"x"), "bytes": TEBIBYTE, "rowCount": 3 }],
    });
    api.put(&format!("settlement/day={DAY}/v=1/manifest.json"), manifest.to_string()).await;
    let path = format!("/v1/reports/reconcile/{DAY}/files/1/lines-0000.csv.gz");
    let key = format!("Bearer {}", api.operator);
    let mut answer = api.begin(Method::GET, &path, &[("authorization", &key)], "").await;
    assert_eq!((answer.status(), &answer.headers()["content-length"]), (StatusCode::OK, &TEBIBYTE.into()));
    let first = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "the first of many lines");
}

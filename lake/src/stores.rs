//! Which object store a URL names, and how to reach it: S3 and whatever speaks it, Google's and Azure's.
//! Guarantee: a store is used only with conditional puts, which every commit rests on; requests and their repetitions
//! end in bounded time.
//! Never: holds a secret in the settings; a key is read from a file or the environment, and again by every process.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span};
use url::Url;

use crate::error::Error;
use crate::root::LakeRoot;

/// The schemes of stores: what each needs, and the feature that builds it in.
const SCHEMES: [(&str, Kind); 7] = [
    ("s3", Kind::S3),
    ("s3a", Kind::S3),
    ("gs", Kind::Gcs),
    ("az", Kind::Azure),
    ("azure", Kind::Azure),
    ("abfs", Kind::Azure),
    ("abfss", Kind::Azure),
];
/// Parts of an option's name that say its value is a secret.
const SECRETS: [&str; 6] = ["secret", "token", "password", "account_key", "sas_key", "key_base64"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Gcs,
    Azure,
}

/// Where lake and publications are, and how their stores are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The lake: `s3://bucket/path`, `gs://…`, `az://container/path`; empty: `lake/` in the data folder.
    pub lake_url: String,
    /// What `settlement/` and `reports/` are in, likewise; empty: the data folder.
    pub published_url: String,
    /// The address of an S3 that is not Amazon's, such as `https://minio:9000`.
    pub endpoint: String,
    /// The region; empty: `AWS_REGION`, or `us-east-1`.
    pub region: String,
    /// Whether the store may be asked without TLS.
    pub allow_http: bool,
    /// The S3 access key; empty: `AWS_ACCESS_KEY_ID`, or the machine's own role.
    pub access_key_id: String,
    /// The file that holds its secret; empty: `AWS_SECRET_ACCESS_KEY`, or the machine's own role.
    pub secret_access_key_file: PathBuf,
    /// How long opening a connection may take.
    pub connect_timeout: Span,
    /// How long one request may take.
    pub request_timeout: Span,
    /// So many times a failed request is repeated, …
    pub max_retries: u16,
    /// … and for so long. After that whoever asked begins again from what is committed.
    pub retry_timeout: Span,
    /// The `object_store` crate's own options, such as `azure_storage_account_name`. Secrets do not belong here.
    pub options: BTreeMap<String, String>,
    /// Options whose value is the content of a file: `azure_storage_account_key = "/run/secrets/azure"`.
    pub option_files: BTreeMap<String, PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lake_url: String::new(),
            published_url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            allow_http: false,
            access_key_id: String::new(),
            secret_access_key_file: PathBuf::new(),
            connect_timeout: Span::secs(5),
            request_timeout: Span::secs(30),
            max_retries: 10,
            retry_timeout: Span::secs(60),
            options: BTreeMap::new(),
            option_files: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Everything that cannot be used.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut must = |good: bool, name: &str, why: &str| {
            if !good {
                problems.push(Problem::new(format!("object_store.{name}"), why));
            }
        };
        for (name, url) in [("lake_url", &self.lake_url), ("published_url", &self.published_url)] {
            let good = url.is_empty() || is_store(url);
            must(good, name, "use s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH, or nothing for a folder");
        }
        let plain = self.endpoint.starts_with("http://");
        must(!plain || self.allow_http, "endpoint", "has no TLS: use https://, or set object_store.allow_http");
        must(
            self.endpoint.is_empty() || plain || self.endpoint.starts_with("https://"),
            "endpoint",
            "must begin with https:// or http://",
        );
        let has_secret = !self.secret_access_key_file.as_os_str().is_empty();
        must(
            self.access_key_id.is_empty() != has_secret,
            "access_key_id",
            "is set together with object_store.secret_access_key_file, or neither is",
        );
        let short = Span::millis(100)..=Span::secs(600);
        must(short.contains(&self.connect_timeout), "connect_timeout", "must be between 100ms and 10m");
        must(short.contains(&self.request_timeout), "request_timeout", "must be between 100ms and 10m");
        must(self.retry_timeout <= Span::secs(240), "retry_timeout", "must be at most 4m, or signatures grow old");
        for name in self.options.keys().chain(self.option_files.keys()) {
            let why = "is what every commit rests on: it cannot be set";
            must(!name.ends_with("conditional_put"), &format!("options.{name}"), why);
        }
        for name in self.options.keys().filter(|n| SECRETS.iter().any(|s| n.contains(s)) && !n.ends_with("_file")) {
            let why = "is a secret: put it into a file and name that in object_store.option_files";
            must(false, &format!("options.{name}"), why);
        }
        problems
    }

    /// The root at `url` (a store's or `file:///folder`), or the folder where there is none.
    ///
    /// # Errors
    /// `Invalid` when the store is not built in or its settings cannot be used; `Unavailable` when the folder cannot be
    /// made.
    pub fn root(&self, url: &str, folder: &FsPath) -> Result<LakeRoot, Error> {
        if url.is_empty() {
            return LakeRoot::open_folder(folder);
        }
        let url = Url::parse(url).map_err(|e| Error::Invalid(format!("{url:?} is not a URL: {e}")))?;
        if let Some(folder) = folder_of(&url) {
            return LakeRoot::open_folder(&folder);
        }
        LakeRoot::with_store(self.open(&url)?, url)
    }

    /// The store that `url` names; its paths start at the bucket's root.
    fn open(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, Error> {
        let opened: Result<Arc<dyn ObjectStore>, String> = match kind(url) {
            #[cfg(feature = "s3")]
            Some(Kind::S3) => self.s3(url),
            #[cfg(feature = "gcs")]
            Some(Kind::Gcs) => self.gcs(url),
            #[cfg(feature = "azure")]
            Some(Kind::Azure) => self.azure(url),
            #[allow(unreachable_patterns)] // where all are built in
            Some(kind) => Err(format!("this program was built without {kind:?}")),
            None => Err("use s3://, gs:// or az://".to_owned()),
        };
        opened.map_err(|why| Error::Invalid(format!("cannot open {url}: {why}")))
    }
}

/// Whether `url` names a store or, as `file:///folder`, a folder.
#[must_use]
pub fn is_place(url: &str) -> bool {
    is_store(url) || Url::parse(url).is_ok_and(|url| folder_of(&url).is_some())
}

fn is_store(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| url.host_str().is_some() && kind(&url).is_some())
}

fn folder_of(url: &Url) -> Option<PathBuf> {
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

fn kind(url: &Url) -> Option<Kind> {
    SCHEMES.iter().find(|(scheme, _)| *scheme == url.scheme()).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(Settings::default().problems(), []);
        assert!(problem(|s| s.lake_url = "http://bucket/lake".into()).starts_with("object_store.lake_url: use s3://"));
        assert!(problem(|s| s.published_url = "s3:bucket".into()).starts_with("object_store.published_url: use s3://"));
        assert!(problem(|s| s.endpoint = "http://minio:9000".into()).contains("allow_http"));
        assert!(problem(|s| s.access_key_id = "key".into()).contains("secret_access_key_file"));
        let one = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        assert!(problem(|s| s.options = one("aws_conditional_put")).contains("cannot be set"));
        assert!(problem(|s| s.options = one("azure_storage_account_key")).contains("option_files"));
        assert_eq!(problem(|s| s.options = one("aws_web_identity_token_file")), "");
    }

    #[cfg(all(feature = "azure", feature = "gcs", feature = "s3"))]
    #[test]
    fn a_url_alone_chooses_the_store_and_an_error_names_what_is_missing() {
        let mut settings = Settings::default();
        let open = |settings: &Settings, url: &str| settings.root(url, FsPath::new("")).map_err(|e| e.to_string());
        let nameless = open(&settings, "az://container/lake").unwrap_err();
        assert!(nameless.contains("az://container/lake") && nameless.contains("Account"), "{nameless}");
        settings.options.insert("azure_storage_account_name".into(), "account".into());
        for url in ["az://container/lake", "gs://bucket/lake", "s3://bucket/lake"] {
            let root = open(&settings, url).unwrap();
            assert_eq!(root.path("gold").as_ref(), "lake/gold");
            let store = root.store().to_string();
            let name = match &url[..2] {
                "az" => "Azure",
                "gs" => "GoogleCloud",
                _ => "AmazonS3",
            };
            assert!(store.contains(name), "{url} opened {store}");
        }
        settings.options.insert("no_such".into(), "x".into());
        assert!(open(&settings, "s3://bucket/lake").unwrap_err().contains("object_store.options.no_such"));
    }
}

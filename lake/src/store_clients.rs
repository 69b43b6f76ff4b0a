//! The clients of the stores that are built in, made from the environment's options and the settings' own.
//! Guarantee: of options that both name, the settings' win; the conditional put stays on.
//! Never: shows a value.

use std::ffi::OsString;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use object_store::{ClientOptions, ObjectStore, RetryConfig};
use shared::config::file_text;
use url::Url;

use crate::stores::Settings;

type Opened = Result<Arc<dyn ObjectStore>, String>;

/// How the names of options begin, by store.
const PREFIXES: [&str; 3] = ["aws_", "azure_", "google_"];

impl Settings {
    #[cfg(feature = "s3")]
    pub(crate) fn s3(&self, url: &Url) -> Opened {
        use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, S3ConditionalPut};

        let mut options = self.given::<Key>("aws_")?;
        if !self.access_key_id.is_empty() && !self.option_files.keys().any(|name| name.ends_with("token")) {
            options.retain(|(key, _)| *key != Key::Token); // the environment's belongs to the environment's key
        }
        let secret = &self.secret_access_key_file;
        if !secret.as_os_str().is_empty() {
            options.push((Key::SecretAccessKey, content(secret)?));
        }
        let own =
            [(Key::Endpoint, &self.endpoint), (Key::Region, &self.region), (Key::AccessKeyId, &self.access_key_id)];
        options.extend(own.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, v.clone())));
        let builder = AmazonS3Builder::new().with_client_options(self.client()).with_retry(self.retry());
        let builder = options.into_iter().fold(builder, |b, (key, value)| b.with_config(key, value));
        // After the options: the environment can neither name another bucket nor switch the condition off.
        let store = builder.with_url(url.as_str()).with_conditional_put(S3ConditionalPut::ETagMatch).build();
        Ok(Arc::new(store.map_err(|e| e.to_string())?))
    }

    #[cfg(feature = "gcs")]
    pub(crate) fn gcs(&self, url: &Url) -> Opened {
        use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};

        let builder = GoogleCloudStorageBuilder::new().with_client_options(self.client()).with_retry(self.retry());
        let options = self.given::<GoogleConfigKey>("google_")?;
        let builder = options.into_iter().fold(builder, |b, (key, value)| b.with_config(key, value));
        Ok(Arc::new(builder.with_url(url.as_str()).build().map_err(|e| e.to_string())?))
    }

    #[cfg(feature = "azure")]
    pub(crate) fn azure(&self, url: &Url) -> Opened {
        use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

        let builder = MicrosoftAzureBuilder::new().with_client_options(self.client()).with_retry(self.retry());
        let options = self.given::<AzureConfigKey>("azure_")?;
        let builder = options.into_iter().fold(builder, |b, (key, value)| b.with_config(key, value));
        Ok(Arc::new(builder.with_url(url.as_str()).build().map_err(|e| e.to_string())?))
    }

    fn client(&self) -> ClientOptions {
        ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_connect_timeout(self.connect_timeout.0)
            .with_timeout(self.request_timeout.0)
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            max_retries: usize::from(self.max_retries),
            retry_timeout: self.retry_timeout.0,
            ..RetryConfig::default()
        }
    }

    /// The environment's variables that begin with `prefix` and are options, then those of the settings, which win.
    fn given<K: FromStr>(&self, prefix: &str) -> Result<Vec<(K, String)>, String> {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?.to_lowercase(), value.into_string().ok()?))
        };
        let around = std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with(prefix));
        let mut options: Vec<(K, String)> =
            around.filter_map(|(name, value)| Some((name.parse().ok()?, value))).collect();
        let ours = |name: &str| name.starts_with(prefix) || !PREFIXES.iter().any(|p| name.starts_with(p));
        let key = |name: &str| name.parse().map_err(|_| format!("object_store.options.{name} is not an option"));
        for (name, value) in self.options.iter().filter(|(name, _)| ours(name)) {
            options.push((key(name)?, value.clone()));
        }
        for (name, file) in self.option_files.iter().filter(|(name, _)| ours(name)) {
            options.push((key(name)?, content(file)?));
        }
        Ok(options)
    }
}

fn content(file: &Path) -> Result<String, String> {
    file_text(file).map_err(|e| e.to_string())
}

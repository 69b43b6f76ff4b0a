//! How to reach Redis. Values only.
//! Never: holds a secret; a password is read from its file.

use std::path::PathBuf;

use redis::{ConnectionInfo, IntoConnectionInfo, TlsCertificates};
use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span, optional_file_text};

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `redis://user@host:port/database`, `rediss://` for TLS, several nodes of a cluster with commas; empty: Redis is
    /// not used, each gateway remembers for itself.
    pub url: String,
    /// Whether `url` names nodes of a Redis cluster.
    pub cluster: bool,
    /// The file that holds the password; empty: none.
    pub password_file: PathBuf,
    /// Certificates to trust instead of the machine's, as PEM; empty: the machine's.
    pub ca_file: PathBuf,
    /// What every key begins with.
    pub prefix: String,
    /// After this long without an answer events pass unclaimed.
    pub timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            cluster: false,
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            prefix: "cl:".to_owned(),
            timeout: Span::millis(50),
        }
    }
}

impl Settings {
    /// Whether Redis is to be used.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.url.is_empty()
    }

    /// Everything wrong with these settings; `prefix` is their place in the file.
    #[must_use]
    pub fn problems(&self, prefix: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(Problem::new(format!("{prefix}.{name}"), why));
            }
        };
        for url in self.urls() {
            match url.into_connection_info() {
                Ok(info) => check(
                    info.redis_settings().password().is_none(),
                    "url",
                    "holds a password: put it into a file and name that in password_file",
                ),
                Err(_) => check(false, "url", "must be redis://host:port or rediss://host:port"),
            }
        }
        let has_tls = self.urls().all(|url| url.starts_with("rediss:"));
        check(has_tls || self.ca_file.as_os_str().is_empty(), "ca_file", "is for TLS: begin the url with rediss://");
        check(self.cluster || self.urls().count() <= 1, "url", "names several nodes: set cluster to true, or name one");
        let is_plain = self.prefix.len() <= 32 && self.prefix.bytes().all(|b| b.is_ascii_graphic());
        check(is_plain, "prefix", "must be at most 32 visible ASCII characters");
        check((Span::millis(1)..=Span::secs(5)).contains(&self.timeout), "timeout", "must be between 1ms and 5s");
        problems
    }

    fn urls(&self) -> impl Iterator<Item = &str> {
        self.url.split(',').map(str::trim).filter(|url| !url.is_empty())
    }

    /// The nodes named, with their password.
    pub(super) fn nodes(&self) -> Result<Vec<ConnectionInfo>, String> {
        let password = optional_file_text(&self.password_file).map_err(|e| e.to_string())?;
        let node = |url: &str| {
            let info = url.into_connection_info().map_err(|e| e.to_string())?;
            let Some(password) = &password else { return Ok(info) };
            let with = info.redis_settings().clone().set_password(password);
            Ok(info.set_redis_settings(with))
        };
        self.urls().map(node).collect()
    }

    /// What TLS trusts, if not what the machine trusts.
    pub(super) fn certificates(&self) -> Result<Option<TlsCertificates>, String> {
        let trusted = optional_file_text(&self.ca_file).map_err(|e| e.to_string())?;
        Ok(trusted.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.into_bytes()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_and_a_password_belongs_into_its_file() {
        let problems =
            |settings: Settings| -> Vec<String> { settings.problems("r").into_iter().map(|p| p.to_string()).collect() };
        assert_eq!(problems(Settings::default()), Vec::<String>::new());
        let said = problems(Settings { url: "redis://:s3cret@h:1,http://h".to_owned(), ..Settings::default() });
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("password_file") && !said.concat().contains("s3cret"), "{said:?}");

        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, "s3cret\n").unwrap();
        let settings = Settings { url: "rediss://me@h:1/2".to_owned(), password_file, ..Settings::default() };
        let node = &settings.nodes().unwrap()[0];
        assert_eq!(node.redis_settings().password(), Some("s3cret"));
        assert_eq!(node.redis_settings().username(), Some("me"));
    }
}

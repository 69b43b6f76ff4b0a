//! How to reach ClickHouse. Values only.
//! Never: holds a secret; the password is read from a file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::config::{Problem, Span, optional_file_text};

/// Where ClickHouse is, and as whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `http://host:8123` or `https://host:8443`; empty: ClickHouse is not used, the store is the embedded one.
    pub url: String,
    /// The store's own database.
    pub database: String,
    /// Who asks; `config/clickhouse-users.xml` has one for each role.
    pub user: String,
    /// The file that holds the password; empty: none.
    pub password_file: PathBuf,
    /// The certificates that TLS trusts, as PEM; empty: those of this machine.
    pub ca_file: PathBuf,
    /// A call without an answer fails after this long; a write may be there nevertheless.
    pub timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            database: "clickledger".to_owned(),
            user: "default".to_owned(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            timeout: Span::secs(30),
        }
    }
}

impl Settings {
    /// Whether ClickHouse is to be used.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.url.is_empty()
    }

    pub(super) fn has_tls(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// Everything that cannot be used.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(Problem::new(format!("clickhouse.{name}"), why));
            }
        };
        let host = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        check(
            self.url.is_empty() || host.is_some_and(|h| !h.is_empty() && !h.contains(['@', '?', '#', ' '])),
            "url",
            "must be http://host:port or https://host:port; user and password are settings of their own",
        );
        let no_file = self.ca_file.as_os_str().is_empty();
        check(no_file || self.has_tls(), "ca_file", "is for TLS: begin the url with https://");
        check(is_name(&self.database), "database", "must be 1 to 64 of a-z A-Z 0-9 _ and not begin with a digit");
        check(!self.user.is_empty(), "user", "must not be empty");
        check((Span::secs(1)..=Span::secs(600)).contains(&self.timeout), "timeout", "must be between 1s and 10m");
        problems
    }

    /// The password, if there is one.
    pub(super) fn password(&self) -> std::io::Result<Option<String>> {
        optional_file_text(&self.password_file)
    }
}

fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=64).contains(&name.len()) && name.chars().all(fine) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_password_in_it_is_refused() {
        assert_eq!(Settings::default().problems(), Vec::new());
        let fields = |url: &str| {
            let settings = Settings { url: url.to_owned(), ..Settings::default() };
            settings.problems().into_iter().map(|p| p.field).collect::<Vec<_>>()
        };
        assert_eq!(fields("https://clickhouse.example:8443"), Vec::<String>::new());
        for bad in ["clickhouse:8123", "http://", "http://me:secret@clickhouse:8123", "http://clickhouse/?user=me"] {
            assert_eq!(fields(bad), ["clickhouse.url"], "{bad}");
        }
        let plain = Settings { url: "http://h:1".to_owned(), ca_file: "ca.pem".into(), ..Settings::default() };
        assert_eq!(plain.problems()[0].field, "clickhouse.ca_file");
    }
}

//! How to reach the database. Values only.
//! Never: holds a secret; a password is read from its file.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::config::{Problem, Span, optional_file_text};

/// Where the directory is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `postgres://user@host:port/database?sslmode=require`; empty: PostgreSQL is not used, the directory is a file. TLS
    /// is used with `sslmode=require` and only then, and always checks the server's certificate.
    pub url: String,
    /// The file that holds the password; empty: none.
    pub password_file: PathBuf,
    /// Certificates to trust instead of the machine's, as PEM; empty: the machine's.
    pub ca_file: PathBuf,
    /// How often to look for changes that nobody told of.
    pub poll_interval: Span,
    /// How long connecting, or an answer, may take.
    pub timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            poll_interval: Span::secs(30),
            timeout: Span::secs(10),
        }
    }
}

impl Settings {
    /// Whether PostgreSQL is to be used.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.url.is_empty()
    }

    /// Everything that cannot be used.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, name: &str, why: &str| {
            if !fine {
                problems.push(Problem::new(format!("postgres.{name}"), why));
            }
        };
        match Config::from_str(&self.url) {
            Ok(config) => {
                let why = "holds a password: put it into a file and name that in postgres.password_file";
                check(config.get_password().is_none(), "url", why);
                let has_tls = config.get_ssl_mode() == SslMode::Require;
                check(
                    has_tls || self.ca_file.as_os_str().is_empty(),
                    "ca_file",
                    "is for TLS: add sslmode=require to the url",
                );
            }
            Err(_) => check(false, "url", "must be postgres://user@host:port/database"),
        }
        let spans = [("poll_interval", self.poll_interval), ("timeout", self.timeout)];
        for (name, span) in spans {
            check((Span::millis(10)..=Span::secs(3_600)).contains(&span), name, "must be between 10ms and 1h");
        }
        problems
    }

    /// What a connection is made with.
    pub(super) fn config(&self) -> Result<Config, String> {
        let mut config = Config::from_str(&self.url).map_err(|e| e.to_string())?;
        config.application_name("clickledger").connect_timeout(self.timeout.0);
        if let Some(password) = optional_file_text(&self.password_file).map_err(|e| e.to_string())? {
            config.password(password);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_and_a_password_belongs_into_its_file() {
        let problems =
            |settings: Settings| -> Vec<String> { settings.problems().into_iter().map(|p| p.to_string()).collect() };
        assert_eq!(problems(Settings::default()), Vec::<String>::new());
        let said = problems(Settings {
            url: "postgres://me:s3cret@h/db".to_owned(),
            ca_file: "ca.pem".into(),
            timeout: Span::millis(0),
            ..Settings::default()
        });
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("password_file") && !said.concat().contains("s3cret"), "{said:?}");
        assert_eq!(problems(Settings { url: "mysql://h".to_owned(), ..Settings::default() }).len(), 1);

        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, "s3cret\n").unwrap();
        let settings = Settings { url: "postgres://me@h/db".to_owned(), password_file, ..Settings::default() };
        assert_eq!(settings.config().unwrap().get_password(), Some(b"s3cret".as_slice()));
    }
}

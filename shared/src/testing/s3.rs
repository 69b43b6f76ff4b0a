//! The bucket that tests use: in the S3 of `tests/parts/s3`, or in the one that `S3_ENDPOINT` names.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use super::parts::Part;

/// A running S3 with a bucket and a key to it.
pub struct S3 {
    part: Part,
    /// The bucket.
    pub bucket: String,
    /// The access key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl S3 {
    /// The S3 that `S3_ENDPOINT` names, with `S3_BUCKET`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; or else one
    /// of the caller's own, with its objects in `folder`.
    ///
    /// # Panics
    /// As [`Part::start`].
    #[must_use]
    pub fn given_or_start(folder: &Path) -> Self {
        Self::of(Part::given_or_start("s3", "S3_ENDPOINT", folder))
    }

    /// One of the caller's own, which can be crashed and made to fail.
    ///
    /// # Panics
    /// As [`Part::start`].
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        Self::of(Part::start("s3", "S3_ENDPOINT", folder))
    }

    fn of(part: Part) -> Self {
        let given = |name: &str, ours: &str| match std::env::var(name) {
            Ok(value) if !part.is_own() => value,
            _ => ours.to_owned(),
        };
        Self {
            bucket: given("S3_BUCKET", "clickledger"),
            access_key_id: given("AWS_ACCESS_KEY_ID", "clickledger-test"),
            secret_access_key: given("AWS_SECRET_ACCESS_KEY", "clickledger-test-secret"),
            part,
        }
    }

    /// Its address.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.part.address
    }

    /// Kills it where it stands and starts it again on the same objects.
    ///
    /// # Panics
    /// When it is not ours, or does not come back.
    pub fn crash_and_restart(&mut self) {
        self.part.crash_and_restart();
    }

    /// Lets the next `times` requests by `method` (`ANY`) whose path has `part` in it go wrong: see
    /// `tests/parts/s3-server`.
    ///
    /// # Panics
    /// When it is not ours.
    pub fn fail(&self, kind: &str, method: &str, part: &str, times: u64) {
        assert!(self.part.is_own(), "only a store of our own fails on demand");
        let host = self.endpoint().trim_start_matches("http://");
        let mut connection = TcpStream::connect(host).unwrap();
        let request = format!("POST /-/fault/{kind}/{method}/{part}/{times} HTTP/1.1\r\nhost: {host}\r\n");
        connection.write_all(format!("{request}connection: close\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

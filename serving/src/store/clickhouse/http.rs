//! What speaks HTTP to ClickHouse, and TLS where the address says https.
//! Guarantee: with https nothing is sent before the server has shown a certificate that `ca_file`, or without one this
//! machine, trusts. Never: falls back to plain text.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clickhouse::Client;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use shared::serving_store::StoreError;

use super::settings::Settings;

/// Unused connections are closed before ClickHouse closes them (after 3 s at the earliest).
const POOL_IDLE: Duration = Duration::from_secs(2);

/// A client for the server's address; asks nothing yet.
pub(super) fn client(settings: &Settings) -> Result<Client, StoreError> {
    let mut pool = Builder::new(TokioExecutor::new());
    pool.pool_idle_timeout(POOL_IDLE).pool_timer(TokioTimer::new());
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    if !settings.has_tls() {
        return Ok(Client::with_http_client(pool.build(tcp)));
    }
    tcp.enforce_http(false);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (file, tls) = (&settings.ca_file, HttpsConnectorBuilder::new());
    let tls = if file.as_os_str().is_empty() {
        let trusted = tls.with_provider_and_native_roots(provider);
        trusted.map_err(|e| cannot("finding what this machine trusts: set clickhouse.ca_file", e))?
    } else {
        tls.with_tls_config(trusting(file, provider).map_err(|e| cannot(&format!("reading {}", file.display()), e))?)
    };
    Ok(Client::with_http_client(pool.build(tls.https_only().enable_http1().wrap_connector(tcp))))
}

fn cannot(doing: &str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable { doing: doing.to_owned(), why: why.to_string() }
}

/// TLS that trusts the certificates in `file` and no others.
fn trusting(file: &Path, provider: Arc<CryptoProvider>) -> std::io::Result<ClientConfig> {
    let pem = std::fs::read(file)?;
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        trusted.add(certificate.map_err(std::io::Error::other)?).map_err(std::io::Error::other)?;
    }
    if trusted.is_empty() {
        return Err(std::io::Error::other("it holds no certificate"));
    }
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(std::io::Error::other)?.with_root_certificates(trusted).with_no_client_auth())
}

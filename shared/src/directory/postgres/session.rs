//! A connection to the database, with its time limits and what it is told meanwhile.
//! Never: waits for an answer longer than `timeout`.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresError, Settings};

/// A connection; dropping it closes it.
pub(super) struct Session {
    pub(super) client: Client,
    /// Somebody told of a change, or the connection ended.
    told: Arc<Notify>,
    within: Duration,
}

impl Session {
    pub(super) async fn open(settings: &Settings) -> Result<Self, PostgresError> {
        let config = settings.config().map_err(PostgresError::Settings)?;
        let (told, within) = (Arc::new(Notify::new()), settings.timeout.0);
        let client = if config.get_ssl_mode() == SslMode::Require {
            let (client, connection) = limited("connecting", within, config.connect(tls(settings)?)).await?;
            listen_on(connection, &told);
            client
        } else {
            let (client, connection) = limited("connecting", within, config.connect(NoTls)).await?;
            listen_on(connection, &told);
            client
        };
        Ok(Self { client, told, within })
    }

    /// The answer to a question, within the time limit.
    pub(super) async fn ask<T>(
        &self,
        doing: &'static str,
        question: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        limited(doing, self.within, question).await
    }

    /// Waits until somebody tells of a change or the connection ends, at most `wait`.
    pub(super) async fn told(&self, wait: Duration) {
        if timeout(wait, self.told.notified()).await.is_err() {
            tracing::trace!("nobody told of a change: looking anyway");
        }
    }
}

async fn limited<T>(
    doing: &'static str,
    within: Duration,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PostgresError> {
    match timeout(within, question).await {
        Ok(answer) => answer.map_err(|e| PostgresError::of(doing, &e)),
        Err(_) => Err(PostgresError::Away { doing, why: format!("no answer within {within:?}") }),
    }
}

/// Keeps a connection going in the background, for as long as its client lives.
fn listen_on<S, T>(mut connection: Connection<S, T>, told: &Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = Arc::clone(told);
    tokio::spawn(async move {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(_))) => told.notify_one(),
                Some(Ok(_)) => {}
                // Whoever asks next hears why.
                Some(Err(_)) | None => return told.notify_one(),
            }
        }
    });
}

fn tls(settings: &Settings) -> Result<MakeRustlsConnect, PostgresError> {
    let wrong = |why: String| PostgresError::Settings(why);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    if settings.ca_file.as_os_str().is_empty() {
        // The constructor below takes the process's own.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
            tracing::debug!(first = installed.is_ok(), "chose the cryptography of TLS");
        }
        let made = MakeRustlsConnect::with_native_certs().map(|(made, _)| made);
        return made.map_err(|e| wrong(format!("this machine trusts no certificates ({e:?}): set postgres.ca_file")));
    }
    let file = &settings.ca_file;
    let pem = std::fs::read(file).map_err(|e| wrong(format!("cannot read {}: {e}", file.display())))?;
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| wrong(format!("{} is not PEM: {e}", file.display())))?;
        trusted.add(certificate).map_err(|e| wrong(format!("{}: {e}", file.display())))?;
    }
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| wrong(e.to_string()))?.with_root_certificates(trusted).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

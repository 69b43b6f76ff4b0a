//! A small HTTP client for `simulate`, `demo` and tests: keep-alive, one request at a time per connection.
//! Only plain http to one address; a request that fails is reported, never retried here.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

/// The longest a request may take, answer included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Location`, where there is one.
    pub location: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// One keep-alive connection, opened again when it is closed.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of `address`; connects with the first request.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, sender: None }
    }

    /// A client of `http://host:port`.
    ///
    /// # Errors
    /// When the URL has another scheme or names no address.
    pub async fn of_url(url: &str) -> anyhow::Result<Self> {
        let Some(authority) = url.strip_prefix("http://") else { bail!("{url:?} is not an http:// address") };
        let authority = authority.trim_end_matches('/');
        let mut found =
            tokio::net::lookup_host(authority).await.with_context(|| format!("cannot look up {authority}"))?;
        found.next().map(Self::new).with_context(|| format!("{authority} has no address"))
    }

    /// Sends a request with a JSON (or empty) body and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails or the answer takes too long; whether the server acted is then unknown.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(method, path, headers, body)).await;
        let answer = answer.unwrap_or_else(|_| bail!("no answer within {REQUEST_TIMEOUT:?}"));
        if answer.is_err() {
            self.sender = None;
        }
        answer.with_context(|| format!("{method} http://{}{path}", self.address))
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut sender = match self.sender.take() {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await?,
        };
        let mut request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let location = response.headers().get("location").and_then(|l| l.to_str().ok()).map(str::to_owned);
        let body = response.into_body().collect().await?.to_bytes();
        if sender.ready().await.is_ok() {
            self.sender = Some(sender);
        }
        Ok(Answer { status, location, body })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = tokio::net::TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(error = %e, "connection ended");
            }
        });
        Ok(sender)
    }
}

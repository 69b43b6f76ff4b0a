//! Serving connections: hyper's HTTP/1 with a timer, a connection cap and a drain.
//! Measured reasons (axum::serve keeps silent connections open): decisions.md D-15.
//! Owns: the accept loop. On shutdown: no new connections, begun requests get the drain time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONNECTION, CONTENT_LENGTH, HeaderName};
use ::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::measured::Answers;
use super::problem::Problem;
use super::stall::Stall;
use super::{Limits, Peer, REQUEST_ID, RequestIds, Route};
use crate::shutdown::Shutdown;
use crate::time::{sleep, stopwatch};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long to wait after the operating system refused a connection (out of file handles).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `service` (an axum `Router` is one) on `listener` until `shutdown` is asked for and begun requests
/// are done or `limits.drain_timeout` is over. Puts [`Peer`] into every request.
///
/// # Errors
/// Only when the listener's own address cannot be read: whatever one client does is its own affair.
pub async fn serve<S, B>(listener: TcpListener, service: S, limits: Limits, shutdown: Shutdown) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    tracing::info!(address = %listener.local_addr()?, "listening");
    let slots = Arc::new(Semaphore::new(usize::try_from(limits.max_connections).unwrap_or(usize::MAX >> 4)));
    let server =
        Arc::new(Server { limits, shutdown: shutdown.clone(), ids: RequestIds::new(), answers: Answers::default() });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, peer, slot)) => {
                connections.spawn(connection(stream, peer, service.clone(), Arc::clone(&server), slot));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: waiting a moment");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}

struct Server {
    limits: Limits,
    shutdown: Shutdown,
    ids: RequestIds,
    answers: Answers,
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn connection<S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    server: Arc<Server>,
    _slot: OwnedSemaphorePermit,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let limits = &server.limits;
    let io = TokioIo::new(Stall::new(stream, limits.write_timeout.0));
    let handler = {
        let server = Arc::clone(&server);
        service_fn(move |request| answer(service.clone(), request, peer, Arc::clone(&server)))
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout.0)
        .max_headers(usize::try_from(limits.max_headers).unwrap_or(100))
        .max_buf_size(limits.max_head_size.as_usize());
    let mut serving = pin!(http.serve_connection(io, handler));
    let ended = tokio::select! {
        ended = serving.as_mut() => Ok(ended),
        () = server.shutdown.requested() => {
            serving.as_mut().graceful_shutdown();
            timeout(limits.drain_timeout.0, serving).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%error, "a connection ended early"),
        Err(_) => tracing::warn!("a request was cut: it was not done when the drain time was over"),
    }
}

async fn answer<S, B>(
    service: S,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    server: Arc<Server>,
) -> Result<Response<Either<B, Full<Bytes>>>, Infallible>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    let watch = stopwatch();
    let id = server.ids.name(request.headers());
    request.extensions_mut().insert(Peer(peer));
    let mut response = match timeout(server.limits.request_timeout.0, service.oneshot(request)).await {
        Ok(Ok(response)) => response.map(Either::Left),
        Ok(Err(never)) => match never {},
        Err(_) => too_slow(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        *response.body_mut() = Either::Right(Full::from(problem.body(Some(&id))));
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response.headers_mut().insert(HeaderName::from_static(REQUEST_ID), id.0);
    let route = response.extensions_mut().remove::<Route>();
    let route = route.as_ref().map_or("other", |route| &route.0);
    server.answers.add(route, response.status(), watch.elapsed());
    Ok(response)
}

fn too_slow<B>() -> Response<Either<B, Full<Bytes>>> {
    let problem = Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "too_slow",
        "the request was not complete in time",
        "send the whole body without pauses, or a smaller one",
    );
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = problem.status();
    response.headers_mut().extend(problem.headers());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.extensions_mut().insert(problem);
    response
}

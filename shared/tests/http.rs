//! Serving under hostile clients (reliability.md 1.3), over real sockets: whoever stalls is cut, whoever is
//! honest is served, and a shutdown finishes what was begun.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are tests

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum_core::body::Body;
use axum_core::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use shared::config::Span;
use shared::http::problem::Problem;
use shared::http::{Limits, serve};
use shared::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Far longer than any limit under test: reaching it means that the server did not act.
const GUARD: Duration = Duration::from_secs(60);

/// Opened by a test when a request to `/gate` may go on.
static GATE: Semaphore = Semaphore::const_new(0);
/// Counts the requests that came to `/gate`.
static AT_GATE: Semaphore = Semaphore::const_new(0);

async fn answer(request: Request<Incoming>) -> Result<Response, Infallible> {
    Ok(match request.uri().path() {
        "/echo" => match request.into_body().collect().await {
            Ok(body) => Response::new(Body::from(body.to_bytes())),
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        },
        "/problem" => Problem::new(StatusCode::BAD_REQUEST, "sample", "no", "say yes").into_response(),
        "/huge" => Response::new(Body::from(vec![b'x'; 64 << 20])),
        "/gate" => {
            AT_GATE.add_permits(1);
            GATE.acquire().await.unwrap().forget();
            Response::new(Body::from("through"))
        }
        _ => Response::new(Body::from("hello")),
    })
}

struct Served {
    address: SocketAddr,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start(limits: Limits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let task = tokio::spawn(serve(listener, tower::service_fn(answer), limits, shutdown.clone()));
    Served { address, shutdown, task }
}

fn short() -> Limits {
    Limits {
        header_timeout: Span::millis(200),
        request_timeout: Span::millis(300),
        write_timeout: Span::millis(300),
        ..Limits::default()
    }
}

/// Sends `bytes` and reads until the server closes.
async fn until_closed(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = timeout(GUARD, stream.read_to_end(&mut answer)).await.expect("the server never closed the connection");
    // A reset is a close too.
    if let Err(error) = read {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn silent_connections_and_half_heads_are_closed() {
    let served = start(short()).await;
    for half in ["", "GET", "GET /hello HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let answer = until_closed(served.address, half.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{half:?} was answered {answer:?}");
    }
}

#[tokio::test]
async fn a_connection_that_goes_silent_after_an_answer_is_closed() {
    let served = start(short()).await;
    let answer = until_closed(served.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_408_and_cut() {
    let served = start(short()).await;
    for body in ["Content-Length: 100\r\n\r\nonly this", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{body}");
        let answer = until_closed(served.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("\"fix\"") && answer.contains("\"requestId\""), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut() {
    let served = start(Limits { drain_timeout: Span::secs(3_600), ..short() }).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Shutdown waits for what was begun (for an hour here): only the write timeout can end this answer.
    served.shutdown.request();
    timeout(GUARD, served.task).await.expect("the unread answer held the server").unwrap().unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.len() < 64 << 20, "the whole answer fitted into the socket: the test proves nothing");
}

#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let served = start(Limits::default()).await;
    let many = "X-A: b\r\n".repeat(10_000);
    let large = format!("X-A: {}\r\n", "b".repeat(1 << 20));
    for headers in [many, large] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
        // The server may close before everything is sent.
        let sent = stream.write_all(request.as_bytes()).await;
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431") || sent.is_err(), "{answer}");
    }
}

#[tokio::test]
async fn silent_connections_up_to_the_cap_do_not_keep_an_honest_client_out() {
    let served = start(Limits { max_connections: 8, ..short() }).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(served.address).await.unwrap());
    }
    let answer = until_closed(served.address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_problems_repeat_it() {
    let served = start(Limits::default()).await;
    let ask = |path: &str, id: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{id}\r\n");
    let given = until_closed(served.address, ask("/problem", "X-Request-Id: mine-7\r\n").as_bytes()).await;
    assert!(given.contains("x-request-id: mine-7"), "{given}");
    assert!(given.contains("\"requestId\":\"mine-7\""), "{given}");
    assert!(given.contains("content-type: application/problem+json"), "{given}");
    let forged = until_closed(served.address, ask("/", "X-Request-Id: <script>\r\n").as_bytes()).await;
    assert!(forged.contains("x-request-id: ") && !forged.contains("<script>"), "{forged}");
}

#[tokio::test]
async fn shutdown_finishes_what_was_begun_and_takes_nothing_new() {
    let served = start(Limits { request_timeout: Span::secs(60), ..Limits::default() }).await;
    let mut begun = TcpStream::connect(served.address).await.unwrap();
    begun.write_all(b"GET /gate HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    AT_GATE.acquire().await.unwrap().forget();
    served.shutdown.request();
    GATE.add_permits(1);
    let answer = read_all(&mut begun).await;
    assert!(answer.ends_with("through"), "{answer}");
    timeout(GUARD, served.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "the listener is still open");
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end_in_the_drain_time() {
    let served = start(Limits { drain_timeout: Span::millis(100), ..Limits::default() }).await;
    let mut endless = TcpStream::connect(served.address).await.unwrap();
    endless.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    // By the time another connection is answered, this one has been accepted too.
    until_closed(served.address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    served.shutdown.request();
    timeout(GUARD, served.task).await.expect("the drain has no end").unwrap().unwrap();
}

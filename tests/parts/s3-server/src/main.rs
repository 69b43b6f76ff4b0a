//! An S3 server for tests: s3s-fs over a folder, with what it lacks.
//!
//! - Writes to one key happen one after another, so that a conditional put has one winner (by itself its check and its
//!   write are two steps, and concurrent Delta writers lose commits).
//! - Faults on demand, without a signature: `POST /-/fault/KIND/METHOD/PART/TIMES` lets the next TIMES requests by METHOD
//!   (`ANY` for all) whose path has PART in it go wrong; the last fault asked for counts, 0 times ends it.
//!   KIND: `500`, `503` (refused), `cut` (the connection ends, nothing was done), `lost` (done, but the answer is not
//!   sent), `failed` (done, but answered 500), `slow` (done after a second).
//!
//! `s3-server FOLDER PORT` keeps the bucket `clickledger` in FOLDER, says where it listens, and ends with its input.
//! On crash: whatever was acknowledged is in the folder; the next start on it has it.

use std::collections::hash_map::DefaultHasher;
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

const BUCKET: &str = "clickledger";
const ACCESS_KEY: &str = "clickledger-test";
const SECRET_KEY: &str = "clickledger-test-secret";
/// Keys share so many locks.
const LOCKS: usize = 256;

type Failed = Box<dyn Error + Send + Sync>;

struct Server {
    s3: S3Service,
    locks: Vec<tokio::sync::Mutex<()>>,
    fault: Mutex<Option<Fault>>,
}

#[derive(Clone)]
struct Fault {
    kind: String,
    method: String,
    part: String,
    times: u64,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("usage: s3-server FOLDER PORT")?);
    let port: u16 = args.next().unwrap_or_default().parse()?;
    std::fs::create_dir_all(folder.join(BUCKET))?;
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).map_err(|e| format!("{e:?}"))?);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let locks = (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect();
    let server = Arc::new(Server { s3: builder.build(), locks, fault: Mutex::new(None) });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("READY S3_ENDPOINT=http://{} PID={}", listener.local_addr()?, std::process::id());
    tokio::select! {
        ended = listen(listener, server) => ended,
        ended = until_input_ends() => ended,
    }
}

async fn until_input_ends() -> Result<(), Failed> {
    let mut input = tokio::io::stdin();
    while input.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

async fn listen(listener: TcpListener, server: Arc<Server>) -> Result<(), Failed> {
    loop {
        let (socket, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e.into()),
        };
        socket.set_nodelay(true)?;
        let server = server.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(server.clone(), request));
            // A connection that ends early is its client's business, or a fault that was asked for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await;
        });
    }
}

/// An error cuts the connection.
async fn answer(server: Arc<Server>, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
    if let Some(asked) = request.uri().path().strip_prefix("/-/fault/") {
        return Ok(server.expect_fault(asked));
    }
    let fault = server.fault_for(request.method(), request.uri().path());
    match fault.as_deref() {
        Some("cut") => return Err("cut".into()),
        Some("500") => return Ok(empty(StatusCode::INTERNAL_SERVER_ERROR)),
        Some("503") => return Ok(empty(StatusCode::SERVICE_UNAVAILABLE)),
        Some("slow") => tokio::time::sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    let done = server.serve(request).await?;
    match fault.as_deref() {
        Some("lost") => Err("lost".into()),
        Some("failed") => Ok(empty(StatusCode::INTERNAL_SERVER_ERROR)),
        _ => Ok(done),
    }
}

impl Server {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
        let _held = match *request.method() {
            Method::PUT | Method::POST | Method::DELETE => Some(self.lock_of(request.uri().path()).lock().await),
            _ => None,
        };
        self.s3.call(request.map(Body::from)).await.map_err(|e| format!("{e:?}").into())
    }

    fn lock_of(&self, path: &str) -> &tokio::sync::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        &self.locks[usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0)]
    }

    fn expect_fault(&self, asked: &str) -> Response<Body> {
        let parts: Vec<&str> = asked.split('/').collect();
        let [kind, method, part, times] = parts[..] else { return empty(StatusCode::BAD_REQUEST) };
        let (known, times) = (["500", "503", "cut", "lost", "failed", "slow"].contains(&kind), times.parse());
        let (true, Ok(times)) = (known, times) else { return empty(StatusCode::BAD_REQUEST) };
        let fault = Fault { kind: kind.to_owned(), method: method.to_owned(), part: part.to_owned(), times };
        *self.fault.lock().unwrap() = Some(fault);
        empty(StatusCode::OK)
    }

    /// The fault this request meets; it is used up once.
    fn fault_for(&self, method: &Method, path: &str) -> Option<String> {
        let mut expected = self.fault.lock().unwrap();
        let fault = expected.as_mut().filter(|f| f.times > 0)?;
        if (fault.method != "ANY" && fault.method != method.as_str()) || !path.contains(&fault.part) {
            return None;
        }
        fault.times -= 1;
        Some(fault.kind.clone())
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

//! The connection to Redis, one for all requests of a process.
//! Guarantees: nobody waits longer than the time limit for an answer, and nobody ever waits for a connection: while
//! there is none, and for [`PAUSE`] after one failed, every question fails at once.
//! Never: tells what was asked apart from what was done. A question that failed may have been carried out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, RedisResult, Value};
use shared::time::sleep;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Settings;
use crate::dedup::DedupError;

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The pause before the next attempt to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// Connections are made to one of these.
enum Target {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// A connection; clones are the same one.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Target {
    fn of(settings: &Settings) -> Result<Self, DedupError> {
        let failed = |error: RedisError| DedupError(error.to_string());
        let nodes = settings.nodes().map_err(DedupError)?;
        let trusted = settings.certificates().map_err(DedupError)?;
        if !settings.cluster {
            let node = nodes.into_iter().next().ok_or_else(|| DedupError("no address is set".to_owned()))?;
            let client = match trusted {
                Some(trusted) => Client::build_with_tls(node, trusted),
                None => Client::open(node),
            };
            return client.map(|client| Self::Single(Box::new(client))).map_err(failed);
        }
        let builder = ClusterClient::builder(nodes).connection_timeout(CONNECT_WITHIN).retries(1);
        let builder = match trusted {
            Some(trusted) => builder.certs(trusted),
            None => builder,
        };
        builder.build().map(|client| Self::Cluster(Box::new(client))).map_err(failed)
    }

    async fn connect(&self) -> RedisResult<Connection> {
        // Questions have their own time limit.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(None);
        match self {
            Self::Single(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::Single)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
    }
}

impl Connection {
    /// The answers to `commands`, in order, after one round trip.
    pub(super) async fn ask(&mut self, commands: Vec<Cmd>) -> RedisResult<Vec<Value>> {
        match self {
            Self::Single(connection) => {
                let mut all = Pipeline::with_capacity(commands.len());
                for command in commands {
                    all.add_command(command);
                }
                all.query_async(connection).await
            }
            // A pipeline goes to one node; a cluster is asked key by key, all at once, and every answer is awaited, so that
            // one node's failure leaves no other's question half sent.
            Self::Cluster(connection) => {
                let ask = |command: Cmd| {
                    let mut connection = connection.clone();
                    async move { command.query_async(&mut connection).await }
                };
                join_all(commands.into_iter().map(ask)).await.into_iter().collect()
            }
        }
    }
}

/// The link: it connects by itself, again and again. Clones are the same one.
#[derive(Clone)]
pub(super) struct Link(Arc<Inner>);

struct Inner {
    target: Target,
    timeout: Duration,
    /// The connection and its number; `None` while somebody is making one.
    current: Mutex<Option<(u64, Connection)>>,
    tried: Notify,
}

/// A connection to settings' Redis, made now.
pub(super) async fn connect(settings: &Settings) -> Result<Connection, DedupError> {
    let target = Target::of(settings)?;
    let connected = timeout(CONNECT_WITHIN, target.connect()).await;
    connected.map_err(|_| no_answer(CONNECT_WITHIN))?.map_err(|e| DedupError(e.to_string()))
}

fn no_answer(within: Duration) -> DedupError {
    DedupError(format!("no answer within {within:?}"))
}

impl Link {
    /// A link that begins to connect.
    pub(super) fn open(settings: &Settings) -> Result<Self, DedupError> {
        let target = Target::of(settings)?;
        let inner = Inner { target, timeout: settings.timeout.0, current: Mutex::default(), tried: Notify::new() };
        let link = Self(Arc::new(inner));
        tokio::spawn(link.clone().reconnect(1));
        Ok(link)
    }

    /// The connection there is.
    pub(super) fn current(&self) -> Result<(u64, Connection), DedupError> {
        let current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        current.ok_or_else(|| DedupError("not connected".to_owned()))
    }

    /// Waits for the first attempt to connect.
    pub(super) async fn tried(&self) {
        let mut tried = std::pin::pin!(self.0.tried.notified());
        tried.as_mut().enable();
        if self.current().is_err() {
            tried.await;
        }
    }

    /// Asks within the time limit; on a failure the connection is given up and another one made.
    pub(super) async fn ask(
        &self,
        (number, mut connection): (u64, Connection),
        commands: Vec<Cmd>,
    ) -> Result<Vec<Value>, DedupError> {
        let error = match timeout(self.0.timeout, connection.ask(commands)).await {
            Ok(Ok(answers)) => return Ok(answers),
            Ok(Err(error)) => DedupError(error.to_string()),
            Err(_) => no_answer(self.0.timeout),
        };
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(held, _)| *held == number) {
            tracing::warn!(%error, "Redis failed: events pass without it until it answers again");
            *current = None;
            tokio::spawn(self.clone().reconnect(number + 1));
        }
        Err(error)
    }

    /// Makes connection `number`, however long it takes or until nobody holds the link.
    async fn reconnect(self, number: u64) {
        let inner = Arc::downgrade(&self.0);
        drop(self);
        if number > 1 {
            sleep(PAUSE).await;
        }
        let mut said = false;
        while let Some(inner) = inner.upgrade() {
            match timeout(CONNECT_WITHIN, inner.target.connect()).await {
                Ok(Ok(connection)) => {
                    *inner.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, connection));
                    inner.tried.notify_waiters();
                    tracing::info!("connected to Redis");
                    return;
                }
                Ok(Err(error)) if !said => tracing::warn!(%error, "cannot connect to Redis: events pass without it"),
                Err(_) if !said => tracing::warn!("Redis does not take the connection: events pass without it"),
                _ => {}
            }
            said = true;
            inner.tried.notify_waiters();
            drop(inner);
            sleep(PAUSE).await;
        }
    }
}

//! `up` and the single roles: start, wait for a signal, drain, stop.
//! The first role to fail stops the others; what it acknowledged is on disk, so a restart goes on from there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use shared::config::Span;
use shared::event_log::Retention;
use shared::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::logs::Logs;
use crate::wiring::Parts;

/// One of the long-running layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Gateway,
    Speed,
    Lake,
    Serving,
}

impl Role {
    pub(super) const ALL: &'static [Self] = &[Self::Gateway, Self::Speed, Self::Lake, Self::Serving];
}

/// Running roles, and where they listen.
pub(super) struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    /// The gateway's address.
    pub(super) gateway: Option<SocketAddr>,
    /// The query API's address.
    pub(super) serving: Option<SocketAddr>,
    /// The logs this process uses.
    pub(super) logs: Option<Logs>,
}

/// Runs `roles` until a signal, or for `run_for`.
pub(super) async fn run(parts: Parts, roles: &[Role], run_for: Option<Span>) -> super::Done {
    let shutdown = Shutdown::new();
    on_signal(shutdown.clone())?;
    if let Some(span) = run_for {
        let stop = shutdown.clone();
        tokio::spawn(async move {
            shared::time::sleep(span.0).await;
            stop.request();
        });
    }
    let running = start(&parts, roles, &shutdown).await?;
    running.finish(&shutdown).await?;
    Ok(0)
}

/// Requests a shutdown on SIGINT or SIGTERM; a second signal ends the process at once (which is safe too).
pub(super) fn on_signal(shutdown: Shutdown) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_requested() {
                tracing::warn!("second signal: stopping at once");
                std::process::exit(130);
            }
            tracing::info!("stopping: finishing what was acknowledged");
            shutdown.request();
        }
    });
    Ok(())
}

/// Starts the roles; they run until `shutdown`.
pub(super) async fn start(parts: &Parts, roles: &[Role], shutdown: &Shutdown) -> anyhow::Result<Running> {
    let has = |role| roles.contains(&role);
    let mut running = Running { tasks: JoinSet::new(), gateway: None, serving: None, logs: None };
    if has(Role::Gateway) {
        let logs = parts.gateway_logs()?;
        let listener = listen(parts.settings().gateway.listen).await?;
        running.gateway = Some(listener.local_addr()?);
        let gateway = parts.gateway(logs.clone(), shutdown)?;
        // The forwarder outlives the gateway, so that a shutdown leaves nothing in the spool that the broker takes.
        let spooled = Shutdown::new();
        let last = spooled.clone();
        running.spawn("gateway", shutdown, move |stop| async move {
            let ended = gateway.run(listener, stop).await;
            last.request();
            Ok(ended?)
        });
        retain(parts, logs.clone(), shutdown);
        if parts.has_broker() {
            let (parts, spool) = (parts.clone(), logs);
            running.spawn("forward", shutdown, move |_| parts.forward(spool, spooled));
        } else {
            running.logs = Some(logs);
        }
    }
    if running.logs.is_none() && (has(Role::Speed) || has(Role::Lake)) {
        running.logs = parts.wait_for_logs(shutdown).await?;
    }
    if let Some(logs) = running.logs.clone() {
        if has(Role::Speed) {
            let speed = parts.speed(logs.clone(), shutdown).await?;
            running.spawn("speed", shutdown, move |stop| async move { Ok(speed.run(stop).await?) });
        }
        if has(Role::Lake) {
            let archiver = parts.archiver(logs)?;
            running.spawn("lake", shutdown, move |stop| async move { Ok(archiver.run(stop).await?) });
        }
    }
    if has(Role::Serving) {
        let listener = listen(parts.settings().serving.listen).await?;
        running.serving = Some(listener.local_addr()?);
        let serving = parts.serving(shutdown).await?;
        running.spawn("serving", shutdown, move |stop| async move { Ok(serving.run(listener, stop).await?) });
    }
    Ok(running)
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

impl Running {
    fn spawn<F, R>(&mut self, name: &'static str, shutdown: &Shutdown, role: F)
    where
        F: FnOnce(Shutdown) -> R + Send + 'static,
        R: Future<Output = anyhow::Result<()>> + Send,
    {
        let shutdown = shutdown.clone();
        self.tasks.spawn(async move {
            let ended = role(shutdown.clone()).await.with_context(|| name);
            if !shutdown.is_requested() {
                tracing::error!(role = name, "ended by itself; stopping the others");
            }
            shutdown.request();
            ended
        });
    }

    /// Waits until every role has ended; the first failure is the answer.
    pub(super) async fn finish(mut self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.unwrap_or_else(|e| Err(anyhow::Error::new(e)));
            if ended.is_err() && first.is_ok() {
                shutdown.request();
                first = ended;
            }
        }
        first
    }
}

/// Forgets old segments of the gateway's logs on a timer, but never what the lake has not archived or, before a broker,
/// what has not arrived there.
fn retain(parts: &Parts, logs: Logs, shutdown: &Shutdown) {
    let (parts, shutdown) = (parts.clone(), shutdown.clone());
    tokio::spawn(async move {
        let settings = parts.settings().retention.clone();
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = shared::time::sleep(settings.check_interval.0) => {}
            }
            for log in [&logs.events, &logs.dead_letters] {
                if let Err(error) = forget(&parts, log, &settings).await {
                    tracing::warn!(error = format!("{error:#}"), "cannot apply retention to the log");
                }
            }
        }
    });
}

async fn forget(
    parts: &Parts,
    log: &Arc<dyn shared::event_log::EventLog>,
    settings: &crate::settings::LogRetention,
) -> anyhow::Result<()> {
    let now = parts.clock().now();
    let bounds = log.bounds().await?;
    let group = if parts.has_broker() { gateway::forward::GROUP } else { "lake" };
    let archived = log.group_positions().await?.remove(group).unwrap_or_default();
    let old = log.positions_at(now.plus(-settings.max_age.as_micros())).await?;
    let is_archived = archived.covers(&old);
    if !is_archived && bounds.start != old {
        tracing::warn!(group, "a reader is behind the log's retention; keeping everything until it has caught up");
    }
    // By size only what is archived to the end may go; by age what is archived up to that age.
    let max_bytes = if archived.covers(&bounds.end) { settings.max_size.0 } else { u64::MAX };
    if is_archived {
        let freed = log.enforce(Retention { max_age: settings.max_age.0, max_bytes }, now).await?;
        if freed > 0 {
            tracing::info!(freed, "forgot old log segments");
        }
    }
    Ok(())
}

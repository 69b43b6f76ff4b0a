//! Runs serving: the listener, and the timers that read the API keys again and forget old rows. The only loops of the
//! layer.

use std::sync::Arc;
use std::time::Duration;

use shared::shutdown::Shutdown;
use shared::time::sleep;
use tokio::net::TcpListener;

use crate::context::{Context, Deps};
use crate::error::Error;
use crate::routes;
use crate::settings::Settings;

/// A revoked key works at most this long.
const KEYS_REFRESH: Duration = Duration::from_secs(1);

/// The report API and the dashboard.
pub struct Serving {
    settings: Settings,
    deps: Deps,
}

impl Serving {
    /// Serving with these settings and parts.
    #[must_use]
    pub fn new(settings: Settings, deps: Deps) -> Self {
        Self { settings, deps }
    }

    /// Serves on `listener` until `shutdown` is asked for and begun requests are done.
    ///
    /// # Errors
    /// When the key file does not read, the listener fails, or others than this machine could come in without keys.
    pub async fn run(self, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
        let address = listener.local_addr()?;
        let is_loopback = address.ip().is_loopback();
        if !self.settings.require_keys && !is_loopback {
            return Err(Error::OpenDoor(address));
        }
        let limits = self.settings.http.clone();
        let context = Arc::new(Context::new(self.settings, self.deps, shutdown.clone(), is_loopback)?);
        let router = routes::router(Arc::clone(&context)).map_err(std::io::Error::other)?;
        let done = Shutdown::new();
        let refreshing = tokio::spawn(refresh_keys(Arc::clone(&context), done.clone()));
        let forgetting = tokio::spawn(forget_old_rows(Arc::clone(&context), done.clone()));
        let served = shared::http::serve(listener, router, limits, shutdown).await;
        done.request();
        for (timer, task) in [("reads the API keys", refreshing), ("forgets old rows", forgetting)] {
            if let Err(error) = task.await {
                tracing::error!(%error, "the timer that {timer} stopped early");
            }
        }
        Ok(served?)
    }
}

/// Forgets what is past its retention until `done`; begun batches end.
async fn forget_old_rows(context: Arc<Context>, done: Shutdown) {
    let retention = context.settings.retention;
    loop {
        match retention.apply(&*context.store, context.now()).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "forgot rows past their retention"),
            Err(error) => tracing::warn!(%error, "cannot forget old rows: tried again later"),
        }
        tokio::select! {
            () = sleep(retention.check_interval.0) => {}
            () = done.requested() => return,
        }
    }
}

/// Reads the keys again until `done`.
async fn refresh_keys(context: Arc<Context>, done: Shutdown) {
    loop {
        tokio::select! {
            () = sleep(KEYS_REFRESH) => {}
            () = done.requested() => return,
        }
        let ring = Arc::clone(&context);
        if let Err(error) = tokio::task::spawn_blocking(move || ring.keys.refresh()).await {
            tracing::error!(%error, "the API keys could not be read again");
        }
    }
}

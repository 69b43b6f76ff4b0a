//! Runs serving: the listener, and a timer that reads the API keys again. The only loop of the layer.

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
        let served = shared::http::serve(listener, router, limits, shutdown).await;
        done.request();
        if let Err(error) = refreshing.await {
            tracing::error!(%error, "the timer that reads the API keys stopped early");
        }
        Ok(served?)
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

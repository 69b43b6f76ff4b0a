//! Shutdown: one signal that every long-running layer listens to. On it a layer stops taking work,
//! finishes what it acknowledged, saves its progress and returns.

use tokio_util::sync::CancellationToken;

/// A shared request to stop. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A request nobody has made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves once somebody asks.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}

//! Where the ad directory comes from: the file of the data folder, or PostgreSQL, whose last snapshot that file then is.
//! The only file that knows. While the database is away everybody works on with the file.

use std::sync::Arc;

use shared::directory::DirectoryHandle;
use shared::shutdown::Shutdown;

use crate::wiring::Parts;

impl Parts {
    /// The ad directory in use; it follows its source until `shutdown`. Whoever holds it refreshes it.
    ///
    /// # Errors
    /// When the file cannot be read.
    #[cfg_attr(not(feature = "postgres"), allow(unused_variables))]
    pub(crate) fn directory_handle(&self, shutdown: &Shutdown) -> anyhow::Result<Arc<DirectoryHandle>> {
        let handle = Arc::new(DirectoryHandle::open(self.folder().ads())?);
        #[cfg(feature = "postgres")]
        if self.settings().postgres.is_used() {
            let (settings, path) = (self.settings().postgres.clone(), self.folder().ads());
            let follower =
                shared::directory::postgres::Follower::new(settings, path, Arc::clone(&handle), self.clock());
            tokio::spawn(follower.run(shutdown.clone()));
        }
        Ok(handle)
    }

    /// Makes the file as PostgreSQL is, for a command that reads it once.
    #[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async))]
    pub(crate) async fn fetch_directory(&self) {
        #[cfg(feature = "postgres")]
        if self.settings().postgres.is_used()
            && let Err(error) =
                shared::directory::postgres::fetch(&self.settings().postgres, &self.folder().ads()).await
        {
            tracing::warn!(%error, "working with the last ad directory that was loaded");
        }
    }
}

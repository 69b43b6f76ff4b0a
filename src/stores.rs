//! Which serving store this process works on: the embedded one of the data folder, or ClickHouse. The only file that knows.

use std::sync::Arc;

use shared::serving_store::ServingStore;

use crate::exit::Usage;
use crate::wiring::Parts;

impl Parts {
    /// The serving store that the settings name.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub async fn serving_store(&self) -> anyhow::Result<Arc<dyn ServingStore>> {
        #[cfg(feature = "clickhouse")]
        if self.settings().clickhouse.is_used() {
            let store = serving::clickhouse::ClickHouseStore::open(&self.settings().clickhouse).await?;
            return Ok(Arc::new(store));
        }
        Ok(Arc::new(serving::EmbeddedStore::open(self.folder().serving())?))
    }

    /// Brings the serving store to the newest schema; the layout is ClickHouse's.
    ///
    /// # Errors
    /// [`Usage`] when the embedded store is to have a layout; else when it cannot be opened.
    pub(crate) async fn lay_out_serving_store(
        &self,
        cluster: bool,
        cold_after_days: Option<u32>,
    ) -> anyhow::Result<()> {
        #[cfg(feature = "clickhouse")]
        if self.settings().clickhouse.is_used() {
            let layout = serving::clickhouse::Layout { cluster, cold_after_days };
            return Ok(serving::clickhouse::lay_out(&self.settings().clickhouse, layout).await?);
        }
        if cluster || cold_after_days.is_some() {
            return Err(Usage("the embedded store has one layout: set clickhouse.url".to_owned()).into());
        }
        self.serving_store().await.map(drop)
    }

    /// What `doctor` says of the serving store: what it is, and what somebody should change.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn examine_serving_store(&self) -> anyhow::Result<(String, Vec<String>)> {
        #[cfg(feature = "clickhouse")]
        if self.settings().clickhouse.is_used() {
            let found = serving::clickhouse::examine(&self.settings().clickhouse).await?;
            return Ok((found.finding, found.shortcomings));
        }
        self.serving_store().await?;
        Ok((format!("{} opens", self.folder().serving().display()), Vec::new()))
    }

    /// The serving store at `place`: `http://host:port/database` or `https://…` is ClickHouse, asked as the settings say;
    /// else the file of an embedded one, which must be there.
    ///
    /// # Errors
    /// [`Usage`] when there is no such file; else when it cannot be opened. A database that is not there is not made.
    pub async fn serving_store_at(&self, place: &str) -> anyhow::Result<Arc<dyn ServingStore>> {
        if place.starts_with("http://") || place.starts_with("https://") {
            return self.clickhouse_at(place).await;
        }
        let path = std::path::Path::new(place);
        if !path.is_file() {
            return Err(Usage(format!("{place} is no file: name rollups.sqlite, or http://host:port/database")).into());
        }
        Ok(Arc::new(serving::EmbeddedStore::open(path)?))
    }

    /// As [`Parts::serving_store_at`], but a file that is not there is made.
    ///
    /// # Errors
    /// As [`Parts::serving_store_at`].
    pub(crate) async fn new_serving_store_at(&self, place: &str) -> anyhow::Result<Arc<dyn ServingStore>> {
        if place.contains("://") || std::path::Path::new(place).exists() {
            return self.serving_store_at(place).await;
        }
        Ok(Arc::new(serving::EmbeddedStore::open(place)?))
    }

    #[cfg(feature = "clickhouse")]
    async fn clickhouse_at(&self, place: &str) -> anyhow::Result<Arc<dyn ServingStore>> {
        let mut settings = self.settings().clickhouse.clone();
        let slash = place.find("://").map_or(0, |scheme| scheme + 3);
        let (url, database) = match place[slash..].split_once('/') {
            Some((host, database)) => (&place[..slash + host.len()], database.trim_end_matches('/')),
            None => (place, ""),
        };
        url.clone_into(&mut settings.url);
        if !database.is_empty() {
            database.clone_into(&mut settings.database);
        }
        let problems = settings.problems();
        if let Some(problem) = problems.first() {
            return Err(Usage(format!("{place}: {problem}")).into());
        }
        Ok(Arc::new(serving::clickhouse::ClickHouseStore::open_existing(&settings).await?))
    }

    #[cfg(not(feature = "clickhouse"))]
    async fn clickhouse_at(&self, place: &str) -> anyhow::Result<Arc<dyn ServingStore>> {
        Err(Usage(format!("{place}: this program was built without ClickHouse")).into())
    }
}

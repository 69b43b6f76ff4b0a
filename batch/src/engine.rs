//! The SQL engine: DataFusion over named lists of Parquet files. The only file that knows it; plans use stock
//! operators over file lists alone, so that another engine (decisions.md D-14) can run the same statements.
//! Memory: bounded by its pool; larger sorts and groups spill.

use std::collections::BTreeMap;
use std::path::Path as FolderPath;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, SchemaRef};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::error::Error;

/// The least memory the engine can work with, in bytes.
const MIN_MEMORY: u64 = 64 << 20;

/// The rows of a statement: the key columns as text, the value columns as integers.
pub(crate) type Sums = BTreeMap<Vec<String>, Vec<i128>>;

/// A session over the files of one run.
pub(crate) struct Engine(SessionContext);

impl Engine {
    /// A session that computes on `workers` threads, holds about `memory` bytes and spills to `folder`.
    ///
    /// # Errors
    /// When the session cannot be made.
    pub(crate) fn new(workers: usize, memory: u64, folder: &FolderPath) -> Result<Self, Error> {
        let memory = usize::try_from(memory.max(MIN_MEMORY)).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory, 1.0).with_temp_file_path(folder);
        let runtime = runtime.build_arc().map_err(|e| failed("starting the SQL engine", &e))?;
        let config = SessionConfig::new().with_target_partitions(workers);
        Ok(Self(SessionContext::new_with_config_rt(config, runtime)))
    }

    /// Names a list of Parquet files of one schema `table`; an empty list is an empty table.
    ///
    /// # Errors
    /// When a path is none.
    pub(crate) fn register(
        &self,
        table: &str,
        schema: SchemaRef,
        store: &Arc<dyn ObjectStore>,
        files: &[Path],
    ) -> Result<(), Error> {
        let doing = || format!("naming the files of {table}");
        if files.is_empty() {
            let named = self.0.register_table(table, Arc::new(EmptyTable::new(schema)));
            return named.map(|_| ()).map_err(|e| failed(&doing(), &e));
        }
        let place = format!("lake://{}/", table.replace('_', "-"));
        let place = Url::parse(&place).map_err(|e| Error::Internal(format!("{}: {e}", doing())))?;
        self.0.register_object_store(&place, store.clone());
        let url = |file: &Path| {
            let mut url = place.clone();
            url.set_path(&format!("/{file}"));
            ListingTableUrl::try_new(url, None).map_err(|e| failed(&doing(), &e))
        };
        let urls = files.iter().map(url).collect::<Result<Vec<_>, _>>()?;
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(ListingOptions::new(Arc::new(ParquetFormat::default())))
            .with_schema(schema);
        let listed = ListingTable::try_new(config).map_err(|e| failed(&doing(), &e))?;
        self.0.register_table(table, Arc::new(listed)).map(|_| ()).map_err(|e| failed(&doing(), &e))
    }

    /// Runs a statement whose first `keys` columns are keys and whose others are integers.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn sums(&self, sql: &str, keys: usize) -> Result<Sums, Error> {
        let doing = sql.lines().next().unwrap_or("a statement").to_owned();
        let batches = async { self.0.sql(sql).await?.collect().await };
        let mut sums = Sums::new();
        for batch in batches.await.map_err(|e| failed(&doing, &e))? {
            let columns = batch.columns();
            let (key_columns, value_columns) = columns.split_at(keys.min(columns.len()));
            let texts = key_columns.iter().map(|c| cast(c, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
            let numbers = value_columns.iter().map(|c| cast(c, &DataType::Decimal128(38, 0)));
            let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let key = texts.iter().map(|t| t.as_string::<i32>().value(row).to_owned()).collect();
                let values = numbers.iter().map(|n| n.as_primitive::<Decimal128Type>().value(row)).collect();
                sums.insert(key, values);
            }
        }
        Ok(sums)
    }
}

fn failed(doing: &str, error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ResourcesExhausted(_) => {
            Error::Unavailable { doing: doing.to_owned(), why: error.to_string() }
        }
        DataFusionError::ParquetError(e) => Error::parquet(doing, e),
        other => Error::Internal(format!("{doing}: {other}")),
    }
}

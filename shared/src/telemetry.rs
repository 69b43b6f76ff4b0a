//! Telemetry: logs on stderr, metrics for Prometheus.
//! INFO is lifecycle, WARN is recovered without loss, ERROR needs a human; nothing per event above TRACE.

use std::io::IsTerminal;

pub use metrics_exporter_prometheus::PrometheusHandle;
use tracing_subscriber::EnvFilter;

/// Libraries that tell at INFO what they do for us.
const CHATTY: [&str; 5] = [
    "ballista_core=warn",
    "ballista_executor=warn",
    "ballista_scheduler=warn",
    "buoyant_kernel=warn",
    "buoyant_kernel_engine=warn",
];

/// Starts logging to stderr, in colour where that is a terminal; `RUST_LOG` overrides `filter`. Calling it twice keeps
/// the first.
pub fn start_logging(filter: &str, json: bool) {
    // What comes later in a filter wins, so `filter` may still name them.
    let ours = || EnvFilter::new(format!("{},{filter}", CHATTY.join(",")));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| ours());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let started = if json { builder.json().try_init() } else { builder.try_init() };
    if started.is_err() {
        tracing::debug!("logging was already started");
    }
}

/// Every metric name, once. `<layer>_<noun>_<unit>[_total]`; labels are bounded (never an ad or campaign id).
pub mod metric_names {
    /// Events at the gateway, by `outcome` (accepted, or a reject reason).
    pub const GATEWAY_EVENTS: &str = "clickledger_gateway_events_total";
    /// Times the gateway's dedup store did not answer (events then pass without it).
    pub const GATEWAY_DEDUP_ERRORS: &str = "clickledger_gateway_dedup_errors_total";
    /// Events that passed the gateway without its dedup store; later layers deduplicate them.
    pub const GATEWAY_DEDUP_PASSED: &str = "clickledger_gateway_dedup_passed_total";
    /// Event ids the gateway remembers.
    pub const GATEWAY_DEDUP_ENTRIES: &str = "clickledger_gateway_dedup_entries";
    /// Event ids the gateway forgot before their time for want of room.
    pub const GATEWAY_DEDUP_FORGOTTEN: &str = "clickledger_gateway_dedup_forgotten_total";
    /// Ads that are spread over partitions now, because they are too much for one.
    pub const GATEWAY_HOT_ADS: &str = "clickledger_gateway_hot_ads";
    /// The version of this gateway's salt map: milliseconds since 1970 of its last change; 0 before the first.
    pub const GATEWAY_SALT_MAP: &str = "clickledger_gateway_salt_map_version";
    /// Events this gateway appended, by `partition`.
    pub const GATEWAY_APPENDED: &str = "clickledger_gateway_appended_total";
    /// Seconds since the database of the ad directory was last known to hold what is served; 0 while it is.
    pub const DIRECTORY_STALE: &str = "clickledger_directory_stale_seconds";
    /// Spooled records that arrived in the log everyone reads.
    pub const FORWARD_RECORDS: &str = "clickledger_forward_records_total";
    /// Spooled records that the log refused for their size: kept in files until it takes them.
    pub const FORWARD_SET_ASIDE: &str = "clickledger_forward_set_aside_records";
    /// Spooled records that have not arrived yet.
    pub const FORWARD_LAG: &str = "clickledger_forward_lag_records";
    /// HTTP requests, by `route` and `status`.
    pub const HTTP_REQUESTS: &str = "clickledger_http_requests_total";
    /// HTTP request duration, by `route`.
    pub const HTTP_SECONDS: &str = "clickledger_http_request_seconds";
    /// Events in the speed layer, by `outcome` (counted, duplicate, repeat_click, invalid, late, dead_letter).
    pub const SPEED_EVENTS: &str = "clickledger_speed_events_total";
    /// Rows the speed layer upserted.
    pub const SPEED_ROWS: &str = "clickledger_speed_rows_total";
    /// Records between the speed layer and the end of the log.
    pub const SPEED_LAG: &str = "clickledger_speed_lag_records";
    /// Seconds from ingest to visible, 95th percentile.
    pub const SPEED_FRESHNESS: &str = "clickledger_speed_ingest_p95_seconds";
    /// Event ids the speed layer remembers, by `place` (memory, disk).
    pub const SPEED_IDS: &str = "clickledger_speed_dedup_ids";
    /// Bytes on disk of event ids that memory has no room for. (The files have no names: a folder's size is without them.)
    pub const SPEED_IDS_DISK: &str = "clickledger_speed_dedup_disk_bytes";
    /// Blocks read from disk to look for an event id.
    pub const SPEED_IDS_READS: &str = "clickledger_speed_dedup_disk_reads_total";
    /// Event ids and clicks forgotten before their time because of a limit.
    pub const SPEED_FORGOTTEN: &str = "clickledger_speed_dedup_forgotten_total";
    /// Events archived, by `table` (events, bad).
    pub const LAKE_EVENTS: &str = "clickledger_lake_events_total";
    /// Records between the archiver and the end of the log.
    pub const LAKE_LAG: &str = "clickledger_lake_lag_records";
    /// Events judged by batch, by `outcome` (a verdict).
    pub const BATCH_EVENTS: &str = "clickledger_batch_events_total";
    /// Delta commits by the archiver.
    pub const LAKE_COMMITS: &str = "clickledger_lake_commits_total";
    /// The largest drift of the day that was reconciled last, parts per million of the exact value.
    pub const RECONCILE_DRIFT: &str = "clickledger_reconcile_drift_ppm";
    /// Campaign hours of the day that was reconciled last whose exact counts lay within their bounds, per million.
    pub const RECONCILE_BOUND_COVERAGE: &str = "clickledger_reconcile_bound_inside_ppm";
    /// The median width of those bounds, per million of what was shown.
    pub const RECONCILE_BOUND_WIDTH: &str = "clickledger_reconcile_bound_width_ppm";
    /// Rows of the serving store that reconcile overwrote or removed.
    pub const RECONCILE_ROWS: &str = "clickledger_reconcile_rows_total";
    /// Rows of the serving store that were past their retention and removed.
    pub const SERVING_FORGOTTEN: &str = "clickledger_serving_forgotten_rows_total";
    /// Settlements published.
    pub const RECONCILE_SETTLEMENTS: &str = "clickledger_reconcile_settlements_total";
}

/// Installs the Prometheus recorder; the returned handle renders `/metrics`. `None` when one is installed already.
#[must_use]
pub fn start_metrics() -> Option<PrometheusHandle> {
    metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().ok()
}

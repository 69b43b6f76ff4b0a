//! The two roles of a cluster: the scheduler, which gives out tasks, and executors, which judge buckets.
//! Both are Ballista's own, with our codec. Executors ask the scheduler for work, so only the scheduler need be reached
//! by them; runs fetch the reports from the executors.
//! On crash: a scheduler forgets its jobs, and their runs fail (exit 75: try again); the tasks of an executor are given
//! to others once it has been silent for `executor_timeout`.
//! Never: is protected. Whoever reaches the ports can run plans: they belong into a private network.

use std::net::SocketAddr;
use std::path::Path as FolderPath;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use lake::LakeRoot;
use shared::shutdown::Shutdown;
use tokio::net::TcpListener;

use super::desk::Desk;
use super::plan::Codec;
use crate::compute::BYTES_PER_BUCKET_ROW;
use crate::error::Error;
use crate::settings::Settings;

/// The least silence after which an executor may be given up: busy ones are heard every 5 seconds.
const MIN_EXECUTOR_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the scheduler looks for silent executors, in seconds.
const LOOK_FOR_SILENT_SECONDS: u64 = 2;
/// How long an executor waits for its scheduler at the start, in seconds.
const CONNECT_SECONDS: u16 = 60;
/// How long the scheduler and executors keep the reports of a run that is over, in seconds.
const KEEP_REPORTS_SECONDS: u64 = 300;

/// Runs a scheduler on `listener` until `shutdown`.
///
/// # Errors
/// When it cannot start.
pub async fn scheduler(listener: TcpListener, executor_timeout: Duration, shutdown: &Shutdown) -> Result<(), Error> {
    let executor_timeout_seconds = executor_timeout.max(MIN_EXECUTOR_TIMEOUT).as_secs();
    let address = listener.local_addr().map_err(|e| failed("starting the scheduler", &e))?;
    let config = SchedulerConfig {
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        external_host: address.ip().to_string(),
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        executor_timeout_seconds,
        no_executors_grace_period_seconds: executor_timeout_seconds,
        expire_dead_executor_interval_seconds: LOOK_FOR_SILENT_SECONDS,
        finished_job_data_clean_up_interval_seconds: KEEP_REPORTS_SECONDS,
        finished_job_state_clean_up_interval_seconds: KEEP_REPORTS_SECONDS,
        override_physical_codec: Some(Arc::new(Codec::new(None)?)),
        ..SchedulerConfig::default()
    };
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(|e| failed("starting the scheduler", &e))?;
    let scheduler = create_scheduler::<LogicalPlanNode, PhysicalPlanNode>(cluster, Arc::new(config)).await;
    let scheduler = scheduler.map_err(|e| failed("starting the scheduler", &e))?;
    tracing::info!(%address, "scheduler is listening");
    tokio::select! {
        ended = start_grpc_service_with_listener(listener, scheduler) => ended.map_err(|e| failed("scheduling", &e)),
        () = shutdown.requested() => Ok(()),
    }
}

/// Runs an executor on this lake until SIGINT or SIGTERM; then it finishes the buckets it has begun. Runs fetch its
/// reports at `bind`, under the host name `advertise`, or else at the address that the scheduler sees.
///
/// # Errors
/// When the scheduler cannot be reached or the port is taken.
pub async fn executor(
    root: LakeRoot,
    settings: &Settings,
    bind: SocketAddr,
    advertise: Option<String>,
) -> Result<(), Error> {
    let url = &settings.ballista.scheduler_url;
    let no_url = || Error::Invalid(format!("{url} is not the URL of a scheduler, such as http://10.0.0.5:50050"));
    let scheduler = url::Url::parse(url).map_err(|_| no_url())?;
    let scheduler_host = scheduler.host_str().ok_or_else(no_url)?.to_owned();
    let scheduler_port = scheduler.port_or_known_default().ok_or_else(no_url)?;
    let folder = settings.spill_folder();
    let scratch = own_folder(&folder)?;
    let bucket = settings.silver_file_rows * BYTES_PER_BUCKET_ROW;
    let fit = usize::try_from(settings.memory_limit.0 / bucket.max(1)).unwrap_or(usize::MAX);
    let tasks = settings.workers().min(fit).max(1);
    let facts_memory = settings.memory_limit.0 / 4 / tasks as u64;
    let desk = Desk::new(root, scratch.path().to_owned(), facts_memory, tasks);
    let config = ExecutorProcessConfig {
        bind_host: bind.ip().to_string(),
        external_host: advertise,
        port: bind.port(),
        scheduler_host,
        scheduler_port,
        scheduler_connect_timeout_seconds: CONNECT_SECONDS,
        vcores: tasks,
        task_scheduling_policy: TaskSchedulingPolicy::PullStaged,
        work_dir: Some(scratch.path().display().to_string()),
        job_data_ttl_seconds: KEEP_REPORTS_SECONDS * 2,
        job_data_clean_up_interval_seconds: KEEP_REPORTS_SECONDS,
        memory_pool_size: Some(0), // our operator keeps to its own limit
        override_physical_codec: Some(Arc::new(Codec::new(Some(Arc::new(desk)))?)),
        ..ExecutorProcessConfig::default()
    };
    tracing::info!(scheduler = %url, tasks, "executor is starting");
    let ended = start_executor_process(Arc::new(config)).await;
    ended.map_err(|e| failed("executing", &e))
}

fn own_folder(folder: &FolderPath) -> Result<tempfile::TempDir, Error> {
    let failed = |source| Error::Spill { folder: folder.display().to_string(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    tempfile::Builder::new().prefix("executor-").tempdir_in(folder).map_err(failed)
}

fn failed(doing: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Unavailable { doing: doing.to_owned(), why: error.to_string() }
}

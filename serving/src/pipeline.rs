//! How the pipeline does: `/v1/metrics/campaigns/{id}/latency`, `/v1/sla`, `/v1/status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Serialize;
use shared::http::problem::Problem;
use shared::id::CampaignId;
use shared::serving_store::WriterStatus;
use shared::time::MINUTE;
use utoipa::ToSchema;

use crate::access::Caller;
use crate::answer;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::freshness::{self, Freshness, Progress};
use crate::params;
use crate::problems::ReportError;
use crate::tiles::Tile;

/// How fresh a campaign's provisional numbers are.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Latency {
    campaign_id: String,
    /// 95th percentile from an event's acceptance to its being visible, milliseconds, over the last minutes.
    ingest_p95_ms: u64,
    /// How far provisional numbers are behind now, whole seconds.
    pipeline_lag_seconds: u64,
    /// campaign, or pipeline where the campaign is too quiet to be measured by itself.
    measured_over: String,
    #[serde(flatten)]
    freshness: Freshness,
}

/// The two promises.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sla {
    /// For dashboards and pacing.
    streaming: StreamingSla,
    /// For invoices.
    authoritative: AuthoritativeSla,
    #[serde(flatten)]
    freshness: Freshness,
}

/// What provisional numbers promise.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamingSla {
    /// speed.
    source: String,
    /// The label of its rows.
    finality: Vec<String>,
    /// Accepted events are visible after this, 99 of 100.
    freshness_target_seconds: u64,
    /// What is measured now, whole seconds.
    pipeline_lag_seconds: u64,
    /// What is measured now, milliseconds.
    ingest_p95_ms: u64,
    /// Whether the promise is kept now.
    is_met: bool,
    /// What is not promised.
    note: String,
}

/// What exact numbers promise.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthoritativeSla {
    /// batch.
    source: String,
    /// The labels of its rows.
    finality: Vec<String>,
    /// Available this long after the end of the UTC day.
    available_after_seconds: u64,
    /// What is promised.
    note: String,
}

/// The state of the speed layer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    #[serde(flatten)]
    freshness: Freshness,
    /// Records behind the end of the log, over all writers.
    lag_records: u64,
    /// How far provisional numbers are behind now, whole seconds.
    pipeline_lag_seconds: u64,
    /// Every event the speed layer saw, by outcome.
    outcomes: BTreeMap<String, u64>,
    /// Each writer: one per partition of the log.
    writers: Vec<Writer>,
}

/// One speed worker.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Writer {
    /// Its log partition.
    writer: u32,
    /// Events before this instant are assumed to have been seen.
    watermark: String,
    /// Rows are as of this instant.
    as_of: String,
    /// When it last flushed.
    flushed_at: String,
    /// The next log position.
    next_position: u64,
    /// Records behind the end of the log.
    lag_records: u64,
    /// 95th percentile from ingest to flush, milliseconds.
    ingest_p95_ms: u64,
    /// Every event it saw, by outcome.
    outcomes: BTreeMap<String, u64>,
    /// Late events by the hour they fell into: the exact path counts them.
    late_by_hour: BTreeMap<String, u64>,
}

impl Writer {
    fn of(writer: u32, status: WriterStatus) -> Self {
        Self {
            writer,
            watermark: status.watermark.to_string(),
            as_of: status.as_of.to_string(),
            flushed_at: status.flushed_at.to_string(),
            next_position: status.next_position,
            lag_records: status.lag,
            ingest_p95_ms: status.ingest_p95_ms,
            outcomes: status.outcomes,
            late_by_hour: status.late_by_hour.into_iter().map(|(hour, n)| (hour.to_string(), n)).collect(),
        }
    }
}

async fn measure(context: &Context) -> Result<(BTreeMap<u32, WriterStatus>, Progress, Freshness), ReportError> {
    let writers = context.store.writers().await?;
    let now = context.now();
    let progress = freshness::progress(&writers, now, context.settings.stale_after);
    // A range that cannot be exact: what is said is about provisional numbers.
    let freshness = progress.of_range(&(now..now.plus(MINUTE)), false);
    Ok((writers, progress, freshness))
}

/// How fresh a campaign's numbers are.
#[utoipa::path(
    get, path = "/v1/metrics/campaigns/{id}/latency", tag = "pipeline",
    params(("id" = String, Path, description = "The campaign")),
    responses(
        (status = 200, description = "The latency", body = Latency),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "No such campaign, or not yours"),
    ),
)]
pub(crate) async fn latency(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let campaign: CampaignId = params::id(&id)?;
    caller.sees_campaign(&campaign, &context)?;
    let make = async {
        let (writers, progress, freshness) = measure(&context).await?;
        let own = writers.values().filter_map(|w| w.campaign_p95_ms.get(&campaign)).max().copied();
        Tile::new(&Latency {
            campaign_id: campaign.to_string(),
            ingest_p95_ms: own.unwrap_or(progress.ingest_p95_ms),
            pipeline_lag_seconds: progress.lag_seconds(),
            measured_over: if own.is_some() { "campaign" } else { "pipeline" }.to_owned(),
            freshness,
        })
    };
    let tile = context.tiles.get(format!("latency|{campaign}"), context.now(), make).await?;
    Ok(answer::json(&tile, &headers))
}

/// What is promised of provisional and of exact numbers, and whether it is kept.
#[utoipa::path(
    get, path = "/v1/sla", tag = "pipeline",
    responses((status = 200, description = "The promises", body = Sla), (status = 401, description = "No valid API key")),
)]
pub(crate) async fn sla(
    State(context): State<Arc<Context>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let make = async {
        let (_, progress, freshness) = measure(&context).await?;
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let target = context.settings.freshness_target.0.as_secs();
        Tile::new(&Sla {
            streaming: StreamingSla {
                source: "speed".to_owned(),
                finality: words(&["provisional"]),
                freshness_target_seconds: target,
                pipeline_lag_seconds: progress.lag_seconds(),
                ingest_p95_ms: progress.ingest_p95_ms,
                is_met: !freshness.stale && progress.lag_seconds() <= target,
                note: "may miss very late events and count duplicates beyond its memory; never for invoices".to_owned(),
            },
            authoritative: AuthoritativeSla {
                source: "batch".to_owned(),
                finality: words(&["reconciled", "settled"]),
                available_after_seconds: context.settings.exact_after.0.as_secs(),
                note: "exact over the whole archive; settled rows equal the published settlement".to_owned(),
            },
            freshness,
        })
    };
    let tile = context.tiles.get("sla".to_owned(), context.now(), make).await?;
    Ok(answer::json(&tile, &headers))
}

/// The state of every speed worker. Scope ops, operator only.
#[utoipa::path(
    get, path = "/v1/status", tag = "pipeline",
    responses(
        (status = 200, description = "The state", body = Status),
        (status = 401, description = "No valid API key"),
        (status = 403, description = "Not the operator's key, or without the scope ops"),
    ),
)]
pub(crate) async fn status(
    State(context): State<Arc<Context>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Ops)?;
    caller.needs_operator()?;
    let make = async {
        let (writers, progress, freshness) = measure(&context).await?;
        Tile::new(&Status {
            freshness,
            lag_records: progress.lag_records,
            pipeline_lag_seconds: progress.lag_seconds(),
            outcomes: progress.outcomes,
            writers: writers.into_iter().map(|(writer, status)| Writer::of(writer, status)).collect(),
        })
    };
    let tile = context.tiles.get("status".to_owned(), context.now(), make).await?;
    Ok(answer::json(&tile, &headers))
}

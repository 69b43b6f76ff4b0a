//! `GET /v1/explain/events/{id}` and `GET /v1/explain/campaigns/{id}`: where a number comes from.
//! Guarantees: a tenant sees the occurrences of its own campaigns only, and an event that has none is a 404 like one
//! that does not exist; an answer is asked of the lake each time and never kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use shared::error::ErrorKind;
use shared::explain::{Occurrence, Unexplained, Waterfall};
use shared::http::problem::Problem;
use shared::id::{CampaignId, EventId};
use utoipa::{IntoParams, ToSchema};

use crate::access::Caller;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::params::{self, Params};
use crate::problems::{invalid, not_found};

/// One event's life.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventLife {
    event_id: String,
    /// Everywhere the id was archived, in archive order. Each has: day, eventType, adId, campaignId, eventTime,
    /// ingestTime, region, partition, position, invalidAtCapture, fingerprint, first (the event that holds the id),
    /// judged (run, rulesVersion, billingTime, clamped, windows, verdict, why, repeats, currency, priceModel,
    /// priceVersion, price, costNanos, settled: folder, version, sequence, file, row and the line's sums).
    #[schema(value_type = Vec<Object>)]
    occurrences: Vec<Occurrence>,
}

/// Which day.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DayParams {
    /// A UTC day, such as 2026-01-05.
    date: Option<String>,
}

/// The life of one event, from the log to its settlement line.
#[utoipa::path(
    get, path = "/v1/explain/events/{id}", tag = "explain",
    params(("id" = String, Path, description = "The event's id")),
    responses(
        (status = 200, description = "Its life", body = EventLife),
        (status = 400, description = "That is no id"),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "No such event, or not yours"),
        (status = 503, description = "The lake is away"),
    ),
)]
pub(crate) async fn event(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<EventLife>, Problem> {
    caller.needs(Scope::Reports)?;
    let id: EventId = params::id(&id)?;
    let mut occurrences = context.explainer.event(&id).await.map_err(problem)?;
    let is_theirs = |o: &Occurrence| {
        CampaignId::new(&o.campaign_id).is_ok_and(|campaign| caller.sees_campaign(&campaign, &context).is_ok())
    };
    occurrences.retain(is_theirs);
    if occurrences.is_empty() {
        return Err(not_found("there is no such event", "check the id; what was refused was never archived"));
    }
    Ok(Json(EventLife { event_id: id.to_string(), occurrences }))
}

/// A campaign's day: from archived to due, and the drift of what was shown before, by cause. The steps sum.
#[utoipa::path(
    get, path = "/v1/explain/campaigns/{id}", tag = "explain",
    params(("id" = String, Path, description = "The campaign"), DayParams),
    responses(
        (status = 200, description = "campaignId, day, run, events (steps), amounts by currency (priced, \
            unroundedNanos, roundingNanos, linesMicros, settledMicros, adjustmentsMicros, dueMicros), drift (events, \
            causes, uniques), notes", body = Object),
        (status = 400, description = "A parameter is wrong"),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "No such campaign, not yours, or the day was not recounted yet"),
        (status = 503, description = "The lake is away"),
    ),
)]
pub(crate) async fn campaign(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(asked): Params<DayParams>,
) -> Result<Json<Waterfall>, Problem> {
    caller.needs(Scope::Reports)?;
    let campaign: CampaignId = params::id(&id)?;
    caller.sees_campaign(&campaign, &context)?;
    let date = asked.date.ok_or_else(|| invalid("the day is missing", "add ?date=2026-01-05"))?;
    let day = params::date(&date)?;
    let found = context.explainer.campaign(&campaign, day).await.map_err(problem)?;
    let found = found.filter(|w| w.events.iter().any(|s| s.events != 0));
    let none =
        || not_found(format!("there is nothing of this campaign on {day}"), "see /v1/sla for when a day is exact");
    Ok(Json(found.ok_or_else(none)?))
}

fn problem(error: Unexplained) -> Problem {
    tracing::warn!(%error, "no explanation");
    let fix = match error.kind {
        ErrorKind::Unavailable => "try again; the numbers are safe",
        _ => "report the requestId to the operator",
    };
    Problem::of_kind(error.kind, "the explanation could not be made", fix)
}

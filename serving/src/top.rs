//! `GET /v1/reports/top`: the busiest campaigns the caller may see.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use shared::http::problem::Problem;
use shared::id::CampaignId;
use shared::money::{Overflow, micros_half_even};
use shared::rollup::{Finality, TimeRange};
use shared::serving_store::{TopBy, TopCampaign};
use shared::time::{HOUR, MINUTE};
use utoipa::{IntoParams, ToSchema};

use crate::Retention;
use crate::access::Caller;
use crate::answer;
use crate::api_keys::Scope;
use crate::bounds::{Judge, RowBounds};
use crate::context::Context;
use crate::freshness::{self, Freshness};
use crate::params::{self, MAX_TOP, Params};
use crate::problems::{ReportError, invalid};
use crate::rows::{self, Counted};
use crate::tiles::Tile;

const DEFAULT_TOP: usize = 10;
/// The longest range of one question, days: every campaign's minutes are summed.
const MAX_DAYS: i64 = 1;

/// What may be asked of a top list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TopParams {
    /// clicks (the default), impressions, conversions or cost (then a list per currency).
    by: Option<String>,
    /// Lines, 1 to 100; default 10.
    n: Option<usize>,
    /// Start, inclusive. Default: one hour before `to`.
    from: Option<String>,
    /// End, exclusive; at most one day later. Default: now.
    to: Option<String>,
}

/// A top list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopReport {
    by: String,
    /// Start, inclusive.
    from: String,
    /// End, exclusive.
    to: String,
    #[serde(flatten)]
    freshness: Freshness,
    /// The busiest first; by cost, currency by currency.
    campaigns: Vec<TopRow>,
}

/// One line of a top list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopRow {
    pub(crate) campaign_id: String,
    /// ISO 4217; XXX where nothing has a price.
    pub(crate) currency: String,
    #[serde(flatten)]
    pub(crate) counted: Counted,
    /// Cost in micros of the currency, rounded half-even from exact nanos.
    pub(crate) cost_micros: i64,
    /// Where the exact numbers lie; absent once the row is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bounds: Option<RowBounds>,
    /// provisional, or reconciled where every hour of the range is exact.
    pub(crate) finality: String,
    /// speed or batch.
    pub(crate) source: String,
}

impl TopRow {
    pub(crate) fn of(line: &TopCampaign, range: &TimeRange, is_exact: bool, judge: &Judge) -> Result<Self, Overflow> {
        let finality = if is_exact { Finality::Reconciled } else { Finality::Provisional };
        let cost_micros = micros_half_even(line.counts.cost_nanos)?;
        let bounds = judge.row(range.start, range.end.since(range.start), &line.counts, finality);
        Ok(Self {
            campaign_id: line.campaign_id.to_string(),
            currency: line.currency.to_string(),
            counted: (&line.counts).into(),
            cost_micros,
            bounds: bounds.map(|b| b.with_cost(&line.counts, cost_micros)),
            finality: finality.as_str().to_owned(),
            source: rows::source(finality).to_owned(),
        })
    }
}

fn order(text: Option<&str>) -> Result<(&'static str, TopBy), Problem> {
    const ORDERS: [(&str, TopBy); 4] = [
        ("clicks", TopBy::Clicks),
        ("impressions", TopBy::Impressions),
        ("conversions", TopBy::Conversions),
        ("cost", TopBy::Cost),
    ];
    let text = text.unwrap_or("clicks");
    let known = ORDERS.into_iter().find(|(name, _)| *name == text);
    known.ok_or_else(|| invalid(format!("by {text:?} is not known"), "use clicks, impressions, conversions or cost"))
}

/// The busiest campaigns of the last hour, or of any range within a day.
#[utoipa::path(
    get, path = "/v1/reports/top", tag = "reports", params(TopParams),
    responses(
        (status = 200, description = "The list", body = TopReport),
        (status = 304, description = "Nothing changed since If-None-Match"),
        (status = 400, description = "A parameter is wrong"),
        (status = 401, description = "No valid API key"),
    ),
)]
pub(crate) async fn top(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Params(asked): Params<TopParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let (name, by) = order(asked.by.as_deref())?;
    let n = match asked.n.unwrap_or(DEFAULT_TOP) {
        n @ 1..=MAX_TOP => n,
        n => return Err(invalid(format!("n {n} is out of range"), format!("use 1 to {MAX_TOP}"))),
    };
    let now = context.now();
    let range = params::time_range(asked.from.as_deref(), asked.to.as_deref(), now, MINUTE, HOUR, MAX_DAYS)?;
    Retention::check(context.settings.retention.minutes, &range, now)?;
    let key = format!("top|{}|{name}|{n}|{range:?}", caller.tenant);
    let among = caller.campaigns(&context);
    let tile = context.tiles.get(key, now, make(&context, name, by, n, range, among)).await?;
    Ok(answer::json(&tile, &headers))
}

async fn make(
    context: &Context,
    name: &str,
    by: TopBy,
    n: usize,
    range: TimeRange,
    among: Option<Vec<CampaignId>>,
) -> Result<Tile, ReportError> {
    let lines = context.store.top(range.clone(), by, n, among.as_deref()).await?;
    let owned = context.store.owned_hours(range.start.floor(HOUR)..range.end).await?;
    let writers = context.store.writers().await?;
    let progress = freshness::progress(&writers, context.now(), context.settings.stale_after);
    let is_exact = rows::is_exact(&range, &owned);
    let judge = context.judge(progress.as_of).await;
    Tile::new(&TopReport {
        by: name.to_owned(),
        from: range.start.to_string(),
        to: range.end.to_string(),
        freshness: progress.of_range(&range, is_exact),
        campaigns: lines.iter().map(|l| TopRow::of(l, &range, is_exact, &judge)).collect::<Result<_, _>>()?,
    })
}

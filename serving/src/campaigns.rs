//! `GET /v1/reports/campaigns/{id}/hourly`: one campaign's hours, grouped by an allowed set of dimensions.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use shared::http::problem::Problem;
use shared::id::CampaignId;
use shared::rollup::TimeRange;
use shared::time::{DAY, HOUR};
use utoipa::{IntoParams, ToSchema};

use crate::Retention;
use crate::access::Caller;
use crate::answer;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::freshness::{self, Freshness};
use crate::paging;
use crate::params::{self, Params};
use crate::problems::{ReportError, invalid};
use crate::rows::{self, Grouping, HourKey, HourRow};
use crate::tiles::Tile;

/// The longest range of one question, days.
const MAX_DAYS: i64 = 92;

/// What may be asked of a campaign's hours.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct HourlyParams {
    /// Start, inclusive: RFC 3339 or a UTC date; widened to a whole hour. Default: one day before `to`.
    from: Option<String>,
    /// End, exclusive; at most 92 days later. Default: now.
    to: Option<String>,
    /// country, deviceType or country,deviceType. Other dimensions are not offered.
    group_by: Option<String>,
    /// Rows of one page, 1 to 10000; default 2000.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A campaign's hours.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CampaignHours {
    campaign_id: String,
    /// Start, inclusive.
    from: String,
    /// End, exclusive.
    to: String,
    #[serde(flatten)]
    freshness: Freshness,
    /// Hours in which something was counted, by time, dimensions and currency.
    buckets: Vec<HourRow>,
    /// The next page's cursor; absent on the last page.
    next: Option<String>,
}

struct Question {
    campaign: CampaignId,
    grouping: Grouping,
    range: TimeRange,
    after: Option<HourKey>,
    limit: usize,
}

/// One campaign's counts, spend and unique users by hour.
#[utoipa::path(
    get, path = "/v1/reports/campaigns/{id}/hourly", tag = "reports",
    params(("id" = String, Path, description = "The campaign"), HourlyParams),
    responses(
        (status = 200, description = "The hours", body = CampaignHours),
        (status = 304, description = "Nothing changed since If-None-Match"),
        (status = 400, description = "A parameter is wrong"),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "No such campaign, or not yours"),
    ),
)]
pub(crate) async fn hourly(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(id): Path<String>,
    Params(asked): Params<HourlyParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let campaign: CampaignId = params::id(&id)?;
    caller.sees_campaign(&campaign, &context)?;
    let grouping = grouping(asked.group_by.as_deref())?;
    let now = context.now();
    let range = params::time_range(asked.from.as_deref(), asked.to.as_deref(), now, HOUR, DAY, MAX_DAYS)?;
    Retention::check(context.settings.retention.hours, &range, now)?;
    let (after, limit) = (paging::read(asked.cursor.as_deref())?, params::page_rows(asked.limit)?);
    let question = Question { campaign, grouping, range, after, limit };
    let key = format!(
        "campaign|{}|{:?}|{:?}|{:?}|{limit}",
        question.campaign, question.grouping, question.range, question.after
    );
    let tile = context.tiles.get(key, now, make(&context, question)).await?;
    Ok(answer::json(&tile, &headers))
}

fn grouping(text: Option<&str>) -> Result<Grouping, Problem> {
    Grouping::parse(text).ok_or_else(|| {
        let fix = format!("use one of: {}; or leave groupBy out", Grouping::ALLOWED.join(" | "));
        let why = "finer groups are not kept: they would have too many values, or too few people in them";
        invalid(format!("groupBy is not an allowed set of dimensions; {why}"), fix)
    })
}

async fn make(context: &Context, question: Question) -> Result<Tile, ReportError> {
    let Question { campaign, grouping, range, after, limit } = question;
    let points = context.store.campaign_hours(&campaign, range.clone()).await?;
    let owned = context.store.owned_hours(range.clone()).await?;
    let writers = context.store.writers().await?;
    let progress = freshness::progress(&writers, context.now(), context.settings.stale_after);
    let judge = context.judge(progress.as_of).await;
    let rows = rows::hours(points, grouping, progress.as_of, &judge)?;
    let (buckets, next) = paging::page(rows, after.as_ref(), limit);
    Tile::new(&CampaignHours {
        campaign_id: campaign.to_string(),
        from: range.start.to_string(),
        to: range.end.to_string(),
        freshness: progress.of_range(&range, rows::is_exact(&range, &owned)),
        buckets,
        next,
    })
}

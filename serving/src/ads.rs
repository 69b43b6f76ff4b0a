//! `GET /api/v1/ads/{adId}/aggregates`: one ad's series, minutes merged into the windows asked for.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use shared::http::problem::Problem;
use shared::id::AdId;
use shared::rollup::TimeRange;
use shared::time::HOUR;
use utoipa::{IntoParams, ToSchema};

use crate::Retention;
use crate::access::Caller;
use crate::answer;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::freshness::{self, Freshness};
use crate::paging;
use crate::params::{self, Granularity, Params};
use crate::problems::ReportError;
use crate::rows::{self, SeriesKey, SeriesRow};
use crate::tiles::Tile;

/// What may be asked of a series.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesParams {
    /// Start, inclusive: RFC 3339 or a UTC date; widened to a whole window. Default: one hour before `to`
    /// (or one window, if longer).
    from: Option<String>,
    /// End, exclusive. Default: now.
    to: Option<String>,
    /// minute (at most 3 days at a time), 5m (7 days), hour (31 days) or day (92 days).
    granularity: Option<String>,
    /// Rows of one page, 1 to 10000; default 2000.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// An ad's series.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdSeries {
    ad_id: String,
    /// The window length of the rows.
    granularity: String,
    /// Start, inclusive.
    from: String,
    /// End, exclusive.
    to: String,
    #[serde(flatten)]
    freshness: Freshness,
    /// Windows in which something was counted, by time and currency.
    series: Vec<SeriesRow>,
    /// The next page's cursor; absent on the last page.
    next: Option<String>,
}

struct Question {
    ad: AdId,
    granularity: Granularity,
    range: TimeRange,
    after: Option<SeriesKey>,
    limit: usize,
}

/// One ad's counts and cost by minute, 5 minutes, hour or day.
#[utoipa::path(
    get, path = "/api/v1/ads/{adId}/aggregates", tag = "reports",
    params(("adId" = String, Path, description = "The ad"), SeriesParams),
    responses(
        (status = 200, description = "The series", body = AdSeries),
        (status = 304, description = "Nothing changed since If-None-Match"),
        (status = 400, description = "A parameter is wrong"),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "No such ad, or not yours"),
    ),
)]
pub(crate) async fn aggregates(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(ad): Path<String>,
    Params(asked): Params<SeriesParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let ad: AdId = params::id(&ad)?;
    caller.sees_ad(&ad, &context)?;
    let granularity = Granularity::parse(asked.granularity.as_deref())?;
    let (length, now) = (granularity.length(), context.now());
    let (from, to) = (asked.from.as_deref(), asked.to.as_deref());
    let range = params::time_range(from, to, now, length, HOUR.max(length), granularity.max_days())?;
    Retention::check(context.settings.retention.minutes, &range, now)?;
    let (after, limit) = (paging::read(asked.cursor.as_deref())?, params::page_rows(asked.limit)?);
    let question = Question { ad, granularity, range, after, limit };
    let key = format!("ad|{}|{}|{:?}|{:?}|{limit}", question.ad, granularity.as_str(), question.range, question.after);
    let tile = context.tiles.get(key, now, make(&context, question)).await?;
    Ok(answer::json(&tile, &headers))
}

async fn make(context: &Context, question: Question) -> Result<Tile, ReportError> {
    let Question { ad, granularity, range, after, limit } = question;
    let points = context.store.ad_series(&ad, range.clone()).await?;
    let owned = context.store.owned_hours(range.start.floor(HOUR)..range.end).await?;
    let writers = context.store.writers().await?;
    let progress = freshness::progress(&writers, context.now(), context.settings.stale_after);
    let judge = context.judge(progress.as_of).await;
    let rows = rows::series(&points, granularity.length(), &owned, &judge)?;
    let (series, next) = paging::page(rows, after.as_ref(), limit);
    Tile::new(&AdSeries {
        ad_id: ad.to_string(),
        granularity: granularity.as_str().to_owned(),
        from: range.start.to_string(),
        to: range.end.to_string(),
        freshness: progress.of_range(&range, rows::is_exact(&range, &owned)),
        series,
        next,
    })
}

//! The live picture: what the dashboard shows, as one answer that everybody with the same rights shares.
//! Changes only when something shown changes, so that a stream need not repeat itself.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::id::CampaignId;
use shared::money::{Overflow, micros_half_even};
use shared::rollup::{Counts, Finality, TimeRange};
use shared::serving_store::{SeriesPoint, TopBy};
use shared::time::{HOUR, MINUTE};
use utoipa::ToSchema;

use crate::api_keys::Tenant;
use crate::bounds::{Judge, RowBounds};
use crate::context::Context;
use crate::drift::DayCard;
use crate::freshness::{self, Freshness};
use crate::problems::ReportError;
use crate::rows;
use crate::tiles::Tile;
use crate::top::TopRow;

/// Minutes shown, the current one last.
const MINUTES: i64 = 60;
/// Campaigns drawn.
const CAMPAIGNS: usize = 6;
/// Lines of the top list.
const TOP: usize = 10;

/// The live picture.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Live {
    /// The first minute shown, inclusive.
    from: String,
    /// The end, exclusive.
    to: String,
    #[serde(flatten)]
    freshness: Freshness,
    /// 95th percentile from ingest to flush, milliseconds.
    ingest_p95_ms: u64,
    /// Records behind the end of the log.
    lag_records: u64,
    /// The busiest campaigns (or the one asked for), minute by minute.
    campaigns: Vec<LiveCampaign>,
    /// The busiest campaigns of these minutes.
    top: Vec<TopRow>,
    /// Every event the speed layer saw, by outcome; the operator's picture only.
    outcomes: Option<BTreeMap<String, u64>>,
    /// Closed days, newest first: drift before and after, settlement.
    days: Vec<DayCard>,
}

/// One campaign's minutes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveCampaign {
    campaign_id: String,
    /// Cost of these minutes in micros, by currency.
    cost_micros: BTreeMap<String, i64>,
    /// Minutes in which something was counted, over all currencies.
    minutes: Vec<LiveMinute>,
}

/// One bar.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LiveMinute {
    /// Minutes after `from`.
    offset: i64,
    impressions: u64,
    clicks: u64,
    conversions: u64,
    /// Where the exact numbers lie; absent once the row is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds: Option<RowBounds>,
    /// provisional, reconciled or settled.
    finality: String,
}

/// The picture for `tenant`: of `campaign`, which the caller may see, or of the busiest among `mine`.
pub(crate) async fn make(
    context: &Context,
    tenant: &Tenant,
    mine: Option<Vec<CampaignId>>,
    campaign: Option<CampaignId>,
) -> Result<Tile, ReportError> {
    let end = context.now().plus(MINUTE - 1).floor(MINUTE);
    let range = end.plus(-MINUTES * MINUTE)..end;
    let writers = context.store.writers().await?;
    let progress = freshness::progress(&writers, context.now(), context.settings.stale_after);
    let owned = context.store.owned_hours(range.start.floor(HOUR)..range.end).await?;
    let is_exact = rows::is_exact(&range, &owned);
    let judge = context.judge(progress.as_of).await;
    let top = context.store.top(range.clone(), TopBy::Clicks, TOP, mine.as_deref()).await?;
    let drawn = match campaign {
        Some(campaign) => vec![campaign],
        None => busiest(top.iter().map(|l| &l.campaign_id)),
    };
    let mut campaigns = Vec::new();
    for id in drawn {
        let points = context.store.campaign_series(&id, range.clone()).await?;
        campaigns.push(draw(&id, &points, &range, &judge)?);
    }
    let days = context.drift_cards.newest(&*context.objects, context.now(), mine.as_deref()).await;
    Tile::new(&Live {
        from: range.start.to_string(),
        to: range.end.to_string(),
        freshness: progress.of_range(&range, is_exact),
        ingest_p95_ms: progress.ingest_p95_ms,
        lag_records: progress.lag_records,
        campaigns,
        top: top.iter().map(|l| TopRow::of(l, &range, is_exact, &judge)).collect::<Result<_, _>>()?,
        outcomes: (*tenant == Tenant::Operator).then_some(progress.outcomes),
        days,
    })
}

/// The first few different campaigns (one may have a line per currency).
fn busiest<'a>(lines: impl Iterator<Item = &'a CampaignId>) -> Vec<CampaignId> {
    let mut ids: Vec<CampaignId> = Vec::new();
    for id in lines {
        if ids.len() < CAMPAIGNS && !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    ids
}

fn draw(id: &CampaignId, points: &[SeriesPoint], range: &TimeRange, judge: &Judge) -> Result<LiveCampaign, Overflow> {
    let mut minutes: BTreeMap<i64, LiveMinute> = BTreeMap::new();
    let mut nanos: BTreeMap<String, i128> = BTreeMap::new();
    for point in points {
        let offset = point.window_start.since(range.start) / MINUTE;
        let empty =
            || LiveMinute { offset, impressions: 0, clicks: 0, conversions: 0, bounds: None, finality: String::new() };
        let bar = minutes.entry(offset).or_insert_with(empty);
        bar.impressions = bar.impressions.checked_add(point.counts.impressions).ok_or(Overflow)?;
        bar.clicks = bar.clicks.checked_add(point.counts.clicks).ok_or(Overflow)?;
        bar.conversions = bar.conversions.checked_add(point.counts.conversions).ok_or(Overflow)?;
        // One minute lies in one hour: all its points have one finality.
        Finality::as_str(point.finality).clone_into(&mut bar.finality);
        let (impressions, clicks, conversions) = (bar.impressions, bar.clicks, bar.conversions);
        let counts = Counts { impressions, clicks, conversions, cost_nanos: 0 };
        bar.bounds = judge.row(point.window_start, MINUTE, &counts, point.finality);
        let sum = nanos.entry(point.currency.to_string()).or_default();
        *sum = sum.checked_add(point.counts.cost_nanos).ok_or(Overflow)?;
    }
    let cost = |(currency, nanos)| Ok((currency, micros_half_even(nanos)?));
    Ok(LiveCampaign {
        campaign_id: id.to_string(),
        cost_micros: nanos.into_iter().map(cost).collect::<Result<_, Overflow>>()?,
        minutes: minutes.into_values().collect(),
    })
}

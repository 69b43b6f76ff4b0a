//! Drift: how far provisional numbers were from the exact ones, per closed day, as reconcile reports it.
//! `GET /v1/drift/{date}` hands the report on: whole to the operator, an advertiser's own campaign hours to them.
//! [`DriftCards`] boils the newest days down for the dashboard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::HeaderMap;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::http::problem::Problem;
use shared::id::CampaignId;
use shared::money::micros_half_even;
use shared::time::{Day, SECOND, Timestamp};
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::access::Caller;
use crate::answer;
use crate::api_keys::Scope;
use crate::context::Context;
use crate::objects;
use crate::params;
use crate::problems::{ReportError, not_found};
use crate::settlement;
use crate::tiles::Tile;

/// Where the reports are, within the data root.
const FOLDER: &str = "reports/drift";
/// Days on the dashboard.
const CARDS: usize = 7;
/// Microseconds after which the folder is looked at again.
const CARDS_REFRESH: i64 = 5 * SECOND;
/// Reports larger than this are not boiled down.
const MAX_CARD_BYTES: u64 = 64 << 20;

fn path(day: Day) -> ObjectPath {
    ObjectPath::from(format!("{FOLDER}/day={day}.json"))
}

/// One day's drift report: shown against exact, before and after. Tenants see their own campaign hours.
#[utoipa::path(
    get, path = "/v1/drift/{date}", tag = "reports",
    params(("date" = String, Path, description = "A UTC day, such as 2026-01-05")),
    responses(
        (status = 200, description = "The report", body = Value),
        (status = 304, description = "Nothing changed since If-None-Match"),
        (status = 401, description = "No valid API key"),
        (status = 404, description = "The day has not been reconciled"),
    ),
)]
pub(crate) async fn report(
    State(context): State<Arc<Context>>,
    caller: Caller,
    Path(date): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs(Scope::Reports)?;
    let day = params::date(&date)?;
    let mine = caller.campaigns(&context);
    let key = format!("drift|{}|{day}", caller.tenant);
    let tile = context.tiles.get(key, context.now(), make(&context, day, mine)).await?;
    Ok(answer::json(&tile, &headers))
}

async fn make(context: &Context, day: Day, mine: Option<Vec<CampaignId>>) -> Result<Tile, ReportError> {
    let Some(bytes) = objects::read(&*context.objects, &path(day)).await? else {
        let fix = "a day is reconciled after it closed: see /v1/sla";
        return Err(not_found(format!("there is no drift report of {day}"), fix).into());
    };
    match mine {
        None => Ok(Tile::of_bytes(bytes)),
        Some(mine) => Tile::new(&only_of(serde_json::from_slice(&bytes)?, &mine)),
    }
}

/// The report with the campaign hours of `mine` only, and without what was summed over everybody's.
fn only_of(report: Value, mine: &[CampaignId]) -> Value {
    let is_mine = |campaign: &Value| {
        let id = campaign.get("campaignId").and_then(Value::as_str);
        id.is_some_and(|id| mine.iter().any(|m| m.as_str() == id))
    };
    let hours = report.get("hours").and_then(Value::as_array).into_iter().flatten();
    let hours: Vec<Value> = hours
        .filter_map(|hour| {
            let campaigns = hour.get("campaigns").and_then(Value::as_array).into_iter().flatten();
            let own: Vec<&Value> = campaigns.filter(|c| is_mine(c)).collect();
            (!own.is_empty()).then(|| json!({ "hour": hour.get("hour"), "campaigns": own }))
        })
        .collect();
    let kept = ["schemaVersion", "day", "run", "status"];
    let mut body: serde_json::Map<String, Value> =
        kept.iter().filter_map(|name| Some(((*name).to_owned(), report.get(name)?.clone()))).collect();
    body.insert("hours".to_owned(), hours.into());
    body.into()
}

/// Counts and cost as reports of reconcile write them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CountsForm {
    impressions: u64,
    clicks: u64,
    conversions: u64,
    cost_nanos: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PairForm {
    shown: CountsForm,
    exact: CountsForm,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CampaignForm {
    campaign_id: String,
    currency: String,
    #[serde(flatten)]
    pair: PairForm,
}

#[derive(Debug, Deserialize)]
struct HourForm {
    campaigns: Vec<CampaignForm>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReportForm {
    status: String,
    before: BTreeMap<String, PairForm>,
    after: Option<BTreeMap<String, PairForm>>,
    campaign_hours_differing: u64,
    #[serde(default)]
    bounds: Option<BoundsCard>,
    hours: Vec<HourForm>,
}

/// How good the error bounds were that a day was shown with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BoundsCard {
    /// Campaign hours shown.
    windows: u64,
    /// Those whose exact counts all lay within their bounds.
    inside: u64,
    /// The same per million.
    inside_ppm: u64,
    /// The median width of the bounds, per million of what was shown.
    median_width_ppm: u64,
}

/// Shown beside exact, in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShownExact {
    currency: String,
    /// Impressions, shown and exact.
    impressions: [u64; 2],
    /// Clicks, shown and exact.
    clicks: [u64; 2],
    /// Conversions, shown and exact.
    conversions: [u64; 2],
    /// Cost in micros, shown and exact.
    cost_micros: [i64; 2],
}

/// One closed day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DayCard {
    day: String,
    /// measured, overTolerance or corrected.
    status: String,
    /// Campaign hours that were shown wrong (a tenant: their own).
    campaign_hours_differing: u64,
    /// The whole day before it was corrected (a tenant: their own campaign hours that differed).
    before: Vec<ShownExact>,
    /// The same after, as read back; absent until then.
    after: Option<Vec<ShownExact>>,
    /// How good the error bounds were; absent where the speed layer showed nothing, and for tenants.
    bounds: Option<BoundsCard>,
    /// The published settlement's version, if there is one.
    settlement_version: Option<u32>,
}

/// The newest days' reports, looked for at most every [`CARDS_REFRESH`] and boiled down once each.
#[derive(Default)]
pub(crate) struct DriftCards {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    looked_at: Option<Timestamp>,
    /// Newest first.
    days: Vec<KnownDay>,
}

#[derive(Clone)]
struct KnownDay {
    day: Day,
    tag: String,
    /// Absent where the report is too large or of another form.
    report: Option<Arc<ReportForm>>,
    settlement_version: Option<u32>,
}

impl DriftCards {
    /// The newest days, newest first, as the owner of `mine` (everybody: `None`) may see them; as they were read last
    /// while the object store is away.
    pub(crate) async fn newest(
        &self,
        store: &dyn ObjectStore,
        now: Timestamp,
        mine: Option<&[CampaignId]>,
    ) -> Vec<DayCard> {
        let mine: Option<BTreeSet<&str>> = mine.map(|ids| ids.iter().map(CampaignId::as_str).collect());
        // Held while the folder is read: the others wait for it instead of reading it as well.
        let mut known = self.known.lock().await;
        let is_fresh = |at: Timestamp| (0..CARDS_REFRESH).contains(&now.since(at));
        if !known.looked_at.is_some_and(is_fresh) {
            known.looked_at = Some(now);
            if let Some(days) = objects::soon("the drift reports", look(store, &known.days)).await {
                known.days = days;
            }
        }
        let card = |k: &KnownDay| Some(card(k.day, k.report.as_ref()?, mine.as_ref(), k.settlement_version));
        known.days.iter().filter_map(card).collect()
    }
}

/// The newest days there are; what did not change since `before` is not read again.
async fn look(store: &dyn ObjectStore, before: &[KnownDay]) -> Result<Vec<KnownDay>, object_store::Error> {
    let (files, _) = objects::list(store, &ObjectPath::from(FOLDER)).await?;
    let mut days: Vec<(Day, ObjectMeta)> = files.into_iter().filter_map(|m| Some((day_of(&m)?, m))).collect();
    days.sort_unstable_by_key(|(day, _)| std::cmp::Reverse(*day));
    days.truncate(CARDS);
    let read = days.into_iter().map(async |(day, meta)| {
        let tag = objects::tag(&meta);
        let settlement_version = settlement::newest(store, day).await?;
        let report = match before.iter().find(|k| k.day == day && k.tag == tag) {
            Some(known) => known.report.clone(),
            None => boil_down(store, day, &meta).await?,
        };
        Ok(KnownDay { day, tag, report, settlement_version })
    });
    futures::future::try_join_all(read).await
}

async fn boil_down(
    store: &dyn ObjectStore,
    day: Day,
    meta: &ObjectMeta,
) -> Result<Option<Arc<ReportForm>>, object_store::Error> {
    if meta.size > MAX_CARD_BYTES {
        tracing::warn!(%day, bytes = meta.size, "the drift report is too large for the dashboard");
        return Ok(None);
    }
    let Some(bytes) = objects::read(store, &meta.location).await? else { return Ok(None) };
    let report = serde_json::from_slice(&bytes).map(Arc::new);
    if let Err(error) = &report {
        tracing::warn!(%day, %error, "the drift report has another form than the dashboard knows");
    }
    Ok(report.ok())
}

fn day_of(meta: &ObjectMeta) -> Option<Day> {
    Day::parse(meta.location.filename()?.strip_prefix("day=")?.strip_suffix(".json")?)
}

fn card(day: Day, report: &ReportForm, mine: Option<&BTreeSet<&str>>, settlement_version: Option<u32>) -> DayCard {
    let whole = |pairs: &BTreeMap<String, PairForm>| pairs.iter().map(|(c, pair)| shown_exact(c, pair)).collect();
    let (differing, before, after) = match mine {
        None => (report.campaign_hours_differing, whole(&report.before), report.after.as_ref().map(whole)),
        Some(mine) => {
            let campaigns = report.hours.iter().flat_map(|h| &h.campaigns);
            let own: Vec<&CampaignForm> = campaigns.filter(|c| mine.contains(c.campaign_id.as_str())).collect();
            let before = add_up(&own);
            // Whoever reconcile corrected is exact: the same numbers on both sides.
            let after = report.after.as_ref().map(|_| before.iter().map(ShownExact::corrected).collect());
            (u64::try_from(own.len()).unwrap_or(u64::MAX), before, after)
        }
    };
    DayCard {
        day: day.to_string(),
        status: report.status.clone(),
        campaign_hours_differing: differing,
        before,
        after,
        bounds: report.bounds.filter(|_| mine.is_none()),
        settlement_version,
    }
}

fn add_up(campaigns: &[&CampaignForm]) -> Vec<ShownExact> {
    let mut sums: BTreeMap<&str, PairForm> = BTreeMap::new();
    for campaign in campaigns {
        let sum = sums.entry(campaign.currency.as_str()).or_default();
        sum.shown.add(&campaign.pair.shown);
        sum.exact.add(&campaign.pair.exact);
    }
    sums.iter().map(|(currency, pair)| shown_exact(currency, pair)).collect()
}

impl CountsForm {
    fn nanos(&self) -> i128 {
        self.cost_nanos.parse().unwrap_or(0)
    }

    /// Saturating: a picture, not a bill.
    fn add(&mut self, other: &Self) {
        self.impressions = self.impressions.saturating_add(other.impressions);
        self.clicks = self.clicks.saturating_add(other.clicks);
        self.conversions = self.conversions.saturating_add(other.conversions);
        self.cost_nanos = self.nanos().saturating_add(other.nanos()).to_string();
    }
}

fn shown_exact(currency: &str, pair: &PairForm) -> ShownExact {
    let micros = |c: &CountsForm| micros_half_even(c.nanos()).unwrap_or(i64::MAX);
    let (shown, exact) = (&pair.shown, &pair.exact);
    ShownExact {
        currency: currency.to_owned(),
        impressions: [shown.impressions, exact.impressions],
        clicks: [shown.clicks, exact.clicks],
        conversions: [shown.conversions, exact.conversions],
        cost_micros: [micros(shown), micros(exact)],
    }
}

impl ShownExact {
    fn corrected(&self) -> Self {
        let [_, impressions] = self.impressions;
        let [_, clicks] = self.clicks;
        let [_, conversions] = self.conversions;
        let [_, cost] = self.cost_micros;
        Self {
            currency: self.currency.clone(),
            impressions: [impressions; 2],
            clicks: [clicks; 2],
            conversions: [conversions; 2],
            cost_micros: [cost; 2],
        }
    }
}

//! Reports: numbers, finality, merging, grouping, pages, freshness, outages.

use shared::event::{Country, DeviceType};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RollupRow, RowVersion};
use shared::serving_store::{Correction, ServingStore, WriterStatus};
use shared::testing::conformance::serving_store as laws;
use shared::time::{HOUR, MINUTE, SECOND};

use super::*;

const HOUR_RANGE: &str = "from=2026-01-05T10:00:00Z&to=2026-01-05T11:00:00Z";
const DAY_RANGE: &str = "from=2026-01-05&to=2026-01-06";

fn ad_row(minute: i64, currency: &str, counts: Counts) -> RollupRow {
    let key = RollupKey::AdMinute {
        minute: laws::hour().plus(minute * MINUTE),
        ad_id: AdId::new("a1").unwrap(),
        campaign_id: CampaignId::new("c1").unwrap(),
        currency: Currency::parse(currency).unwrap(),
    };
    RollupRow { key, counts, uniques: None }
}

fn hour_row(hours: i64, country: &str, device_type: DeviceType, users: std::ops::Range<u32>) -> RollupRow {
    let row = laws::campaign_hour("c1", hours, 1, users);
    let RollupKey::CampaignHour { hour, campaign_id, currency, .. } = row.key else { panic!() };
    let country = Country::parse(country).unwrap();
    RollupRow { key: RollupKey::CampaignHour { hour, campaign_id, country, device_type, currency }, ..row }
}

fn counts(clicks: u64, cost_nanos: i128) -> Counts {
    Counts { impressions: clicks * 10, clicks, conversions: 1, cost_nanos }
}

async fn own_hour(api: &Api, hours: i64, correction: Correction) {
    let version = RowVersion::reconciled(1);
    api.store.overwrite_exact(laws::hour().plus(hours * HOUR), correction, version).await.unwrap();
}

#[tokio::test]
async fn an_ads_minutes_carry_counts_rounded_cost_currency_and_finality() {
    let api = Api::start().await;
    let rows =
        vec![ad_row(0, "EUR", counts(2, 1_500)), ad_row(0, "USD", counts(1, 2_500)), ad_row(1, "EUR", counts(3, 0))];
    api.flush(1, rows).await;
    let answer = api.get(&format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}"), &api.tenant).await;
    assert_eq!(answer.status, 200);
    let mut body = answer.json();
    let bounds = body["series"][0].as_object_mut().unwrap().remove("bounds").unwrap();
    let range = |of: &str| (bounds[of]["low"].as_i64().unwrap(), bounds[of]["high"].as_i64().unwrap());
    for (of, shown) in [("impressions", 20), ("clicks", 2), ("conversions", 1), ("costMicros", 2)] {
        assert!(range(of).0 < shown && shown < range(of).1, "{of}: {bounds}");
    }
    let expected = serde_json::json!({
        "minute": "2026-01-05T10:00:00Z", "currency": "EUR", "impressions": 20, "clicks": 2, "conversions": 1,
        "costMicros": 2, "finality": "provisional", "source": "speed",
    });
    assert_eq!(body["series"][0], expected);
    assert_eq!(body["series"][1]["currency"], "USD", "currencies are never summed");
    assert_eq!(body["series"][1]["costMicros"], 2, "2.5 micros round half-even");
    assert_eq!(body["series"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&body["adId"], &body["from"], &body["stale"]),
        (&"a1".into(), &"2026-01-05T10:00:00Z".into(), &false.into())
    );
    assert_eq!(body["asOf"], start_time().to_string());
}

#[tokio::test]
async fn coarser_windows_add_up_and_round_once() {
    let api = Api::start().await;
    // 90 minutes of 400 nanos: rounded minutes would all be zero.
    api.flush(1, (0..90).map(|m| ad_row(m, "EUR", counts(1, 400))).collect()).await;
    let total = async |granularity: &str| {
        let path = format!("/api/v1/ads/a1/aggregates?{DAY_RANGE}&granularity={granularity}");
        let body = api.get(&path, &api.tenant).await.json();
        let rows = body["series"].as_array().unwrap().clone();
        let sum = |field: &str| rows.iter().map(|r| r[field].as_i64().unwrap()).sum::<i64>();
        (rows.len(), sum("clicks"), sum("impressions"), sum("costMicros"))
    };
    assert_eq!(total("minute").await, (90, 90, 900, 0));
    assert_eq!(total("5m").await, (18, 90, 900, 36));
    assert_eq!(total("hour").await, (2, 90, 900, 36));
    assert_eq!(total("day").await, (1, 90, 900, 36));
}

#[tokio::test]
async fn finality_goes_from_provisional_to_reconciled_to_settled_and_back_while_restated() {
    let api = Api::start().await;
    api.flush(1, vec![ad_row(0, "EUR", counts(1, 0)), hour_row(0, "DE", DeviceType::Ctv, 0..5)]).await;
    let seen = async || {
        let ad = api.get(&format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}"), &api.operator).await.json();
        let hours = api.get(&format!("/v1/reports/campaigns/c1/hourly?{HOUR_RANGE}"), &api.operator).await.json();
        let (ad, hour) = (&ad["series"][0], &hours["buckets"][0]);
        assert_eq!(ad["finality"], hour["finality"]);
        assert_eq!(ad["source"], if ad["finality"] == "provisional" { "speed" } else { "batch" });
        assert_eq!(ad["bounds"].is_object(), ad["finality"] == "provisional", "exact rows need no bounds");
        (ad["finality"].as_str().unwrap().to_owned(), ad["clicks"].as_u64().unwrap(), hours["asOf"].clone())
    };
    assert_eq!(seen().await.0, "provisional");
    own_hour(&api, 0, Correction::default()).await;
    let (finality, clicks, as_of) = seen().await;
    assert_eq!((finality.as_str(), clicks), ("reconciled", 1));
    assert_eq!(as_of, "2026-01-05T11:00:00Z", "an exact report is complete to its end");
    api.store.mark_settled(laws::hour().day(), 1).await.unwrap();
    assert_eq!(seen().await.0, "settled");
    own_hour(&api, 0, Correction { set: vec![ad_row(0, "EUR", counts(7, 0))], remove: Vec::new() }).await;
    let (finality, clicks, _) = seen().await;
    assert_eq!((finality.as_str(), clicks), ("reconciled", 7), "no longer what was published");
}

#[tokio::test]
async fn a_campaigns_hours_count_each_user_once_and_group_by_allowed_dimensions_only() {
    let api = Api::start().await;
    let rows = vec![
        hour_row(0, "DE", DeviceType::Mobile, 0..30),
        hour_row(0, "DE", DeviceType::Desktop, 20..40),
        hour_row(0, "FR", DeviceType::Mobile, 0..10),
    ];
    api.flush(1, rows).await;
    let groups = async |by: &str| {
        let path = format!("/v1/reports/campaigns/c1/hourly?{HOUR_RANGE}&groupBy={by}");
        let body = api.get(&path, &api.tenant).await.json();
        let row = |r: &Value| {
            let text = |name: &str| r[name].as_str().unwrap_or("-").to_owned();
            (text("country"), text("deviceType"), r["clicks"].as_u64().unwrap(), r["uniques"].as_u64().unwrap())
        };
        body["buckets"].as_array().unwrap().iter().map(row).collect::<Vec<_>>()
    };
    let own = |c: &str, d: &str, clicks, users| (c.to_owned(), d.to_owned(), clicks, users);
    assert_eq!(groups("").await, [own("-", "-", 3, 40)]);
    assert_eq!(groups("country").await, [own("DE", "-", 2, 40), own("FR", "-", 1, 10)]);
    assert_eq!(groups("deviceType").await, [own("-", "desktop", 1, 20), own("-", "mobile", 2, 30)]);
    assert_eq!(groups("country,deviceType").await.len(), 3);
    let one = api.get(&format!("/v1/reports/campaigns/c1/hourly?{HOUR_RANGE}"), &api.tenant).await.json();
    assert_eq!(one["buckets"][0]["uniquesStdErr"], 1, "1.625 % of 40, in users, rounded up");
    for refused in ["userPseudoId", "country,adId", "Country"] {
        let path = format!("/v1/reports/campaigns/c1/hourly?{HOUR_RANGE}&groupBy={refused}");
        let answer = api.get(&path, &api.tenant).await;
        assert_problem(&answer, 400);
        assert!(answer.json()["fix"].as_str().unwrap().contains("country,deviceType"), "{}", answer.text());
    }
}

#[tokio::test]
async fn pages_hold_every_row_once() {
    let api = Api::start().await;
    api.flush(1, (0..50).map(|m| ad_row(m, if m % 2 == 0 { "EUR" } else { "USD" }, counts(1, 0))).collect()).await;
    let (mut cursor, mut minutes, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let path = format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}&limit=7{cursor}");
        let body = api.get(&path, &api.tenant).await.json();
        minutes.extend(body["series"].as_array().unwrap().iter().map(|r| r["minute"].as_str().unwrap().to_owned()));
        pages += 1;
        match body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((pages, minutes.len()), (8, 50));
    assert!(minutes.is_sorted_by(|a, b| a < b));
    let answer = api.get(&format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}&cursor=nonsense"), &api.tenant).await;
    assert_problem(&answer, 400);
}

#[tokio::test]
async fn questions_that_cannot_be_answered_say_what_to_ask_instead() {
    let api = Api::start().await;
    for path in [
        "/api/v1/ads/a1/aggregates?from=yesterday",
        "/api/v1/ads/a1/aggregates?granularity=week",
        "/api/v1/ads/a1/aggregates?from=2026-01-01&to=2026-01-09",
        "/api/v1/ads/a1/aggregates?from=2026-01-05&to=2026-01-04",
        "/api/v1/ads/a1/aggregates?limit=0",
        "/api/v1/ads/a1/aggregates?limit=many",
        "/api/v1/ads/a1/aggregates?Granularity=day",
        "/api/v1/ads/a%20b/aggregates",
        "/v1/reports/campaigns/c1/hourly?from=2025-01-01&to=2026-01-01",
        "/v1/reports/campaigns/c1/hourly?groupby=country",
        "/v1/reports/top?by=luck",
        "/v1/reports/top?n=1000",
        "/v1/reports/top?from=2026-01-01&to=2026-01-03",
        "/v1/drift/2026-13-01",
        "/v1/drift/today",
        "/v1/stream?campaign=a%2Fb",
    ] {
        assert_problem(&api.get(path, &api.operator).await, 400);
    }
    assert_problem(&api.get("/v1/nothing", &api.operator).await, 404);
    let post = api.send(Method::POST, "/v1/sla", &[], "").await;
    assert_problem(&post, 405);
    assert_eq!(post.header("allow"), "GET, HEAD");
}

#[tokio::test]
async fn the_top_list_is_ordered_and_a_tenant_sees_only_its_own() {
    let api = Api::start().await;
    let rows = vec![laws::campaign_minute("c1", 0, 5, 1_000), laws::campaign_minute("c2", 1, 9, 500)];
    api.flush(1, rows).await;
    let ids = async |query: &str, key: &str| {
        let body = api.get(&format!("/v1/reports/top?{HOUR_RANGE}{query}"), key).await.json();
        let rows = body["campaigns"].as_array().unwrap().clone();
        rows.iter().map(|r| r["campaignId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("", &api.operator).await, ["c2", "c1"]);
    assert_eq!(ids("&by=cost", &api.operator).await, ["c1", "c2"]);
    assert_eq!(ids("&n=1", &api.operator).await, ["c2"]);
    assert_eq!(ids("", &api.tenant).await, ["c1"]);
    let stranger = api.key(9, "adv-9".parse().unwrap(), &[Scope::Reports]).await;
    assert!(ids("", &stranger).await.is_empty());
    let row = &api.get(&format!("/v1/reports/top?{HOUR_RANGE}"), &api.tenant).await.json()["campaigns"][0];
    assert_eq!((row["costMicros"].as_i64(), row["finality"].as_str()), (Some(1), Some("provisional")));
}

#[tokio::test]
async fn numbers_are_stale_when_the_speed_layer_is_behind_and_never_an_error() {
    let api = Api::start().await;
    api.flush(1, vec![ad_row(0, "EUR", counts(1, 0)), laws::campaign_minute("c1", 0, 1, 0)]).await;
    let stale = async |path: &str| api.get(path, &api.operator).await.json()["stale"].as_bool().unwrap();
    let path = format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}");
    assert!(!stale(&path).await);
    api.clock.advance(120 * SECOND);
    for path in [path.as_str(), "/v1/reports/top", "/v1/sla", "/v1/metrics/campaigns/c1/latency", "/v1/status"] {
        assert!(stale(path).await, "{path}");
    }
    own_hour(&api, 0, Correction::default()).await;
    assert!(!stale(&path).await, "exact numbers do not age");
}

#[tokio::test]
async fn latency_sla_and_status_tell_what_the_writers_told() {
    let api = Api::start().await;
    let at = api.clock.now();
    let status = |lag: u64, p95: u64| WriterStatus {
        as_of: at.plus(-20 * SECOND),
        flushed_at: at,
        lag,
        ingest_p95_ms: p95,
        outcomes: [("counted".to_owned(), 7), ("late".to_owned(), 1)].into(),
        late_by_hour: [(laws::hour(), 1)].into(),
        campaign_p95_ms: [(CampaignId::new("c1").unwrap(), p95 / 2)].into(),
        ..WriterStatus::default()
    };
    for (writer, status) in [(0, status(3, 900)), (1, status(0, 500))] {
        let flush = shared::serving_store::Flush { status, ..laws::flush(writer, 1, Vec::new()) };
        api.store.upsert_approximate(flush).await.unwrap();
    }
    let own = api.get("/v1/metrics/campaigns/c1/latency", &api.tenant).await.json();
    assert_eq!((own["ingestP95Ms"].as_u64(), own["measuredOver"].as_str()), (Some(450), Some("campaign")));
    assert_eq!(own["pipelineLagSeconds"], 22, "the writer with lag is as of its last event");
    let other = api.get("/v1/metrics/campaigns/c2/latency", &api.operator).await.json();
    assert_eq!((other["ingestP95Ms"].as_u64(), other["measuredOver"].as_str()), (Some(900), Some("pipeline")));
    let sla = api.get("/v1/sla", &api.tenant).await.json();
    assert_eq!(sla["streaming"]["isMet"], true);
    assert_eq!(sla["authoritative"]["finality"], serde_json::json!(["reconciled", "settled"]));
    let status = api.get("/v1/status", &api.operator).await.json();
    assert_eq!(status["outcomes"], serde_json::json!({ "counted": 14, "late": 2 }));
    assert_eq!((status["lagRecords"].as_u64(), status["writers"].as_array().unwrap().len()), (Some(3), 2));
    assert_eq!(status["writers"][0]["lateByHour"]["2026-01-05T10:00:00Z"], 1);
}

#[tokio::test]
async fn an_unchanged_report_is_not_sent_twice() {
    let api = Api::start().await;
    api.flush(1, vec![ad_row(0, "EUR", counts(1, 0))]).await;
    let path = format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}");
    let first = api.get(&path, &api.tenant).await;
    let etag = first.header("etag").to_owned();
    let bearer = format!("Bearer {}", api.tenant);
    let again = async || {
        api.clock.advance(2 * SECOND);
        api.send(Method::GET, &path, &[("authorization", &bearer), ("if-none-match", &etag)], "").await
    };
    let same = again().await;
    assert_eq!((same.status.as_u16(), same.bytes.len(), same.header("etag")), (304, 0, etag.as_str()));
    api.flush(2, vec![ad_row(0, "EUR", counts(2, 0))]).await;
    let changed = again().await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), etag);
    assert!(first.header("cache-control").contains("private") && first.header("vary").contains("authorization"));
}

#[tokio::test]
async fn in_an_outage_of_the_store_the_last_good_answer_is_given_marked_stale() {
    let api = Api::start().await;
    api.flush(1, vec![ad_row(0, "EUR", counts(4, 0))]).await;
    let path = format!("/api/v1/ads/a1/aggregates?{HOUR_RANGE}");
    assert_eq!(api.get(&path, &api.tenant).await.json()["stale"], false);
    assert_eq!(api.get("/readyz", "").await.status, 200);
    api.store.set_unavailable(true);
    let last = api.get(&path, &api.tenant).await;
    assert_eq!(last.status, 200);
    assert_eq!((&last.json()["stale"], &last.json()["series"][0]["clicks"]), (&true.into(), &4.into()));
    let unseen = api.get("/v1/reports/top", &api.tenant).await;
    assert_problem(&unseen, 503);
    assert!(!unseen.header("retry-after").is_empty());
    assert_problem(&api.get("/readyz", "").await, 503);
    assert_eq!(api.get("/livez", "").await.status, 200);
    api.store.set_unavailable(false);
    assert_eq!(api.get(&path, &api.tenant).await.json()["stale"], false);
}

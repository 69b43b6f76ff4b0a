//! The serving store on a ClickHouse server: how long a flush takes, and one question at a time, through our own store.
//! Three steps, for benches/clickhouse.py: `create` makes the tables, `flush` writes one large flush twice, `ask` asks what
//! the script has filled in. Prints one JSON line. An answer without rows where there must be some ends the program.

#[allow(dead_code)] // it needs only a part of it
mod support;

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use serving::clickhouse::{ClickHouseStore, Settings};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RollupRow, RowVersion, TimeRange};
use shared::serving_store::{Flush, ServingStore, TopBy, WriterStatus};
use shared::time::{HOUR, MINUTE, Timestamp, stopwatch};
use support::{Dice, cpu_seconds};

/// 2026-01-05T00:00:00Z.
const DAY_START: Timestamp = Timestamp(1_767_571_200_000_000);
const TOP_HOUR: i64 = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Create,
    Flush,
    Ask,
}

#[derive(Debug, Parser)]
struct Args {
    step: Step,
    #[arg(long)]
    url: String,
    #[arg(long)]
    database: String,
    #[arg(long, default_value_t = 1_000_000)]
    ads: u64,
    #[arg(long, default_value_t = 10_000)]
    campaigns: u64,
    #[arg(long, default_value_t = 1)]
    days: i64,
    /// Rows of the flush.
    #[arg(long, default_value_t = 1_000_000)]
    flush_rows: u64,
    /// Questions of each sort.
    #[arg(long, default_value_t = 200)]
    questions: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.ads > 0 && args.campaigns > 0 && args.flush_rows > 0, "ads, campaigns and flush-rows: at least 1");
    let settings = Settings { url: args.url.clone(), database: args.database.clone(), ..Settings::default() };
    let store = ClickHouseStore::open(&settings).await?;
    let figures = match args.step {
        Step::Create => json!({}),
        Step::Flush => json!({ "new": flush(&store, &args, 1).await?, "changed": flush(&store, &args, 2).await? }),
        Step::Ask => ask(&store, &args).await?,
    };
    println!("{figures}");
    Ok(())
}

/// One minute of so many ads, as one flush.
async fn flush(store: &ClickHouseStore, args: &Args, sequence: u64) -> anyhow::Result<Value> {
    let currency = Currency::parse("EUR").context("a currency")?;
    let mut rows = Vec::new();
    for ad in 0..args.flush_rows {
        let (ad_id, campaign_id) = (AdId::new(format!("ad-{ad}"))?, campaign(ad % args.campaigns)?);
        let impressions = (ad % 97 + 1) * sequence;
        let cost_nanos = i128::from(impressions) * 1_234_567;
        let counts = Counts { impressions, clicks: ad % 7, conversions: ad % 3, cost_nanos };
        rows.push(RollupRow {
            key: RollupKey::AdMinute { minute: DAY_START, ad_id, campaign_id, currency },
            counts,
            uniques: None,
        });
    }
    let version = RowVersion::speed(1, sequence);
    let flush = Flush { writer: 0, version, rows, status: WriterStatus::default() };
    let (cpu, wall) = (cpu_seconds()?, stopwatch());
    let done = store.upsert_approximate(flush).await?;
    let wall = wall.elapsed().as_secs_f64();
    ensure!(done.written == args.flush_rows, "{} rows written of {}", done.written, args.flush_rows);
    Ok(json!({ "rows": args.flush_rows, "wallSeconds": wall, "cpuSecondsHere": cpu_seconds()? - cpu }))
}

fn campaign(n: u64) -> anyhow::Result<CampaignId> {
    Ok(CampaignId::new(format!("camp-{n}"))?)
}

async fn ask(store: &ClickHouseStore, args: &Args) -> anyhow::Result<Value> {
    let days: TimeRange = DAY_START..DAY_START.plus(args.days * 24 * HOUR);
    let hour: TimeRange = DAY_START.plus(TOP_HOUR * HOUR)..DAY_START.plus((TOP_HOUR + 1) * HOUR);
    let part: TimeRange = hour.start.plus(7 * MINUTE)..hour.end.plus(-5 * MINUTE);
    let mut dice = Dice::new(args.seed);
    let mut took: [Vec<f64>; 6] = Default::default();
    let (mut least, mut rows) = ([usize::MAX; 6], [0; 6]);
    for n in 0..args.questions {
        // One ad of all, and one as people look: half as often where there are twice as many as busy.
        let any = AdId::new(format!("ad-{}", dice.below(args.ads)))?;
        let busy = dice.below(args.ads) >> dice.below(u64::from(args.ads.ilog2()) + 1);
        let busy = AdId::new(format!("ad-{busy}"))?;
        let campaign = campaign(dice.below(args.campaigns))?;
        for question in 0..took.len() {
            if question >= 4 && n % 10 > 0 {
                continue; // a top list reads all campaigns: a tenth of the questions
            }
            let wall = stopwatch();
            let found = match question {
                0 => store.ad_series(&any, days.clone()).await?.len(),
                1 => store.ad_series(&busy, days.clone()).await?.len(),
                2 => store.campaign_series(&campaign, days.clone()).await?.len(),
                3 => store.campaign_hours(&campaign, days.clone()).await?.len(),
                4 => store.top(hour.clone(), TopBy::Clicks, 10, None).await?.len(),
                _ => store.top(part.clone(), TopBy::Clicks, 10, None).await?.len(),
            };
            if let (Some(took), Some(least), Some(rows)) =
                (took.get_mut(question), least.get_mut(question), rows.get_mut(question))
            {
                took.push(wall.elapsed().as_secs_f64() * 1e3);
                *least = found.min(*least);
                *rows += found;
            }
        }
    }
    ensure!(least.iter().skip(2).all(|n| *n > 0), "campaigns without rows: {least:?}");
    let names = ["anyAd", "busyAd", "campaignMinutes", "campaignHours", "topHour", "topMinutes"];
    let figures = names.into_iter().zip(took).zip(rows);
    let figures = figures.map(|((name, took), rows)| (name.to_owned(), percentiles(took, rows)));
    Ok(Value::Object(figures.collect()))
}

fn percentiles(mut millis: Vec<f64>, rows: usize) -> Value {
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis.get((millis.len() * percent / 100).min(millis.len().saturating_sub(1)));
    let rows = rows.checked_div(millis.len());
    json!({ "questions": millis.len(), "rows": rows, "p50Millis": at(50), "p99Millis": at(99), "maxMillis": at(100) })
}

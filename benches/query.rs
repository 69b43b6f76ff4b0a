//! What the embedded serving store takes and answers with a million ads: rows a second by `upsert_approximate`, then
//! the time of one question at a time. Prints one JSON line; leaves the store for `clickledger serving` to open.
//! Rows are as the speed layer flushes them: absolute values, each flush one durable transaction of one writer (but no
//! campaign hours). The page cache is warm. A wrong answer ends the program.

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use serde_json::{Value, json};
use serving::EmbeddedStore;
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RollupRow, RowVersion, TimeRange};
use shared::serving_store::{Flush, ServingStore, TopBy, WriterStatus};
use shared::time::{HOUR, MINUTE, Timestamp, stopwatch};
use support::{Dice, cpu_seconds, resident_bytes};

/// 2026-01-05T00:00:00Z.
const DAY_START: Timestamp = Timestamp(1_767_571_200_000_000);
/// The hour in which every ad has minutes.
const BUSY_HOUR: i64 = 10;
/// The hour whose campaign minutes are all there, for the top list.
const TOP_HOUR: i64 = 11;
/// Ads that have every minute of the day.
const STEADY_ADS: u64 = 100;

#[derive(Debug, Parser)]
struct Args {
    /// Where the store is made.
    #[arg(long)]
    store: PathBuf,
    /// Ads that each have `minutes` rows.
    #[arg(long, default_value_t = 1_000_000)]
    ads: u64,
    #[arg(long, default_value_t = 10_000)]
    campaigns: u64,
    #[arg(long, default_value_t = 3)]
    minutes: i64,
    /// Ad rows in a flush.
    #[arg(long, default_value_t = 100_000)]
    flush_rows: u64,
    /// Questions of each sort.
    #[arg(long, default_value_t = 2_000)]
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
    let store = EmbeddedStore::open(&args.store)?;
    let mut filler = Filler::new(&store, &args)?;
    let minutes = filler.minutes().await?;
    let again = filler.same_minute_again().await?;
    filler.steady_ads().await?;
    filler.top_hour().await?;
    let questions = Questions { store: &store, args: &args };
    let figures = json!({
        "newRows": minutes.json(),
        "changedRows": again.json(),
        "allRows": filler.written,
        "storeBytes": std::fs::metadata(&args.store)?.len(),
        "adDay": questions.ads().await?,
        "steadyAdDay": questions.steady_ads().await?,
        "topHour": questions.top().await?,
        "peakResidentBytes": resident_bytes("VmHWM")?,
    });
    println!("{figures}");
    Ok(())
}

/// Rows written, and what it took.
#[derive(Debug, Default)]
struct Filled {
    rows: u64,
    flushes: u64,
    cpu: f64,
    wall: f64,
    slowest: f64,
}

impl Filled {
    fn json(&self) -> Value {
        let rows = self.rows as f64;
        json!({
            "rows": self.rows,
            "flushes": self.flushes,
            "rowsPerSecond": rows / self.wall,
            "rowsPerCpuSecond": rows / self.cpu,
            "slowestFlushMillis": self.slowest * 1e3,
        })
    }
}

/// Plays the speed layer's workers.
struct Filler<'a> {
    store: &'a EmbeddedStore,
    args: &'a Args,
    writers: u64,
    sequence: u64,
    written: u64,
    currency: Currency,
}

impl<'a> Filler<'a> {
    fn new(store: &'a EmbeddedStore, args: &'a Args) -> anyhow::Result<Self> {
        let currency = Currency::parse("EUR").context("a currency")?;
        let writers = (args.ads / args.flush_rows).max(1);
        Ok(Self { store, args, writers, sequence: 0, written: 0, currency })
    }

    /// Every ad and every campaign, minute by minute.
    async fn minutes(&mut self) -> anyhow::Result<Filled> {
        let mut filled = Filled::default();
        for minute in 0..self.args.minutes {
            for writer in 0..self.writers {
                let rows = self.minute_of(writer, minute, 1)?;
                self.flush(writer, rows, &mut filled).await?;
            }
        }
        Ok(filled)
    }

    /// The last minute once more with twice the counts, as when events keep coming.
    async fn same_minute_again(&mut self) -> anyhow::Result<Filled> {
        let mut filled = Filled::default();
        for writer in 0..self.writers {
            let rows = self.minute_of(writer, self.args.minutes - 1, 2)?;
            self.flush(writer, rows, &mut filled).await?;
        }
        Ok(filled)
    }

    /// The rows of one writer in one minute: its ads and its share of their campaigns.
    fn minute_of(&self, writer: u64, minute: i64, times: u64) -> anyhow::Result<Vec<RollupRow>> {
        let minute = busy_minute(minute);
        let mut rows = Vec::new();
        let mut campaigns = BTreeSet::new();
        for ad in (writer..self.args.ads).step_by(usize::try_from(self.writers)?) {
            let campaign = ad / self.writers % self.args.campaigns;
            campaigns.insert(campaign);
            let (ad_id, campaign_id) = (AdId::new(format!("ad-{ad}"))?, campaign_id(campaign)?);
            let key = RollupKey::AdMinute { minute, ad_id, campaign_id, currency: self.currency };
            rows.push(row(key, counts_of(ad, times)));
        }
        for campaign in campaigns {
            rows.push(self.campaign_minute(minute, campaign, counts_of(campaign, 1_000 * times))?);
        }
        Ok(rows)
    }

    fn campaign_minute(&self, minute: Timestamp, campaign: u64, counts: Counts) -> anyhow::Result<RollupRow> {
        let campaign_id = campaign_id(campaign)?;
        Ok(row(RollupKey::CampaignMinute { minute, campaign_id, currency: self.currency }, counts))
    }

    /// Some ads with every minute of the day.
    async fn steady_ads(&mut self) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        for (ad, minute) in (0..STEADY_ADS).flat_map(|ad| (0..1_440).map(move |minute| (ad, minute))) {
            let minute = DAY_START.plus(minute * MINUTE);
            let (ad_id, campaign_id) = (AdId::new(format!("steady-{ad}"))?, campaign_id(ad % self.args.campaigns)?);
            let key = RollupKey::AdMinute { minute, ad_id, campaign_id, currency: self.currency };
            rows.push(row(key, counts_of(ad, 1)));
        }
        self.flush(0, rows, &mut Filled::default()).await
    }

    /// One hour in which every campaign has every minute.
    async fn top_hour(&mut self) -> anyhow::Result<()> {
        for minute in 0..60 {
            let minute = DAY_START.plus(TOP_HOUR * HOUR + minute * MINUTE);
            let rows: anyhow::Result<Vec<RollupRow>> =
                (0..self.args.campaigns).map(|c| self.campaign_minute(minute, c, counts_of(c, 1))).collect();
            self.flush(0, rows?, &mut Filled::default()).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, writer: u64, rows: Vec<RollupRow>, filled: &mut Filled) -> anyhow::Result<()> {
        self.sequence += 1;
        let wanted = rows.len() as u64;
        let version = RowVersion::speed(1, self.sequence);
        let flush = Flush { writer: u32::try_from(writer)?, version, rows, status: WriterStatus::default() };
        let (cpu, wall) = (cpu_seconds()?, stopwatch());
        let done = self.store.upsert_approximate(flush).await?;
        let wall = wall.elapsed().as_secs_f64();
        filled.cpu += cpu_seconds()? - cpu;
        filled.wall += wall;
        filled.slowest = filled.slowest.max(wall);
        ensure!(done.written == wanted, "{} rows written of {wanted}", done.written);
        filled.rows += wanted;
        filled.flushes += 1;
        self.written += wanted;
        Ok(())
    }
}

fn busy_minute(minute: i64) -> Timestamp {
    DAY_START.plus(BUSY_HOUR * HOUR + minute * MINUTE)
}

fn campaign_id(campaign: u64) -> anyhow::Result<CampaignId> {
    Ok(CampaignId::new(format!("camp-{campaign}"))?)
}

/// What row number `n` holds.
fn counts_of(n: u64, times: u64) -> Counts {
    let impressions = (n % 97 + 1) * times;
    Counts {
        impressions,
        clicks: n % 7 * times,
        conversions: n % 3 * times,
        cost_nanos: i128::from(impressions) * 1_234_567,
    }
}

fn row(key: RollupKey, counts: Counts) -> RollupRow {
    RollupRow { key, counts, uniques: None }
}

/// Asks, and checks the answers.
struct Questions<'a> {
    store: &'a EmbeddedStore,
    args: &'a Args,
}

impl Questions<'_> {
    /// The day of one of the many ads.
    async fn ads(&self) -> anyhow::Result<Value> {
        let (mut dice, mut took) = (Dice::new(self.args.seed), Vec::new());
        for _ in 0..self.args.questions {
            let ad = dice.below(self.args.ads);
            let impressions = counts_of(ad, 1).impressions * self.args.minutes.unsigned_abs().saturating_add(1);
            took.push(self.ad_day(&format!("ad-{ad}"), self.args.minutes, impressions).await?);
        }
        Ok(percentiles(took))
    }

    /// The day of an ad with all its minutes.
    async fn steady_ads(&self) -> anyhow::Result<Value> {
        let (mut dice, mut took) = (Dice::new(self.args.seed), Vec::new());
        for _ in 0..self.args.questions {
            let ad = dice.below(STEADY_ADS);
            took.push(self.ad_day(&format!("steady-{ad}"), 1_440, counts_of(ad, 1).impressions * 1_440).await?);
        }
        Ok(percentiles(took))
    }

    /// Milliseconds for the day of one ad, which has so many `rows` and `impressions`.
    async fn ad_day(&self, ad: &str, rows: i64, impressions: u64) -> anyhow::Result<f64> {
        let (ad, day) = (AdId::new(ad)?, DAY_START..DAY_START.plus(24 * HOUR));
        let wall = stopwatch();
        let points = self.store.ad_series(&ad, day).await?;
        let millis = wall.elapsed().as_secs_f64() * 1e3;
        let shown: u64 = points.iter().map(|p| p.counts.impressions).sum();
        ensure!(i64::try_from(points.len())? == rows && shown == impressions, "{ad}: {} rows, {shown}", points.len());
        Ok(millis)
    }

    /// The ten busiest campaigns of an hour with all its minutes; a fortieth of the questions, it reads so many rows.
    async fn top(&self) -> anyhow::Result<Value> {
        let start = DAY_START.plus(TOP_HOUR * HOUR);
        let hour: TimeRange = start..start.plus(HOUR);
        let mut took = Vec::new();
        for _ in 0..(self.args.questions / 40).max(1) {
            let wall = stopwatch();
            let top = self.store.top(hour.clone(), TopBy::Impressions, 10, None).await?;
            took.push(wall.elapsed().as_secs_f64() * 1e3);
            let most = counts_of((self.args.campaigns - 1).min(96), 60).impressions;
            let first = top.first().map_or(0, |line| line.counts.impressions);
            ensure!(first == most, "the busiest campaign has {first} impressions, not {most}");
        }
        Ok(percentiles(took))
    }
}

fn percentiles(mut millis: Vec<f64>) -> Value {
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis.get((millis.len() * percent / 100).min(millis.len().saturating_sub(1)));
    json!({ "questions": millis.len(), "p50Millis": at(50), "p99Millis": at(99), "maxMillis": at(100) })
}

//! What proofs cost: a leaf of the Merkle tree and its share of the tree per billed event, on one thread in memory; then,
//! on a data folder with a settled day (`--data`, `--date`), one proof made and checked at a time. Prints one JSON line.
//! A proof is made as the command makes it: the tables are opened anew each time. Every proof must hold, a proof of an
//! unknown id must say that it is not billed, and a wrong answer ends the program, since a fast wrong answer is none.

mod support;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use arrow::array::{AsArray, RecordBatch};
use clap::Parser;
use lake::tables::SILVER_EVENTS;
use lake::{LakeRoot, Table};
use reconcile::proof::Proof;
use reconcile::prove::prove;
use reconcile::settlements::Settlements;
use reconcile::verify::verify_proof;
use serde_json::{Value, json};
use shared::billed::Billed;
use shared::id::EventId;
use shared::merkle::Tree;
use shared::money::Currency;
use shared::time::{Day, Timestamp, stopwatch};
use support::{Dice, cpu_seconds, resident_bytes};

#[derive(Debug, Parser)]
struct Args {
    /// Leaves hashed in memory.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// A data folder with a settled day.
    #[arg(long, requires = "date")]
    data: Option<PathBuf>,
    /// The day.
    #[arg(long)]
    date: Option<Day>,
    /// Proofs made and checked: half of random events of the day, half of unknown ids.
    #[arg(long, default_value_t = 200)]
    proofs: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut figures = tree(args.events, args.seed)?;
    if let (Some(data), Some(day)) = (&args.data, args.date) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        figures["proofs"] = runtime.block_on(proofs(&args, data, day))?;
    }
    figures["peakResidentBytes"] = resident_bytes("VmHWM")?.into();
    println!("{figures}");
    Ok(())
}

/// CPU nanoseconds per leaf, and per leaf pushed to the tree.
fn tree(events: u64, seed: u64) -> anyhow::Result<Value> {
    let mut dice = Dice::new(seed);
    let ids: Vec<String> = (0..events).map(|_| format!("{:016x}{:016x}", dice.bits(), dice.bits())).collect();
    let currency = Currency::parse("EUR").context("EUR")?;
    let (started, mut text) = (cpu_seconds()?, String::new());
    let billed = |(i, id): (i64, &String)| {
        let billed = Billed {
            event_id: id,
            event_type: "impression",
            campaign_id: "camp-123",
            ad_id: "ad-12345",
            billing_time: Timestamp(1_767_607_200_000_000 + i),
            currency,
            price_model: "cpm",
            price_version: 1,
            cost_nanos: 2_500_000,
            rules_version: 1,
        };
        billed.leaf(&mut text).hash()
    };
    let hashes: Vec<_> = (0..).zip(&ids).map(billed).collect();
    let made = cpu_seconds()?;
    let mut tree = Tree::default();
    hashes.iter().for_each(|hash| tree.push(*hash));
    let root = tree.root();
    ensure!(root.leaves == events, "{} leaves", root.leaves);
    let nanos = |seconds: f64| seconds * 1e9 / events as f64;
    let (leaf, node) = (nanos(made - started), nanos(cpu_seconds()? - made));
    Ok(json!({ "leaves": events, "leafNanosPerEvent": leaf, "treeNanosPerEvent": node, "root": root.root }))
}

/// Milliseconds that a proof takes to make, and to check with the manifest and its signature.
async fn proofs(args: &Args, data: &std::path::Path, day: Day) -> anyhow::Result<Value> {
    let (lake, settlements) =
        (LakeRoot::open_folder(&data.join("lake"))?, Settlements::new(LakeRoot::open_folder(data)?));
    let manifest = settlements.show(day, None).await?.manifest;
    let folder = data.join(reconcile::settlements::folder(day, manifest.version));
    let events = some_events(&lake, day, args).await?;
    let (mut made, mut checked, mut bytes, mut billed) = (Vec::new(), Vec::new(), 0, 0);
    for (id, is_billed) in &events {
        let id = EventId::new(id)?;
        let started = stopwatch();
        let proof: Proof = prove(&lake, &settlements, &id, (day, None)).await?;
        made.push(started.elapsed().as_secs_f64() * 1e3);
        let started = stopwatch();
        let verified = verify_proof(&folder, &proof, None)?;
        checked.push(started.elapsed().as_secs_f64() * 1e3);
        ensure!(verified.is_sound() && proof.is_billed() == *is_billed, "{id}: {:?}", verified.findings);
        bytes = bytes.max(serde_json::to_vec(&proof)?.len());
        billed += u64::from(*is_billed);
    }
    let leaves = manifest.merkle.leaves;
    Ok(json!({
        "dayLeaves": leaves, "proofs": events.len(), "billed": billed, "largestBytes": bytes,
        "proveMillis": spread(made), "verifyMillis": spread(checked),
    }))
}

/// Ids of random events of the day with whether they are billed, and as many unknown ones.
async fn some_events(lake: &LakeRoot, day: Day, args: &Args) -> anyhow::Result<Vec<(String, bool)>> {
    let silver = Table::open(lake, &SILVER_EVENTS).await?;
    let (files, mut dice) = (silver.files_of(day)?, Dice::new(args.seed));
    let mut events = Vec::new();
    while events.len() < args.proofs {
        let file = files.get(usize::try_from(dice.below(files.len() as u64))?).context("the day has no events")?;
        let batches =
            silver.read(file, Some(&["event_id", "verdict"])).await?.collect::<Result<Vec<RecordBatch>, _>>()?;
        for _ in 0..10 {
            let batch = &batches[usize::try_from(dice.below(batches.len() as u64))?];
            let row = usize::try_from(dice.below(batch.num_rows() as u64))?;
            let text = |i: usize| batch.column(i).as_string::<i32>().value(row);
            if text(1) == "billable" {
                events.push((text(0).to_owned(), true));
                events.push((format!("unknown-{:x}", dice.bits()), false));
            }
        }
    }
    Ok(events)
}

fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| values.get(values.len().saturating_sub(1) * percent / 100);
    json!({ "p50": at(50), "p99": at(99), "most": at(100) })
}

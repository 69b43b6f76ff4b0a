//! A small world: facts (judged events) → gold in a lake with its run record, a serving store, a data root.
//! The gold is a plain recount of the facts, so it is the oracle too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch,
};
use arrow::array::{StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use lake::run_record::{
    CaptureHour, HourConservation, OutputFile, PartitionConservation, RunOutcome, RunRecord, TableOutput, Totals,
};
use lake::tables::{
    GOLD_AD_MINUTE, GOLD_BILLING_DAY, GOLD_CAMPAIGN_HOUR, GOLD_PROOF_BLOCKS, RUNS, SILVER_EVENTS, TableDef,
};
use lake::{LakeRoot, Table};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use reconcile::ledger::{Adjustment, AdjustmentBook, Imported, Reason, Signed};
use reconcile::{Deps, Outcome, Request, Settings, Signer};
use shared::billed::{Billed, key};
use shared::event::{Country, DeviceType, EventKind};
use shared::id::{AdId, CampaignId, RefId};
use shared::merkle::{Hash256, Root, root_of};
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RollupRow, RowVersion};
use shared::serving_store::{Flush, ServingStore, WriterStatus};
use shared::sketch::Sketch;
use shared::testing::MemoryServingStore;
use shared::time::{Day, HOUR, MINUTE, ManualClock, Timestamp};
use shared::verdict::{Counting, Verdict};

pub(crate) const DAY: Day = Day(20_000);

/// One judged event.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub minute: i64,
    pub campaign: u8,
    pub ad: u8,
    pub currency: &'static str,
    pub kind: EventKind,
    pub nanos: i64,
    pub user: u8,
    pub country: &'static str,
    pub verdict: Verdict,
    pub late_by: i64,
}

impl Fact {
    /// A billable click.
    pub(crate) fn click(minute: i64, campaign: u8, ad: u8, nanos: i64) -> Self {
        Self {
            minute,
            campaign,
            ad,
            currency: "EUR",
            kind: EventKind::Click,
            nanos,
            user: ad,
            country: "DE",
            verdict: Verdict::Billable,
            late_by: 0,
        }
    }

    pub(crate) fn with_verdict(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    fn at(&self, day: Day) -> Timestamp {
        day.start().plus(self.minute * MINUTE)
    }

    fn counts(&self) -> Counts {
        Counts::one(self.kind, self.nanos)
    }

    fn campaign_id(&self) -> CampaignId {
        CampaignId::new(format!("campaign-{}", self.campaign)).unwrap()
    }

    fn ad_id(&self) -> AdId {
        // Some ids look like formulas to a spreadsheet.
        AdId::new(format!("-ad-{}-{}", self.campaign, self.ad)).unwrap()
    }

    fn currency(&self) -> Currency {
        Currency::parse(self.currency).unwrap()
    }

    fn minute_key(&self, day: Day) -> RollupKey {
        RollupKey::AdMinute {
            minute: self.at(day),
            ad_id: self.ad_id(),
            campaign_id: self.campaign_id(),
            currency: self.currency(),
        }
    }

    fn campaign_minute_key(&self, day: Day) -> RollupKey {
        RollupKey::CampaignMinute { minute: self.at(day), campaign_id: self.campaign_id(), currency: self.currency() }
    }

    fn hour_key(&self, day: Day) -> RollupKey {
        RollupKey::CampaignHour {
            hour: self.at(day).floor(HOUR),
            campaign_id: self.campaign_id(),
            country: Country::parse(self.country).unwrap(),
            device_type: DeviceType::Mobile,
            currency: self.currency(),
        }
    }
}

/// An adjustment of a campaign's amount in EUR, with as many clicks as micros.
pub(crate) fn adjustment(id: &str, day: Day, campaign: u8, micros: i64) -> Adjustment {
    Adjustment {
        id: RefId::new(id).unwrap(),
        day,
        campaign_id: CampaignId::new(format!("campaign-{campaign}")).unwrap(),
        ad_id: None,
        currency: Currency::parse("EUR").unwrap(),
        events: [0, micros, 0],
        amount_micros: micros,
        reason: Reason::ALL[id.len() % Reason::ALL.len()],
        note: "-looks like a formula, with \"quotes\"".to_owned(),
        actor: "review".to_owned(),
        corrects: None,
    }
}

/// Every row of the day as facts have it, by a plain recount; the sketch is fed sorted hashes, as batch does.
pub(crate) fn recount(day: Day, facts: &[Fact]) -> Vec<RollupRow> {
    let mut counts: BTreeMap<RollupKey, Counts> = BTreeMap::new();
    let mut users: BTreeMap<RollupKey, BTreeSet<u64>> = BTreeMap::new();
    for fact in facts.iter().filter(|f| f.verdict == Verdict::Billable) {
        for key in [fact.minute_key(day), fact.campaign_minute_key(day), fact.hour_key(day)] {
            let sum = counts.entry(key).or_default();
            *sum = sum.merge(&fact.counts()).unwrap();
        }
        users.entry(fact.hour_key(day)).or_default().insert(Sketch::hash(&format!("user-{}", fact.user)));
    }
    let row = |(key, counts)| {
        let uniques = users.get(&key).map(|hashes| {
            let mut sketch = Sketch::new();
            hashes.iter().for_each(|h| sketch.add(*h));
            sketch
        });
        RollupRow { key, counts, uniques }
    };
    counts.into_iter().map(row).collect()
}

/// Rows in a form that compares.
pub(crate) type Printed = Vec<(RollupKey, Counts, Option<Vec<u8>>)>;

pub(crate) fn printed(rows: &[RollupRow]) -> Printed {
    rows.iter().map(|r| (r.key.clone(), r.counts, r.uniques.as_ref().map(Sketch::to_bytes))).collect()
}

/// The key of every world.
pub(crate) fn signer() -> Signer {
    Signer::from_seed(&[7; 32]).unwrap()
}

/// The world.
pub(crate) struct World {
    pub folder: tempfile::TempDir,
    pub lake: LakeRoot,
    pub data: LakeRoot,
    pub store: MemoryServingStore,
    pub settings: Settings,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = "memory:///lake/".parse().unwrap();
        Self {
            lake: LakeRoot::with_store(Arc::new(InMemory::new()), url).unwrap(),
            data: LakeRoot::open_folder(folder.path()).unwrap(),
            store: MemoryServingStore::new(),
            settings: Settings::default(),
            folder,
        }
    }

    /// The same lake with an empty data root and serving store.
    pub(crate) fn sharing_lake(other: &Self) -> Self {
        Self { lake: other.lake.clone(), ..Self::new() }
    }

    /// Flips one bit in the middle of a file of the lake.
    pub(crate) async fn damage_lake_file(&self, relative: &str) {
        let path = self.lake.path(relative);
        let mut bytes = self.lake.store().get(&path).await.unwrap().bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.lake.store().put(&path, bytes.into()).await.unwrap();
    }

    pub(crate) fn deps(&self) -> Deps {
        self.deps_with(Arc::new(self.store.clone()), self.data.clone())
    }

    pub(crate) fn deps_with(&self, store: Arc<dyn ServingStore>, data: LakeRoot) -> Deps {
        let clock = Arc::new(ManualClock::at(DAY.end().plus(3 * HOUR)));
        Deps { lake: self.lake.clone(), data, store, clock, signer: signer() }
    }

    pub(crate) async fn run(&self, day: Day) -> Result<Outcome, reconcile::Error> {
        self.run_with(&self.deps(), day, true).await
    }

    pub(crate) async fn run_with(&self, deps: &Deps, day: Day, force: bool) -> Result<Outcome, reconcile::Error> {
        reconcile::run(deps, &self.settings, &Request { day, force, reason: None }, &|_| ()).await
    }

    /// Batch's part: gold and run record of `facts`.
    pub(crate) async fn batch(&self, day: Day, run: u64, facts: &[Fact]) -> RunRecord {
        let mut record = record(day, run, facts);
        let tables: [(&'static TableDef, RecordBatch); 5] = [
            (&SILVER_EVENTS, silver(day, facts)),
            (&GOLD_AD_MINUTE, rollups(&GOLD_AD_MINUTE, day, facts)),
            (&GOLD_CAMPAIGN_HOUR, rollups(&GOLD_CAMPAIGN_HOUR, day, facts)),
            (&GOLD_BILLING_DAY, billing(facts)),
            (&GOLD_PROOF_BLOCKS, proof_blocks(day, facts)),
        ];
        for (def, batch) in tables {
            let mut table = Table::open(&self.lake, def).await.unwrap();
            let file = table.write_parquet(vec![batch], day, &format!("run-{run}")).await.unwrap();
            let output =
                OutputFile { path: file.path.clone(), bytes: file.size, rows: file.rows, sha256: file.sha256.clone() };
            let app = format!("{}/{day}", def.name);
            let version =
                table.replace_day(day, vec![file], &app, i64::try_from(run).unwrap()).await.unwrap().version();
            record.outputs.insert(def.name.to_owned(), TableOutput { version, files: vec![output] });
        }
        self.save_record(&record).await;
        record
    }

    pub(crate) async fn save_record(&self, record: &RunRecord) {
        let mut table = Table::open(&self.lake, &RUNS).await.unwrap();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![i64::try_from(record.run).unwrap()])),
            Arc::new(StringArray::from(vec![record.outcome.as_str()])),
            Arc::new(StringArray::from(vec![record.to_json().unwrap()])),
        ];
        let batch = RecordBatch::try_new(RUNS.file_schema(), columns).unwrap();
        let stem = format!("run-{}", record.run);
        let file = table.write_parquet(vec![batch], record.day, &stem).await.unwrap();
        let committed = table.append(vec![file], &[]).await.unwrap();
        assert!(committed.version() > 0);
    }

    /// Imports adjustments, as rows 1, 2, 3, … of a file.
    pub(crate) async fn adjust(&self, rows: &[Adjustment]) -> Result<Imported, reconcile::Error> {
        let signed = |a: &Adjustment| Signed {
            adjustment: a.clone(),
            source_sha256: "0".repeat(64),
            key_id: "k1".to_owned(),
            signature: "signed".to_owned(),
        };
        let rows: Vec<(u64, Signed)> = (1..).zip(rows.iter().map(signed)).collect();
        AdjustmentBook::open(&self.lake).await?.import(&rows, DAY.end(), false).await
    }

    /// A speed flush of absolute rows, as one writer.
    pub(crate) async fn flush(&self, writer: u32, sequence: u64, rows: Vec<RollupRow>) {
        let version = RowVersion::speed(1, sequence);
        let status = WriterStatus::default();
        self.store.upsert_approximate(Flush { writer, version, rows, status }).await.unwrap();
    }

    /// Everything the store shows for the day.
    pub(crate) async fn shown(&self, day: Day) -> Printed {
        let mut rows = Vec::new();
        for hour in day.hours() {
            rows.extend(self.store.read_hour(hour).await.unwrap());
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        printed(&rows)
    }

    pub(crate) fn settlement(&self, day: Day, version: u32) -> std::path::PathBuf {
        self.folder.path().join(reconcile::settlements::folder(day, version))
    }
}

/// An hour in which one event came in, before anybody could write a tally.
fn quiet(hour: Timestamp) -> CaptureHour {
    CaptureHour { hour, received: 1, accepted: 0, untallied: 1, archived: 1, refused: BTreeMap::new() }
}

fn record(day: Day, run: u64, facts: &[Fact]) -> RunRecord {
    let verdicts = |wanted: &dyn Fn(&Fact) -> bool| -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = Verdict::ALL.iter().map(|v| (v.as_str().to_owned(), 0)).collect();
        for fact in facts.iter().filter(|f| wanted(f)) {
            *counts.get_mut(fact.verdict.as_str()).unwrap() += 1;
        }
        counts
    };
    let mut totals: BTreeMap<Currency, Totals> = BTreeMap::new();
    for fact in facts.iter().filter(|f| f.verdict == Verdict::Billable) {
        let total = totals.entry(fact.currency()).or_default();
        total.impressions += u64::from(fact.kind == EventKind::Impression);
        total.clicks += u64::from(fact.kind == EventKind::Click);
        total.conversions += u64::from(fact.kind == EventKind::Conversion);
        total.cost_nanos += i128::from(fact.nanos);
    }
    let archived = u64::try_from(facts.len()).unwrap();
    let partition = PartitionConservation {
        topic: "events".to_owned(),
        partition: 0,
        start: 0,
        next: archived + 1,
        events: archived,
        bad: 1,
    };
    RunRecord {
        format_version: lake::run_record::FORMAT_VERSION,
        code_version: 1,
        day,
        run,
        outcome: if run == 1 { RunOutcome::Computed } else { RunOutcome::Restated },
        inputs: [("bronze/events".to_owned(), 10 + run), ("bronze/bad".to_owned(), 2)].into(),
        outputs: BTreeMap::new(),
        counting: Counting::default(),
        price_book_version: 1,
        verdicts: verdicts(&|_| true),
        merkle: merkle(day, facts),
        totals,
        hours: day
            .hours()
            .map(|hour| {
                let of_hour = |f: &Fact| f.at(day).floor(HOUR) == hour;
                let archived = u64::try_from(facts.iter().filter(|f| of_hour(f)).count()).unwrap();
                HourConservation { hour, archived, verdicts: verdicts(&of_hour) }
            })
            .collect(),
        partitions: vec![partition],
        capture: day.hours().map(quiet).collect(),
        quarantined: [("malformed".to_owned(), 1)].into(),
        warnings: vec![],
    }
}

/// Builds a batch of `def` from a function that gives the text of each cell.
fn batch(def: &TableDef, rows: usize, cell: impl Fn(usize, &str) -> String) -> RecordBatch {
    let schema = def.file_schema();
    let columns = schema.fields().iter().map(|field| {
        let cells = (0..rows).map(|i| cell(i, field.name()));
        let column: ArrayRef = match field.data_type() {
            DataType::Utf8 => Arc::new(cells.collect::<Vec<_>>().into_iter().map(Some).collect::<StringArray>()),
            DataType::Int64 => Arc::new(cells.map(|c| c.parse::<i64>().unwrap()).collect::<Int64Array>()),
            DataType::Int32 => Arc::new(cells.map(|c| c.parse::<i32>().unwrap()).collect::<Int32Array>()),
            DataType::Boolean => Arc::new(cells.map(|c| Some(c == "true")).collect::<BooleanArray>()),
            DataType::Date32 => Arc::new(Date32Array::from_iter_values(cells.map(|c| c.parse::<i32>().unwrap()))),
            DataType::Timestamp(..) => Arc::new(
                TimestampMicrosecondArray::from_iter_values(cells.map(|c| c.parse::<i64>().unwrap()))
                    .with_timezone("UTC"),
            ),
            DataType::Decimal128(..) => Arc::new(
                Decimal128Array::from_iter_values(cells.map(|c| c.parse::<i128>().unwrap()))
                    .with_precision_and_scale(38, 0)
                    .unwrap(),
            ),
            other => panic!("{other}"),
        };
        column
    });
    let columns: Vec<ArrayRef> = columns.collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn count(counts: &Counts, column: &str) -> Option<String> {
    Some(match column {
        "impressions" => counts.impressions.to_string(),
        "clicks" => counts.clicks.to_string(),
        "conversions" => counts.conversions.to_string(),
        "cost_nanos" => counts.cost_nanos.to_string(),
        _ => return None,
    })
}

fn rollups(def: &TableDef, day: Day, facts: &[Fact]) -> RecordBatch {
    let is_minute = def.name == "gold/ad_minute";
    let rows: Vec<RollupRow> = recount(day, facts)
        .into_iter()
        .filter(|r| match r.key {
            RollupKey::AdMinute { .. } => is_minute,
            RollupKey::CampaignHour { .. } => !is_minute,
            RollupKey::CampaignMinute { .. } => false,
        })
        .collect();
    if is_minute {
        return batch(def, rows.len(), |i, column| {
            let RollupKey::AdMinute { minute, ad_id, campaign_id, currency } = &rows[i].key else { panic!() };
            count(&rows[i].counts, column).unwrap_or_else(|| match column {
                "minute" => minute.0.to_string(),
                "ad_id" => ad_id.to_string(),
                "campaign_id" => campaign_id.to_string(),
                _ => currency.to_string(),
            })
        });
    }
    campaign_hours(def, &rows)
}

fn campaign_hours(def: &TableDef, rows: &[RollupRow]) -> RecordBatch {
    let column = |name: &str| -> ArrayRef {
        let text = |get: &dyn Fn(&RollupRow) -> String| -> ArrayRef {
            Arc::new(rows.iter().map(|r| Some(get(r))).collect::<StringArray>())
        };
        let numbers = |get: &dyn Fn(&RollupRow) -> u64| -> ArrayRef {
            Arc::new(rows.iter().map(|r| i64::try_from(get(r)).unwrap()).collect::<Int64Array>())
        };
        let part = |r: &RollupRow, wanted: &str| {
            let RollupKey::CampaignHour { hour, campaign_id, country, device_type, currency } = &r.key else {
                panic!()
            };
            match wanted {
                "hour" => hour.0.to_string(),
                "campaign_id" => campaign_id.to_string(),
                "country" => country.as_str().to_owned(),
                "device_type" => device_type.as_str().to_owned(),
                _ => currency.to_string(),
            }
        };
        match name {
            "hour" => Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.key.window_start().0))
                    .with_timezone("UTC"),
            ),
            "impressions" => numbers(&|r| r.counts.impressions),
            "clicks" => numbers(&|r| r.counts.clicks),
            "conversions" => numbers(&|r| r.counts.conversions),
            "cost_nanos" => Arc::new(
                Decimal128Array::from_iter_values(rows.iter().map(|r| r.counts.cost_nanos))
                    .with_precision_and_scale(38, 0)
                    .unwrap(),
            ),
            "uniques" => numbers(&|r| r.uniques.as_ref().unwrap().estimate()),
            "users_sketch" => {
                let sketches: Vec<Vec<u8>> = rows.iter().map(|r| r.uniques.as_ref().unwrap().to_bytes()).collect();
                Arc::new(BinaryArray::from_iter_values(sketches))
            }
            name => text(&|r| part(r, name)),
        }
    };
    let schema = def.file_schema();
    let columns: Vec<ArrayRef> = schema.fields().iter().map(|f| column(f.name())).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn billing(facts: &[Fact]) -> RecordBatch {
    type Excluded = BTreeMap<Verdict, u64>;
    let mut lines: BTreeMap<(CampaignId, AdId, Currency), (Counts, Excluded)> = BTreeMap::new();
    for fact in facts {
        let line = lines.entry((fact.campaign_id(), fact.ad_id(), fact.currency())).or_default();
        if fact.verdict == Verdict::Billable {
            line.0 = line.0.merge(&fact.counts()).unwrap();
        } else {
            *line.1.entry(fact.verdict).or_default() += 1;
        }
    }
    let lines: Vec<_> = lines.into_iter().collect();
    batch(&GOLD_BILLING_DAY, lines.len(), |i, column| {
        let ((campaign, ad, currency), (counts, excluded)) = &lines[i];
        count(counts, column).unwrap_or_else(|| match column {
            "campaign_id" => campaign.to_string(),
            "ad_id" => ad.to_string(),
            "currency" => currency.to_string(),
            "price_model" => "cpc".to_owned(),
            "price_version" => "1".to_owned(),
            column => {
                let verdict = Verdict::ALL.into_iter().find(|v| {
                    let name = v.as_str().replace(':', "_");
                    name == column || format!("{name}s") == column
                });
                excluded.get(&verdict.unwrap()).copied().unwrap_or(0).to_string()
            }
        })
    })
}

/// The id of fact `i`.
pub(crate) fn event_id(i: usize) -> String {
    format!("event-{i}")
}

/// The facts with their numbers, in the order of their ids' hashes, as silver has them.
fn in_order(facts: &[Fact]) -> Vec<(usize, &Fact)> {
    let mut facts: Vec<_> = facts.iter().enumerate().collect();
    facts.sort_by_key(|(i, _)| key(&event_id(*i)));
    facts
}

/// Row in silver, key and hash of every leaf.
fn leaves(day: Day, facts: &[Fact]) -> Vec<(usize, Hash256, Hash256)> {
    let billed = |(row, (i, fact)): (usize, (usize, &Fact))| {
        let (id, campaign, ad) = (event_id(i), fact.campaign_id(), fact.ad_id());
        let billed = Billed {
            event_id: &id,
            event_type: fact.kind.as_str(),
            campaign_id: campaign.as_ref(),
            ad_id: ad.as_ref(),
            billing_time: fact.at(day),
            currency: fact.currency(),
            price_model: "cpc",
            price_version: 1,
            cost_nanos: fact.nanos,
            rules_version: Counting::default().rules_version,
        };
        let leaf = billed.leaf(&mut String::new());
        (fact.verdict == Verdict::Billable).then(|| (row, leaf.key, leaf.hash()))
    };
    in_order(facts).into_iter().enumerate().filter_map(billed).collect()
}

fn merkle(day: Day, facts: &[Fact]) -> Root {
    root_of(&leaves(day, facts).iter().map(|(_, _, hash)| *hash).collect::<Vec<_>>())
}

fn proof_blocks(day: Day, facts: &[Fact]) -> RecordBatch {
    let leaves = leaves(day, facts);
    let blocks: Vec<_> = leaves.chunks(1_024).collect();
    let long = |of: &dyn Fn(usize) -> i64| -> ArrayRef { Arc::new((0..blocks.len()).map(of).collect::<Int64Array>()) };
    let node = |block: &[(usize, Hash256, Hash256)]| root_of(&block.iter().map(|l| l.2).collect::<Vec<_>>()).root.0;
    let columns: Vec<ArrayRef> = vec![
        long(&|i| i as i64),
        long(&|i| blocks[i].len() as i64),
        Arc::new(BinaryArray::from_iter_values(blocks.iter().map(|b| node(b)))),
        long(&|i| blocks[i][0].1.prefix()),
        Arc::new(Int32Array::from(vec![0; blocks.len()])),
        long(&|i| blocks[i][0].0 as i64),
    ];
    RecordBatch::try_new(GOLD_PROOF_BLOCKS.file_schema(), columns).unwrap()
}

fn silver(day: Day, facts: &[Fact]) -> RecordBatch {
    let ordered = in_order(facts);
    batch(&SILVER_EVENTS, facts.len(), |row, column| {
        let (i, fact) = ordered[row];
        let at = fact.at(day);
        match column {
            "event_id" => event_id(i),
            "event_type" => fact.kind.as_str().to_owned(),
            "ad_id" => fact.ad_id().to_string(),
            "campaign_id" => fact.campaign_id().to_string(),
            "impression_id" => "impression".to_owned(),
            "user_pseudo_id" => format!("user-{}", fact.user),
            "country" => fact.country.to_owned(),
            "device_type" => "mobile".to_owned(),
            "event_time" | "billing_time" => at.0.to_string(),
            "ingest_time" => at.plus(fact.late_by).0.to_string(),
            "clamped" => "false".to_owned(),
            "verdict" => fact.verdict.as_str().to_owned(),
            "currency" => fact.currency.to_owned(),
            "price_model" => "cpc".to_owned(),
            "price_version" => "1".to_owned(),
            "cost_nanos" => if fact.verdict == Verdict::Billable { fact.nanos } else { 0 }.to_string(),
            "region" => "eu".to_owned(),
            "partition" => "0".to_owned(),
            "repeat_of" => String::new(),
            "position" => i.to_string(),
            other => panic!("{other}"),
        }
    })
}

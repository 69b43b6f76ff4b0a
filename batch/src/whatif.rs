//! What other rules or prices would change: the shadow silver of a dry run, still on the stage, beside the silver of
//! the day's standing run. Both are in the order of ids, so one walk over both compares them; memory does not grow
//! with the day. Guarantee: every event of either is in exactly one move or unchanged. Never: writes anything.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use lake::file::NewFile;
use lake::run_record::{RunRecord, integer_text};
use lake::table::{DataFile, Table};
use lake::tables::SILVER_EVENTS;
use object_store::ObjectStore;
use serde::Serialize;
use shared::billed::key;

use crate::error::Error;
use crate::source::{Batches, Rows, Source, column};
use crate::stage::Stage;

/// The verdict of an event that one of the two runs does not have.
pub const ABSENT: &str = "absent";

const COLUMNS: [&str; 9] =
    ["event_id", "campaign_id", "ingest_time", "verdict", "currency", "cost_nanos", "region", "partition", "position"];

/// A shadow run against the standing one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// The run it is compared with; absent where the day was never run.
    pub standing_run: Option<u64>,
    /// Events of the shadow run.
    pub events: u64,
    /// The whole day.
    #[serde(flatten)]
    pub day: Change,
    /// The campaigns that change, by id.
    pub campaigns: BTreeMap<String, Change>,
}

impl Shadow {
    /// Nothing would change.
    pub(crate) fn unchanged(standing: &RunRecord) -> Self {
        Self { standing_run: Some(standing.run), events: standing.verdicts.values().sum(), ..Self::default() }
    }
}

/// What changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Events by the verdict they have now and the one they would have.
    pub moves: Vec<Move>,
    /// Cost by currency, where it changes.
    pub costs: Vec<CostChange>,
}

/// Events that go from one verdict to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Move {
    /// The verdict now.
    pub from: String,
    /// The verdict then.
    pub to: String,
    /// How many.
    pub events: u64,
}

/// Unrounded cost in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CostChange {
    /// The currency.
    pub currency: String,
    /// Nanos now.
    #[serde(with = "integer_text")]
    pub standing_nanos: i128,
    /// Nanos then.
    #[serde(with = "integer_text")]
    pub shadow_nanos: i128,
}

/// Compares the staged silver of a run with that of the standing one.
///
/// # Errors
/// When either cannot be read or is out of order; when a sum does not fit.
pub(crate) async fn compare(
    silver: &Table,
    standing: Option<&RunRecord>,
    stage: Arc<Stage>,
    shadow: &[NewFile],
) -> Result<Shadow, Error> {
    let before = match standing {
        Some(run) => standing_files(silver, run).await?,
        None => Vec::new(),
    };
    let after: Vec<Source> = shadow.iter().map(|f| staged(&stage, f)).collect();
    let standing_run = standing.map(|r| r.run);
    // The stage is kept until the walk is over: dropping it removes its files.
    let walk = move || {
        let shadow = walk(Cursor::new(before), Cursor::new(after))?;
        drop(stage);
        Ok(Shadow { standing_run, ..shadow })
    };
    tokio::task::spawn_blocking(walk).await?
}

/// The silver files that a run's record names, in their order, under the names they have today.
pub(crate) async fn standing_files(silver: &Table, run: &RunRecord) -> Result<Vec<Source>, Error> {
    let Some(output) = run.output(SILVER_EVENTS.name) else { return Ok(Vec::new()) };
    let store = silver.root().store();
    let files = lake::erasures::current_files(silver.root(), SILVER_EVENTS.name, &output.files).await?;
    Ok(files.iter().map(|file| Source::named(&store, silver, file)).collect())
}

fn staged(stage: &Stage, file: &NewFile) -> Source {
    let data = DataFile {
        day: file.day,
        path: file.path.clone(),
        object_path: Stage::path(SILVER_EVENTS.name, file),
        size: file.size,
        rows: file.rows,
        ranges: BTreeMap::new(),
        modified_millis: 0,
    };
    let store: &Arc<dyn ObjectStore> = stage.store();
    Source::new(store, &data)
}

/// The columns of a batch.
struct Page {
    ids: StringArray,
    campaigns: StringArray,
    ingest: TimestampMicrosecondArray,
    verdicts: StringArray,
    currencies: StringArray,
    costs: Int64Array,
    regions: StringArray,
    partitions: Int32Array,
    positions: Int64Array,
}

impl Page {
    fn of(batch: &RecordBatch) -> Result<Self, Error> {
        let text = |name: &str| Ok::<_, Error>(column::<StringArray>(batch, name)?.clone());
        let long = |name: &str| Ok::<_, Error>(column::<Int64Array>(batch, name)?.clone());
        Ok(Self {
            ids: text("event_id")?,
            campaigns: text("campaign_id")?,
            ingest: column::<TimestampMicrosecondArray>(batch, "ingest_time")?.clone(),
            verdicts: text("verdict")?,
            currencies: text("currency")?,
            costs: long("cost_nanos")?,
            regions: text("region")?,
            partitions: column::<Int32Array>(batch, "partition")?.clone(),
            positions: long("position")?,
        })
    }

    fn event(&self, row: usize) -> Event<'_> {
        Event {
            id: self.ids.value(row),
            order: (
                self.ingest.value(row),
                self.regions.value(row),
                self.partitions.value(row),
                self.positions.value(row),
            ),
            campaign: self.campaigns.value(row),
            verdict: self.verdicts.value(row),
            currency: self.currencies.value(row),
            cost: self.costs.value(row),
        }
    }
}

/// One silver row.
#[derive(Clone, Copy)]
struct Event<'a> {
    id: &'a str,
    order: (i64, &'a str, i32, i64),
    campaign: &'a str,
    verdict: &'a str,
    currency: &'a str,
    cost: i64,
}

impl Event<'_> {
    /// The order of silver: by the id's hash, the id, and the archive.
    fn compare(&self, other: &Event<'_>) -> Ordering {
        if self.id == other.id {
            return self.order.cmp(&other.order);
        }
        key(self.id).cmp(&key(other.id))
    }
}

/// Where a walk over files stands.
struct Cursor {
    files: VecDeque<Source>,
    open: Option<Batches>,
    page: Option<Page>,
    row: usize,
}

impl Cursor {
    fn new(files: Vec<Source>) -> Self {
        Self { files: files.into(), open: None, page: None, row: 0 }
    }

    /// Makes the next row ready, if there is one.
    fn fill(&mut self) -> Result<(), Error> {
        while self.page.as_ref().is_none_or(|p| self.row >= p.ids.len()) {
            self.page = None;
            self.row = 0;
            match self.open.as_mut().and_then(Iterator::next) {
                Some(batch) => self.page = Some(Page::of(&batch?)?),
                None => match self.files.pop_front() {
                    Some(file) => self.open = Some(file.read(&COLUMNS, Rows::All)?),
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn event(&self) -> Option<Event<'_>> {
        self.page.as_ref().map(|p| p.event(self.row))
    }
}

/// Walks both in step.
fn walk(mut before: Cursor, mut after: Cursor) -> Result<Shadow, Error> {
    let mut tally = Tally::default();
    let mut events = 0;
    loop {
        before.fill()?;
        after.fill()?;
        let order = match (before.event(), after.event()) {
            (None, None) => return tally.shadow(events),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.compare(&b),
        };
        let was = before.event().filter(|_| order.is_le());
        let would = after.event().filter(|_| order.is_ge());
        tally.add(was, would)?;
        before.row += usize::from(order.is_le());
        if order.is_ge() {
            after.row += 1;
            events += 1;
        }
    }
}

/// Both costs of a currency.
type Costs = BTreeMap<String, (i128, i128)>;

/// Moves and costs of one campaign.
#[derive(Default)]
struct Sums {
    moves: BTreeMap<(String, String), u64>,
    costs: Costs,
}

#[derive(Default)]
struct Tally(BTreeMap<String, Sums>);

impl Tally {
    fn add(&mut self, was: Option<Event<'_>>, would: Option<Event<'_>>) -> Result<(), Error> {
        let fact = |e: Event<'_>| (e.verdict.to_owned(), e.currency.to_owned(), e.cost);
        if was.map(fact) == would.map(fact) {
            return Ok(());
        }
        let Some(campaign) = would.or(was).map(|e| e.campaign) else { return Ok(()) };
        let sums = self.0.entry(campaign.to_owned()).or_default();
        let verdict = |e: Option<Event<'_>>| e.map_or(ABSENT, |e| e.verdict).to_owned();
        if verdict(was) != verdict(would) {
            *sums.moves.entry((verdict(was), verdict(would))).or_default() += 1;
        }
        let too_much = || Error::overflow("a cost change")(shared::money::Overflow);
        if let Some(e) = was {
            let cost = &mut sums.costs.entry(e.currency.to_owned()).or_default().0;
            *cost = cost.checked_add(e.cost.into()).ok_or_else(too_much)?;
        }
        if let Some(e) = would {
            let cost = &mut sums.costs.entry(e.currency.to_owned()).or_default().1;
            *cost = cost.checked_add(e.cost.into()).ok_or_else(too_much)?;
        }
        Ok(())
    }

    fn shadow(self, events: u64) -> Result<Shadow, Error> {
        let mut day = Sums::default();
        let mut campaigns = BTreeMap::new();
        for (campaign, sums) in self.0 {
            for (which, events) in &sums.moves {
                *day.moves.entry(which.clone()).or_default() += events;
            }
            for (currency, (was, would)) in &sums.costs {
                let sum = day.costs.entry(currency.clone()).or_default();
                let add = |a: i128, b: i128| {
                    a.checked_add(b).ok_or_else(|| Error::overflow("a cost change")(shared::money::Overflow))
                };
                *sum = (add(sum.0, *was)?, add(sum.1, *would)?);
            }
            campaigns.insert(campaign, sums.change());
        }
        campaigns.retain(|_, c| !(c.moves.is_empty() && c.costs.is_empty()));
        Ok(Shadow { standing_run: None, events, day: day.change(), campaigns })
    }
}

impl Sums {
    fn change(self) -> Change {
        let moves = self.moves.into_iter().map(|((from, to), events)| Move { from, to, events }).collect();
        let costs = self.costs.into_iter().filter(|(_, (was, would))| was != would);
        let cost = |(currency, (standing_nanos, shadow_nanos))| CostChange { currency, standing_nanos, shadow_nanos };
        Change { moves, costs: costs.map(cost).collect() }
    }
}

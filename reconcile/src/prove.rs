//! `settlement prove`: one event and a published settlement → a proof. Reads the nodes of the tree (one small file), and
//! of silver one block of events, or two where the event's place is at an edge.
//! Guarantee: what is answered was checked against the manifest; files that say something else are damage.
//! Never: reads the day; writes anything.

use std::ops::Range;

use arrow::array::RecordBatch;
use lake::LakeRoot;
use lake::run_record::OutputFile;
use shared::billed::{self, BLOCK_LEAVES};
use shared::id::EventId;
use shared::merkle::{Hash256, Leaf, Placed, path, root_of};
use shared::money::Currency;
use shared::time::{Day, Timestamp};

use crate::columns::Columns;
use crate::error::Error;
use crate::gold::{Gold, PROOF_BLOCKS, SILVER};
use crate::manifest::Manifest;
use crate::proof::{Billed, NotBilled, PROOF_VERSION, Proof, Statement};
use crate::runs;
use crate::settlements::Settlements;

/// The columns of silver that a leaf is made of.
const COLUMNS: [&str; 10] = [
    "event_id",
    "event_type",
    "ad_id",
    "campaign_id",
    "billing_time",
    "verdict",
    "currency",
    "price_model",
    "price_version",
    "cost_nanos",
];

/// A row of `gold/proof_blocks`.
#[derive(Debug, Clone, Copy)]
struct Block {
    leaves: u64,
    first_key: i64,
    silver_file: usize,
    silver_row: u64,
}

/// A leaf as silver has it.
#[derive(Debug)]
struct Found {
    leaf: Leaf,
    body: String,
}

/// The tree of one settlement.
struct Evidence {
    gold: Gold,
    blocks: Vec<Block>,
    nodes: Vec<Hash256>,
}

/// Proves of one event that it is billed in the settlement of `day`, or that it is not: in `version`, or the newest.
///
/// # Errors
/// [`Error::Unknown`] when there is no such settlement; [`Error::Damaged`] when the lake does not hold what was settled.
pub async fn prove(
    lake: &LakeRoot,
    settlements: &Settlements,
    event_id: &EventId,
    (day, version): (Day, Option<u32>),
) -> Result<Proof, Error> {
    let manifest = settlements.show(day, version).await?.manifest;
    let evidence = Evidence::open(lake, &manifest).await?;
    let key = billed::key(event_id.as_str());
    let (first, leaves) = evidence.around(&key).await?;
    let at = leaves.partition_point(|found| found.leaf.key < key);
    let proves = match leaves.get(at).filter(|found| found.leaf.key == key) {
        Some(found) => {
            let Placed { index, path, .. } = evidence.placed(first, &leaves, at)?;
            Statement::Billed(Billed { index, body: found.body.clone(), path })
        }
        None => {
            let place = |i: usize| evidence.placed(first, &leaves, i).map(Into::into);
            let before = at.checked_sub(1).map(place).transpose()?;
            let after = (at < leaves.len()).then(|| place(at)).transpose()?;
            Statement::NotBilled(NotBilled { before, after })
        }
    };
    let (day, version) = (manifest.day, manifest.version);
    let proof = Proof { proof_version: PROOF_VERSION, event_id: event_id.clone(), day, version, proves };
    match proof.problem(&manifest) {
        None => Ok(proof),
        Some(why) => Err(Error::damaged(format!("the silver of run {} of {day}", manifest.run), why)),
    }
}

/// Proves of one event that it is billed, in the newest settlement of whichever day bills it; nothing where none does.
///
/// # Errors
/// As [`prove`].
pub async fn find(lake: &LakeRoot, settlements: &Settlements, event_id: &EventId) -> Result<Option<Proof>, Error> {
    for day in settlements.days().await?.into_iter().rev() {
        match prove(lake, settlements, event_id, (day, None)).await {
            Ok(proof) if proof.is_billed() => return Ok(Some(proof)),
            Ok(_) | Err(Error::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl Evidence {
    async fn open(lake: &LakeRoot, manifest: &Manifest) -> Result<Self, Error> {
        let record = runs::one(lake, manifest.day, manifest.run).await?;
        let mut evidence = Self { gold: Gold::unchecked(lake.clone(), record), blocks: Vec::new(), nodes: Vec::new() };
        let mut batches = Vec::new();
        for file in evidence.gold.files(PROOF_BLOCKS)? {
            let columns = ["leaves", "node", "first_key", "silver_file", "silver_row"];
            batches.extend(evidence.gold.rows(PROOF_BLOCKS, file, &columns, 0..file.rows).await?);
        }
        for batch in &batches {
            evidence.add_blocks(batch)?;
        }
        let leaves: u64 = evidence.blocks.iter().map(|b| b.leaves).sum();
        if (root_of(&evidence.nodes).root, leaves) == (manifest.merkle.root, manifest.merkle.leaves) {
            return Ok(evidence);
        }
        Err(Error::damaged(PROOF_BLOCKS, format!("its nodes do not lead to the root {}", manifest.merkle.root)))
    }

    fn add_blocks(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let c = Columns::of(batch, PROOF_BLOCKS);
        let (leaves, nodes, keys) = (c.counts("leaves")?, c.binary("node")?, c.integers("first_key")?);
        let (files, rows) = (c.counts("silver_file")?, c.counts("silver_row")?);
        for (i, ((leaves, silver_file), silver_row)) in leaves.into_iter().zip(files).zip(rows).enumerate() {
            let node = nodes.value(i).try_into().map(Hash256);
            self.nodes.push(node.map_err(|_| Error::damaged(PROOF_BLOCKS, "a node does not have 32 bytes"))?);
            let silver_file = usize::try_from(silver_file).unwrap_or(usize::MAX);
            self.blocks.push(Block { leaves, first_key: keys.value(i), silver_file, silver_row });
        }
        Ok(())
    }

    /// Leaves in order, from that of the answered number on: `key`, or the leaves on both sides of where it would be.
    async fn around(&self, key: &Hash256) -> Result<(usize, Vec<Found>), Error> {
        let prefix = key.prefix();
        let from = self.blocks.partition_point(|b| b.first_key < prefix).saturating_sub(1);
        let to = self.blocks.partition_point(|b| b.first_key <= prefix).max(from + 1);
        let mut leaves = Vec::new();
        for block in from..to.min(self.blocks.len()) {
            leaves.extend(self.block(block).await?);
        }
        if leaves.last().is_some_and(|last| last.leaf.key < *key) && to < self.blocks.len() {
            leaves.extend(self.block(to).await?);
        }
        Ok((from, leaves))
    }

    /// The leaves of a block, from silver.
    async fn block(&self, number: usize) -> Result<Vec<Found>, Error> {
        let missing = || Error::damaged(SILVER, format!("it does not hold the leaves of block {number}"));
        let block = self.blocks.get(number).ok_or_else(missing)?;
        let wanted = usize::try_from(block.leaves).unwrap_or(usize::MAX);
        let files = self.gold.files(SILVER)?;
        let end = self.blocks.get(number + 1).map_or((files.len(), 0), |next| (next.silver_file, next.silver_row));
        let mut leaves = Vec::new();
        for (i, file) in files.iter().enumerate().skip(block.silver_file) {
            let rows = part(i, file, (block.silver_file, block.silver_row), end);
            if leaves.len() >= wanted || rows.is_empty() {
                break;
            }
            for batch in self.gold.rows(SILVER, file, &COLUMNS, rows).await? {
                self.leaves_of(&batch, &mut leaves)?;
            }
        }
        if leaves.len() == wanted { Ok(leaves) } else { Err(missing()) }
    }

    fn leaves_of(&self, batch: &RecordBatch, leaves: &mut Vec<Found>) -> Result<(), Error> {
        let c = Columns::of(batch, SILVER);
        let (ids, types, ads, campaigns) =
            (c.text("event_id")?, c.text("event_type")?, c.text("ad_id")?, c.text("campaign_id")?);
        let (times, verdicts, currencies) = (c.times("billing_time")?, c.text("verdict")?, c.text("currency")?);
        let (models, versions, costs) =
            (c.text("price_model")?, c.integers("price_version")?, c.integers("cost_nanos")?);
        let rules_version = self.gold.record().counting.rules_version;
        for i in (0..batch.num_rows()).filter(|i| verdicts.value(*i) == "billable") {
            let currency = currencies.value(i);
            let billed = billed::Billed {
                event_id: ids.value(i),
                event_type: types.value(i),
                campaign_id: campaigns.value(i),
                ad_id: ads.value(i),
                billing_time: Timestamp(times.value(i)),
                currency: c.parse("currency", currency, Currency::parse(currency))?,
                price_model: models.value(i),
                price_version: versions.value(i),
                cost_nanos: costs.value(i),
                rules_version,
            };
            let mut body = String::new();
            let leaf = billed.leaf(&mut body);
            leaves.push(Found { leaf, body });
        }
        Ok(())
    }

    /// Leaf `at` of `leaves`, which begin with block `first`, with its place in the whole tree.
    fn placed(&self, first: usize, leaves: &[Found], at: usize) -> Result<Placed, Error> {
        let size = usize::try_from(BLOCK_LEAVES).unwrap_or(usize::MAX);
        let (block, within) = (first + at / size, at % size);
        let found = leaves.get(at).zip(leaves.chunks(size).nth(at / size));
        let (found, beside) = found.ok_or_else(|| Error::damaged(SILVER, "a leaf is missing"))?;
        let hashes: Vec<Hash256> = beside.iter().map(|f| f.leaf.hash()).collect();
        let up = path(&hashes, within).into_iter().chain(path(&self.nodes, block)).flatten().collect();
        let index = u64::try_from(block * size + within).unwrap_or(u64::MAX);
        Ok(Placed { leaf: found.leaf, index, path: up })
    }
}

/// The rows of file `number` from `start` to `end`, each a file and a row in it; the end is exclusive.
fn part(number: usize, file: &OutputFile, start: (usize, u64), end: (usize, u64)) -> Range<u64> {
    let from = if number == start.0 { start.1 } else { 0 };
    let to = if number == end.0 { end.1 } else { file.rows };
    if number > end.0 { 0..0 } else { from..to }
}

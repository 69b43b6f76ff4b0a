//! Leaves → the day's Merkle root, and the node of every 1,024 leaves with its place in silver (`gold/proof_blocks`),
//! so that a proof reads one block of events and not the day.
//! Guarantee: root and nodes follow from the billed events alone; only the places depend on how silver is cut.
//! Memory: one bucket's leaves at a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch};
use lake::file::{NewFile, ParquetFile};
use lake::tables::GOLD_PROOF_BLOCKS;
use shared::billed::BLOCK_LEAVES;
use shared::merkle::{Root, Tree};
use shared::time::Day;

use crate::error::Error;
use crate::leaves::{Waiting, decode};
use crate::stage::Stage;

/// A block being filled.
#[derive(Debug)]
struct Block {
    tree: Tree,
    first_key: i64,
    silver_file: i32,
    silver_row: i64,
}

/// The tree of a day being built.
#[derive(Debug, Default)]
struct Builder {
    blocks: Vec<Block>,
    last_key: Option<i64>,
}

impl Builder {
    fn add(&mut self, leaf: &Waiting, silver_file: i32) -> Result<(), Error> {
        if self.last_key.is_some_and(|last| last > leaf.key) {
            return Err(Error::Internal("the leaves of two buckets are out of order".to_owned()));
        }
        self.last_key = Some(leaf.key);
        match self.blocks.last_mut().filter(|b| b.tree.leaves() < BLOCK_LEAVES) {
            Some(block) => block.tree.push(leaf.hash),
            None => {
                let mut tree = Tree::default();
                tree.push(leaf.hash);
                let (first_key, silver_row) = (leaf.key, i64::from(leaf.row));
                self.blocks.push(Block { tree, first_key, silver_file, silver_row });
            }
        }
        Ok(())
    }

    /// The root over all leaves: that over the blocks, since all but the last are whole subtrees of one height.
    fn root(&self) -> Root {
        let mut whole = Tree::default();
        self.blocks.iter().for_each(|b| whole.push(b.tree.root().root));
        Root { root: whole.root().root, leaves: self.blocks.iter().map(|b| b.tree.leaves()).sum() }
    }

    /// The rows of `gold/proof_blocks`.
    fn rows(&self) -> Result<RecordBatch, Error> {
        let blocks = || self.blocks.iter();
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(blocks().zip(0_i64..).map(|(_, i)| i).collect::<Int64Array>()),
            Arc::new(blocks().map(|b| number(b.tree.leaves())).collect::<Int64Array>()),
            Arc::new(BinaryArray::from_iter_values(blocks().map(|b| b.tree.root().root.0))),
            Arc::new(blocks().map(|b| b.first_key).collect::<Int64Array>()),
            Arc::new(blocks().map(|b| b.silver_file).collect::<Int32Array>()),
            Arc::new(blocks().map(|b| b.silver_row).collect::<Int64Array>()),
        ];
        Ok(RecordBatch::try_new(GOLD_PROOF_BLOCKS.file_schema(), columns)?)
    }
}

/// The tree over the staged leaves of `buckets` (in order; one silver file each), and the file of its blocks.
///
/// # Errors
/// When the stage does not read or the leaves are out of order.
pub(crate) fn build(stage: &Stage, day: Day, run: u64, buckets: &[u32]) -> Result<(Root, Vec<NewFile>), Error> {
    let mut builder = Builder::default();
    for (silver_file, bucket) in (0..).zip(buckets) {
        decode(&stage.leaves(*bucket)?).try_for_each(|leaf| builder.add(&leaf, silver_file))?;
    }
    let root = builder.root();
    if root.leaves == 0 {
        return Ok((root, Vec::new()));
    }
    let mut file = ParquetFile::new(&GOLD_PROOF_BLOCKS, day, &format!("run-{run}"))?;
    file.write(&builder.rows()?)?;
    Ok((root, vec![stage.keep(GOLD_PROOF_BLOCKS.name, file.finish()?)?]))
}

#[cfg(test)]
mod tests {
    use shared::merkle::{Hash256, root_of};

    use super::*;

    #[test]
    fn the_root_over_the_blocks_is_that_over_the_leaves() {
        for leaves in [0, 1, 2, 1_023, 1_024, 1_025, 2_048, 3_000, 5_121] {
            let hashes: Vec<Hash256> = (0..leaves).map(|n: u32| Hash256::of(&n.to_le_bytes())).collect();
            let mut builder = Builder::default();
            for (row, hash) in (0..).zip(&hashes) {
                builder.add(&Waiting { hash: *hash, key: i64::from(row), row }, 0).unwrap();
            }
            assert_eq!(builder.root(), root_of(&hashes), "{leaves} leaves");
        }
    }
}

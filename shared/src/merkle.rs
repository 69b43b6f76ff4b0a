//! A Merkle tree of SHA-256 hashes, shaped as in RFC 6962, section 2.1: whoever knows the root and the number of leaves
//! can check that one leaf is in the tree, or that none has a certain key, and learns nothing of the others. Pure.
//! Leaves are in ascending order of their keys, each key once; the one who builds the tree sees to that.
//! A leaf hashes as `00 ‖ key ‖ body`, a node as `01 ‖ left ‖ right`, so neither can be passed off as the other.
//! Never: takes a proof for good that fits another index, number of leaves or root.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256 hash; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash256(pub [u8; 32]);

impl Hash256 {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first eight bytes as a signed integer that orders as the bytes do.
    #[must_use]
    pub fn prefix(&self) -> i64 {
        let first = self.0.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        (first ^ (1 << 63)).cast_signed()
    }
}

impl fmt::Display for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 lower-case hexadecimal digits")]
pub struct NotAHash;

impl FromStr for Hash256 {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digit = |b: &u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(NotAHash),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes =
            pairs.iter().map(|[high, low]| Ok(digit(high)? << 4 | digit(low)?)).collect::<Result<Vec<u8>, _>>()?;
        if rest.is_empty() { bytes.try_into().map(Self).map_err(|_| NotAHash) } else { Err(NotAHash) }
    }
}

impl TryFrom<String> for Hash256 {
    type Error = NotAHash;

    fn try_from(text: String) -> Result<Self, NotAHash> {
        text.parse()
    }
}

impl From<Hash256> for String {
    fn from(hash: Hash256) -> Self {
        hash.to_string()
    }
}

/// What a tree is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// The hash at the top; that of no bytes for an empty tree.
    pub root: Hash256,
    /// How many leaves the tree has.
    pub leaves: u64,
}

/// A leaf: what it is sorted by, and the hash of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its key.
    pub key: Hash256,
    /// The hash of its body.
    pub body: Hash256,
}

impl Leaf {
    /// Its hash in the tree.
    #[must_use]
    pub fn hash(&self) -> Hash256 {
        joined(0, &self.key, &self.body)
    }
}

fn joined(tag: u8, left: &Hash256, right: &Hash256) -> Hash256 {
    Hash256(Sha256::new().chain_update([tag]).chain_update(left.0).chain_update(right.0).finalize().into())
}

fn node(left: &Hash256, right: &Hash256) -> Hash256 {
    joined(1, left, right)
}

/// A tree being built from its hashes in order. Memory: one hash per binary digit of their number.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The roots of the whole subtrees so far, the largest first: one for every 1 in `leaves` as a binary number.
    peaks: Vec<Hash256>,
    leaves: u64,
}

impl Tree {
    /// Adds the next leaf's hash (or the next of equally tall subtrees' roots).
    pub fn push(&mut self, hash: Hash256) {
        let mut hash = hash;
        for _ in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.leaves += 1;
    }

    /// How many were added.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// What the tree is known by.
    #[must_use]
    pub fn root(&self) -> Root {
        let top = self.peaks.iter().rev().copied().reduce(|right, left| node(&left, &right));
        Root { root: top.unwrap_or_else(|| Hash256::of(b"")), leaves: self.leaves }
    }
}

/// The root over `hashes`.
#[must_use]
pub fn root_of(hashes: &[Hash256]) -> Root {
    let mut tree = Tree::default();
    hashes.iter().for_each(|hash| tree.push(*hash));
    tree.root()
}

/// The hashes beside the way from number `index` of `hashes` up to the root; nothing where there is no such number.
#[must_use]
pub fn path(hashes: &[Hash256], index: usize) -> Option<Vec<Hash256>> {
    if index >= hashes.len() {
        return None;
    }
    let (mut hashes, mut index, mut beside) = (hashes, index, Vec::new());
    while hashes.len() > 1 {
        let (left, right) = hashes.split_at_checked(hashes.len().next_power_of_two() / 2)?;
        if index < left.len() {
            beside.push(root_of(right).root);
            hashes = left;
        } else {
            beside.push(root_of(left).root);
            index -= left.len();
            hashes = right;
        }
    }
    beside.reverse();
    Some(beside)
}

/// A leaf with its place in a tree, and the hashes that prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The leaf.
    pub leaf: Leaf,
    /// Its number, from 0.
    pub index: u64,
    /// The hashes beside the way to the root, from the leaf on.
    pub path: Vec<Hash256>,
}

impl Placed {
    /// Whether the leaf stands at this place of the tree with this root.
    #[must_use]
    pub fn is_in(&self, tree: &Root) -> bool {
        let Some(mut last) = tree.leaves.checked_sub(1).filter(|last| self.index <= *last) else { return false };
        let (mut at, mut hash) = (self.index, self.leaf.hash());
        for beside in &self.path {
            if last == 0 {
                return false; // the path goes on above the root
            }
            if at & 1 == 1 || at == last {
                hash = node(beside, &hash);
                // At the right edge there are levels without a neighbour.
                let bare = if at == 0 { 0 } else { at.trailing_zeros() };
                (at, last) = (at >> bare, last >> bare);
            } else {
                hash = node(&hash, beside);
            }
            (at, last) = (at >> 1, last >> 1);
        }
        last == 0 && hash == tree.root
    }
}

/// Whether no leaf of the tree has `key`: the two given stand next to each other, one before it and one after it.
/// At an end of the tree one is absent; of an empty tree both are.
#[must_use]
pub fn is_absent(key: &Hash256, before: Option<&Placed>, after: Option<&Placed>, tree: &Root) -> bool {
    let is_before = |p: &Placed| p.leaf.key < *key && p.is_in(tree);
    let is_after = |p: &Placed| p.leaf.key > *key && p.is_in(tree);
    match (before, after) {
        (Some(b), Some(a)) => is_before(b) && is_after(a) && b.index.checked_add(1) == Some(a.index),
        (Some(b), None) => is_before(b) && b.index.checked_add(1) == Some(tree.leaves),
        (None, Some(a)) => is_after(a) && a.index == 0,
        (None, None) => *tree == Tree::default().root(),
    }
}

#[cfg(test)]
mod tests;

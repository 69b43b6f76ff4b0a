//! The leaves of one bucket's billed events, as they wait for the tree: 44 bytes each, in the order of their keys.
//! Guarantee: the keys ascend strictly, or there is an error; a tree over them can prove that a key is absent.

use shared::billed::Billed;
use shared::merkle::Hash256;

use crate::error::Error;

/// A leaf's hash with what finds it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The leaf's hash.
    pub(crate) hash: Hash256,
    /// The first bytes of its key.
    pub(crate) key: i64,
    /// The event's row in the bucket's silver file.
    pub(crate) row: u32,
}

/// Bytes of one leaf.
const ENCODED: usize = 44;

/// The leaves of a bucket being judged.
#[derive(Debug, Default)]
pub(crate) struct Leaves {
    bytes: Vec<u8>,
    rows: u32,
    last: Option<Hash256>,
    text: String,
}

impl Leaves {
    /// The next row of the bucket: its leaf where it is billed.
    ///
    /// # Errors
    /// When the keys do not ascend: the bucket is not in the order it must be.
    pub(crate) fn next_row(&mut self, billed: Option<&Billed<'_>>) -> Result<(), Error> {
        if let Some(billed) = billed {
            let leaf = billed.leaf(&mut self.text);
            if self.last.is_some_and(|last| last >= leaf.key) {
                return Err(Error::Internal(format!("event {} is billed out of order", billed.event_id)));
            }
            self.last = Some(leaf.key);
            self.bytes.extend_from_slice(&leaf.hash().0);
            self.bytes.extend_from_slice(&leaf.key.prefix().to_le_bytes());
            self.bytes.extend_from_slice(&self.rows.to_le_bytes());
        }
        self.rows += 1;
        Ok(())
    }

    /// All leaves, for [`decode`].
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The leaves in [`Leaves::into_bytes`].
pub(crate) fn decode(bytes: &[u8]) -> impl Iterator<Item = Waiting> + '_ {
    bytes.as_chunks::<ENCODED>().0.iter().filter_map(|leaf| {
        let (hash, rest) = leaf.split_first_chunk::<32>()?;
        let (key, row) = rest.split_first_chunk::<8>()?;
        let row = row.first_chunk::<4>()?;
        Some(Waiting { hash: Hash256(*hash), key: i64::from_le_bytes(*key), row: u32::from_le_bytes(*row) })
    })
}

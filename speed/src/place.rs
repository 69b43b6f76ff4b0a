//! Where one partition's state is kept: numbered checkpoints, and the dedup files they name. A folder of this machine
//! ([`crate::folder`]), or an object store that any machine reaches ([`crate::objects`]).
//! Guarantee of every place: a checkpoint is there whole or not at all, its files are durable before it is, and the one
//! before it stays readable until the next. On crash: leftovers are overwritten or removed by a later save.
//! Never: tells "not there" for "cannot be reached", or gives out a checkpoint whose checksum is wrong.

use std::collections::BTreeSet;

use crate::Error;

const MAGIC: &[u8; 8] = b"CLSPEED1";

/// Bytes to put at `offset` of `file`; whatever lies beyond is cut off first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Append {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A partition's place. Its operations block.
pub(crate) trait Place: std::fmt::Debug + Send {
    /// Where it is, for messages.
    fn name(&self) -> String;

    /// Whether other machines reach it: then whoever takes it on saves at once, so that what an older owner may still
    /// save is never preferred.
    fn is_shared(&self) -> bool;

    /// The checkpoints there are, newest first.
    fn checkpoints(&self) -> Result<Vec<String>, Error>;

    /// The content of a checkpoint; `None` when it is not whole.
    fn read_checkpoint(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error>;

    /// The first `length` bytes of a file of the checkpoint that was read last, if it has as many.
    fn read_file(&self, file: &str, length: u64) -> Result<Option<Vec<u8>>, Error>;

    /// Puts an unreadable checkpoint out of the way, so that it is not the "one before" of the next save.
    fn discard(&mut self, name: &str) -> Result<(), Error>;

    /// Whether a checkpoint was discarded here.
    fn has_damaged(&self) -> bool;

    /// Makes `appends` durable, then `body` as the newest checkpoint, which needs `files`; then removes what neither it
    /// nor the one before (which needs `before`) needs.
    fn save(
        &mut self,
        body: Vec<u8>,
        appends: &[Append],
        files: &BTreeSet<String>,
        before: &BTreeSet<String>,
    ) -> Result<(), Error>;
}

/// What stands before a checkpoint's body: a mark and a checksum.
pub(crate) fn head(body: &[u8]) -> Vec<u8> {
    [MAGIC.as_slice(), &crc32c::crc32c(body).to_le_bytes()].concat()
}

/// The body of a checkpoint's bytes; `None` when they are not whole.
pub(crate) fn body_of(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == crc32c::crc32c(body)).then_some(body)
}

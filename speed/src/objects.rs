//! A partition's state in an object store, so that the partition can move to another machine.
//!
//! Every object is written once, under a name that no other write ever has: it carries the owner's generation and a
//! count of its saves. A dedup file is a chain of objects, one for each append; a chain's short objects are merged, so
//! that their number grows with the logarithm of its bytes. The checkpoint holds the state and names the objects.
//!
//! Two owners at once (docs/adr/0020): an owner puts `owner-GENERATION` before it looks for a checkpoint, and whoever
//! sees a newer generation deletes nothing from then on and gives the partition up. Newer generations' checkpoints are
//! preferred, and their names say what they began with: what an older owner saved after that is never used.
//! On crash: objects that no checkpoint names are removed by a later save.
//! Never: changes an object, or deletes one that a newer owner may have read the name of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as Failure, ObjectStore, ObjectStoreExt, PutPayload};
use prost::Message;
use tokio::runtime::Handle;
use tracing::warn;

use crate::Error;
use crate::place::{Append, Place, body_of, head};

const CHECKPOINT: &str = "checkpoint-";
const OWNER: &str = "owner-";
/// Digits of a checkpoint's generation and count, which order checkpoints as text.
const ID_LENGTH: usize = 21;
/// Before the first checkpoint.
const NOTHING: &str = "0000000000-0000000000";
/// So many objects of one level become one of the next.
const FANOUT: usize = 8;
/// Larger than this no object is merged.
const LARGEST: u64 = 32 << 20;
/// So many requests are under way at once.
const AT_ONCE: usize = 16;

/// What a checkpoint object holds.
#[derive(Clone, PartialEq, Message)]
struct Manifest {
    /// Chains of objects by file.
    #[prost(btree_map = "string, message", tag = "1")]
    files: BTreeMap<String, Chain>,
    #[prost(bytes = "vec", tag = "2")]
    state: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Chain {
    #[prost(message, repeated, tag = "1")]
    links: Vec<Link>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(string, tag = "1")]
    object: String,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    length: u64,
    /// How often it was merged.
    #[prost(uint32, tag = "3")]
    level: u32,
}

impl Chain {
    fn length(&self) -> u64 {
        self.links.iter().map(|link| link.length).sum()
    }
}

impl Manifest {
    fn objects(&self) -> impl Iterator<Item = String> {
        self.files.values().flat_map(|chain| chain.links.iter().map(|link| link.object.clone()))
    }
}

/// One partition's objects, as one owner sees them.
#[derive(Debug)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    runtime: Handle,
    generation: u32,
    /// How often this owner tried to save.
    saves: u64,
    /// The newest checkpoint: its name, and the objects it needs.
    newest: Option<(String, Manifest)>,
    /// The checkpoint that this owner began with.
    base: Option<String>,
    is_damaged: bool,
}

impl Objects {
    /// Takes the partition on as its owner of `generation`. Call it where blocking is allowed.
    pub(crate) fn open(store: Arc<dyn ObjectStore>, partition: u32, generation: u32) -> Result<Self, Error> {
        let folder = Path::from(format!("partition-{partition:04}"));
        let runtime = Handle::current();
        let objects =
            Self { store, folder, runtime, generation, saves: 0, newest: None, base: None, is_damaged: false };
        objects.put(&format!("{OWNER}{generation:010}"), PutPayload::new())?;
        Ok(objects)
    }

    fn path(&self, object: &str) -> Path {
        self.folder.clone().join(object)
    }

    fn failed(&self, doing: &'static str, object: &str) -> impl FnOnce(Failure) -> Error {
        let object = self.path(object).to_string();
        move |source| Error::Objects { doing, object, source }
    }

    fn put(&self, object: &str, bytes: PutPayload) -> Result<(), Error> {
        let put = self.runtime.block_on(self.store.put(&self.path(object), bytes));
        put.map(drop).map_err(self.failed("write", object))
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let names = self.store.list(Some(&self.folder)).map_ok(|found| found.location.filename().map(str::to_owned));
        let names: Result<Vec<_>, _> = self.runtime.block_on(names.try_collect());
        Ok(names.map_err(self.failed("list", ""))?.into_iter().flatten().collect())
    }

    /// An object's bytes; `None` when it is not there.
    async fn get(&self, object: &str) -> Result<Option<Bytes>, Error> {
        let bytes = async { self.store.get(&self.path(object)).await?.bytes().await };
        match bytes.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Failure::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", object)(error)),
        }
    }

    /// The bytes of linked objects; `None` when one is not there.
    fn read(&self, links: &[Link]) -> Result<Option<Vec<u8>>, Error> {
        let objects = stream::iter(links).map(|link| self.get(&link.object)).buffered(AT_ONCE);
        let objects: Vec<Option<Bytes>> = self.runtime.block_on(objects.try_collect())?;
        let objects: Option<Vec<Bytes>> = objects.into_iter().collect();
        Ok(objects.map(|objects| objects.concat()))
    }

    /// Lengthens a chain, in a new object that takes short ones before it in.
    fn append(&self, chain: &mut Chain, append: &Append, suffix: &str) -> Result<(), Error> {
        if append.offset == 0 {
            chain.links.clear();
        }
        let lost = || Error::Lost { place: self.name(), file: append.file.clone() };
        if chain.length() != append.offset {
            return Err(lost());
        }
        let (mut bytes, mut level) = (append.bytes.clone(), 0);
        loop {
            let alike = chain.links.iter().rev().take_while(|link| link.level == level).count();
            let whole = chain.links.iter().rev().take(alike).map(|link| link.length).sum::<u64>() + bytes.len() as u64;
            if alike + 1 < FANOUT || whole > LARGEST {
                break;
            }
            let links = chain.links.split_off(chain.links.len() - alike);
            let earlier = self.read(&links)?.ok_or_else(lost)?;
            bytes = [earlier, bytes].concat();
            level += 1;
        }
        let (object, length) = (format!("{}.{suffix}", append.file), bytes.len() as u64);
        self.put(&object, bytes.into())?;
        chain.links.push(Link { object, length, level });
        Ok(())
    }

    /// Removes what is not in `keep`, unless a newer owner is there, which may need it.
    ///
    /// The newer owner's mark was put before it looked for a checkpoint. If the mark is not in this listing, the newer
    /// owner will look later than now, and find the checkpoint that was just saved, or a newer one.
    fn clean(&self, keep: &BTreeSet<String>) -> Result<(), Error> {
        let names = self.names()?;
        let newest = names.iter().filter_map(|name| generation(name)).max().unwrap_or(0);
        if newest > self.generation {
            return Err(Error::Superseded { place: self.name(), generation: self.generation, newest });
        }
        let is_mark = |name: &str| name.starts_with(OWNER) && generation(name) == Some(self.generation);
        let old = names.into_iter().filter(|name| !keep.contains(name) && !is_mark(name));
        let removals = stream::iter(old).map(|name| async move {
            match self.store.delete(&self.path(&name)).await {
                Ok(()) | Err(Failure::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.failed("remove", &name)(error)),
            }
        });
        self.runtime.block_on(removals.buffer_unordered(AT_ONCE).try_collect())
    }
}

/// The generation and count of a checkpoint, and those of the one that its owner began with.
fn ids(name: &str) -> Option<(&str, &str)> {
    let (id, base) = name.strip_prefix(CHECKPOINT)?.split_once("-after-")?;
    (id.len() == ID_LENGTH && base.len() == ID_LENGTH).then_some((id, base))
}

/// Checkpoints, newest first, without those that an owner saved after a newer one had begun with an earlier one.
fn in_line(names: &[String]) -> Vec<String> {
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((ids(name)?, name))).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    let mut line = Vec::new();
    let (mut newest, mut most) = (None, None);
    for ((id, base), name) in found {
        if generation(name) == newest || most.is_none_or(|most| id <= most) {
            line.push(name.clone());
            (newest, most) = (generation(name), Some(base));
        }
    }
    line
}

/// The generation in the name of a checkpoint or an owner's mark.
fn generation(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(CHECKPOINT).or_else(|| name.strip_prefix(OWNER))?;
    rest.split('-').next()?.parse().ok()
}

impl Place for Objects {
    fn name(&self) -> String {
        format!("{} of {}", self.folder, self.store)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn checkpoints(&self) -> Result<Vec<String>, Error> {
        Ok(in_line(&self.names()?))
    }

    fn read_checkpoint(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.runtime.block_on(self.get(name))?;
        let manifest = bytes.and_then(|bytes| Manifest::decode(body_of(&bytes)?).ok());
        let Some(mut manifest) = manifest else { return Ok(None) };
        let state = std::mem::take(&mut manifest.state);
        self.newest = Some((name.to_owned(), manifest));
        Ok(Some(state))
    }

    fn read_file(&self, file: &str, length: u64) -> Result<Option<Vec<u8>>, Error> {
        let chain = self.newest.as_ref().and_then(|(_, manifest)| manifest.files.get(file));
        match chain.filter(|chain| chain.length() == length) {
            Some(chain) => self.read(&chain.links),
            None => Ok(None),
        }
    }

    fn discard(&mut self, _: &str) -> Result<(), Error> {
        // The next save removes it, if nobody newer is there.
        (self.newest, self.is_damaged) = (None, true);
        Ok(())
    }

    fn has_damaged(&self) -> bool {
        self.is_damaged
    }

    fn save(
        &mut self,
        body: Vec<u8>,
        appends: &[Append],
        files: &BTreeSet<String>,
        _: &BTreeSet<String>,
    ) -> Result<(), Error> {
        // A failed save may still arrive: its names are not used again.
        self.saves += 1;
        let suffix = format!("{:010}-{:010}", self.generation, self.saves);
        let mut manifest = self.newest.as_ref().map(|(_, manifest)| manifest.clone()).unwrap_or_default();
        for append in appends {
            self.append(manifest.files.entry(append.file.clone()).or_default(), append, &suffix)?;
        }
        manifest.files.retain(|file, _| files.contains(file));
        let begun = || self.newest.as_ref().and_then(|(name, _)| ids(name)).map_or(NOTHING, |(id, _)| id).to_owned();
        let name = format!("{CHECKPOINT}{suffix}-after-{}", self.base.get_or_insert_with(begun));
        manifest.state = body;
        let body = manifest.encode_to_vec();
        manifest.state = Vec::new();
        self.put(&name, [head(&body), body].into_iter().map(Bytes::from).collect())?;
        let before = self.newest.replace((name, manifest));
        let keep = self.newest.iter().chain(&before);
        let keep = keep.flat_map(|(name, manifest)| manifest.objects().chain([name.clone()])).collect();
        match self.clean(&keep) {
            Err(error @ Error::Superseded { .. }) => Err(error),
            Err(error) => {
                warn!(%error, "old state stays until the next save");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(id: [u32; 2], base: [u32; 2]) -> String {
        let [id, base] = [id, base].map(|[generation, count]| format!("{generation:010}-{count:010}"));
        format!("{CHECKPOINT}{id}-after-{base}")
    }

    #[test]
    fn what_an_older_owner_saved_after_a_newer_one_began_is_never_used() {
        let first = [1, 2, 3].map(|count| checkpoint([1, count], [0, 0]));
        let second = [1, 2].map(|count| checkpoint([2, count], [1, 2]));
        let third = checkpoint([4, 1], [2, 1]);
        let mut all = [first.to_vec(), second.to_vec()].concat();
        all.extend(["owner-0000000002".to_owned(), "ids-0000000001.0000000001-0000000001".to_owned()]);
        let line = [&second[1], &second[0], &first[1], &first[0]];
        assert_eq!(in_line(&all).iter().collect::<Vec<_>>(), line);
        all.push(third.clone());
        assert_eq!(in_line(&all).iter().collect::<Vec<_>>(), [&third, &second[0], &first[1], &first[0]]);
    }
}

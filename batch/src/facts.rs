//! Facts: what the aggregates need of a judged event, in 32 bytes, by hour; beyond the memory limit they go to disk.
//! One [`Shard`] per worker; which worker judged which event leaves no trace in the result.
//! On crash: spill files have no name, so nothing stays behind.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use compact_str::CompactString;
use shared::price::PriceBook;

use crate::error::Error;
use crate::prices::{Prices, number};

/// Hours in a day.
pub(crate) const HOURS: usize = 24;
const ENCODED: usize = 32;

/// One judged event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fact {
    /// The user's hash (`Sketch::hash`), if there is a user.
    pub(crate) user: Option<u64>,
    /// Cost in nanos.
    pub(crate) cost: i64,
    /// The ad and campaign: an index into the shard's (later everybody's) list.
    pub(crate) ad: u32,
    /// The price key: an index likewise.
    pub(crate) price: u32,
    /// Minute within the hour.
    pub(crate) minute: u8,
    /// Index into `EventKind::ALL`-like order: 0 impression, 1 click, 2 conversion.
    pub(crate) kind: u8,
    /// Index into `Verdict::ALL`.
    pub(crate) verdict: u8,
    /// Index into [`DEVICES`].
    pub(crate) device: u8,
    /// ISO 3166-1 alpha-2.
    pub(crate) country: [u8; 2],
}

/// Device types in the order of their words.
pub(crate) const DEVICES: [&str; 5] = ["ctv", "desktop", "mobile", "other", "tablet"];

impl Fact {
    /// As [`Fact::decode`] takes it.
    pub(crate) fn encode(&self) -> [u8; ENCODED] {
        let mut bytes = [0; ENCODED];
        let parts: [&[u8]; 10] = [
            &self.user.unwrap_or(0).to_le_bytes(),
            &self.cost.to_le_bytes(),
            &self.ad.to_le_bytes(),
            &self.price.to_le_bytes(),
            &[self.minute],
            &[self.kind],
            &[self.verdict],
            &[self.device],
            &self.country,
            &[u8::from(self.user.is_some())],
        ];
        for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        bytes
    }

    /// From [`Fact::encode`].
    pub(crate) fn decode(bytes: &[u8; ENCODED]) -> Self {
        let (user, rest) = take::<8>(bytes);
        let (cost, rest) = take::<8>(rest);
        let (ad, rest) = take::<4>(rest);
        let (price, rest) = take::<4>(rest);
        let ([minute, kind, verdict, device], rest) = take::<4>(rest);
        let (country, rest) = take::<2>(rest);
        let ([has_user], _) = take::<1>(rest);
        Self {
            user: (has_user == 1).then_some(u64::from_le_bytes(user)),
            cost: i64::from_le_bytes(cost),
            ad: u32::from_le_bytes(ad),
            price: u32::from_le_bytes(price),
            minute,
            kind,
            verdict,
            device,
            country,
        }
    }
}

fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes.split_first_chunk::<N>().map_or(([0; N], &[]), |(first, rest)| (*first, rest))
}

/// The facts of one hour from one worker: in memory, and before those in a file.
#[derive(Debug, Default)]
pub(crate) struct HourFacts {
    held: Vec<Fact>,
    spilled: Option<File>,
    spilled_facts: u64,
}

impl HourFacts {
    /// How many.
    pub(crate) fn len(&self) -> u64 {
        self.spilled_facts + self.held.len() as u64
    }

    /// Calls `each` with every fact.
    ///
    /// # Errors
    /// When the spill file does not read.
    pub(crate) fn for_each(&mut self, mut each: impl FnMut(Fact)) -> std::io::Result<()> {
        if let Some(file) = &mut self.spilled {
            file.seek(SeekFrom::Start(0))?;
            let mut reader = BufReader::with_capacity(1 << 20, file);
            let mut bytes = [0; ENCODED];
            for _ in 0..self.spilled_facts {
                reader.read_exact(&mut bytes)?;
                each(Fact::decode(&bytes));
            }
        }
        self.held.iter().copied().for_each(each);
        Ok(())
    }

    fn spill(&mut self, folder: &Path) -> std::io::Result<()> {
        let file = match self.spilled.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(folder)?,
        };
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        for fact in &self.held {
            writer.write_all(&fact.encode())?;
        }
        self.spilled = Some(writer.into_inner().map_err(std::io::IntoInnerError::into_error)?);
        self.spilled_facts += self.held.len() as u64;
        self.held = Vec::new();
        Ok(())
    }
}

/// An ad of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ad {
    /// The ad.
    pub(crate) ad_id: CompactString,
    /// The campaign.
    pub(crate) campaign_id: CompactString,
}

/// What one worker has judged.
#[derive(Debug)]
pub(crate) struct Shard {
    /// The ads it met.
    pub(crate) ads: Vec<Ad>,
    /// The prices it met.
    pub(crate) prices: Prices,
    /// Its facts by hour.
    pub(crate) hours: Vec<HourFacts>,
    /// By ad and campaign: the ad's number and the campaign's number in `prices`.
    numbers: HashMap<CompactString, (u32, u32)>,
    name: String,
    held: usize,
    limit: usize,
    folder: PathBuf,
}

impl Shard {
    /// An empty shard that keeps at most `memory` bytes of facts and spills the rest to `folder`.
    pub(crate) fn new(memory: u64, folder: PathBuf, book: Arc<PriceBook>) -> Self {
        Self {
            ads: Vec::new(),
            prices: Prices::new(book),
            hours: std::iter::repeat_with(HourFacts::default).take(HOURS).collect(),
            numbers: HashMap::new(),
            name: String::new(),
            held: 0,
            limit: usize::try_from(memory).unwrap_or(usize::MAX) / size_of::<Fact>(),
            folder,
        }
    }

    /// The number of an ad of a campaign, and of the campaign in `prices`.
    ///
    /// # Errors
    /// More than 2³² of them.
    pub(crate) fn ad(&mut self, ad_id: &str, campaign_id: &str) -> Result<(u32, u32), Error> {
        self.name.clear();
        self.name.push_str(ad_id);
        self.name.push('\0'); // no id has it
        self.name.push_str(campaign_id);
        if let Some(numbers) = self.numbers.get(self.name.as_str()) {
            return Ok(*numbers);
        }
        let numbers = (number(self.ads.len())?, self.prices.campaign(campaign_id)?);
        self.numbers.insert(CompactString::new(&self.name), numbers);
        self.ads.push(Ad { ad_id: CompactString::new(ad_id), campaign_id: CompactString::new(campaign_id) });
        Ok(numbers)
    }

    /// Adds a fact of `hour` (0 to 23).
    ///
    /// # Errors
    /// When spilling fails.
    pub(crate) fn add(&mut self, hour: usize, fact: Fact) -> Result<(), Error> {
        if let Some(facts) = self.hours.get_mut(hour) {
            facts.held.push(fact);
            self.held += 1;
        }
        if self.held > self.limit { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), Error> {
        let folder = &self.folder;
        let failed = |source| Error::Spill { folder: folder.display().to_string(), source };
        self.hours.iter_mut().filter(|h| !h.held.is_empty()).try_for_each(|h| h.spill(folder)).map_err(failed)?;
        self.held = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fact() -> impl Strategy<Value = Fact> {
        let parts =
            (any::<Option<u64>>(), any::<i64>(), any::<u32>(), any::<u32>(), any::<[u8; 4]>(), any::<[u8; 2]>());
        parts.prop_map(|(user, cost, ad, price, [minute, kind, verdict, device], country)| Fact {
            user,
            cost,
            ad,
            price,
            minute,
            kind,
            verdict,
            device,
            country,
        })
    }

    proptest! {
        #[test]
        fn spilled_facts_come_back_whole_and_in_order(
            facts in proptest::collection::vec((0..HOURS, fact()), 0..60),
            limit in 0_u64..20,
        ) {
            let memory = limit * size_of::<Fact>() as u64;
            let mut shard = Shard::new(memory, std::env::temp_dir(), Arc::default());
            for (hour, fact) in &facts {
                shard.add(*hour, *fact).unwrap();
            }
            for (hour, stored) in shard.hours.iter_mut().enumerate() {
                let wanted: Vec<Fact> = facts.iter().filter(|(h, _)| *h == hour).map(|(_, f)| *f).collect();
                for _ in 0..2 {
                    let mut read = Vec::new();
                    stored.for_each(|f| read.push(f)).unwrap();
                    prop_assert_eq!(&read, &wanted);
                }
                prop_assert_eq!(stored.len(), wanted.len() as u64);
            }
        }
    }

    #[test]
    fn an_ad_of_two_campaigns_is_two() {
        let mut shard = Shard::new(0, std::env::temp_dir(), Arc::default());
        assert_eq!(shard.ad("a", "bc").unwrap(), (0, 0));
        assert_eq!(shard.ad("ab", "c").unwrap(), (1, 1));
        assert_eq!(shard.ad("b", "bc").unwrap(), (2, 0));
        assert_eq!(shard.ad("a", "bc").unwrap(), (0, 0));
    }
}

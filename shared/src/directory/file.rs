//! The snapshot's file, which is also its form in memory (little endian throughout):
//! magic · ad records by id · campaigns · advertisers · the records' offsets · footer with a checksum.
//! A record is status (1 byte), id length (1), url length (2), campaign number (4), id, url.
//! Never: trusts bytes it has not checked once at loading.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::AdStatus;
use super::places::Places;
use crate::id::{AdvertiserId, CampaignId};

const MAGIC: [u8; 8] = *b"CLADS001";
const FOOTER_BYTES: usize = 44;
const RECORD_HEAD: usize = 8;

/// One ad as its bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) ad_id: &'a str,
    pub(super) campaign: u32,
    pub(super) status: AdStatus,
    pub(super) url: &'a str,
}

impl<'a> Record<'a> {
    /// Adds the record's bytes to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let status = AdStatus::ALL.iter().zip(0..).find(|(s, _)| **s == self.status).map_or(0, |(_, n)| n);
        out.push(status);
        out.push(u8::try_from(self.ad_id.len()).unwrap_or(0));
        out.extend(u16::try_from(self.url.len()).unwrap_or(0).to_le_bytes());
        out.extend(self.campaign.to_le_bytes());
        out.extend(self.ad_id.as_bytes());
        out.extend(self.url.as_bytes());
    }

    /// The record at the start of `bytes` and its length.
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEAD>()?;
        let [status, id_len, url_len0, url_len1, c0, c1, c2, c3] = *head;
        let (id_len, url_len) = (usize::from(id_len), usize::from(u16::from_le_bytes([url_len0, url_len1])));
        let (id, rest) = rest.split_at_checked(id_len)?;
        let record = Self {
            ad_id: std::str::from_utf8(id).ok()?,
            campaign: u32::from_le_bytes([c0, c1, c2, c3]),
            status: *AdStatus::ALL.get(usize::from(status))?,
            url: std::str::from_utf8(rest.get(..url_len)?).ok()?,
        };
        Some((record, RECORD_HEAD + id_len + url_len))
    }

    /// Only the id of the record at the start of `bytes`.
    pub(super) fn id(bytes: &'a [u8]) -> Option<&'a [u8]> {
        let id_len = usize::from(*bytes.get(1)?);
        bytes.get(RECORD_HEAD..RECORD_HEAD + id_len)
    }
}

/// The checked bytes of a snapshot.
#[derive(Debug, Default)]
pub(super) struct Stored {
    bytes: Vec<u8>,
    ads: usize,
    offsets_at: usize,
    places: Places,
}

impl Stored {
    pub(super) fn len(&self) -> usize {
        self.ads
    }

    #[cfg(test)]
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn footer(&self) -> &[u8] {
        self.bytes.len().checked_sub(FOOTER_BYTES).and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }

    /// Where the record of the ad with this number begins.
    fn offset_of(&self, place: usize) -> Option<usize> {
        if place >= self.ads {
            return None;
        }
        usize::try_from(u64_at(&self.bytes, self.offsets_at + place * 8)?).ok()
    }

    fn bytes_of(&self, place: usize) -> Option<&[u8]> {
        self.bytes.get(self.offset_of(place)?..self.offsets_at)
    }

    pub(super) fn record(&self, place: usize) -> Option<Record<'_>> {
        Record::read(self.bytes_of(place)?).map(|(record, _)| record)
    }

    /// The record of the ad with this id.
    pub(super) fn find(&self, ad_id: &str) -> Option<Record<'_>> {
        let records = self.places.of(ad_id.as_bytes()).filter_map(|place| self.bytes.get(place..self.offsets_at));
        let mut found = records.filter(|bytes| Record::id(bytes) == Some(ad_id.as_bytes()));
        Record::read(found.next()?).map(|(record, _)| record)
    }

    /// Where the ad is, or where it would be, in the order of ids.
    pub(super) fn place_of(&self, ad_id: &str) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.ads);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.bytes_of(middle).and_then(Record::id).unwrap_or_default().cmp(ad_id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }
}

/// The `n`-th item of a table that records refer to by number.
pub(super) fn nth<T>(items: &[T], n: u32) -> Option<&T> {
    items.get(usize::try_from(n).ok()?)
}

/// Writes a snapshot front to back: records in the order of their ids, then [`Writer::finish`].
pub(super) struct Writer<W> {
    out: W,
    crc: u32,
    written: u64,
    offsets: Vec<u64>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, crc: 0, written: 0, offsets: Vec::new() };
        writer.put(&MAGIC)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// The next record, as [`Record::write`] made it.
    pub(super) fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offsets.push(self.written);
        self.put(bytes)
    }

    pub(super) fn finish(mut self, campaigns: &[(CampaignId, u32)], advertisers: &[AdvertiserId]) -> io::Result<W> {
        let campaigns_at = self.written;
        for (id, advertiser) in campaigns {
            self.put(&advertiser.to_le_bytes())?;
            self.put(&short_text(id.as_str()))?;
        }
        let advertisers_at = self.written;
        for id in advertisers {
            self.put(&short_text(id.as_str()))?;
        }
        let offsets_at = self.written;
        let offsets = std::mem::take(&mut self.offsets);
        for offset in &offsets {
            self.put(&offset.to_le_bytes())?;
        }
        for number in [offsets.len() as u64, campaigns_at, advertisers_at, offsets_at] {
            self.put(&number.to_le_bytes())?;
        }
        let crc = self.crc;
        self.put(&crc.to_le_bytes())?;
        self.put(&MAGIC)?;
        Ok(self.out)
    }
}

fn short_text(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap_or(0)];
    bytes.extend(text.as_bytes());
    bytes
}

/// The last bytes of the file at `path`, which tell two snapshots apart; `None` where there is no file.
pub(super) fn read_footer(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(FOOTER_BYTES as u64)))?;
    let mut footer = Vec::with_capacity(FOOTER_BYTES);
    file.read_to_end(&mut footer)?;
    Ok(Some(footer))
}

type Parsed = (Stored, Vec<AdvertiserId>, Vec<(CampaignId, u32)>);

/// Checks a file's bytes, all of them.
pub(super) fn parse(bytes: Vec<u8>) -> Result<Parsed, String> {
    let footer_at = bytes.len().checked_sub(FOOTER_BYTES).ok_or("it is too short")?;
    if !bytes.starts_with(&MAGIC) || !bytes.ends_with(&MAGIC) {
        return Err("it is not an ad directory of this version, or it is cut off".to_owned());
    }
    let crc_at = footer_at + 32;
    let crc = bytes.get(crc_at..crc_at + 4).map(|b| b.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)));
    if crc != bytes.get(..crc_at).map(crc32c::crc32c) {
        return Err("its checksum is wrong".to_owned());
    }
    let number = |n: usize| u64_at(&bytes, footer_at + n * 8).and_then(|v| usize::try_from(v).ok());
    let sections = (number(0), number(1), number(2), number(3));
    let (Some(ads), Some(campaigns_at), Some(advertisers_at), Some(offsets_at)) = sections else {
        return Err("its footer is wrong".to_owned());
    };
    if offsets_at.checked_add(ads.saturating_mul(8)) != Some(footer_at) {
        return Err("its offsets do not fill their place".to_owned());
    }
    let mut table = bytes.get(campaigns_at..advertisers_at).ok_or("its sections overlap")?;
    let mut campaigns = Vec::new();
    while let Some((advertiser, rest)) = table.split_first_chunk::<4>() {
        let (id, rest) = take_text(rest)?;
        campaigns.push((CampaignId::new(id).map_err(|e| e.to_string())?, u32::from_le_bytes(*advertiser)));
        table = rest;
    }
    let mut table = bytes.get(advertisers_at..offsets_at).ok_or("its sections overlap")?;
    let mut advertisers = Vec::new();
    while !table.is_empty() {
        let (id, rest) = take_text(table)?;
        advertisers.push(AdvertiserId::new(id).map_err(|e| e.to_string())?);
        table = rest;
    }
    let mut stored = Stored { bytes, ads, offsets_at, places: Places::default() };
    stored.places = check_records(&stored, campaigns.len())?;
    Ok((stored, advertisers, campaigns))
}

/// Checks every record; where each of them is.
fn check_records(stored: &Stored, campaigns: usize) -> Result<Places, String> {
    let mut places = Places::for_ads(stored.len());
    let mut before: &str = "";
    for place in 0..stored.len() {
        let record = stored.record(place).ok_or("a record is cut off")?;
        if record.ad_id <= before || usize::try_from(record.campaign).is_ok_and(|c| c >= campaigns) {
            return Err(format!("the record of ad {:?} is out of place", record.ad_id));
        }
        let offset = stored.offset_of(place).ok_or("a record is cut off")?;
        places.add(record.ad_id.as_bytes(), offset).ok_or("a record is where none can be")?;
        before = record.ad_id;
    }
    Ok(places)
}

fn take_text(bytes: &[u8]) -> Result<(&str, &[u8]), String> {
    let cut = || "a table is cut off".to_owned();
    let (length, rest) = bytes.split_first().ok_or_else(cut)?;
    let (text, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
    Ok((std::str::from_utf8(text).map_err(|e| e.to_string())?, rest))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?))
}

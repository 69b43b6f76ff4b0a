//! Import: rows merged over the snapshot there is, written as one new snapshot.
//! Atomic: written beside, synced, renamed over; a crash leaves the old file. All rows or none.
//! Memory: the new rows in their stored form, and the old snapshot.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::file::{Record, Writer};
use super::row::{AdRow, BadAd, Format, check_url, read_rows};
use super::{Directory, DirectoryError};
use crate::id::{AdvertiserId, CampaignId};

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Ads that were not there before.
    pub added: u64,
    /// Ads that were there and are different now.
    pub changed: u64,
    /// Ads that were there just so.
    pub unchanged: u64,
    /// Ads there are now.
    pub total: u64,
}

/// Merges the rows of `source` into the directory at `path`. An ad that is there is replaced; an ad that is
/// twice in the source must be the same both times. `progress` hears the number of rows read, now and then.
///
/// # Errors
/// [`DirectoryError`]; then nothing has changed.
pub fn import<R: BufRead>(
    path: &Path,
    source: R,
    format: Format,
    progress: &mut dyn FnMut(u64),
) -> Result<Imported, DirectoryError> {
    let _running = lock(path)?;
    let old = Directory::load(path)?;
    let mut batch = Batch::over(&old);
    for row in read_rows(source, format) {
        let (number, ad) = row?;
        batch.add(number, &ad)?;
        if number.is_multiple_of(1_000) {
            progress(number);
        }
    }
    batch.sort()?;
    let beside = suffixed(path, ".tmp");
    let imported = batch.write_file(&old, &beside).map_err(DirectoryError::io("write", &beside))?;
    put_in_place(&beside, path)?;
    Ok(imported)
}

/// Renames a new snapshot over the old one, for good.
fn put_in_place(new: &Path, path: &Path) -> Result<(), DirectoryError> {
    std::fs::rename(new, path).map_err(DirectoryError::io("replace", path))?;
    sync_folder(path).map_err(DirectoryError::io("sync the folder of", path))
}

/// Makes the directory at `path` exactly the ads that `rows` hands over until it says the end; whether it is another one
/// now. Campaigns stay, with or without ads: their past has an owner. Call it where blocking is allowed.
///
/// # Errors
/// [`DirectoryError`], also when `rows` ends without an end; then nothing has changed.
#[cfg(feature = "postgres")]
pub(super) fn replace(
    path: &Path,
    mut rows: tokio::sync::mpsc::Receiver<Option<Vec<AdRow>>>,
) -> Result<bool, DirectoryError> {
    let locked = lock_file(path)?;
    locked.lock().map_err(DirectoryError::io("lock", path))?;
    let old = Directory::load(path)?;
    let footer = old.stored.footer().to_vec();
    let without_ads = Directory { stored: super::file::Stored::default(), ..old };
    let (mut batch, mut number) = (Batch::over(&without_ads), 0);
    loop {
        match rows.blocking_recv() {
            Some(Some(some)) => {
                for ad in some {
                    number += 1;
                    check_url(&ad.url).map_err(|why| BadAd { row: number, why: format!("ad {}: {why}", ad.ad_id) })?;
                    batch.add(number, &ad)?;
                }
            }
            Some(None) => break,
            None => return Err(BadAd { row: number + 1, why: "is missing: reading broke off".to_owned() }.into()),
        }
    }
    batch.sort()?;
    let beside = suffixed(path, ".tmp");
    batch.write_file(&without_ads, &beside).map_err(DirectoryError::io("write", &beside))?;
    if super::file::read_footer(&beside).map_err(DirectoryError::io("read", &beside))? == Some(footer) {
        std::fs::remove_file(&beside).map_err(DirectoryError::io("remove", &beside))?;
        return Ok(false);
    }
    put_in_place(&beside, path)?;
    Ok(true)
}

/// A directory of `rows` that lives in memory only.
pub(super) fn in_memory(rows: impl IntoIterator<Item = AdRow>) -> Result<Directory, DirectoryError> {
    let old = Directory::default();
    let mut batch = Batch::over(&old);
    for (number, ad) in (1..).zip(rows) {
        check_url(&ad.url).map_err(|why| BadAd { row: number, why })?;
        batch.add(number, &ad)?;
    }
    batch.sort()?;
    let path = PathBuf::from("(memory)");
    let (_, bytes) = batch.write(&old, Vec::new()).map_err(DirectoryError::io("write", &path))?;
    Directory::from_bytes(bytes).map_err(|why| DirectoryError::Corrupt { path, why })
}

/// New rows in stored form, and the tables they refer to (the old ones, grown).
struct Batch {
    blob: Vec<u8>,
    /// Where each record starts in `blob`, and its row.
    rows: Vec<(u64, u64)>,
    campaigns: Vec<(CampaignId, u32)>,
    campaign_numbers: HashMap<CampaignId, u32>,
    advertisers: Vec<AdvertiserId>,
    advertiser_numbers: HashMap<AdvertiserId, u32>,
}

impl Batch {
    fn over(old: &Directory) -> Self {
        Self {
            blob: Vec::new(),
            rows: Vec::new(),
            campaigns: old.campaigns.clone(),
            campaign_numbers: old.campaigns.iter().map(|(id, _)| id.clone()).zip(0..).collect(),
            advertisers: old.advertisers.clone(),
            advertiser_numbers: old.advertisers.iter().cloned().zip(0..).collect(),
        }
    }

    fn add(&mut self, row: u64, ad: &AdRow) -> Result<(), BadAd> {
        let advertiser = *self.advertiser_numbers.entry(ad.advertiser_id.clone()).or_insert_with(|| {
            self.advertisers.push(ad.advertiser_id.clone());
            last_number(&self.advertisers)
        });
        let campaign = *self.campaign_numbers.entry(ad.campaign_id.clone()).or_insert_with(|| {
            self.campaigns.push((ad.campaign_id.clone(), advertiser));
            last_number(&self.campaigns)
        });
        let owner = super::file::nth(&self.campaigns, campaign).map(|(_, owner)| *owner);
        if owner != Some(advertiser) {
            let owner = owner.and_then(|o| super::file::nth(&self.advertisers, o)).map_or("", AdvertiserId::as_str);
            let why = format!(
                "campaign {} belongs to advertiser {owner}, not {}: give the ad a campaign of its own advertiser",
                ad.campaign_id, ad.advertiser_id
            );
            return Err(BadAd { row, why });
        }
        self.rows.push((self.blob.len() as u64, row));
        Record { ad_id: ad.ad_id.as_str(), campaign, status: ad.status, url: &ad.url }.write(&mut self.blob);
        Ok(())
    }

    fn bytes_at(&self, start: u64) -> &[u8] {
        let from_start = usize::try_from(start).ok().and_then(|s| self.blob.get(s..)).unwrap_or_default();
        let length = Record::read(from_start).map_or(0, |(_, length)| length);
        from_start.get(..length).unwrap_or_default()
    }

    fn id_at(&self, start: u64) -> &[u8] {
        let from_start = usize::try_from(start).ok().and_then(|s| self.blob.get(s..)).unwrap_or_default();
        Record::id(from_start).unwrap_or_default()
    }

    /// Puts the rows into the order of their ids and drops repetitions.
    fn sort(&mut self) -> Result<(), BadAd> {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|(a, _), (b, _)| self.id_at(*a).cmp(self.id_at(*b)));
        let mut differs = None;
        rows.dedup_by(|(later, later_row), (first, first_row)| {
            let same_id = self.id_at(*later) == self.id_at(*first);
            if same_id && self.bytes_at(*later) != self.bytes_at(*first) && differs.is_none() {
                let ad = String::from_utf8_lossy(self.id_at(*first)).into_owned();
                let why = format!("ad {ad} is also in row {first_row}, with other values: keep one of them");
                differs = Some(BadAd { row: *later_row, why });
            }
            same_id
        });
        self.rows = rows;
        differs.map_or(Ok(()), Err)
    }

    fn write_file(&self, old: &Directory, path: &Path) -> io::Result<Imported> {
        let (imported, out) = self.write(old, BufWriter::new(File::create(path)?))?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(imported)
    }

    /// Merges the sorted rows over `old` into `out`.
    fn write<W: Write>(&self, old: &Directory, out: W) -> io::Result<(Imported, W)> {
        let mut writer = Writer::new(out)?;
        let mut imported = Imported::default();
        let mut new = self.rows.iter().map(|(start, _)| self.bytes_at(*start)).peekable();
        let mut stored = Vec::new();
        for place in 0..old.len() {
            let Some(record) = old.stored.record(place) else { continue };
            stored.clear();
            record.write(&mut stored);
            let id = record.ad_id.as_bytes();
            while let Some(bytes) = new.next_if(|bytes| Record::id(bytes).unwrap_or_default() < id) {
                writer.record(bytes)?;
                imported.added += 1;
            }
            match new.next_if(|bytes| Record::id(bytes) == Some(id)) {
                Some(bytes) if bytes != stored => {
                    writer.record(bytes)?;
                    imported.changed += 1;
                }
                same => {
                    writer.record(&stored)?;
                    imported.unchanged += u64::from(same.is_some());
                }
            }
            imported.total += 1;
        }
        for bytes in new {
            writer.record(bytes)?;
            imported.added += 1;
        }
        imported.total += imported.added;
        Ok((imported, writer.finish(&self.campaigns, &self.advertisers)?))
    }
}

fn last_number<T>(items: &[T]) -> u32 {
    u32::try_from(items.len().saturating_sub(1)).unwrap_or(u32::MAX)
}

/// Keeps two imports apart for as long as the file lives.
fn lock(path: &Path) -> Result<File, DirectoryError> {
    let file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(DirectoryError::Busy(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(DirectoryError::io("lock", path)(error)),
    }
}

/// The file that whoever writes the directory at `path` locks.
fn lock_file(path: &Path) -> Result<File, DirectoryError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(DirectoryError::io("create the folder of", path))?;
    }
    let lock = suffixed(path, ".lock");
    File::create(&lock).map_err(DirectoryError::io("create", &lock))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a rename durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

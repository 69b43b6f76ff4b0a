//! The ad directory: which campaign and advertiser an ad belongs to, where its click goes, whether it runs.
//! One immutable snapshot in memory, without an allocation per ad (10 million ads in about a gigabyte),
//! made by an import, kept in one file, replaced as a whole.
//! Guarantees: a redirect target comes only from here and was checked on the way in; a reader sees the old
//! snapshot or the new one, never a mixture. A crash during an import leaves the old file.
//! Never: moves a campaign to another advertiser (tenants would see each other's past).

mod file;
mod import;
mod places;
#[cfg(feature = "postgres")]
pub mod postgres;
mod row;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, io_kind};
use crate::id::{AdId, AdvertiserId, CampaignId};
use crate::time::Timestamp;

pub use import::{Imported, import};
pub use row::{AdRow, BadAd, Format, check_url, read_rows};

use file::Record;

/// Whether an ad runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdStatus {
    /// Its clicks count.
    #[default]
    Active,
    /// Not for now: its clicks are kept as `invalid:inactive_ad`.
    Paused,
    /// Over for good: likewise.
    Ended,
}

impl AdStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Paused, Self::Ended];

    /// The word used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}

/// One ad, as the directory holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ad<'a> {
    /// The ad.
    pub ad_id: &'a str,
    /// Its campaign.
    pub campaign_id: &'a CampaignId,
    /// Who pays for it.
    pub advertiser_id: &'a AdvertiserId,
    /// Where its click goes: an absolute http(s) URL in plain ASCII.
    pub url: &'a str,
    /// Whether it runs.
    pub status: AdStatus,
}

/// A directory operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A row of the import cannot be taken; nothing was changed.
    #[error(transparent)]
    Row(#[from] BadAd),
    /// The stored file contradicts itself.
    #[error("the ad directory {path} is damaged ({why}): import the ads again")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// Another import is running.
    #[error("another import is writing {0}: wait for it to end")]
    Busy(PathBuf),
    /// The disk said no.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl DirectoryError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Row(_) => ErrorKind::Invalid,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Busy(_) => ErrorKind::Conflict,
            Self::Io { source, .. } => io_kind(source),
        }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A snapshot of all ads. Cheap to share, never changed.
#[derive(Debug, Default)]
pub struct Directory {
    stored: file::Stored,
    advertisers: Vec<AdvertiserId>,
    /// By the number records refer to.
    campaigns: Vec<(CampaignId, u32)>,
    campaign_numbers: BTreeMap<CampaignId, u32>,
    campaigns_of: BTreeMap<AdvertiserId, Vec<CampaignId>>,
}

impl Directory {
    /// A directory of `rows`, in memory only.
    ///
    /// # Errors
    /// [`DirectoryError::Row`] for the first row that cannot be taken.
    pub fn of(rows: impl IntoIterator<Item = AdRow>) -> Result<Self, DirectoryError> {
        import::in_memory(rows)
    }

    /// Reads the snapshot at `path`; a missing file is an empty directory.
    ///
    /// # Errors
    /// [`DirectoryError::Corrupt`] or [`DirectoryError::Io`].
    pub fn load(path: &Path) -> Result<Self, DirectoryError> {
        match std::fs::read(path) {
            Ok(bytes) => Self::from_bytes(bytes).map_err(|why| DirectoryError::Corrupt { path: path.to_owned(), why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(DirectoryError::io("read", path)(error)),
        }
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        let (stored, advertisers, campaigns) = file::parse(bytes)?;
        let mut campaign_numbers = BTreeMap::new();
        let mut campaigns_of: BTreeMap<AdvertiserId, Vec<CampaignId>> = BTreeMap::new();
        for ((campaign, advertiser), number) in campaigns.iter().zip(0..) {
            let advertiser = file::nth(&advertisers, *advertiser).ok_or("a campaign has no advertiser")?;
            campaigns_of.entry(advertiser.clone()).or_default().push(campaign.clone());
            if campaign_numbers.insert(campaign.clone(), number).is_some() {
                return Err(format!("campaign {campaign} is listed twice"));
            }
        }
        campaigns_of.values_mut().for_each(|c| c.sort_unstable());
        Ok(Self { stored, advertisers, campaigns, campaign_numbers, campaigns_of })
    }

    /// How many ads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stored.len()
    }

    /// Whether there are no ads.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ad with this id.
    #[must_use]
    pub fn lookup(&self, ad_id: &AdId) -> Option<Ad<'_>> {
        self.ad(self.stored.find(ad_id.as_str())?)
    }

    /// The advertiser a campaign belongs to.
    #[must_use]
    pub fn advertiser_of(&self, campaign: &CampaignId) -> Option<&AdvertiserId> {
        let number = self.campaign_numbers.get(campaign)?;
        file::nth(&self.advertisers, file::nth(&self.campaigns, *number)?.1)
    }

    /// The campaigns of an advertiser, by id.
    #[must_use]
    pub fn campaigns_of(&self, advertiser: &AdvertiserId) -> &[CampaignId] {
        self.campaigns_of.get(advertiser).map_or(&[], Vec::as_slice)
    }

    /// All ads by id, those after `after` if given: one page is `ads_after(last).take(n)`.
    pub fn ads_after(&self, after: Option<&AdId>) -> impl Iterator<Item = Ad<'_>> {
        let first = after.map_or(0, |id| match self.stored.place_of(id.as_str()) {
            Ok(place) => place + 1,
            Err(place) => place,
        });
        (first..self.len()).filter_map(|place| self.ad(self.stored.record(place)?))
    }

    fn ad<'a>(&'a self, record: Record<'a>) -> Option<Ad<'a>> {
        let (campaign_id, advertiser) = file::nth(&self.campaigns, record.campaign)?;
        Some(Ad {
            ad_id: record.ad_id,
            campaign_id,
            advertiser_id: file::nth(&self.advertisers, *advertiser)?,
            url: record.url,
            status: record.status,
        })
    }
}

/// The directory in use: [`DirectoryHandle::current`] for readers, [`DirectoryHandle::refresh`] on a timer.
#[derive(Debug)]
pub struct DirectoryHandle {
    path: Option<PathBuf>,
    current: RwLock<Arc<Directory>>,
    /// Since when its source could not be asked, in microseconds; [`i64::MAX`]: it could.
    stale_since: AtomicI64,
}

impl DirectoryHandle {
    /// Loads the snapshot at `path` (empty while there is none) and keeps watching that path.
    ///
    /// # Errors
    /// As [`Directory::load`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        let path = path.into();
        let current = RwLock::new(Arc::new(Directory::load(&path)?));
        Ok(Self { path: Some(path), current, stale_since: AtomicI64::new(i64::MAX) })
    }

    /// A directory that never changes.
    #[must_use]
    pub fn fixed(directory: Directory) -> Self {
        Self { path: None, current: RwLock::new(Arc::new(directory)), stale_since: AtomicI64::new(i64::MAX) }
    }

    /// Since when nobody could say whether this is still the newest directory; `None` while somebody can.
    #[must_use]
    pub fn stale_since(&self) -> Option<Timestamp> {
        Some(self.stale_since.load(Ordering::Relaxed)).filter(|since| *since != i64::MAX).map(Timestamp)
    }

    /// Its source cannot be asked at `now`; answers since when.
    pub fn mark_stale(&self, now: Timestamp) -> Timestamp {
        Timestamp(self.stale_since.fetch_min(now.0, Ordering::Relaxed).min(now.0))
    }

    /// Its source was asked: this is the newest directory.
    pub fn mark_fresh(&self) {
        self.stale_since.store(i64::MAX, Ordering::Relaxed);
    }

    /// The newest snapshot loaded.
    #[must_use]
    pub fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads the file again if it is another one than the one in use; says whether it did. Reads the disk:
    /// call it where blocking is allowed. While it loads, both snapshots are in memory.
    ///
    /// # Errors
    /// As [`Directory::load`]; the snapshot in use stays.
    pub fn refresh(&self) -> Result<bool, DirectoryError> {
        let Some(path) = &self.path else { return Ok(false) };
        let found = file::read_footer(path).map_err(DirectoryError::io("read", path))?;
        if found.as_deref().unwrap_or_default() == self.current().stored.footer() {
            return Ok(false);
        }
        let new = Arc::new(Directory::load(path)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;

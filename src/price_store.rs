//! Where price books are kept: one immutable JSON file per version in `state/prices/`.
//! An import writes the next version with an exclusive create, so two imports at once cannot both win;
//! a crash leaves at most a temporary file. A settlement pins a version, so old ones are never removed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use shared::error::ErrorKind;
use shared::id::CampaignId;
use shared::price::{BadPrice, BadPrices, PriceBook, PriceRow};

/// The folder of price books.
#[derive(Debug, Clone)]
pub struct PriceStore {
    folder: PathBuf,
}

/// A price book cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PriceStoreError {
    /// Rows cannot be taken; nothing was imported.
    #[error("{file}: {source}")]
    Rows {
        /// The file being imported.
        file: PathBuf,
        /// Which and why.
        source: BadPrices,
    },
    /// The file is not CSV with the right columns.
    #[error("{file}: {source}")]
    Csv {
        /// The file being imported.
        file: PathBuf,
        /// Where and why.
        source: csv::Error,
    },
    /// Another import made the same version first.
    #[error("another import made price book version {0} at the same time: run the import again")]
    Raced(u32),
    /// A stored book is not readable as one.
    #[error("price book {file} is damaged: {why}")]
    Damaged {
        /// The stored file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// The disk.
    #[error("price books in {folder}: {source}")]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PriceStoreError {
    /// What the receiver must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rows { .. } | Self::Csv { .. } => ErrorKind::Invalid,
            Self::Raced(_) => ErrorKind::Conflict,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Io { .. } => ErrorKind::Unavailable,
        }
    }
}

impl PriceStore {
    /// The store in `folder` (made when first written).
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn io(&self, source: std::io::Error) -> PriceStoreError {
        PriceStoreError::Io { folder: self.folder.clone(), source }
    }

    fn file(&self, version: u32) -> PathBuf {
        self.folder.join(format!("v{version:08}.json"))
    }

    /// The newest version number; 0 when there is no book.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn newest_version(&self) -> Result<u32, PriceStoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(self.io(e)),
        };
        let mut newest = 0;
        for entry in entries {
            let name = entry.map_err(|e| self.io(e))?.file_name();
            let version = name.to_str().and_then(|n| n.strip_prefix('v')?.strip_suffix(".json")?.parse().ok());
            newest = newest.max(version.unwrap_or(0));
        }
        Ok(newest)
    }

    /// One version of the book; version 0 is the empty book.
    ///
    /// # Errors
    /// When it is absent or damaged.
    pub fn load(&self, version: u32) -> Result<PriceBook, PriceStoreError> {
        if version == 0 {
            return Ok(PriceBook::default());
        }
        let file = self.file(version);
        let bytes = fs::read(&file).map_err(|e| self.io(e))?;
        let book: PriceBook = serde_json::from_slice(&bytes)
            .map_err(|e| PriceStoreError::Damaged { file: file.clone(), why: e.to_string() })?;
        if book.version != version {
            return Err(PriceStoreError::Damaged { file, why: format!("it says version {}", book.version) });
        }
        Ok(book)
    }

    /// The newest book.
    ///
    /// # Errors
    /// As [`PriceStore::load`].
    pub fn newest(&self) -> Result<PriceBook, PriceStoreError> {
        self.load(self.newest_version()?)
    }

    /// Reads a price file and adds its rows to the newest book, all or none. `is_known` says which campaigns there are.
    ///
    /// # Errors
    /// Every row that cannot be taken, or a race with another import.
    pub fn import(
        &self,
        file: &Path,
        is_known: &dyn Fn(&CampaignId) -> bool,
        dry_run: bool,
    ) -> Result<(PriceBook, PriceBook), PriceStoreError> {
        let rows = read(file, is_known)?;
        let old = self.newest()?;
        let new = old.import(rows).map_err(|source| PriceStoreError::Rows { file: file.to_owned(), source })?;
        if !dry_run && new.version != old.version {
            self.write(&new)?;
        }
        Ok((old, new))
    }

    fn write(&self, book: &PriceBook) -> Result<(), PriceStoreError> {
        fs::create_dir_all(&self.folder).map_err(|e| self.io(e))?;
        let file = self.file(book.version);
        let temporary = self.folder.join(format!("v{:08}.{}.tmp", book.version, std::process::id()));
        let bytes = serde_json::to_vec(book)
            .map_err(|e| PriceStoreError::Damaged { file: file.clone(), why: e.to_string() })?;
        let written = File::create(&temporary).and_then(|mut f| {
            f.write_all(&bytes)?;
            f.sync_all()
        });
        written.map_err(|e| self.io(e))?;
        // A hard link fails where the name exists: the exclusive create that rename is not.
        let linked = fs::hard_link(&temporary, &file);
        fs::remove_file(&temporary).map_err(|e| self.io(e))?;
        match linked {
            Ok(()) => File::open(&self.folder).and_then(|f| f.sync_all()).map_err(|e| self.io(e)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(PriceStoreError::Raced(book.version)),
            Err(e) => Err(self.io(e)),
        }
    }
}

/// The rows of a price file: each one that does not read, or is of an unknown campaign, is named.
fn read(file: &Path, is_known: &dyn Fn(&CampaignId) -> bool) -> Result<Vec<PriceRow>, PriceStoreError> {
    let csv_error = |source| PriceStoreError::Csv { file: file.to_owned(), source };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(file).map_err(csv_error)?;
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for (row, read) in (1..).zip(reader.deserialize::<PriceRow>()) {
        match read {
            Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => return Err(csv_error(error)),
            Err(error) => bad.push(BadPrice { row, why: error.to_string() }),
            Ok(price) if !is_known(&price.campaign_id) => {
                let campaign = &price.campaign_id;
                let why = format!(
                    "no ad of the directory belongs to campaign {campaign}: mend the id, import its ads first, or use --any-campaign"
                );
                bad.push(BadPrice { row, why });
            }
            Ok(price) => rows.push(price),
        }
    }
    if bad.is_empty() { Ok(rows) } else { Err(PriceStoreError::Rows { file: file.to_owned(), source: BadPrices(bad) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_makes_one_version_and_repeating_it_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prices.csv");
        fs::write(&file, "campaignId,model,priceMicros,currency,validFrom\nc1,cpc,250000,EUR,2026-01-01T00:00:00Z\n")
            .unwrap();
        let store = PriceStore::new(&dir.path().join("prices"));
        assert_eq!(store.newest().unwrap(), PriceBook::default());
        assert_eq!(store.import(&file, &|_| true, true).unwrap().1.version, 1);
        assert_eq!(store.newest_version().unwrap(), 0, "a dry run writes nothing");
        store.import(&file, &|_| true, false).unwrap();
        store.import(&file, &|_| true, false).unwrap();
        assert_eq!(store.newest().unwrap().version, 1);
    }

    #[test]
    fn a_bad_row_is_named_and_nothing_is_imported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prices.csv");
        let rows = "campaignId,model,priceMicros,currency,validFrom\nc1,cpc,1,EUR,2026-01-01T00:00:00Z\nc1,cpm,-1,EUR,2026-01-02T00:00:00Z\n";
        fs::write(&file, rows).unwrap();
        let store = PriceStore::new(&dir.path().join("prices"));
        let error = store.import(&file, &|_| true, false).unwrap_err();
        assert!(error.to_string().contains("row 2"), "{error}");
        assert_eq!(store.newest_version().unwrap(), 0);
    }

    #[test]
    fn rows_that_do_not_read_and_unknown_campaigns_are_named_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prices.csv");
        let rows = "campaignId,model,priceMicros,currency,validFrom\nc1,cpx,1,EUR,2026-01-01T00:00:00Z\nc2,cpm,1,EUR,2026-01-02T00:00:00Z\nc1,cpm,1,EUR,2026-01-02T00:00:00Z\n";
        fs::write(&file, rows).unwrap();
        let store = PriceStore::new(&dir.path().join("prices"));
        let error = store.import(&file, &|c| c.as_str() == "c1", true).unwrap_err();
        let PriceStoreError::Rows { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.0.iter().map(|b| b.row).collect::<Vec<_>>(), [1, 2], "{error}");
    }
}

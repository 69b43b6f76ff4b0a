//! Gold of one day, as one run wrote it: exactly the files its record names, checked against their checksums.
//! Guarantee: rows come from those bytes or there is an error; one hour is in memory at a time.
//! Reads: `gold/ad_minute`, `gold/campaign_hour`, `gold/billing_day`, `silver/events`. Writes: nothing.
//! Never: depends on how rows are laid out in files; a sorted layout only makes it faster.

use std::ops::Range;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use lake::LakeRoot;
use lake::run_record::{OutputFile, RunRecord};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::statistics::Statistics;
use shared::event::{Country, DeviceType};
use shared::id::{AdId, CampaignId};
use shared::money::Currency;
use shared::rollup::{Counts, RollupKey, RollupRow};
use shared::sketch::Sketch;
use shared::time::{HOUR, Timestamp};

use crate::checksum::Sha256Sum;
use crate::columns::Columns;
use crate::error::Error;
use crate::object_file::{self, ObjectFile};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8_192;

/// The table of exact ad minutes.
pub const AD_MINUTE: &str = "gold/ad_minute";
/// The table of exact campaign hours.
pub const CAMPAIGN_HOUR: &str = "gold/campaign_hour";
/// The table settlement lines come from.
pub const BILLING_DAY: &str = "gold/billing_day";
/// The table of judged events.
pub const SILVER: &str = "silver/events";
/// The table of the Merkle tree's nodes.
pub const PROOF_BLOCKS: &str = "gold/proof_blocks";

/// The files of one run.
pub struct Gold {
    lake: LakeRoot,
    record: RunRecord,
}

impl Gold {
    /// The gold of `record` in `lake`, after reading every gold file once against its checksum.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a table is missing from the record or a file is not what the run wrote.
    pub async fn open(lake: LakeRoot, record: RunRecord) -> Result<Self, Error> {
        let gold = Self { lake, record };
        for table in [AD_MINUTE, CAMPAIGN_HOUR, BILLING_DAY] {
            for file in gold.files(table)? {
                gold.check(table, file).await?;
            }
        }
        Ok(gold)
    }

    /// The same without reading it first: for what is checked otherwise (a proof, by its root) and bills nothing.
    pub(crate) fn unchecked(lake: LakeRoot, record: RunRecord) -> Self {
        Self { lake, record }
    }

    /// The run that wrote it.
    #[must_use]
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// The lake it is in.
    pub(crate) fn lake(&self) -> &LakeRoot {
        &self.lake
    }

    pub(crate) fn files(&self, table: &str) -> Result<&[OutputFile], Error> {
        let output = self.record.output(table).ok_or_else(|| {
            let run = self.record.run;
            Error::damaged(format!("the record of run {run} of {}", self.record.day), format!("no output {table}"))
        })?;
        Ok(&output.files)
    }

    fn path(&self, table: &str, file: &str) -> Path {
        self.lake.path(&format!("{table}/{file}"))
    }

    async fn check(&self, table: &str, file: &OutputFile) -> Result<(), Error> {
        let path = self.path(table, &file.path);
        let opened = self.lake.store().get(&path).await.map_err(Error::objects(format!("opening {path}")))?;
        let mut bytes = opened.into_stream();
        let mut sum = Sha256Sum::default();
        while let Some(chunk) = bytes.try_next().await.map_err(Error::objects(format!("reading {path}")))? {
            sum.update(&chunk);
        }
        let found = sum.hex();
        if found == file.sha256 {
            return Ok(());
        }
        Err(Error::damaged(path, format!("its sha256 is {found}, the run wrote {}", file.sha256)))
    }

    /// The exact rows of the hour that starts at `hour`, all three grains, sorted by key.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Objects`], [`Error::Overflow`].
    pub async fn hour(&self, hour: Timestamp) -> Result<Vec<RollupRow>, Error> {
        let mut minutes = Vec::new();
        for file in self.files(AD_MINUTE)? {
            self.rows_of_hour(AD_MINUTE, file, "minute", hour, ad_minutes, &mut minutes).await?;
        }
        let mut hours = Vec::new();
        for file in self.files(CAMPAIGN_HOUR)? {
            self.rows_of_hour(CAMPAIGN_HOUR, file, "hour", hour, campaign_hours, &mut hours).await?;
        }
        Ok(crate::compare::exact_rows(minutes, hours)?)
    }

    async fn rows_of_hour(
        &self,
        table: &str,
        file: &OutputFile,
        column: &str,
        hour: Timestamp,
        decode: Decode,
        rows: &mut Vec<RollupRow>,
    ) -> Result<(), Error> {
        let (path, builder) = self.builder(table, file).await?;
        let groups = groups_with(builder.metadata(), column, hour);
        let mut batches = build(builder.with_row_groups(groups), &path)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| Error::damaged(path.clone(), e))?;
            decode(&batch, path.as_ref(), hour, rows)?;
        }
        Ok(())
    }

    async fn builder(
        &self,
        table: &str,
        file: &OutputFile,
    ) -> Result<(Path, ParquetRecordBatchStreamBuilder<ObjectFile>), Error> {
        let path = self.path(table, &file.path);
        let reader = ObjectFile { store: self.lake.store(), path: path.clone(), size: file.bytes };
        let builder =
            ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|e| Error::damaged(path.clone(), e))?;
        Ok((path, builder))
    }

    /// The rows `wanted` of one file, in order.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Objects`].
    pub(crate) async fn rows(
        &self,
        table: &str,
        file: &OutputFile,
        columns: &[&str],
        wanted: Range<u64>,
    ) -> Result<Vec<RecordBatch>, Error> {
        let path = self.path(table, &file.path);
        let reader = ObjectFile { store: self.lake.store(), path: path.clone(), size: file.bytes };
        let damaged = |e| Error::damaged(path.clone(), e);
        // Pages before the wanted rows are skipped by their index, unread.
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await.map_err(damaged)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let (groups, selection) = object_file::select(builder.metadata(), wanted);
        let builder = builder.with_projection(mask).with_row_groups(groups).with_row_selection(selection);
        build(builder, &path)?.try_collect().await.map_err(damaged)
    }

    /// The batches of `table`, in file and row order, with only `columns` read (all where empty).
    ///
    /// # Errors
    /// [`Error::Damaged`] when the run did not write that table.
    pub(crate) fn batches<'a>(&'a self, table: &'a str, columns: &'a [&'a str]) -> Result<Batches<'a>, Error> {
        Ok(Batches { gold: self, table, columns, files: self.files(table)?.iter(), open: None })
    }

    /// Calls `each` with every batch of `table` and the name of its file.
    ///
    /// # Errors
    /// As [`Gold::hour`], and what `each` answers.
    pub(crate) async fn each_batch(
        &self,
        table: &str,
        columns: &[&str],
        mut each: impl FnMut(&RecordBatch, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut batches = self.batches(table, columns)?;
        while let Some((batch, what)) = batches.next().await? {
            each(&batch, &what)?;
        }
        Ok(())
    }
}

/// A pass over the batches of one table.
pub(crate) struct Batches<'a> {
    gold: &'a Gold,
    table: &'a str,
    columns: &'a [&'a str],
    files: std::slice::Iter<'a, OutputFile>,
    open: Option<(Path, ParquetRecordBatchStream<ObjectFile>)>,
}

impl Batches<'_> {
    /// The next batch and the name of its file.
    pub(crate) async fn next(&mut self) -> Result<Option<(RecordBatch, String)>, Error> {
        loop {
            if let Some((path, stream)) = &mut self.open
                && let Some(batch) = stream.next().await
            {
                let batch = batch.map_err(|e| Error::damaged(path.clone(), e))?;
                return Ok(Some((batch, path.to_string())));
            }
            let Some(file) = self.files.next() else { return Ok(None) };
            let (path, mut builder) = self.gold.builder(self.table, file).await?;
            if !self.columns.is_empty() {
                let mask = ProjectionMask::columns(builder.parquet_schema(), self.columns.iter().copied());
                builder = builder.with_projection(mask);
            }
            let stream = build(builder, &path)?;
            self.open = Some((path, stream));
        }
    }
}

fn build(
    builder: ParquetRecordBatchStreamBuilder<ObjectFile>,
    path: &Path,
) -> Result<ParquetRecordBatchStream<ObjectFile>, Error> {
    builder.with_batch_size(BATCH_ROWS).build().map_err(|e| Error::damaged(path.clone(), e))
}

/// The row groups that may hold rows of the hour, by the statistics of `column`; all where there are none.
fn groups_with(metadata: &ParquetMetaData, column: &str, hour: Timestamp) -> Vec<usize> {
    let schema = metadata.file_metadata().schema_descr();
    let index = schema.columns().iter().position(|c| c.name() == column);
    let may_hold = |group: &usize| {
        let statistics = index.and_then(|i| metadata.row_groups().get(*group)?.columns().get(i)?.statistics());
        match statistics {
            Some(Statistics::Int64(s)) => {
                s.min_opt().is_none_or(|min| *min < hour.0 + HOUR) && s.max_opt().is_none_or(|max| *max >= hour.0)
            }
            _ => true,
        }
    };
    (0..metadata.num_row_groups()).filter(may_hold).collect()
}

/// Adds the rows of an hour in a batch to others; row groups need not begin or end with the hour.
type Decode = fn(&RecordBatch, &str, Timestamp, &mut Vec<RollupRow>) -> Result<(), Error>;

fn ad_minutes(batch: &RecordBatch, what: &str, hour: Timestamp, rows: &mut Vec<RollupRow>) -> Result<(), Error> {
    let c = Columns::of(batch, what);
    let (minutes, ads, campaigns) = (c.times("minute")?, c.text("ad_id")?, c.text("campaign_id")?);
    let currencies = c.text("currency")?;
    let counts = counts_of(&c)?;
    for (i, counts) in counts.into_iter().enumerate().filter(|(i, _)| Timestamp(minutes.value(*i)).floor(HOUR) == hour)
    {
        let (ad, campaign, currency) = (ads.value(i), campaigns.value(i), currencies.value(i));
        let key = RollupKey::AdMinute {
            minute: Timestamp(minutes.value(i)),
            ad_id: c.parse("ad_id", ad, AdId::new(ad).ok())?,
            campaign_id: c.parse("campaign_id", campaign, CampaignId::new(campaign).ok())?,
            currency: c.parse("currency", currency, Currency::parse(currency))?,
        };
        rows.push(RollupRow { key, counts, uniques: None });
    }
    Ok(())
}

fn campaign_hours(batch: &RecordBatch, what: &str, hour: Timestamp, rows: &mut Vec<RollupRow>) -> Result<(), Error> {
    let c = Columns::of(batch, what);
    let (hours, campaigns, countries) = (c.times("hour")?, c.text("campaign_id")?, c.text("country")?);
    let (devices, currencies, sketches) = (c.text("device_type")?, c.text("currency")?, c.binary("users_sketch")?);
    let counts = counts_of(&c)?;
    for (i, counts) in counts.into_iter().enumerate().filter(|(i, _)| Timestamp(hours.value(*i)).floor(HOUR) == hour) {
        let (campaign, country) = (campaigns.value(i), countries.value(i));
        let (device, currency) = (devices.value(i), currencies.value(i));
        let key = RollupKey::CampaignHour {
            hour: Timestamp(hours.value(i)),
            campaign_id: c.parse("campaign_id", campaign, CampaignId::new(campaign).ok())?,
            country: c.parse("country", country, Country::parse(country))?,
            device_type: c.parse("device_type", device, DeviceType::parse(device))?,
            currency: c.parse("currency", currency, Currency::parse(currency))?,
        };
        let uniques = Sketch::from_bytes(sketches.value(i)).map_err(|e| Error::damaged(what, e))?;
        rows.push(RollupRow { key, counts, uniques: Some(uniques) });
    }
    Ok(())
}

/// The four billable columns of a batch.
pub(crate) fn counts_of(c: &Columns<'_>) -> Result<Vec<Counts>, Error> {
    let (impressions, clicks) = (c.counts("impressions")?, c.counts("clicks")?);
    let (conversions, nanos) = (c.counts("conversions")?, c.nanos("cost_nanos")?);
    let rows = impressions.into_iter().zip(clicks).zip(conversions).zip(nanos.values());
    Ok(rows
        .map(|(((impressions, clicks), conversions), cost)| Counts {
            impressions,
            clicks,
            conversions,
            cost_nanos: *cost,
        })
        .collect())
}

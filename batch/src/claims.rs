//! Rows of the archive as claims on their ids: what [`crate::standing`] needs to know of an event, and no more.

use arrow::array::{BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use compact_str::CompactString;
use shared::event::Fingerprint;
use shared::id::RefId;
use shared::time::Timestamp;
use shared::verdict::{ArchiveOrder, InvalidCode};

use crate::error::Error;
use crate::invalid::captured;
use crate::source::{Rows, Source, column};
use crate::standing::Claim;
use crate::words::Words;

/// The columns a claim is made of.
pub(crate) const COLUMNS: [&str; 7] =
    ["event_id", "ingest_time", "invalid", "fingerprint", "region", "partition", "position"];

/// The columns of a batch (its `region` by dictionary) that say who claims what and when.
pub(crate) struct ClaimColumns<'a> {
    ids: &'a StringArray,
    ingest: &'a TimestampMicrosecondArray,
    invalid: &'a StringArray,
    fingerprints: &'a BinaryArray,
    orders: OrderColumns<'a>,
}

struct OrderColumns<'a> {
    regions: Words<'a>,
    partitions: &'a Int32Array,
    positions: &'a Int64Array,
}

impl<'a> ClaimColumns<'a> {
    /// The columns of `batch`.
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self, Error> {
        Ok(Self {
            ids: column(batch, "event_id")?,
            ingest: column(batch, "ingest_time")?,
            invalid: column(batch, "invalid")?,
            fingerprints: column(batch, "fingerprint")?,
            orders: OrderColumns {
                regions: Words::of(batch, "region")?,
                partitions: column(batch, "partition")?,
                positions: column(batch, "position")?,
            },
        })
    }

    /// The id of a row.
    pub(crate) fn id(&self, row: usize) -> &'a str {
        self.ids.value(row)
    }

    /// Where a row stands in the archive.
    pub(crate) fn order(&self, row: usize) -> Result<ArchiveOrder, Error> {
        let region = self.orders.regions.get(row);
        let number = |n: i64| u64::try_from(n).map_err(|_| Error::Corrupt(format!("{n} is not a log position")));
        let partition = self.orders.partitions.value(row);
        Ok(ArchiveOrder {
            ingest_time: Timestamp(self.ingest.value(row)),
            region: RefId::new(region).map_err(|e| Error::Corrupt(e.to_string()))?,
            partition: u32::try_from(partition)
                .map_err(|_| Error::Corrupt(format!("{partition} is not a log partition")))?,
            position: number(self.orders.positions.value(row))?,
        })
    }

    /// The claim of a row.
    pub(crate) fn claim<T>(&self, row: usize, tag: T) -> Result<Claim<T>, Error> {
        let fingerprint = self.fingerprints.value(row);
        let fingerprint =
            fingerprint.try_into().map_err(|_| Error::Corrupt("a fingerprint does not have 16 bytes".to_owned()))?;
        Ok(Claim {
            event_id: CompactString::new(self.id(row)),
            order: self.order(row)?,
            fingerprint: Fingerprint(fingerprint),
            forged: captured(self.invalid, row)?.is_some_and(InvalidCode::is_forged),
            tag,
        })
    }
}

/// Reads the claims of some rows (ascending), tagged with their row.
pub(crate) fn read(source: &Source, rows: &[u32]) -> Result<Vec<Claim<u32>>, Error> {
    let mut claims = Vec::with_capacity(rows.len());
    let mut tags = rows.iter();
    for batch in source.with_dictionaries(&["region"])?.read(&COLUMNS, Rows::These(rows))? {
        let batch = batch?;
        let columns = ClaimColumns::of(&batch)?;
        for (row, tag) in (0..batch.num_rows()).zip(tags.by_ref()) {
            claims.push(columns.claim(row, *tag)?);
        }
    }
    Ok(claims)
}

//! Events → rows of `bronze/events`, each field copied once, from where it is into its column.
//! Pure. Never: holds rows twice, or repairs a value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondArray,
};
use bytes::Bytes;
use shared::event::{Rejection, SCHEMA_VERSION};
use shared::event_view::EventView;
use shared::time::{Day, Timestamp};
use shared::wire::decode_event;

use crate::convert::id_hash;
use crate::error::Error;
use crate::file::{EncodedFile, ParquetFile};
use crate::sort::SLICE_ROWS;
use crate::tables::BRONZE_EVENTS;

/// Where a row comes from, and what is computed of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The event id's hash, by which rows are ordered.
    pub(crate) id_hash: i64,
    /// The log partition.
    pub(crate) partition: u32,
    /// The log position.
    pub(crate) position: u64,
    /// The time it bills at.
    pub(crate) billing_time: Timestamp,
}

/// A record of the events log that waits for its file: known to be an event, and still as it was read.
#[derive(Debug)]
pub struct Waiting {
    pub(crate) place: Place,
    pub(crate) payload: Bytes,
}

/// Shows the event in `payload` to `look`.
///
/// # Errors
/// [`Rejection`] when the bytes are no event.
pub(crate) fn view<R>(payload: &[u8], look: impl FnOnce(&EventView<'_>) -> R) -> Result<R, Rejection> {
    match EventView::in_place(payload) {
        Some(event) => Ok(look(&event)),
        None => decode_event(payload).map(|event| look(&EventView::from(&event))),
    }
}

impl Waiting {
    /// Of a record, at its place in the log.
    ///
    /// # Errors
    /// [`Rejection`] when the record is no event.
    pub fn new(
        payload: Bytes,
        partition: u32,
        position: u64,
        billing_time: impl FnOnce(&EventView<'_>) -> Timestamp,
    ) -> Result<Self, Rejection> {
        let place = view(&payload, |event| Place {
            id_hash: id_hash(event.event_id.as_str()),
            partition,
            position,
            billing_time: billing_time(event),
        })?;
        Ok(Self { place, payload })
    }
}

/// One Parquet file of `day` with these records in the table's order. The bytes depend on the records alone.
///
/// # Errors
/// `Invalid` when a partition or position does not fit its column.
pub fn events_file(day: Day, stem: &str, records: &[Waiting]) -> Result<EncodedFile, Error> {
    // Eight bytes of hash decide nearly always; only then is the record itself looked at.
    let mut order: Vec<(i64, usize)> = records.iter().enumerate().map(|(at, r)| (r.place.id_hash, at)).collect();
    let place = |at: usize| records.get(at).map(|r| (r.place.partition, r.place.position));
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| place(a.1).cmp(&place(b.1))));
    let mut file = ParquetFile::new(&BRONZE_EVENTS, day, stem)?;
    for slice in order.chunks(SLICE_ROWS) {
        let mut columns = Columns::new(slice.len());
        for record in slice.iter().filter_map(|(_, at)| records.get(*at)) {
            view(&record.payload, |event| columns.push(event, &record.place))
                .map_err(|e| Error::Corrupt(format!("a record changed while it waited: {e}")))??;
        }
        file.write(&columns.finish()?)?;
    }
    file.finish()
}

/// Rows of `bronze/events` being collected, without the partition column.
#[derive(Debug)]
pub(crate) struct Columns {
    id_hash: Vec<i64>,
    event_id: StringBuilder,
    event_type: StringBuilder,
    event_time: Vec<i64>,
    ingest_time: Vec<i64>,
    billing_time: Vec<i64>,
    ad_id: StringBuilder,
    campaign_id: StringBuilder,
    advertiser_id: StringBuilder,
    creative_id: StringBuilder,
    publisher_id: StringBuilder,
    impression_id: StringBuilder,
    user_pseudo_id: StringBuilder,
    session_id: StringBuilder,
    bid_request_id: StringBuilder,
    country: StringBuilder,
    device_type: StringBuilder,
    ip_hash: StringBuilder,
    user_agent: StringBuilder,
    url: StringBuilder,
    cost_micros: Int64Builder,
    currency: StringBuilder,
    extra: StringBuilder,
    invalid: StringBuilder,
    fingerprint: BinaryBuilder,
    region: StringBuilder,
    partition: Vec<i32>,
    position: Vec<i64>,
    traceparent: StringBuilder,
}

impl Columns {
    pub(crate) fn new(rows: usize) -> Self {
        let text = |bytes: usize| StringBuilder::with_capacity(rows, rows * bytes);
        Self {
            id_hash: Vec::with_capacity(rows),
            event_id: text(36),
            event_type: text(10),
            event_time: Vec::with_capacity(rows),
            ingest_time: Vec::with_capacity(rows),
            billing_time: Vec::with_capacity(rows),
            ad_id: text(12),
            campaign_id: text(12),
            advertiser_id: text(12),
            creative_id: text(12),
            publisher_id: text(12),
            impression_id: text(36),
            user_pseudo_id: text(16),
            session_id: text(0),
            bid_request_id: text(0),
            country: text(2),
            device_type: text(7),
            ip_hash: text(0),
            user_agent: text(32),
            url: text(0),
            cost_micros: Int64Builder::with_capacity(rows),
            currency: text(0),
            extra: text(0),
            invalid: text(0),
            fingerprint: BinaryBuilder::with_capacity(rows, rows * 16),
            region: text(8),
            partition: Vec::with_capacity(rows),
            position: Vec::with_capacity(rows),
            traceparent: text(0),
        }
    }

    /// # Errors
    /// `Invalid` when a partition or position does not fit its column.
    pub(crate) fn push(&mut self, event: &EventView<'_>, place: &Place) -> Result<(), Error> {
        let unfit = |what: &str, e| Error::Invalid(format!("log {what}: {e}"));
        self.partition.push(i32::try_from(place.partition).map_err(|e| unfit("partition", e))?);
        self.position.push(i64::try_from(place.position).map_err(|e| unfit("position", e))?);
        self.id_hash.push(place.id_hash);
        self.event_id.append_value(event.event_id);
        self.event_type.append_value(event.kind.as_str());
        self.event_time.push(event.event_time.0);
        self.ingest_time.push(event.ingest_time.0);
        self.billing_time.push(place.billing_time.0);
        self.ad_id.append_value(event.ad_id);
        self.campaign_id.append_value(event.campaign_id);
        self.advertiser_id.append_option(event.advertiser_id);
        self.creative_id.append_option(event.creative_id);
        self.publisher_id.append_option(event.publisher_id);
        self.impression_id.append_option(event.impression_id);
        self.user_pseudo_id.append_option(event.user_pseudo_id);
        self.session_id.append_option(event.session_id);
        self.bid_request_id.append_option(event.bid_request_id);
        self.country.append_value(event.country.as_str());
        self.device_type.append_value(event.device_type.as_str());
        self.ip_hash.append_option(event.ip_hash);
        self.user_agent.append_option(event.user_agent);
        self.url.append_option(event.url);
        self.cost_micros.append_option(event.cost_micros);
        self.currency.append_option(event.currency.as_ref().map(|c| c.as_str()));
        let extra = event.extra.map(serde_json::to_string).transpose();
        self.extra.append_option(extra.map_err(|e| Error::Invalid(format!("extra fields: {e}")))?);
        self.invalid.append_option(event.invalid.map(|code| code.as_str()));
        self.fingerprint.append_value(event.fingerprint);
        self.region.append_value(event.region);
        self.traceparent.append_option(event.traceparent);
        Ok(())
    }

    /// # Errors
    /// `Invalid` when the rows are not the table's.
    pub(crate) fn finish(mut self) -> Result<RecordBatch, Error> {
        let rows = self.id_hash.len();
        let longs = |values: Vec<i64>| Arc::new(Int64Array::from(values));
        let times = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"));
        let version = i32::try_from(SCHEMA_VERSION).unwrap_or(i32::MAX);
        let columns: Vec<ArrayRef> = vec![
            longs(self.id_hash),
            Arc::new(self.event_id.finish()),
            Arc::new(self.event_type.finish()),
            times(self.event_time),
            times(self.ingest_time),
            times(self.billing_time),
            Arc::new(self.ad_id.finish()),
            Arc::new(self.campaign_id.finish()),
            Arc::new(self.advertiser_id.finish()),
            Arc::new(self.creative_id.finish()),
            Arc::new(self.publisher_id.finish()),
            Arc::new(self.impression_id.finish()),
            Arc::new(self.user_pseudo_id.finish()),
            Arc::new(self.session_id.finish()),
            Arc::new(self.bid_request_id.finish()),
            Arc::new(self.country.finish()),
            Arc::new(self.device_type.finish()),
            Arc::new(self.ip_hash.finish()),
            Arc::new(self.user_agent.finish()),
            Arc::new(self.url.finish()),
            Arc::new(self.cost_micros.finish()),
            Arc::new(self.currency.finish()),
            Arc::new(Int32Array::from_value(version, rows)),
            Arc::new(self.extra.finish()),
            Arc::new(self.invalid.finish()),
            Arc::new(self.fingerprint.finish()),
            Arc::new(self.region.finish()),
            Arc::new(Int32Array::from(self.partition)),
            longs(self.position),
            Arc::new(self.traceparent.finish()),
        ];
        RecordBatch::try_new(BRONZE_EVENTS.file_schema(), columns)
            .map_err(|e| Error::Invalid(format!("rows of {}: {e}", BRONZE_EVENTS.name)))
    }
}

//! Every table of the lake, once: name, columns, partition column, sort order, statistics.
//! All tables are partitioned by `day` (a UTC day), which stands in the folder name and the Delta log and not in the
//! Parquet files. Cost is integer nanos, times are UTC microseconds, counts are 64-bit integers.
//! Never: a column without a description; a changed type (a new column is added at the end, nullable).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The type of a column, in the few forms that every Delta reader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text.
    Text,
    /// 64-bit integer.
    Long,
    /// 32-bit integer.
    Int,
    /// True or false.
    Bool,
    /// Bytes.
    Bytes,
    /// An instant: UTC microseconds.
    Time,
    /// A UTC day.
    Day,
    /// A 128-bit sum of nanos: `decimal(38, 0)`.
    NanoSum,
}

impl ColumnType {
    /// The Arrow type.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Long => DataType::Int64,
            Self::Int => DataType::Int32,
            Self::Bool => DataType::Boolean,
            Self::Bytes => DataType::Binary,
            Self::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Day => DataType::Date32,
            Self::NanoSum => DataType::Decimal128(38, 0),
        }
    }
}

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it holds; stored in the Delta schema as its comment.
    pub doc: &'static str,
}

/// A table: everything about it that is decided before the first row.
#[derive(Debug)]
pub struct TableDef {
    /// Its name: the folder under the lake's root.
    pub name: &'static str,
    /// Its columns; the last is `day`, the partition column.
    pub columns: &'static [Column],
    /// The order of rows within a file; empty where it is its writer's own and files cannot be merged here.
    pub sort: &'static [&'static str],
    /// The columns whose least and greatest values every file states in the Delta log.
    pub stats: &'static [&'static str],
    /// Whether rows may only ever be added (Delta's `appendOnly`).
    pub append_only: bool,
}

/// The partition column of every table.
pub const PARTITION_COLUMN: &str = "day";

impl TableDef {
    /// The schema of a row, with the partition column last.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The schema of a data file: without the partition column.
    #[must_use]
    pub fn file_schema(&self) -> SchemaRef {
        let columns = self.columns.iter().filter(|c| c.name != PARTITION_COLUMN);
        Arc::new(Schema::new(columns.map(field).collect::<Vec<_>>()))
    }

    /// The column with this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

fn field(c: &Column) -> Field {
    Field::new(c.name, c.kind.arrow(), c.nullable)
}

const fn must(name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    Column { name, kind, nullable: false, doc }
}

const fn may(name: &'static str, kind: ColumnType, doc: &'static str) -> Column {
    Column { name, kind, nullable: true, doc }
}

use ColumnType::{Bool, Bytes, Day, Int, Long, NanoSum, Text, Time};

/// Every admitted event exactly once, as it was sent and accepted. `day` is the UTC day of the billing time.
/// Files are sorted by `id_hash`, so that duplicates are found from one 8-byte column.
pub static BRONZE_EVENTS: TableDef = TableDef {
    name: "bronze/events",
    columns: &[
        must("id_hash", Long, "the first 8 bytes of the SHA-256 of event_id, as a signed integer of their order"),
        must("event_id", Text, "the idempotency key, as sent"),
        must("event_type", Text, "impression, click or conversion"),
        must("event_time", Time, "when it happened, by the client"),
        must("ingest_time", Time, "when we accepted it"),
        must("billing_time", Time, "the event time, or the ingest time where the event time is out of bounds"),
        must("ad_id", Text, "the ad"),
        must("campaign_id", Text, "the campaign"),
        may("advertiser_id", Text, "the advertiser"),
        may("creative_id", Text, "the creative shown"),
        may("publisher_id", Text, "the publisher it was shown at"),
        may("impression_id", Text, "the served impression"),
        may("user_pseudo_id", Text, "a pseudonym of the person (personal data)"),
        may("session_id", Text, "a visit (personal data)"),
        may("bid_request_id", Text, "the bid it came from"),
        must("country", Text, "ISO 3166-1 alpha-2; ZZ is unknown"),
        must("device_type", Text, "desktop, mobile, tablet, ctv or other"),
        may("ip_hash", Text, "keyed hash of the address (personal data)"),
        may("user_agent", Text, "the client software (personal data)"),
        may("url", Text, "the page (personal data)"),
        may("cost_micros", Long, "the price agreed at serving, in micros of currency"),
        may("currency", Text, "ISO 4217 code of cost_micros"),
        must("schema_version", Int, "the version of the event's form"),
        may("extra", Text, "unknown optional fields: a JSON object from name to the field's own JSON text"),
        may("invalid", Text, "what capture already knew to be invalid: a code"),
        must("fingerprint", Bytes, "16 bytes that identify the payload"),
        must("region", Text, "the region that accepted it"),
        must("partition", Int, "its log partition"),
        must("position", Long, "its log position"),
        may("traceparent", Text, "W3C trace context"),
        must("day", Day, "UTC day of billing_time"),
    ],
    sort: &["id_hash", "partition", "position"],
    stats: &["id_hash", "event_time", "ingest_time", "billing_time", "partition", "position"],
    append_only: true,
};

/// Everything that was received and is not an event: with its bytes, or as a count. `day` is that of the ingest time.
pub static BRONZE_BAD: TableDef = TableDef {
    name: "bronze/bad",
    columns: &[
        must("reason", Text, "a reject reason code"),
        must("detail", Text, "what was wrong, for a person"),
        must("stage", Text, "which stage refused it: gateway, import or lake"),
        must("raw", Bytes, "the bytes as they came (cut to a limit); empty for counts"),
        must("count", Long, "how many refusals this row stands for"),
        must("ingest_time", Time, "when it was refused"),
        must("region", Text, "the region that refused it"),
        must("topic", Text, "the log it was read from: events or dead_letters"),
        must("partition", Int, "its log partition"),
        must("position", Long, "its log position"),
        must("day", Day, "UTC day of ingest_time"),
    ],
    sort: &["topic", "partition", "position"],
    stats: &["ingest_time", "partition", "position"],
    append_only: true,
};

/// One row per archived event, with its verdict. `day` is the UTC day of the billing time.
pub static SILVER_EVENTS: TableDef = TableDef {
    name: "silver/events",
    columns: &[
        must("event_id", Text, "the idempotency key, as sent"),
        must("event_type", Text, "impression, click or conversion"),
        must("ad_id", Text, "the ad"),
        must("campaign_id", Text, "the campaign"),
        may("impression_id", Text, "the served impression"),
        may("user_pseudo_id", Text, "a pseudonym of the person (personal data)"),
        must("country", Text, "ISO 3166-1 alpha-2; ZZ is unknown"),
        must("device_type", Text, "desktop, mobile, tablet, ctv or other"),
        must("event_time", Time, "when it happened, by the client"),
        must("ingest_time", Time, "when we accepted it"),
        must("billing_time", Time, "the time it bills at"),
        must("clamped", Bool, "whether the event time was out of bounds and the ingest time bills"),
        must("verdict", Text, "billable, duplicate, conflict, repeat_click or invalid:<code>"),
        must("currency", Text, "ISO 4217 code of the price; XXX where there is none"),
        must("price_model", Text, "cpc, cpm, cpa, reported or free"),
        must("price_version", Long, "the price book version that brought the price in; 0 without one"),
        must("cost_nanos", Long, "cost in nanos of currency; 0 unless billable"),
        must("region", Text, "the region that accepted it"),
        must("partition", Int, "its log partition"),
        must("position", Long, "its log position"),
        may("repeat_of", Text, "of a repeat_click: the event id of the click just before on its impression"),
        must("day", Day, "UTC day of billing_time"),
    ],
    // In the order of the ids' hashes, which is no column: only batch can write it.
    sort: &[],
    stats: &["ingest_time", "billing_time", "partition", "position"],
    append_only: false,
};

/// Billable counts and cost of one ad's minute.
pub static GOLD_AD_MINUTE: TableDef = TableDef {
    name: "gold/ad_minute",
    columns: &[
        must("ad_id", Text, "the ad"),
        must("campaign_id", Text, "its campaign"),
        must("minute", Time, "start of the minute"),
        must("currency", Text, "ISO 4217 code of the cost"),
        must("impressions", Long, "billable impressions"),
        must("clicks", Long, "billable clicks"),
        must("conversions", Long, "billable conversions"),
        must("cost_nanos", NanoSum, "unrounded cost in nanos of currency"),
        must("day", Day, "UTC day of minute"),
    ],
    sort: &["minute", "ad_id", "campaign_id", "currency"],
    stats: &["minute"],
    append_only: false,
};

/// Billable counts, cost and unique users of one campaign's hour by country and device.
pub static GOLD_CAMPAIGN_HOUR: TableDef = TableDef {
    name: "gold/campaign_hour",
    columns: &[
        must("hour", Time, "start of the hour"),
        must("campaign_id", Text, "the campaign"),
        must("country", Text, "ISO 3166-1 alpha-2; ZZ is unknown"),
        must("device_type", Text, "desktop, mobile, tablet, ctv or other"),
        must("currency", Text, "ISO 4217 code of the cost"),
        must("impressions", Long, "billable impressions"),
        must("clicks", Long, "billable clicks"),
        must("conversions", Long, "billable conversions"),
        must("cost_nanos", NanoSum, "unrounded cost in nanos of currency"),
        must("uniques", Long, "distinct user_pseudo_id of billable events, exactly"),
        must("users_sketch", Bytes, "Apache DataSketches HLL (lg k 12, HLL8) of the same users"),
        must("day", Day, "UTC day of hour"),
    ],
    sort: &["hour", "campaign_id", "country", "device_type", "currency"],
    stats: &["hour"],
    append_only: false,
};

/// What one ad of one campaign bills for one day, and what became of every other event.
pub static GOLD_BILLING_DAY: TableDef = TableDef {
    name: "gold/billing_day",
    columns: &[
        must("campaign_id", Text, "the campaign"),
        must("ad_id", Text, "the ad"),
        must("currency", Text, "ISO 4217 code of the cost"),
        must("price_model", Text, "cpc, cpm, cpa, reported or free"),
        must("price_version", Long, "the price book version that brought the price in; 0 without one"),
        must("impressions", Long, "billable impressions"),
        must("clicks", Long, "billable clicks"),
        must("conversions", Long, "billable conversions"),
        must("cost_nanos", NanoSum, "unrounded cost in nanos of currency"),
        must("duplicates", Long, "events with an id and payload captured before"),
        must("conflicts", Long, "events with an id captured before and another payload"),
        must("repeat_clicks", Long, "clicks too close to the one before on the same impression"),
        must("invalid_bad_signature", Long, "events whose signature was absent or wrong"),
        must("invalid_expired", Long, "events whose signature was out of time"),
        must("invalid_known_bot", Long, "events from software that names itself a robot"),
        must("invalid_datacenter_ip", Long, "events from a data centre's address"),
        must("invalid_rate", Long, "events beyond what a person can do"),
        must("invalid_inactive_ad", Long, "events of an ad that was unknown or not active"),
        must("day", Day, "UTC billing day"),
    ],
    sort: &["campaign_id", "ad_id", "currency", "price_model", "price_version"],
    stats: &["price_version"],
    append_only: false,
};

/// Every 1,024 leaves of the day's Merkle tree, as one node of it, and where in silver their events begin. The tree is
/// [`shared::merkle`]'s, over the day's billed events in the order of their keys.
pub static GOLD_PROOF_BLOCKS: TableDef = TableDef {
    name: "gold/proof_blocks",
    columns: &[
        must("block", Long, "0, 1, 2, …: leaves from 1024 × block on"),
        must("leaves", Long, "how many: 1024 but in the last block"),
        must("node", Bytes, "the root of the tree over these leaves alone: 32 bytes"),
        must("first_key", Long, "the first 8 bytes of the first leaf's key, as id_hash has them"),
        must("silver_file", Int, "which of the run's silver files the first leaf's event is in, from 0"),
        must("silver_row", Long, "its row there, from 0"),
        must("day", Day, "UTC billing day"),
    ],
    sort: &["block"],
    stats: &["block"],
    append_only: false,
};

/// One row per batch run: what it read, decided and wrote ([`crate::run_record::RunRecord`]).
pub static RUNS: TableDef = TableDef {
    name: "runs",
    columns: &[
        must("run", Long, "1 for the day's first run, then one more each time"),
        must("outcome", Text, "computed or restated"),
        must("record", Text, "the run record as JSON"),
        must("day", Day, "the UTC billing day it computed"),
    ],
    sort: &["run"],
    stats: &["run"],
    append_only: true,
};

/// Every table of the lake.
pub static ALL: [&TableDef; 8] = [
    &BRONZE_EVENTS,
    &BRONZE_BAD,
    &SILVER_EVENTS,
    &GOLD_AD_MINUTE,
    &GOLD_CAMPAIGN_HOUR,
    &GOLD_BILLING_DAY,
    &GOLD_PROOF_BLOCKS,
    &RUNS,
];

/// The table with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static TableDef> {
    ALL.into_iter().find(|t| t.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_a_client_may_send_is_a_bronze_column() {
        for (_, column, _) in shared::event::FIELDS {
            assert!(BRONZE_EVENTS.column(column).is_some(), "{column}");
        }
    }

    #[test]
    fn personal_data_is_named_as_such() {
        for (_, column, personal) in shared::event::FIELDS {
            let doc = BRONZE_EVENTS.column(column).unwrap().doc;
            assert_eq!(doc.contains("personal data"), *personal, "{column}");
        }
    }

    #[test]
    fn definitions_name_only_columns_they_have_and_end_with_the_partition_column() {
        for table in ALL {
            assert_eq!(table.columns.last().unwrap().name, PARTITION_COLUMN, "{}", table.name);
            assert_eq!(table.file_schema().fields().len() + 1, table.schema().fields().len());
            for name in table.sort.iter().chain(table.stats) {
                assert!(table.column(name).is_some(), "{}.{name}", table.name);
            }
            let mut names: Vec<_> = table.columns.iter().map(|c| c.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name);
            assert!(table.columns.iter().all(|c| !c.doc.is_empty()), "{}", table.name);
        }
    }
}

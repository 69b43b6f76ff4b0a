-- The same rows once more, in the order of ids (docs/adr/0032-clickhouse-keeps-rows-in-two-orders.md): a day of one ad or
-- campaign is then one range of each part, where by hours it is 24. Granules are small because an answer is.
CREATE TABLE IF NOT EXISTS rollup_by_id (
    grain        Enum8('ad_minute' = 1, 'campaign_minute' = 2, 'campaign_hour' = 3),
    hour         DateTime('UTC') CODEC(Delta, ZSTD),
    ad_id        String CODEC(ZSTD),
    campaign_id  String CODEC(ZSTD),
    window_start DateTime('UTC') CODEC(Delta, ZSTD),
    country      LowCardinality(String),
    device_type  LowCardinality(String),
    currency     LowCardinality(String),
    writer       Int64 CODEC(ZSTD),
    take         UInt64 CODEC(ZSTD),
    version      UInt64 CODEC(ZSTD),
    impressions  UInt64 CODEC(T64, ZSTD),
    clicks       UInt64 CODEC(T64, ZSTD),
    conversions  UInt64 CODEC(T64, ZSTD),
    cost_nanos   Int128 CODEC(ZSTD),
    uniques      String CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(hour)
PRIMARY KEY (grain, ad_id, campaign_id)
ORDER BY (grain, ad_id, campaign_id, window_start, country, device_type, currency, writer, take)
SETTINGS index_granularity = 512,
    fsync_after_insert = 1, fsync_part_directory = 1, min_compressed_bytes_to_fsync_after_merge = 1;

-- An insert into `rollup` is answered when this has written too, so that a take is whole here as well before its mark is.
CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_to_by_id TO rollup_by_id AS
SELECT * FROM rollup;

-- What was there before the view. (Twice is once: a row replaces itself.)
INSERT INTO rollup_by_id
SELECT * FROM rollup;

CREATE VIEW IF NOT EXISTS rollup_by_id_final AS
SELECT * FROM rollup_by_id FINAL;

-- What `shown` says, for one ad or campaign of one grain. (Few columns: every one costs each question its analysis.)
CREATE VIEW IF NOT EXISTS shown_by_id AS
WITH
    (
        SELECT (
            groupArrayIf(at, kind = 'hour'),
            groupArrayIf(take, kind = 'hour'),
            groupArrayIf(toDate(at), kind = 'day' AND NOT gone)
        )
        FROM newest_mark
    ) AS marks
SELECT
    *,
    multiIf(take = 0, 'provisional', has(marks.3, toDate(hour)), 'settled', 'reconciled') AS finality
FROM rollup_by_id_final
WHERE take = transform(
    hour,
    arrayPushBack(marks.1, toDateTime(0, 'UTC')),
    arrayPushBack(marks.2, toUInt64(0)),
    toUInt64(0)
);

-- The serving store on ClickHouse (docs/adr/0016-clickhouse-without-transactions.md).
--
-- All three grains share one table, so that one insert is one flush. Keys are led by grain and hour, as in the embedded
-- store: reconcile owns whole hours and every question has a range. Times are the first instants of their windows, UTC.
-- A row says its absolute values: of one key, the row with the greatest version stays. Readers sum over `writer`, a speed
-- worker's log partition, or -1 for reconcile.
-- `take` is 0 for what speed wrote. Reconcile writes an hour whole under a take of its own, and then `mark` says which take
-- of the hour is shown.
CREATE TABLE IF NOT EXISTS rollup (
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
PRIMARY KEY (grain, hour, ad_id, campaign_id)
ORDER BY (grain, hour, ad_id, campaign_id, window_start, country, device_type, currency, writer, take)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_compressed_bytes_to_fsync_after_merge = 1;

-- Who says what of which hour or day; only ever added to. Of an hour, the greatest (version, take) owns it. Of a day, the
-- greatest take says whether it is shown as its settlement was published: a change of an hour takes that back (`gone`).
CREATE TABLE IF NOT EXISTS mark (
    kind    Enum8('hour' = 1, 'day' = 2),
    at      DateTime('UTC'),
    version UInt64,
    take    UInt64,
    gone    Bool
)
ENGINE = MergeTree
ORDER BY (kind, at, version, take)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_compressed_bytes_to_fsync_after_merge = 1;

-- The generations speed workers asked for; who finds its claim alone on a number has it.
CREATE TABLE IF NOT EXISTS generation (
    writer     UInt32,
    generation UInt32,
    claim      UInt64
)
ENGINE = MergeTree
ORDER BY (writer, generation, claim)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_compressed_bytes_to_fsync_after_merge = 1;

-- What each speed worker last told about itself, as JSON.
CREATE TABLE IF NOT EXISTS writer_status (
    writer  UInt32,
    version UInt64,
    status  String CODEC(ZSTD)
)
ENGINE = ReplacingMergeTree(version)
ORDER BY writer
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_compressed_bytes_to_fsync_after_merge = 1;

-- Every key's newest row, of all takes: only `shown` may read it.
CREATE VIEW IF NOT EXISTS rollup_final AS
SELECT * FROM rollup FINAL;

-- What holds of every hour and day now.
CREATE VIEW IF NOT EXISTS newest_mark AS
SELECT
    kind,
    at,
    argMax(version, place) AS version,
    argMax(take, place) AS take,
    argMax(gone, place) AS gone
FROM (SELECT kind, at, mark.version AS version, mark.take AS take, mark.gone AS gone,
             (if(kind = 'hour', mark.version, 0), mark.take) AS place
      FROM mark)
GROUP BY kind, at;

-- What everybody reads: one row for each key and writer, with how final it is.
--
-- The marks are a scalar subquery and the rows stand behind a view of their own: ClickHouse answers the former before it
-- looks at the latter's table, so that the rows of a take are there whenever its mark is seen.
CREATE VIEW IF NOT EXISTS shown AS
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
FROM rollup_final
WHERE take = transform(
    hour,
    arrayPushBack(marks.1, toDateTime(0, 'UTC')),
    arrayPushBack(marks.2, toUInt64(0)),
    toUInt64(0)
);

-- The migrations that were applied.
CREATE TABLE IF NOT EXISTS schema_version (
    number     UInt32,
    applied_at DateTime('UTC') DEFAULT now('UTC')
)
ENGINE = MergeTree
ORDER BY number;

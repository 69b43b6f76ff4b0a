-- The serving store (decisions.md D-9, D-10).
--
-- Keys are led by the hour: reconcile owns whole hours, every query has a time range, and new rows land beside
-- each other. `hour` is hours since 1970 and `minute` the minute in that hour, both UTC, so that a key is short.
-- `writer` is a speed worker's log partition, or -1 for reconcile; readers sum over writers.
-- `version` is the row version with its top bit flipped, so that the database's signed order is the versions'.
-- Cost is `cost_hi * 4294967296 + cost_lo` nanos, 0 <= cost_lo < 4294967296: both columns can be summed by SQL
-- over two thousand million rows, and a sum that does not fit is an error, never a wrong number.

CREATE TABLE ad_minute (
    hour        INTEGER NOT NULL,
    ad_id       TEXT    NOT NULL,
    minute      INTEGER NOT NULL,
    campaign_id TEXT    NOT NULL,
    currency    TEXT    NOT NULL,
    writer      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    impressions INTEGER NOT NULL,
    clicks      INTEGER NOT NULL,
    conversions INTEGER NOT NULL,
    cost_hi     INTEGER NOT NULL,
    cost_lo     INTEGER NOT NULL,
    PRIMARY KEY (hour, ad_id, minute, campaign_id, currency, writer)
) STRICT, WITHOUT ROWID;

-- Small on purpose: live bars and top lists read all campaigns of an hour. The currency stands before the minute so
-- that a campaign's sum over an hour is read in key order, without sorting.
CREATE TABLE campaign_minute (
    hour        INTEGER NOT NULL,
    campaign_id TEXT    NOT NULL,
    currency    TEXT    NOT NULL,
    minute      INTEGER NOT NULL,
    writer      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    impressions INTEGER NOT NULL,
    clicks      INTEGER NOT NULL,
    conversions INTEGER NOT NULL,
    cost_hi     INTEGER NOT NULL,
    cost_lo     INTEGER NOT NULL,
    PRIMARY KEY (hour, campaign_id, currency, minute, writer)
) STRICT, WITHOUT ROWID;

-- With row ids, unlike the others: a sketch has up to 4 KB, which a clustered key would drag along.
CREATE TABLE campaign_hour (
    hour        INTEGER NOT NULL,
    campaign_id TEXT    NOT NULL,
    country     TEXT    NOT NULL,
    device_type TEXT    NOT NULL,
    currency    TEXT    NOT NULL,
    writer      INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    impressions INTEGER NOT NULL,
    clicks      INTEGER NOT NULL,
    conversions INTEGER NOT NULL,
    cost_hi     INTEGER NOT NULL,
    cost_lo     INTEGER NOT NULL,
    uniques     BLOB,
    PRIMARY KEY (hour, campaign_id, country, device_type, currency, writer)
) STRICT;

-- The hours reconcile owns: speed never writes to them again.
CREATE TABLE owned_hour (
    hour    INTEGER NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;

-- Days (since 1970) that are shown exactly as their settlement was published.
CREATE TABLE settled_day (
    day     INTEGER NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;

-- The last generation handed out to each speed worker: older ones are zombies.
CREATE TABLE generation (
    writer     INTEGER NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL
) STRICT;

-- What each speed worker last told about itself, as JSON.
CREATE TABLE writer_status (
    writer  INTEGER NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    status  TEXT    NOT NULL
) STRICT;

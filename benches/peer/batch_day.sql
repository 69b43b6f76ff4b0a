-- The peer's day: exact deduplication over the whole archive, then counts of first events by ad, campaign, minute and
-- type. Two passes: only ids that occur twice are ordered. {ids} is the column by which they are found.
-- Reads the views `archive` (every day) and `day`; a forged event claims no id and is not counted.

CREATE TEMP TABLE twice AS
SELECT {ids} FROM archive WHERE NOT forged GROUP BY {ids} HAVING count(*) > 1;

CREATE TEMP TABLE later AS
SELECT region, partition, position
FROM archive SEMI JOIN twice USING ({ids})
WHERE NOT forged
QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY ingest_time, region, partition, position) > 1;

COPY (
    SELECT ad_id, campaign_id, date_trunc('minute', billing_time) AS minute, event_type, count(*) AS events
    FROM day ANTI JOIN later USING (region, partition, position)
    WHERE NOT forged
    GROUP BY ALL
) TO '{out}' (FORMAT parquet, COMPRESSION zstd);

-- How many of the tables stand for all shards.
SELECT count() AS number
FROM system.tables
WHERE database = currentDatabase() AND engine = 'Distributed' AND name IN ('rollup', 'rollup_by_id', 'mark', 'generation', 'writer_status')

-- A day is published.
INSERT INTO mark (kind, at, version, take, gone)
SELECT 'day', toDateTime({at:UInt32}, 'UTC'), {version:UInt64}, generateSnowflakeID(), false

-- The newest generation of a writer, and the newest version it flushed.
SELECT max(claimed) AS generation, max(flushed) AS version
FROM (
    SELECT generation AS claimed, toUInt64(0) AS flushed FROM generation WHERE writer = {writer:UInt32}
    UNION ALL
    SELECT toUInt32(0) AS claimed, version AS flushed FROM writer_status WHERE writer = {writer:UInt32}
)

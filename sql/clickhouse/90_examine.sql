-- What kind of server this is, and how far its merges are behind.
SELECT
    version() AS version,
    (
        SELECT max(parts)
        FROM (
            SELECT count() AS parts FROM system.parts
            WHERE active AND database = currentDatabase() GROUP BY table, partition_id
        )
    ) AS most_parts

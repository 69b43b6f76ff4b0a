-- Forgets some campaign hours before one, oldest first.
DELETE FROM campaign_hour
WHERE rowid IN (
    SELECT rowid
    FROM campaign_hour
    WHERE hour < ?1
    ORDER BY hour
    LIMIT ?2
)

-- Forgets some campaign minutes of hours before one, oldest first.
DELETE FROM campaign_minute
WHERE (hour, campaign_id, currency, minute, writer) IN (
    SELECT hour, campaign_id, currency, minute, writer
    FROM campaign_minute
    WHERE hour < ?1
    ORDER BY hour, campaign_id, currency, minute, writer
    LIMIT ?2
)

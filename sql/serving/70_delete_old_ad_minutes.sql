-- Forgets some ad minutes of hours before one, oldest first.
DELETE FROM ad_minute
WHERE (hour, ad_id, minute, campaign_id, currency, writer) IN (
    SELECT hour, ad_id, minute, campaign_id, currency, writer
    FROM ad_minute
    WHERE hour < ?1
    ORDER BY hour, ad_id, minute, campaign_id, currency, writer
    LIMIT ?2
)

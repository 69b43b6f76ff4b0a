-- The hours of a range in which any campaign shows anything: one seek each.
WITH RECURSIVE hours (hour) AS (
    SELECT MIN(hour) FROM campaign_minute WHERE hour >= ?1 AND hour < ?2
    UNION ALL
    SELECT (SELECT MIN(later.hour) FROM campaign_minute AS later WHERE later.hour > hours.hour AND later.hour < ?2)
    FROM hours
    WHERE hours.hour IS NOT NULL
)
SELECT hour FROM hours WHERE hour IS NOT NULL

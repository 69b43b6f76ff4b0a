-- One campaign's minutes, summed over writers.
-- Steps from hour to hour by the key (one seek each), then looks up the id in each.
WITH RECURSIVE hours (hour) AS (
    SELECT MIN(hour) FROM campaign_minute WHERE hour >= ?2 AND hour < ?3
    UNION ALL
    SELECT (SELECT MIN(later.hour) FROM campaign_minute AS later WHERE later.hour > hours.hour AND later.hour < ?3)
    FROM hours
    WHERE hours.hour IS NOT NULL
)
SELECT r.hour, r.minute, r.currency,
    SUM(r.impressions), SUM(r.clicks), SUM(r.conversions), SUM(r.cost_hi), SUM(r.cost_lo)
FROM hours
CROSS JOIN campaign_minute AS r ON r.hour = hours.hour AND r.campaign_id = ?1
WHERE r.hour * 60 + r.minute >= ?4 AND r.hour * 60 + r.minute < ?5
GROUP BY r.hour, r.minute, r.currency
ORDER BY r.hour, r.minute, r.currency

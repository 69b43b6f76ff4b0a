-- One campaign's hours by dimension, one row per writer: sketches are merged by the reader.
-- Steps from hour to hour by the key (one seek each), then looks up the id in each.
WITH RECURSIVE hours (hour) AS (
    SELECT MIN(hour) FROM campaign_hour WHERE hour >= ?2 AND hour < ?3
    UNION ALL
    SELECT (SELECT MIN(later.hour) FROM campaign_hour AS later WHERE later.hour > hours.hour AND later.hour < ?3)
    FROM hours
    WHERE hours.hour IS NOT NULL
)
SELECT r.hour, r.campaign_id, r.country, r.device_type, r.currency,
    r.impressions, r.clicks, r.conversions, r.cost_hi, r.cost_lo, r.uniques
FROM hours
CROSS JOIN campaign_hour AS r ON r.hour = hours.hour AND r.campaign_id = ?1

-- Every writer's row of one key.
SELECT impressions, clicks, conversions, cost_hi, cost_lo, uniques
FROM campaign_hour
WHERE hour = ?1 AND campaign_id = ?2 AND country = ?3 AND device_type = ?4 AND currency = ?5

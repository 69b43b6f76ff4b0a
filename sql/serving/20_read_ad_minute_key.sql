-- Every writer's row of one key.
SELECT impressions, clicks, conversions, cost_hi, cost_lo
FROM ad_minute
WHERE hour = ?1 AND ad_id = ?2 AND minute = ?3 AND campaign_id = ?4 AND currency = ?5

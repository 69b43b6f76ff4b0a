-- Every writer's row of one key.
SELECT impressions, clicks, conversions, cost_hi, cost_lo
FROM campaign_minute
WHERE hour = ?1 AND campaign_id = ?2 AND currency = ?3 AND minute = ?4

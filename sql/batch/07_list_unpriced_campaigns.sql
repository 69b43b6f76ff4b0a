-- Campaigns whose events found no price in force: they are free, and somebody should know.
SELECT campaign_id,
       SUM(impressions + clicks + conversions) AS events
FROM billing_day
WHERE price_version = 0
GROUP BY campaign_id

-- The same billable events as gold/campaign_hour has them.
SELECT CAST(hour AS BIGINT) / 3600000000 AS hour, currency,
       SUM(impressions) AS impressions,
       SUM(clicks) AS clicks,
       SUM(conversions) AS conversions,
       SUM(cost_nanos) AS cost_nanos
FROM campaign_hour
GROUP BY 1, currency

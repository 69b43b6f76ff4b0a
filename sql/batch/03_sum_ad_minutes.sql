-- The same billable events as gold/ad_minute has them.
SELECT hour, currency,
       SUM(impressions) AS impressions,
       SUM(clicks) AS clicks,
       SUM(conversions) AS conversions,
       SUM(cost_nanos) AS cost_nanos
FROM (SELECT CAST(minute AS BIGINT) / 3600000000 AS hour, currency, impressions, clicks, conversions, cost_nanos
      FROM ad_minute)
GROUP BY hour, currency

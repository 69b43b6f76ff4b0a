-- The whole day as gold/billing_day has it: what bills, and every other verdict.
SELECT currency,
       SUM(impressions) AS impressions,
       SUM(clicks) AS clicks,
       SUM(conversions) AS conversions,
       SUM(cost_nanos) AS cost_nanos,
       SUM(duplicates) AS duplicates,
       SUM(conflicts) AS conflicts,
       SUM(repeat_clicks) AS repeat_clicks,
       SUM(invalid_bad_signature) AS invalid_bad_signature,
       SUM(invalid_expired) AS invalid_expired,
       SUM(invalid_known_bot) AS invalid_known_bot,
       SUM(invalid_datacenter_ip) AS invalid_datacenter_ip,
       SUM(invalid_rate) AS invalid_rate,
       SUM(invalid_inactive_ad) AS invalid_inactive_ad
FROM billing_day
GROUP BY currency

-- What is shown for the campaigns' minutes of one hour, summed over writers.
SELECT hour, minute, campaign_id, currency,
    SUM(impressions), SUM(clicks), SUM(conversions), SUM(cost_hi), SUM(cost_lo)
FROM campaign_minute
WHERE hour = ?1
GROUP BY campaign_id, currency, minute

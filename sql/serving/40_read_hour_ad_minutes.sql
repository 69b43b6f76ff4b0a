-- What is shown for the ads of one hour, summed over writers.
SELECT hour, minute, ad_id, campaign_id, currency,
    SUM(impressions), SUM(clicks), SUM(conversions), SUM(cost_hi), SUM(cost_lo)
FROM ad_minute
WHERE hour = ?1
GROUP BY ad_id, minute, campaign_id, currency

-- Every campaign's sum over a range of minutes, by currency.
SELECT campaign_id, currency,
    SUM(impressions), SUM(clicks), SUM(conversions), SUM(cost_hi), SUM(cost_lo)
FROM campaign_minute
WHERE hour >= ?1 AND hour < ?2 AND hour * 60 + minute >= ?3 AND hour * 60 + minute < ?4
GROUP BY campaign_id, currency
ORDER BY campaign_id, currency

-- Every campaign's sum over some minutes of one hour, by currency: read in key order.
SELECT campaign_id, currency,
    SUM(impressions), SUM(clicks), SUM(conversions), SUM(cost_hi), SUM(cost_lo)
FROM campaign_minute
WHERE hour = ?1 AND minute >= ?2 AND minute < ?3
GROUP BY campaign_id, currency

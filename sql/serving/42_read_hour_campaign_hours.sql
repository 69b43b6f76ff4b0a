-- The campaigns' rows of one hour, one per writer: sketches are merged by the reader.
SELECT hour, campaign_id, country, device_type, currency,
    impressions, clicks, conversions, cost_hi, cost_lo, uniques
FROM campaign_hour
WHERE hour = ?1

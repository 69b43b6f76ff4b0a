-- One campaign's hours by dimension, one row for each writer: sketches are merged by the reader.
SELECT window_start, country, device_type, currency, finality,
    impressions, clicks, conversions, cost_nanos, uniques
FROM shown_by_id
WHERE grain = 'campaign_hour' AND campaign_id = {id:String}
    AND hour >= toDateTime({first:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
ORDER BY window_start, country, device_type, currency

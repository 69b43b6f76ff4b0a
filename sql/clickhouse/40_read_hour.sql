-- What is shown for one hour, one row for each key and writer: sketches are merged by the reader.
SELECT grain, hour, ad_id, campaign_id, window_start, country, device_type, currency, writer, take, version,
    impressions, clicks, conversions, cost_nanos, uniques
FROM shown
WHERE hour = toDateTime({hour:UInt32}, 'UTC')

-- The rows of one writer that are at least as new as a version.
SELECT grain, hour, ad_id, campaign_id, window_start, country, device_type, currency, writer, take, version,
    impressions, clicks, conversions, cost_nanos, uniques
FROM shown
WHERE hour >= toDateTime({first:UInt32}, 'UTC') AND hour <= toDateTime({last:UInt32}, 'UTC')
    AND take = 0 AND writer = {writer:Int64} AND version >= {version:UInt64}

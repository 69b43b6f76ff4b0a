-- Every campaign's sum over some minutes by currency, or that of those named.
SELECT campaign_id, currency,
    sum(toUInt128(impressions)) AS impressions, sum(toUInt128(clicks)) AS clicks,
    sum(toUInt128(conversions)) AS conversions, sum(rows.cost_nanos) AS cost_nanos
FROM shown AS rows
WHERE grain = 'campaign_minute'
    AND hour >= toDateTime({first_hour:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
    AND window_start >= toDateTime({first:UInt32}, 'UTC') AND window_start < toDateTime({end:UInt32}, 'UTC')
    AND (empty({among:Array(String)}) OR has({among:Array(String)}, campaign_id))
GROUP BY campaign_id, currency
ORDER BY campaign_id, currency

-- One ad's minutes, summed over writers.
SELECT window_start, currency, finality,
    sum(toUInt128(impressions)) AS impressions, sum(toUInt128(clicks)) AS clicks,
    sum(toUInt128(conversions)) AS conversions, sum(rows.cost_nanos) AS cost_nanos
FROM shown_by_id AS rows
WHERE grain = 'ad_minute' AND ad_id = {id:String}
    AND hour >= toDateTime({first_hour:UInt32}, 'UTC') AND hour < toDateTime({end:UInt32}, 'UTC')
    AND window_start >= toDateTime({first:UInt32}, 'UTC') AND window_start < toDateTime({end:UInt32}, 'UTC')
GROUP BY window_start, currency, finality
ORDER BY window_start, currency

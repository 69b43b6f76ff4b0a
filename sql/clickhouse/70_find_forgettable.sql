-- The oldest rows of a grain before an hour: how many, and the last of them in key order.
SELECT count() AS rows, max(key) AS last
FROM (
    SELECT (hour, ad_id, campaign_id, window_start, toString(country), toString(device_type), toString(currency), writer) AS key
    FROM shown
    WHERE grain = {grain:String} AND hour < toDateTime({before:UInt32}, 'UTC')
    ORDER BY key
    LIMIT {most:UInt64}
)

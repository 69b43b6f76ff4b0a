-- What became of them: every verdict, and what the billable ones cost. 128-bit sums cannot wrap: 2^63 events could not.
SELECT hour, verdict, currency, event_type,
       COUNT(*) AS events,
       SUM(CAST(cost_nanos AS DECIMAL(38, 0))) AS cost_nanos
FROM (SELECT CAST(billing_time AS BIGINT) / 3600000000 AS hour, verdict, currency, event_type, cost_nanos FROM silver)
GROUP BY hour, verdict, currency, event_type

-- How many events the archive holds for each hour of the day, by billing time (microseconds since 1970).
SELECT CAST(billing_time AS BIGINT) / 3600000000 AS hour,
       COUNT(*) AS events
FROM bronze
GROUP BY 1

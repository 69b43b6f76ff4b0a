-- The counting rules of contract 2, over the table `admitted` (one row for each accepted line) and `prices`.
-- All times are microseconds since 1970 until they are written. Bounds come in as variables.

-- The log: an import appends accepted lines in file order, so a position is a running number in its partition.
CREATE TABLE archived AS
SELECT *,
       row_number() OVER (PARTITION BY partition ORDER BY line) - 1 AS position
FROM admitted;

-- 2.2: the first event with an id wins, over the whole archive; a forged one claims nothing.
CREATE TABLE stood AS
SELECT *,
       CASE
           WHEN forged IS NOT NULL THEN 'forged'
           WHEN row_number() OVER same_id = 1 THEN 'first'
           WHEN payload = first_value(payload) OVER same_id THEN 'duplicate'
           ELSE 'conflict'
       END AS standing
FROM archived
WINDOW same_id AS (PARTITION BY event_id, forged IS NULL ORDER BY ingest_time, partition, position);

-- 2.3: clicks that are not duplicate, conflict or invalid, each compared with the one just before it on its
-- impression, whatever came of that one.
CREATE TABLE chained AS
SELECT line,
       ingest_time - lag(ingest_time) OVER same_impression < getvariable('repeat_click') AS repeats
FROM stood
WHERE standing = 'first' AND NOT is_bot AND event_type = 'click' AND impression_id IS NOT NULL
WINDOW same_impression AS (PARTITION BY impression_id ORDER BY ingest_time, partition, position);

-- 2.1, 2.4 and 2.6: when it bills, and its one verdict.
CREATE TABLE judged AS
SELECT stood.*,
       NOT event_time BETWEEN ingest_time - getvariable('max_late') AND ingest_time + getvariable('max_future')
           AS clamped,
       CASE WHEN clamped THEN ingest_time ELSE event_time END AS billing_time,
       CASE
           WHEN standing = 'forged' THEN 'invalid:' || forged
           WHEN standing <> 'first' THEN standing
           WHEN is_bot THEN 'invalid:known_bot'
           WHEN repeats THEN 'repeat_click'
           ELSE 'billable'
       END AS verdict
FROM stood LEFT JOIN chained USING (line);

-- 2.8: the price in force at billing time. Without one the campaign is free, in no currency. An event counts in the
-- currency of that price whatever its verdict; it costs something only when it is billable.
CREATE TABLE silver AS
SELECT judged.*,
       coalesce(model, 'free') AS price_model,
       coalesce(version, 0) AS price_version,
       coalesce(CASE WHEN model = 'reported' THEN own_currency END, currency, 'XXX') AS cost_currency,
       CASE
           WHEN verdict <> 'billable' OR model IS NULL THEN 0
           WHEN model = 'cpc' AND event_type = 'click' THEN price_micros * 1000
           WHEN model = 'cpa' AND event_type = 'conversion' THEN price_micros * 1000
           WHEN model = 'cpm' AND event_type = 'impression' THEN price_micros
           WHEN model = 'reported' THEN coalesce(cost_micros, 0) * 1000
           ELSE 0
       END AS cost_nanos,
       CAST(make_timestamp(billing_time) AS DATE) AS day
FROM judged ASOF LEFT JOIN prices
     ON judged.campaign_id = prices.campaign_id AND judged.billing_time >= prices.valid_from;

CREATE TABLE silver_events AS
SELECT day, event_id, event_type, ad_id, campaign_id, impression_id, user_pseudo_id, country, device_type,
       make_timestamp(event_time) AS event_time, make_timestamp(ingest_time) AS ingest_time,
       make_timestamp(billing_time) AS billing_time, clamped, verdict, cost_currency AS currency, price_model,
       price_version, cost_nanos, getvariable('region') AS region, partition, position
FROM silver;

CREATE TABLE gold_ad_minute AS
SELECT day, ad_id, campaign_id, date_trunc('minute', make_timestamp(billing_time)) AS minute,
       cost_currency AS currency,
       count(*) FILTER (event_type = 'impression') AS impressions,
       count(*) FILTER (event_type = 'click') AS clicks,
       count(*) FILTER (event_type = 'conversion') AS conversions,
       CAST(sum(cost_nanos) AS DECIMAL(38, 0)) AS cost_nanos
FROM silver
WHERE verdict = 'billable'
GROUP BY ALL;

CREATE TABLE gold_campaign_hour AS
SELECT day, date_trunc('hour', make_timestamp(billing_time)) AS hour, campaign_id, country, device_type,
       cost_currency AS currency,
       count(*) FILTER (event_type = 'impression') AS impressions,
       count(*) FILTER (event_type = 'click') AS clicks,
       count(*) FILTER (event_type = 'conversion') AS conversions,
       CAST(sum(cost_nanos) AS DECIMAL(38, 0)) AS cost_nanos,
       count(DISTINCT user_pseudo_id) AS uniques
FROM silver
WHERE verdict = 'billable'
GROUP BY ALL;

CREATE TABLE gold_billing_day AS
SELECT day, campaign_id, ad_id, cost_currency AS currency, price_model, price_version,
       count(*) FILTER (verdict = 'billable' AND event_type = 'impression') AS impressions,
       count(*) FILTER (verdict = 'billable' AND event_type = 'click') AS clicks,
       count(*) FILTER (verdict = 'billable' AND event_type = 'conversion') AS conversions,
       CAST(sum(cost_nanos) AS DECIMAL(38, 0)) AS cost_nanos,
       count(*) FILTER (verdict = 'duplicate') AS duplicates,
       count(*) FILTER (verdict = 'conflict') AS conflicts,
       count(*) FILTER (verdict = 'repeat_click') AS repeat_clicks,
       count(*) FILTER (verdict = 'invalid:bad_signature') AS invalid_bad_signature,
       count(*) FILTER (verdict = 'invalid:expired') AS invalid_expired,
       count(*) FILTER (verdict = 'invalid:known_bot') AS invalid_known_bot,
       count(*) FILTER (verdict = 'invalid:datacenter_ip') AS invalid_datacenter_ip,
       count(*) FILTER (verdict = 'invalid:rate') AS invalid_rate,
       count(*) FILTER (verdict = 'invalid:inactive_ad') AS invalid_inactive_ad
FROM silver
GROUP BY ALL;

CREATE TABLE verdicts AS
SELECT day, verdict, count(*) AS events FROM silver GROUP BY ALL;

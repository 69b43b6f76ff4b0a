-- What is there just so is left alone; answers how many were added and changed. A row that an insert made has no xmax.
WITH written AS (
    INSERT INTO clickledger.ads (ad_id, campaign_id, url, status)
    SELECT ad_id, campaign_id, url, status
    FROM incoming
    ORDER BY ad_id
    ON CONFLICT (ad_id) DO UPDATE SET campaign_id = excluded.campaign_id, url = excluded.url, status = excluded.status
        WHERE (ads.campaign_id, ads.url, ads.status) <> (excluded.campaign_id, excluded.url, excluded.status)
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new)
FROM written

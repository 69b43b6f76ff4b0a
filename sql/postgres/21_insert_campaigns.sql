INSERT INTO clickledger.campaigns (campaign_id, advertiser_id)
SELECT DISTINCT campaign_id, advertiser_id
FROM incoming
ORDER BY campaign_id
ON CONFLICT DO NOTHING

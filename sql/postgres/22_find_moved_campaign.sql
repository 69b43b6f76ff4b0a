-- A campaign of the import that belongs to somebody else.
SELECT incoming.ad_id, campaign_id, campaigns.advertiser_id, incoming.advertiser_id
FROM incoming
JOIN clickledger.campaigns USING (campaign_id)
WHERE campaigns.advertiser_id <> incoming.advertiser_id
ORDER BY incoming.ad_id
LIMIT 1

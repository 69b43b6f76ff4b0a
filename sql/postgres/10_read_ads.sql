-- Every ad with its owner, in the order of the snapshot.
SELECT ad_id, campaign_id, advertiser_id, url, status
FROM clickledger.ads
JOIN clickledger.campaigns USING (campaign_id)
ORDER BY ad_id

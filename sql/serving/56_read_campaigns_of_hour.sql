-- Every campaign's sum over one whole hour, by currency.
SELECT campaign_id, currency, impressions, clicks, conversions, cost_hi, cost_lo
FROM campaign_sum
WHERE hour = ?1

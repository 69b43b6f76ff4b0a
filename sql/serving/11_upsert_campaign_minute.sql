-- One row of one writer: absolute values; an older version never replaces a newer one.
INSERT INTO campaign_minute
    (hour, campaign_id, currency, minute, writer, version, impressions, clicks, conversions, cost_hi, cost_lo)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT (hour, campaign_id, currency, minute, writer) DO UPDATE SET
    version = excluded.version,
    impressions = excluded.impressions,
    clicks = excluded.clicks,
    conversions = excluded.conversions,
    cost_hi = excluded.cost_hi,
    cost_lo = excluded.cost_lo
WHERE excluded.version > campaign_minute.version

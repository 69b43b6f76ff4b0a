-- What a campaign shows in a whole hour, by currency, over all writers: a top list reads this in place of up to sixty times
-- as many minutes. The database keeps it, in the transaction of whoever writes a minute, so that it cannot differ from them.
-- `minutes` counts the rows it is the sum of.

CREATE TABLE campaign_sum (
    hour        INTEGER NOT NULL,
    campaign_id TEXT    NOT NULL,
    currency    TEXT    NOT NULL,
    minutes     INTEGER NOT NULL,
    impressions INTEGER NOT NULL,
    clicks      INTEGER NOT NULL,
    conversions INTEGER NOT NULL,
    cost_hi     INTEGER NOT NULL,
    cost_lo     INTEGER NOT NULL,
    PRIMARY KEY (hour, campaign_id, currency)
) STRICT, WITHOUT ROWID;

INSERT INTO campaign_sum
SELECT hour, campaign_id, currency, COUNT(*),
    SUM(impressions), SUM(clicks), SUM(conversions), SUM(cost_hi), SUM(cost_lo)
FROM campaign_minute
GROUP BY hour, campaign_id, currency;

CREATE TRIGGER campaign_minute_added AFTER INSERT ON campaign_minute BEGIN
    INSERT INTO campaign_sum
    VALUES (NEW.hour, NEW.campaign_id, NEW.currency, 1,
        NEW.impressions, NEW.clicks, NEW.conversions, NEW.cost_hi, NEW.cost_lo)
    ON CONFLICT (hour, campaign_id, currency) DO UPDATE SET
        minutes = minutes + 1,
        impressions = impressions + excluded.impressions,
        clicks = clicks + excluded.clicks,
        conversions = conversions + excluded.conversions,
        cost_hi = cost_hi + excluded.cost_hi,
        cost_lo = cost_lo + excluded.cost_lo;
END;

CREATE TRIGGER campaign_minute_changed AFTER UPDATE ON campaign_minute BEGIN
    UPDATE campaign_sum SET
        impressions = impressions - OLD.impressions + NEW.impressions,
        clicks = clicks - OLD.clicks + NEW.clicks,
        conversions = conversions - OLD.conversions + NEW.conversions,
        cost_hi = cost_hi - OLD.cost_hi + NEW.cost_hi,
        cost_lo = cost_lo - OLD.cost_lo + NEW.cost_lo
    WHERE hour = NEW.hour AND campaign_id = NEW.campaign_id AND currency = NEW.currency;
END;

CREATE TRIGGER campaign_minute_removed AFTER DELETE ON campaign_minute BEGIN
    UPDATE campaign_sum SET
        minutes = minutes - 1,
        impressions = impressions - OLD.impressions,
        clicks = clicks - OLD.clicks,
        conversions = conversions - OLD.conversions,
        cost_hi = cost_hi - OLD.cost_hi,
        cost_lo = cost_lo - OLD.cost_lo
    WHERE hour = OLD.hour AND campaign_id = OLD.campaign_id AND currency = OLD.currency;
    DELETE FROM campaign_sum
    WHERE hour = OLD.hour AND campaign_id = OLD.campaign_id AND currency = OLD.currency AND minutes = 0;
END;

-- The ad directory: applied by `clickledger postgres ensure`, as often as one likes. The rules are those of an import, so
-- that what is changed by hand can be loaded; whoever changes something bumps the version and tells all who listen.
CREATE SCHEMA IF NOT EXISTS clickledger;

CREATE TABLE IF NOT EXISTS clickledger.campaigns (
    campaign_id text COLLATE "C" PRIMARY KEY CHECK (campaign_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    advertiser_id text COLLATE "C" NOT NULL CHECK (advertiser_id ~ '^[A-Za-z0-9_-]{1,64}$')
);

CREATE TABLE IF NOT EXISTS clickledger.ads (
    ad_id text COLLATE "C" PRIMARY KEY CHECK (ad_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    campaign_id text COLLATE "C" NOT NULL REFERENCES clickledger.campaigns,
    url text NOT NULL CHECK (url ~* '^https?://[!-~]+$' AND length(url) <= 2048),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'ended'))
);
CREATE INDEX IF NOT EXISTS ads_by_campaign ON clickledger.ads (campaign_id);

-- One row. Its lock orders writers, so that a version is never seen before one below it.
CREATE TABLE IF NOT EXISTS clickledger.directory_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version bigint NOT NULL
);
INSERT INTO clickledger.directory_version (version) VALUES (0) ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION clickledger.directory_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE clickledger.directory_version SET version = version + 1;
    PERFORM pg_notify('clickledger_directory', '');
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON clickledger.ads
    FOR EACH STATEMENT EXECUTE FUNCTION clickledger.directory_changed();
CREATE OR REPLACE TRIGGER directory_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON clickledger.campaigns
    FOR EACH STATEMENT EXECUTE FUNCTION clickledger.directory_changed();

CREATE OR REPLACE FUNCTION clickledger.keep_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.advertiser_id <> OLD.advertiser_id OR NEW.campaign_id <> OLD.campaign_id THEN
        RAISE EXCEPTION 'campaign % belongs to advertiser %: it cannot move', OLD.campaign_id, OLD.advertiser_id;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER keep_owner BEFORE UPDATE ON clickledger.campaigns
    FOR EACH ROW EXECUTE FUNCTION clickledger.keep_owner();

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clickledger_reader') THEN
        CREATE ROLE clickledger_reader NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'clickledger_writer') THEN
        CREATE ROLE clickledger_writer NOLOGIN;
    END IF;
END $$;
GRANT USAGE ON SCHEMA clickledger TO clickledger_reader, clickledger_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA clickledger TO clickledger_reader, clickledger_writer;
GRANT INSERT, UPDATE, DELETE ON clickledger.ads, clickledger.campaigns TO clickledger_writer;

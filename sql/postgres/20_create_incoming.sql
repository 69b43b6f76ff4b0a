-- The rows of an import, until its transaction ends.
CREATE TEMPORARY TABLE incoming (
    ad_id text COLLATE "C" PRIMARY KEY,
    campaign_id text COLLATE "C" NOT NULL,
    advertiser_id text COLLATE "C" NOT NULL,
    url text NOT NULL,
    status text NOT NULL
) ON COMMIT DROP

-- For a cluster, on every node: the names that all statements use stand for tables over all shards. Each node's own rows are
-- in the tables `…_local`, made by the same statements as those of a single node. The macro {cluster} names the cluster.
--
-- A campaign's rows are all on one shard, so that FINAL sees every version of a key. Everything small is on the first shard.
CREATE TABLE IF NOT EXISTS rollup AS rollup_local
ENGINE = Distributed('{cluster}', currentDatabase(), 'rollup_local', cityHash64(campaign_id));

CREATE TABLE IF NOT EXISTS rollup_by_id AS rollup_by_id_local
ENGINE = Distributed('{cluster}', currentDatabase(), 'rollup_by_id_local', cityHash64(campaign_id));

CREATE MATERIALIZED VIEW IF NOT EXISTS rollup_to_by_id TO rollup_by_id_local AS
SELECT * FROM rollup_local;

CREATE TABLE IF NOT EXISTS mark AS mark_local
ENGINE = Distributed('{cluster}', currentDatabase(), 'mark_local', 0);

CREATE TABLE IF NOT EXISTS generation AS generation_local
ENGINE = Distributed('{cluster}', currentDatabase(), 'generation_local', 0);

CREATE TABLE IF NOT EXISTS writer_status AS writer_status_local
ENGINE = Distributed('{cluster}', currentDatabase(), 'writer_status_local', 0);
